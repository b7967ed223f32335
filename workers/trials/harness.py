"""A test harness: runs a plugin on rings and packet memory in private memory.

The harness takes the place of the card and the driver: it pushes frames on `in` and reads
the results from `out`. The code between is that of a worker process, with the C loop.
"""

from __future__ import annotations

import mmap

from ringline.shm import slots
from ringline.shm._shm import ffi, lib
from ringline.shm.errors import Bug
from ringline.shm.frames import units_for
from ringline.shm.refusals import cause_of
from ringline.shm.rings import RingEnd
from ringline.workers import tables
from ringline.workers.captures.headers import ETHERNET_MIN
from ringline.workers.named.log import Log
from ringline.workers.process.engine import DRAINED, FAULT, Engine
from ringline.workers.worker import Worker, private_slot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ringline.shm.rings import Reference
    from ringline.workers.tiers.tier import Context, Tier

BATCH: int = lib.RL_BATCH_MAX
ERROR: int = lib.RL_VERDICT_ERROR

# (bytes, input port, RSS hash, VLAN tag, flags, time in nanoseconds since 1970)
Arrival = tuple["bytes | memoryview", int, int, int, int, int]

TICK_NANOSECONDS = 1_000_000_000  # between two ticks, by the times of the frames


class Departure:
    """A packet that the plugin returned.

    verdict: the number of a port, DROP, a drop reason or ERROR.
    data: the bytes of the frame.
    vlan_tci: the VLAN tag that the card would insert, or None.
    refused: why the driver would not give the frame to the port, a name of shm/refusals.py; None
        when it would, and for a packet without a port.
    """

    __slots__ = ("data", "refused", "verdict", "vlan_tci")

    def __init__(
        self, verdict: int, data: bytes, vlan_tci: int | None, refused: str | None = None
    ) -> None:
        self.verdict = verdict
        self.data = data
        self.vlan_tci = vlan_tci
        self.refused = refused

    def on_wire(self) -> bytes:
        """The frame as the card sends it: with the VLAN tag, padded to the shortest frame."""
        data = self.data
        if self.vlan_tci is not None:
            data = data[:12] + b"\x81\x00" + self.vlan_tci.to_bytes(2, "big") + data[12:]
        return data.ljust(ETHERNET_MIN, b"\0")


class Ticks:
    """When a trial calls the plugin's tick: when a second has passed by the times of the frames."""

    def __init__(self) -> None:
        self._at: int | None = None

    def are_due(self, time: int) -> bool:
        """Whether to call tick before the frame that came at `time`. The second begins with the
        first frame, with each tick, and anew with a frame that came before its begin."""
        if self._at is None or time < self._at - TICK_NANOSECONDS:
            self._at = time + TICK_NANOSECONDS
        if time < self._at:
            return False
        self._at = time + TICK_NANOSECONDS
        return True


