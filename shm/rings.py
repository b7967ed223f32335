"""The segment with a worker's two rings, and a ring end in Python (ring.h).

The driver and the worker use the C functions of ring.h directly. RingEnd is for tests and tools:
one call per batch, and references are tuples.
"""

from __future__ import annotations

from ringline.shm._shm import ffi, lib
from ringline.shm.errors import RinglineError
from ringline.shm.segments import Segment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    # (buffer, offset, length, rss_hash, vlan_tci, port, flags)
    Reference = tuple[int, int, int, int, int, int, int]


class RingFault(RinglineError):
    """The other side of a ring published an index that is out of range."""


class RingPair:
    """The segment `.rings.<queue>.<generation>`: `in_`, driver to worker; `out`, worker to driver.

    Both are `struct rl_ring *`; `times` is `struct rl_times *`, the times of the packets on `in_`.
    A context manager, as its segment is.
    """

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        rings = segment.at("struct rl_rings_segment *")
        self.in_: Any = ffi.addressof(rings, "in")
        self.out: Any = ffi.addressof(rings, "out")
        self.times: Any = ffi.addressof(rings, "times")

    @classmethod
    def create(cls, instance: str, queue: int, generation: int) -> RingPair:
        """Create empty rings for one generation of the worker of `queue`."""
        return cls(
            Segment.create(
                instance,
                f"rings.{queue}.{generation}",
                ffi.sizeof("struct rl_rings_segment"),
                kind=lib.RL_SEGMENT_RINGS,
                generation=generation,
            )
        )

    @classmethod
    def attach(cls, fd: int) -> RingPair:
        """Map the rings behind `fd` and take over `fd`. For the driver: the worker may have
        mapped them already, so their header is not read."""
        size = ffi.sizeof("struct rl_rings_segment")
        return cls(Segment.attach_known(fd, kind=lib.RL_SEGMENT_RINGS, used=size))

    def close(self) -> None:
        """Unmap; `in_`, `out` and `times` must not be used any more."""
        self.in_ = self.out = self.times = ffi.NULL
        self.segment.close()

    def __enter__(self) -> RingPair:
        return self

    def __exit__(self, *failure: object) -> None:
        self.in_ = self.out = self.times = ffi.NULL
        self.segment.__exit__(*failure)


class RingEnd:
    """One end of a ring, with its indices in private memory. `end` is `struct rl_ring_end *`.

    A new end starts at index 0, as its ring does. `room`, `push`, `pop` and `peek` raise RingFault
    when the other side's index is out of range. Only `sleep` waits.
    """

    def __init__(self, ring: Any) -> None:
        self.end = ffi.new("struct rl_ring_end *")
        lib.rl_end_open(self.end, ring)

    def room(self, want: int) -> int:
        """How many references, at most `want`, fit now."""
        return _checked(lib.rl_end_room(self.end, want))

    def push(self, references: bytes | Sequence[Reference]) -> int:
        """Push as many references as fit, from the first on; returns how many.

        `references` are tuples with the fields of struct rl_reference in its order, or the bytes
        of such structs.
        """
        size = ffi.sizeof("struct rl_reference")
        if isinstance(references, bytes):
            given = ffi.from_buffer("struct rl_reference[]", references)
            return _checked(lib.rl_end_push(self.end, given, len(references) // size))
        given = ffi.new("struct rl_reference[]", list(references))
        return _checked(lib.rl_end_push(self.end, given, len(references)))

    def pop(self, n: int) -> list[Reference]:
        """Take at most `n` references from the ring."""
        taken = ffi.new("struct rl_reference[]", n)
        return _tuples(taken, _checked(lib.rl_end_pop(self.end, taken, n)))

    def peek(self, n: int) -> list[Reference]:
        """At most `n` references; they stay on the ring."""
        seen = ffi.new("struct rl_reference[]", n)
        return _tuples(seen, _checked(lib.rl_end_peek(self.end, seen, n)))

    def take(self, n: int) -> None:
        """Give the entries of `n` references back, which `peek` has returned."""
        lib.rl_end_take(self.end, n)

    def is_asleep(self) -> bool:
        """For the producer, after a push: whether the consumer sleeps or is about to sleep."""
        return bool(lib.rl_end_is_asleep(self.end))

    def wake(self) -> None:
        """Wake the consumer with one system call."""
        lib.rl_end_wake(self.end)

    def sleep(self, seconds: float) -> None:
        """For the consumer: sleep until woken, at most `seconds` (below 1). Returns at once when
        there is a reference to take."""
        lib.rl_end_sleep(self.end, int(seconds * 1e9))


def _checked(result: int) -> int:
    if result < 0:
        raise RingFault("a ring index that another process published is out of range")
    return result


def _tuples(references: Any, n: int) -> list[Reference]:
    return [
        (r.buffer, r.offset, r.length, r.rss_hash, r.vlan_tci, r.port, r.flags)
        for r in ffi.unpack(references, n)
    ]
