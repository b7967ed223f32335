"""Runs a plugin on a part of a capture, at the speed of the worker's loop."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, Any

from ringline.shm import counters as counter_blocks
from ringline.shm import slots
from ringline.shm._shm import ffi as shm_ffi
from ringline.shm._shm import lib as shm
from ringline.shm.clock import ticks_per_second
from ringline.shm.errors import Bug, PluginError
from ringline.workers._workers import ffi, lib
from ringline.workers.analysis.hooks import Levels, collected
from ringline.workers.analysis.slot import TaskSlot
from ringline.workers.captures.scanner import OWN_BYTES
from ringline.workers.named.part import COMPLAINTS_MAX, Part
from ringline.workers.process.engine import Engine
from ringline.workers.tiers.tier import sentence
from ringline.workers.trials.harness import named_values, table_headings
from ringline.workers.worker import Worker

if TYPE_CHECKING:
    from ringline.workers.analysis.hooks import Hooks
    from ringline.workers.captures.scanner import Scanner
    from ringline.workers.named.log import Log
    from ringline.workers.tiers.tier import Context, Tier

PAUSE = 16384  # packets between two calls of the plugin's `collect`
BUFFER_BYTES: int = lib.RL_SCAN_UNITS * shm.RL_BUFFER_STRIDE
_MEMORY_BYTES: int = shm.RL_BATCH_MAX * BUFFER_BYTES
ERROR: int = shm.RL_VERDICT_ERROR


class Runner:
    """Runs `tier`, which was prepared with `context`; the constructor runs its setup.

    progress: cdata uint64_t *, where the number of packets is shown.
    scan: cdata struct rl_scan *, which reads the packets; give it to a Scanner.
    """

    def __init__(self, tier: Tier, hooks: Hooks, context: Context, progress: Any, log: Log) -> None:
        self._tier = tier
        self._hooks = hooks
        self._ports = len(context.ports)
        self._memory = mmap.mmap(-1, _MEMORY_BYTES + OWN_BYTES, mmap.MAP_PRIVATE)
        self._view = memoryview(self._memory)
        rings = ffi.new("struct rl_rings_segment *")
        self._rings = rings
        in_, out = ffi.addressof(rings, "in"), ffi.addressof(rings, "out")
        rings.times.stamped = 1
        self.slot = TaskSlot(context.state_bytes)
        self.slot.segment.prefer_hugepages()  # type: ignore[attr-defined]  # a PrivateSegment
        self._worker = Worker(
            self.slot, queue=context.queue, ports=context.ports, options=tier.options, log=log
        )
        tier.setup(self._worker)
        self._check_merge()
        self.reasons = self._worker._reasons.names()
        address = int(ffi.cast("uintptr_t", ffi.from_buffer(self._memory)))
        self._engine = Engine(
            tier,
            self._worker,
            counters=self.slot.counters,
            in_=in_,
            out=out,
            times=ffi.addressof(rings, "times"),
            memory=address,
            view=self._view,
            busy=True,
        )
        self._engine.loop.batch.room = 0xFFFF  # a buffer has more
        self._engine.stop()  # so that the loop returns when `in` is empty
        self.feed = feed = ffi.new("struct rl_feed *")
        feed.worker = ffi.cast("struct rl_worker *", self._engine.loop)
        shm.rl_end_open(shm_ffi.cast("struct rl_ring_end *", ffi.addressof(feed, "in")), in_)
        shm.rl_end_open(shm_ffi.cast("struct rl_ring_end *", ffi.addressof(feed, "out")), out)
        feed.pause = PAUSE
        feed.progress = progress
        self.scan = ffi.addressof(feed, "scan")
        feed.scan.memory = ffi.cast("uint8_t *", address)
        if tier.keeps_lengths:
            feed.scan.own = feed.scan.memory + _MEMORY_BYTES
        feed.scan.ticks = tier.ticks is not None
        self._levels = Levels(hooks)
        self.complaints: list[tuple[int, str]] = []
        self.trace: list[str] = []

    def _check_merge(self) -> None:
        """Raise PluginError when the plugin has something that must be merged, and no merge."""
        if self._hooks.can_merge:
            return
        for entry in self.slot.entries():
            if entry.kind in (slots.STATE, slots.TABLE):
                kind = "the state" if entry.kind == slots.STATE else "the table"
                raise PluginError(
                    f"plugin {self._tier.spec} keeps {kind} {entry.name} and has no merge: an "
                    "analysis joins it from several parts, so give the plugin a function "
                    "merge(a, b)"
                )

    def run(self, scanner: Scanner) -> None:
        """Run the plugin on all packets of `scanner`. Raises CaptureError for a damaged capture."""
        feed, run = self.feed, lib.rl_feed_run
        while not scanner.ended:
            why = run(feed)
            if why == lib.RL_FEED_BATCH:
                self._process()
            elif why == lib.RL_FEED_PAUSE:
                self._collect()
            elif why == lib.RL_SCAN_TICK:
                self._tick()
            elif why == lib.RL_FEED_WRONG:
                self._explain()
            elif why == lib.RL_SCAN_STOP:
                break
            elif why == lib.RL_FEED_FAULT:
                raise Bug("a ring index of an analysis is out of range")
            elif why == lib.RL_SCAN_ODD or not scanner.extend():
                self._read(scanner)
        self._drain()
        scanner.finish()

    def _drain(self) -> None:
        """Let the loop finish what it has."""
        feed = self.feed
        feed.why = lib.RL_SCAN_STOP
        while (why := lib.rl_feed_run(feed)) != lib.RL_SCAN_STOP:
            if why == lib.RL_FEED_BATCH:
                self._process()
            elif why == lib.RL_FEED_WRONG:
                self._explain()
            elif why == lib.RL_FEED_PAUSE:
                self._collect()
            else:
                raise Bug(f"an analysis cannot be finished ({why})")
            feed.why = lib.RL_SCAN_STOP

    def _read(self, scanner: Scanner) -> None:
        """Let Python read the next packet, and give it to the loop."""
        frame = scanner.read()
        if frame is None:
            return
        scan = self.scan
        if lib.rl_scan_tick_is_due(scan, frame.nanoseconds):
            self._tick()
            lib.rl_scan_tick_is_due(scan, frame.nanoseconds)
        size = min(len(frame.data), lib.RL_SCAN_FRAME_MAX)
        scan.clipped += len(frame.data) > size
        start = shm.RL_BUFFER_HEADROOM
        self._view[start : start + size] = frame.data[:size]
        lib.rl_feed_one(self.feed, size, frame.original, frame.nanoseconds)

    def _process(self) -> None:
        """Let a plugin in Python process the batch of the loop."""
        self._engine.process()

    def _tick(self) -> None:
        self._engine.tick()
        self._complain(0, self._complaint())
        self.feed.scan.ticking = 0  # the next packet begins a new second

    def _complaint(self) -> str | None:
        complaint = self._engine.complaint()
        self.trace = self.trace or self._engine.trace
        return complaint

    def _complain(self, packet: int, what: str | None) -> None:
        is_new = what not in [said for _, said in self.complaints]
        if what is not None and is_new and len(self.complaints) < COMPLAINTS_MAX:
            self.complaints.append((packet, what))

    def _explain(self) -> None:
        """Find out why the plugin failed on a packet, whose bytes are in its buffer still."""
        feed = self.feed
        what = self._complaint()
        if what is None:
            frame = bytes(self._view[feed.wrong : feed.wrong + feed.wrong_length])
            flags = shm.RL_FLAG_WIRE_LENGTH
            what = (
                self._tier.explain(
                    frame,
                    port=0,
                    ports=self._ports,
                    rss_hash=len(frame),
                    vlan_tci=0,
                    flags=flags,
                    time=int(feed.worker.last_time),
                )
                or "the answer is neither the number of a port, DROP nor a drop reason"
            )
        self._complain(feed.wrong_packet, what)
        # A compiled function is asked for its first packet only: it runs again as Python, which
        # takes long. A class has told its error already.
        feed.explained = bool(self._tier.function) or len(self.complaints) == COMPLAINTS_MAX

    def _collect(self, *, ending: bool = False) -> None:
        """Take out of the plugin what has accumulated."""
        if self._hooks.collect is None:
            return
        self._worker.ending = ending
        try:
            taken = self._tier.call_collect(self._hooks.collect, self._worker)
        except (Exception, SystemExit) as error:
            raise PluginError(
                f"plugin {self._tier.spec}: collect failed: {sentence(error)}"
            ) from error
        if taken is not None:
            self._levels.add(Part(collected(self._tier.spec, taken)))

    def finish(self) -> Part:
        """The last tick; then what the plugin leaves behind."""
        self._tick()
        self._check_merge()  # tables may be made in the first tick
        self._collect(ending=True)
        state: dict[str, Any] = {}
        if self._hooks.collect is None:
            state = {
                entry.name: self._array(entry)
                for entry in self.slot.entries()
                if entry.kind == slots.STATE
            }
        tables = {
            name: value or []
            for name, value in named_values(self.slot).items()
            if name in table_headings(self.slot)
        }
        rest = Part(state, tables)
        if not rest:
            return self._levels.joined()
        if self._hooks.collect is None:
            return rest
        joined = self._levels.joined()
        joined.tables = rest.tables
        return joined

    def _array(self, entry: slots.SlotEntry) -> Any:
        """A copy of named state: with its dtype and shape, if the entry tells them, else bytes."""
        import numpy as np

        at = self.slot.segment.address + entry.offset
        data = bytes(ffi.buffer(ffi.cast("char *", at), entry.bytes))
        made = self._worker._arrays.get(entry.name)
        if made is None:
            return np.frombuffer(data, np.uint8).copy()
        return np.frombuffer(data, made.dtype).reshape(made.shape).copy()

    def numbers(self) -> dict[str, Any]:
        """The counters and the plugin's own numbers, as JSON values."""
        feed, headings = self.feed, table_headings(self.slot)
        counters = counter_blocks.read(self.slot.counters)
        kinds = {entry.name: entry.kind for entry in self.slot.entries()}
        named, unset = named_values(self.slot), self.slot.unset()
        return {
            "counters": counters,
            "nanoseconds": counters["plugin_ticks"] / ticks_per_second() * 1e9,
            "wire_bytes": int(feed.scan.bytes),
            "clipped": int(feed.scan.clipped),
            "drops": {name: int(feed.verdicts[number]) for number, name in self.reasons.items()},
            "sums": {
                name: value
                for name, value in named.items()
                if name not in headings and kinds[name] != slots.GAUGE
            },
            "gauges": {  # None: nobody has set it
                name: None if name in unset else value
                for name, value in named.items()
                if kinds[name] == slots.GAUGE
            },
            "headings": headings,
            "complaints": self.complaints,
            "trace": self.trace,
            "remarks": self._tier.remarks,
        }
