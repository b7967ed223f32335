"""A worker's two rings as a segment, and a ring's end as Python sees it (ring.h).

The driver and the worker use the C of ring.h directly. RingEnd is for tests and
tools: one call per batch, tuples for references.
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
    """The other side of a ring published an index that cannot be."""


class RingPair:
    """The segment `.rings.<queue>.<generation>`: `in_`, driver to worker, and `out`, back.

    Both are `struct rl_ring *`. A context manager, as its segment is.
    """

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        rings = segment.at("struct rl_rings_segment *")
        self.in_: Any = ffi.addressof(rings, "in")
        self.out: Any = ffi.addressof(rings, "out")

    @classmethod
    def create(cls, instance: str, queue: int, generation: int) -> RingPair:
        """Empty rings for one life of queue `queue`'s worker."""
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
        """The rings behind `fd`, which is taken over, for the driver: the worker may have
        them already, so their header is not read."""
        size = ffi.sizeof("struct rl_rings_segment")
        return cls(Segment.attach_known(fd, kind=lib.RL_SEGMENT_RINGS, used=size))

    def close(self) -> None:
        """Unmap; `in_` and `out` must not be used any more."""
        self.in_ = self.out = ffi.NULL
        self.segment.close()

    def __enter__(self) -> RingPair:
        return self

    def __exit__(self, *failure: object) -> None:
        self.in_ = self.out = ffi.NULL
        self.segment.__exit__(*failure)


class RingEnd:
    """One side of a ring, its indices in private memory. `end` is `struct rl_ring_end *`.

    A new end starts at index 0, as its ring does. Every method raises RingFault
    when the other side's index is out of range, and none waits, except `sleep`.
    """

    def __init__(self, ring: Any) -> None:
        self.end = ffi.new("struct rl_ring_end *")
        lib.rl_end_open(self.end, ring)

    def room(self, want: int) -> int:
        """How many references, up to `want`, can be pushed now."""
        return _checked(lib.rl_end_room(self.end, want))

    def push(self, references: bytes | Sequence[Reference]) -> int:
        """Push as many as there is room for, from the first on; returns how many.

        `references` are tuples in the order of struct rl_reference, or its bytes.
        """
        size = ffi.sizeof("struct rl_reference")
        if isinstance(references, bytes):
            given = ffi.from_buffer("struct rl_reference[]", references)
            return _checked(lib.rl_end_push(self.end, given, len(references) // size))
        given = ffi.new("struct rl_reference[]", list(references))
        return _checked(lib.rl_end_push(self.end, given, len(references)))

    def pop(self, n: int) -> list[Reference]:
        """Take up to `n` references out."""
        taken = ffi.new("struct rl_reference[]", n)
        return _tuples(taken, _checked(lib.rl_end_pop(self.end, taken, n)))

    def peek(self, n: int) -> list[Reference]:
        """Up to `n` references, which stay."""
        seen = ffi.new("struct rl_reference[]", n)
        return _tuples(seen, _checked(lib.rl_end_peek(self.end, seen, n)))

    def take(self, n: int) -> None:
        """Give the slots of `n` references back, which `peek` has shown."""
        lib.rl_end_take(self.end, n)

    def is_asleep(self) -> bool:
        """For the producer, after a push: whether the consumer sleeps or is about to."""
        return bool(lib.rl_end_is_asleep(self.end))

    def wake(self) -> None:
        """Wake the consumer: one system call."""
        lib.rl_end_wake(self.end)

    def sleep(self, seconds: float) -> None:
        """For the consumer: sleep until woken, `seconds` (below 1) at most; not at all
        when something was published since the last look."""
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
