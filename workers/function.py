"""`@packet_function`: the mark of the compiled tier.

Light: nothing is compiled and numba is not imported until a worker prepares the
plugin, so a module may hold functions of every tier.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ringline.workers.options import Option
    from ringline.workers.worker import Worker


class PacketFunction:
    """A packet function as its module exports it. Calling it runs it as plain Python."""

    def __init__(
        self,
        function: Callable[..., int],
        setup: Callable[[Worker], Any] | None,
        tick: Callable[[Worker, Any], None] | None,
        options: Sequence[Option],
    ) -> None:
        self.function = function
        self.setup = setup
        self.tick = tick
        self.options = tuple(options)
        self.__doc__ = function.__doc__
        self.__name__ = getattr(function, "__name__", "packet function")

    def __call__(self, *arguments: Any) -> int:
        """Run it uncompiled, on `Meta(…).frame` and that Meta, say in a test."""
        return self.function(*arguments)


def packet_function(
    function: Callable[..., int] | None = None,
    *,
    setup: Callable[[Worker], Any] | None = None,
    tick: Callable[[Worker, Any], None] | None = None,
    options: Sequence[Option] = (),
) -> Any:
    """Mark `function(frame, meta)` as a packet function: numba compiles it.

    It returns the number of the port to send to, or DROP. With `setup` it takes a
    third argument, `state`: what `setup(worker)` returned. That is a NumPy array, a
    number, a Counter, Gauge or Histogram (which arrive as arrays of uint64), or a
    tuple of these, best a NamedTuple: then state has names. `tick(worker, state)` is
    called in Python about once a second, `state` as setup returned it.

    An exception drops that packet only, and is counted; so is an answer that is no
    port. An index out of range is an exception only with `debug = true`.
    """
    if function is None:
        return lambda function: PacketFunction(function, setup, tick, options)
    return PacketFunction(function, setup, tick, options)
