"""`@packet_function`: marks a function as a plugin of the compiled tier.

Importing this module is cheap: numba is imported, and the function compiled, when a
worker prepares the plugin. So a module may hold plugins of every tier.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from ringline.workers.named.part import Part
    from ringline.workers.options import Option
    from ringline.workers.worker import Worker


class PacketFunction:
    """A marked packet function. Calling it runs the function as plain Python; numbers from the
    frame calculate as in compiled code (see plain.py)."""

    def __init__(
        self,
        function: Callable[..., int],
        setup: Callable[[Worker], Any] | None,
        tick: Callable[[Worker, Any], object] | None,
        options: Sequence[Option],
        merge: Callable[[Part, Part], Part] | None = None,
        collect: Callable[[Worker, Any], Any] | None = None,
        present: Callable[[Part], Any] | None = None,
        analysis: str | None = None,
        instead: Callable[[Mapping[str, Any]], PacketFunction | None] | None = None,
    ) -> None:
        self.instead = instead
        self.merge = merge
        self.collect = collect
        self.present = present
        self.analysis = analysis
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
    tick: Callable[[Worker, Any], object] | None = None,
    options: Sequence[Option] = (),
    merge: Callable[[Part, Part], Part] | None = None,
    collect: Callable[[Worker, Any], Any] | None = None,
    present: Callable[[Part], Any] | None = None,
    analysis: str | None = None,
    instead: Callable[[Mapping[str, Any]], PacketFunction | None] | None = None,
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
        state that setup returned. When it returns True, it has more to do and is called again
        after 20 ms. In the last calls `worker.ending` is true.
    options: the options that the plugin accepts; their values are in `worker.options`.
    instead: `instead(options)` returns a packet function that takes the place of this one with
        these options, or None. So a rare option costs the others nothing.

    The others are for `ringline analyze`, which runs the function on many captures at once:

    merge: `merge(a, b)` joins what two parts of the captures left behind, objects of the class
        Part, of which a was captured first. It returns a Part and may change one of the two.
    collect: `collect(worker, state)` is called after at most 16,384 packets, and at the end with
        `worker.ending`. It returns arrays by name that it took out of the state, or None. They are
        the state of the Part then.
    present: `present(part)` returns tables of the whole analysis for the user: by name a dict of
        columns by name.
    analysis: the name of a packet function that takes the place of this one.

    An exception, or a verdict that is neither a port, DROP nor a drop reason, drops the packet
    and is counted. With `debug = true` an index out of range raises IndexError; without it the
    index is not checked, so compare it with `meta.length` first.
    """
    if function is None:
        return lambda function: PacketFunction(
            function, setup, tick, options, merge, collect, present, analysis, instead
        )
    return PacketFunction(
        function, setup, tick, options, merge, collect, present, analysis, instead
    )
