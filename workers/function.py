"""`@packet_function`: marks a function as a plugin of the compiled tier.

Importing this module is cheap: numba is imported, and the function compiled, when a
worker prepares the plugin. So a module may hold plugins of every tier.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ringline.workers.options import Option
    from ringline.workers.worker import Worker


class PacketFunction:
    """A marked packet function. Calling it runs the function as plain Python; numbers from the
    frame calculate as in compiled code (see plain.py)."""

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
        """Run the function uncompiled, for instance in a test: create `meta = Meta(frame)` and
        call `function(meta.frame, meta)`."""
        return self.function(*arguments)


def packet_function(
    function: Callable[..., int] | None = None,
    *,
    setup: Callable[[Worker], Any] | None = None,
    tick: Callable[[Worker, Any], None] | None = None,
    options: Sequence[Option] = (),
) -> Any:
    """Mark `function(frame, meta)` as a packet function: a worker compiles it with numba.

        @packet_function
        def send_back(frame, meta):
            return meta.port if meta.length >= 60 else DROP

    `frame` is a uint8 array over the bytes of the packet, `meta` holds its length, port and
    flags (see `Meta`). The function returns the number of the port to send to, or DROP.

    setup: `setup(worker)` returns the state, and the function takes it as third argument:
        `function(frame, meta, state)`. State is a NumPy array, a number, a Counter, Gauge,
        Histogram, Prefixes or Map, or a tuple of these; a NamedTuple gives the parts names. In
        the function a Counter or Histogram is a uint64 array, `state.seen[0] += 1`, and a Gauge
        a float64 array.
    tick: `tick(worker, state)` is called about once a second, as plain Python, with the
        state that setup returned.
    options: the options that the plugin accepts; their values are in `worker.options`.

    An exception, or a verdict that is neither a port, DROP nor a drop reason, drops the packet
    and is counted. With `debug = true` an index out of range raises IndexError; without it the
    index is not checked, so compare it with `meta.length` first.
    """
    if function is None:
        return lambda function: PacketFunction(function, setup, tick, options)
    return PacketFunction(function, setup, tick, options)
