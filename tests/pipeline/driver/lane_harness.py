"""A lane with fake ports and fake workers, for the tests of the lane."""

from __future__ import annotations

import itertools
import os
from types import TracebackType

from ringline.pipeline._pipeline import ffi, lib
from ringline.pipeline.driver.lane import Idle, Lane, Settlement
from ringline.shm.packets import PacketMemory
from ringline.shm.rings import RingPair
from ringline.shm.segments import Segment

from .fake_port import FakePort

DROP, ERROR = 255, 254  # verdicts
BUFFERS = 400
QUEUES = 2
REFERENCE_FIELDS = ffi.typeof("struct rl_reference").fields
instances = itertools.count(1)


class FakeWorker:
    """A worker without a process. The test moves its ring indices, so it can also lie."""

    def __init__(self, rings: RingPair) -> None:
        segment = ffi.cast("struct rl_rings_segment *", rings.segment.address)
        self.in_, self.out = ffi.addressof(segment, "in"), ffi.addressof(segment, "out")
        self.held: list[dict[str, int]] = []  # references popped and not yet answered

    def pop(self, limit: int = 64) -> int:
        """Take up to `limit` references from the `in` ring; return how many."""
        count = 0
        while count < limit and self.in_.consumer != self.in_.producer:
            ref = self.in_.entries[self.in_.consumer % lib.RL_RING_CAPACITY]
            self.held.append({name: getattr(ref, name) for name, _ in REFERENCE_FIELDS})
            self.in_.consumer = (self.in_.consumer + 1) & 0xFFFFFFFF
            count += 1
        return count

    def push(self, **fields: int) -> None:
        """Put one reference on the `out` ring, without checks."""
        ref = self.out.entries[self.out.producer % lib.RL_RING_CAPACITY]
        for name, value in fields.items():
            setattr(ref, name, value)
        self.out.producer = (self.out.producer + 1) & 0xFFFFFFFF

    def answer(self, verdict: int, count: int | None = None) -> None:
        """Return the oldest `count` held references (None: all) while `out` has room."""
        for _ in range(len(self.held) if count is None else min(count, len(self.held))):
            if (self.out.producer - self.out.consumer) & 0xFFFFFFFF >= lib.RL_RING_CAPACITY:
                return
            ref = self.held.pop(0)
            if ref["flags"] & lib.RL_FLAG_BLANK:
                ref["length"] = 64
            self.push(**{**ref, "port": verdict})


class Harness:
    """A lane with two fake ports, its packet memory, and a fake worker per queue.

    On leaving the `with` block, the books must balance. `queues` is the number of
    queues of each port, `frame_max` the longest frame of each; a buffer is `units` units.
    """

    def __init__(
        self,
        blanks: int = 0,
        buffers: int = BUFFERS,
        queues: tuple[int, int] = (QUEUES, QUEUES),
        units: int = 1,
        frame_max: tuple[int, int] = (lib.RL_FRAME_MAX, lib.RL_FRAME_MAX),
    ) -> None:
        self.instance = f"t{os.getpid()}-lane{next(instances)}"
        self.packets = PacketMemory.create(self.instance, buffers, units=units, hugepages="off")
        size = ffi.sizeof("struct rl_lane_segment") + 4 * buffers * units
        self.books_segment = Segment.create(self.instance, "lane.0", size, kind=lib.RL_SEGMENT_LANE)
        self.books = ffi.cast("struct rl_lane_segment *", self.books_segment.address)
        self.books.ledger_offset = ffi.sizeof("struct rl_lane_segment")
        self.books.buffers = buffers * units
        self.books.units = units
        self.lane = Lane(
            self.books_segment,
            self.packets,
            self.packets.device_addresses("offset"),
            QUEUES,
            Idle(adaptive=True),
        )
        self.ports = [FakePort(index, count) for index, count in enumerate(queues)]
        for port, longest in zip(self.ports, frame_max, strict=True):
            port.frame_max = longest
            port.open(self.lane.memory, None, None)
            self.lane.add_port(port)
        self.lane.receiving = True
        self.generation = 0
        self.blanks = blanks
        self.workers: list[FakeWorker | None] = [None] * QUEUES
        for queue in range(QUEUES):
            self.renew(queue)

    def __enter__(self) -> Harness:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                problems = self.problems()
                problems += [
                    f"{port.name} has no queue {q}" for port in self.ports for q in port.strange
                ]
                assert not problems, problems  # pytest explains asserts of test files only
        finally:
            self.lane.close()
            self.packets.segment.unlink()
            self.packets.segment.close()
            self.books_segment.unlink()
            self.books_segment.close()

    def renew(self, queue: int, give_up: bool = False) -> Settlement:
        """Settle the worker of `queue`, then attach a successor unless `give_up`."""
        rings = None
        if not give_up:
            self.generation += 1
            rings = RingPair.create(self.instance, queue, self.generation)
            rings.segment.unlink()
        settled = self.lane.renew(queue, rings, self.generation, self.blanks)
        self.workers[queue] = FakeWorker(rings) if rings else None
        return settled

    def run_pass(self, times: int = 1) -> None:
        for _ in range(times):
            lib.rl_lane_pass(self.lane._lane)

    def problems(self) -> list[str]:
        """Return every residual that is not 0, as "name[index] = value"."""
        self.lane.balance(complete=True)
        balance = self.books.balance
        found = []
        for name in ("packets_residual", "worker_residual", "descriptor_residual"):
            for i, value in enumerate(getattr(balance, name)):
                if value:
                    found.append(f"{name}[{i}] = {value}")
        for name in ("buffers_residual", "blanks_residual", "scan_missing", "scan_duplicates"):
            if getattr(balance, name):
                found.append(f"{name} = {getattr(balance, name)}")
        return found

    def queue(self, port: int, queue: int):
        """Return the counters of one queue of one port."""
        return self.books.queues[port * lib.RL_QUEUES_MAX + queue]