class Harness:
    """Runs `tier`, which was prepared with `context`; the constructor runs its setup.

    blanks: how many packets the plugin can create per batch, at most BATCH.
    counters: the address of a struct rl_worker_counters to use; None: the slot's own.
    log: where the plugin's log goes; None: nowhere.
    frame_max: bytes of the longest frame that a port receives and sends.
    reasons: the name of each verdict that drops a packet for a reason of the plugin.
    """

    def __init__(
        self,
        tier: Tier,
        context: Context,
        *,
        blanks: int = 0,
        counters: int | None = None,
        log: Log | None = None,
        frame_max: int = lib.RL_FRAME_MAX,
    ) -> None:
        self.frame_max, self._units = frame_max, units_for(frame_max)
        self.slot = private_slot(context.state_bytes)
        self._tier = tier
        self._ports = len(context.ports)
        self._blanks = min(blanks, BATCH)  # a plugin can create no more in one batch
        room = self._units * lib.RL_BUFFER_STRIDE
        self._memory = mmap.mmap(-1, (BATCH + self._blanks) * room, mmap.MAP_PRIVATE)
        self._view = memoryview(self._memory)
        self._rings = ffi.new("struct rl_rings_segment *")
        in_, out = ffi.addressof(self._rings, "in"), ffi.addressof(self._rings, "out")
        self._in, self._out = RingEnd(in_), RingEnd(out)
        self._times = ffi.addressof(self._rings, "times")
        self._times.stamped = 1  # the harness stamps, in place of a port
        worker = Worker(
            self.slot, queue=context.queue, ports=context.ports, options=tier.options, log=log
        )
        tier.setup(worker)
        self.reasons = worker._reasons.names()
        if counters is None:
            self.counters: Any = self.slot.counters
        else:
            self.counters = ffi.cast("struct rl_worker_counters *", counters)
        self.engine = Engine(
            tier,
            worker,
            counters=self.counters,
            in_=in_,
            out=out,
            times=self._times,
            memory=int(ffi.cast("uintptr_t", ffi.from_buffer(self._memory))),
            view=self._view,
            frame_max=frame_max,
            busy=True,
        )
        self.engine.stop()  # so that `Engine.run` returns when `in` is empty

    def run(self, arrivals: Sequence[Arrival]) -> tuple[list[Departure], list[Departure]]:
        """Run up to BATCH frames; returns the result of each, in order, and the created packets."""
        self._in.push([self._blank(number) for number in range(self._blanks)])
        self._in.push([self._arrive(index, arrival) for index, arrival in enumerate(arrivals)])
        while (reason := self.engine.run()) != DRAINED:
            if reason == FAULT:
                raise Bug("a ring index of the test harness is out of range")
        departures: list[Any] = [None] * len(arrivals)
        created = []
        while references := self._out.pop(BATCH):
            for reference in references:
                buffer, offset, length, _, vlan_tci, port, flags = reference
                number = buffer // self._units
                if number >= BATCH and port == lib.RL_VERDICT_DROP:
                    continue  # an unused blank
                start = buffer * lib.RL_BUFFER_STRIDE + offset
                data = bytes(self._view[start : start + length])
                tag = vlan_tci if flags & lib.RL_FLAG_VLAN else None
                refused = None
                if port < self._ports:
                    refused = cause_of(offset, length, flags, self.frame_max)
                departure = Departure(port, data, tag, refused)
                if number < BATCH:
                    departures[number] = departure
                else:
                    created.append(departure)
        return departures, created

    def explain(self, arrival: Arrival) -> str:
        """Why the verdict of `arrival` is ERROR, as far as running the plugin again can tell."""
        data, port, rss_hash, vlan_tci, flags, time = arrival
        reason = self._tier.explain(
            bytes(data),
            port=port,
            ports=self._ports,
            rss_hash=rss_hash,
            vlan_tci=vlan_tci,
            flags=flags,
            time=time,
        )
        ports = f"0 to {self._ports - 1}" if self._ports > 1 else "0 only"
        return reason or (
            f"the answer is neither the number of a port (ports: {ports}), DROP nor a drop reason"
        )

    def _blank(self, number: int) -> Reference:
        headroom, port = lib.RL_BUFFER_HEADROOM, lib.RL_INPUT_BLANK
        return ((BATCH + number) * self._units, headroom, 0, 0, 0, port, lib.RL_FLAG_BLANK)

    def _arrive(self, number: int, arrival: Arrival) -> Reference:
        """Put a frame into the buffer, and its time beside the place of its reference on the ring.
        Buffers are numbered in the order of the push."""
        frame, port, rss_hash, vlan_tci, flags, time = arrival
        length = len(frame)
        most = self._units * lib.RL_BUFFER_STRIDE - lib.RL_BUFFER_HEADROOM
        if length > most:
            raise ValueError(f"a frame must have at most {most} bytes, not {length}")
        buffer = number * self._units
        start = buffer * lib.RL_BUFFER_STRIDE + lib.RL_BUFFER_HEADROOM
        self._view[start : start + length] = frame
        self._times.of[(self._in.end.own + number) % lib.RL_RING_CAPACITY] = time
        self._times.last = time
        return (buffer, lib.RL_BUFFER_HEADROOM, length, rss_hash, vlan_tci, port, flags)


def named_values(slot: slots.WorkerSlot) -> dict[str, Any]:
    """The counters, gauges, histograms and tables that a plugin named in `slot`; no state.

    By name: a counter or gauge is a number, a counter with a label is a dict by its values, a
    histogram is (sum, buckets), a table is a list of rows (label, values), or None while it is
    being written.
    """
    values: dict[str, Any] = {}
    for entry in slot.entries():
        if entry.kind in (slots.STATE, slots.REASON):
            continue
        words = slot.values(entry)
        if entry.kind == slots.TABLE:
            values[entry.name] = tables.read_table(entry.type, entry.columns, words)
        elif entry.kind == slots.HISTOGRAM:
            values[entry.name] = tables.read_histogram(words)
        elif entry.kind == slots.COUNTERS:
            values[entry.name] = dict(tables.read_counters(words))
        elif entry.kind == slots.GAUGE:
            values[entry.name] = tables.read_gauge(words[0])
        else:
            values[entry.name] = words[0]
    return values


def table_headings(slot: slots.WorkerSlot) -> dict[str, list[str]]:
    """The headings of the tables that a plugin named in `slot`, by the name of the table: that of
    the labels, then one per value."""
    return {entry.name: entry.type.split() for entry in slot.entries() if entry.kind == slots.TABLE}
