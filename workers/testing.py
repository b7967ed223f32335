"""For tests of your own plugin: run it on frames, without a card or another process.

    from ringline.workers.testing import DROP, run_plugin

    def test_bounce_drops_other_protocols():
        [result] = run_plugin("./bounce.py:bounce", [bytes(60)])
        assert result.verdict == DROP

A plugin of any tier runs as in a worker: compiled if it is a packet function, in batches
of up to 64 packets, through the same C loop. Its tick is called as in `ringline try`: when a
second has passed by the times of the frames, and at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ringline.shm import counters as counter_blocks
from ringline.shm.errors import PluginError
from ringline.shm.frames import MTU, MTU_MAX, frame_max
from ringline.shm.refusals import words
from ringline.workers.named.log import Log
from ringline.workers.packets import DROP, HASH, VLAN
from ringline.workers.process.engine import TICK_SECONDS
from ringline.workers.tiers import loading
from ringline.workers.tiers.tier import STATE_BYTES, Context, Tier
from ringline.workers.trials.harness import (
    BATCH,
    ERROR,
    Arrival,
    Departure,
    Harness,
    Ticks,
    named_values,
)

__all__ = ["DROP", "ERROR", "Frame", "PluginError", "Result", "Run", "run_plugin"]

TIME_MIN, TIME_MAX = -(1 << 63), (1 << 63) - 1


@dataclass(frozen=True)
class Frame:
    """A frame to run the plugin on, with what the card reports of it.

    data: the bytes of the frame.
    port: the number of the input port.
    rss_hash, vlan_tci: None if the card reports none; a number sets the flag HASH or VLAN.
    flags: other flags, such as L3_OK and L4_OK.
    time: when it came, in nanoseconds since 1970; None: with the frame before it, the first at 0.
    """

    data: bytes
    port: int = 0
    rss_hash: int | None = None
    vlan_tci: int | None = None
    flags: int = 0
    time: int | None = None


@dataclass(frozen=True)
class Result:
    """The result of the plugin for one frame.

    verdict: the number of a port, DROP, a number of `worker.drop_reason`, or ERROR.
    frame: the bytes of the frame after the plugin.
    vlan_tci: the VLAN tag that the card would insert, or None.
    error: why the verdict is ERROR, or why the driver would not send the frame: a sentence, or
        None.
    reason: the name of the drop reason, if the verdict is one; else None.
    """

    verdict: int
    frame: bytes
    vlan_tci: int | None = None
    error: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Run(Sequence[Result]):
    """The results as a sequence, in the order of the frames.

    created: the packets that the plugin created, in order.
    counters: the counters of a worker (packets, bytes, forwarded, dropped, …).
    named: the plugin's own metrics by name: a counter or gauge is a number, a counter with a
        label is a dict by its values, a histogram is (sum, buckets), a table is a list of rows
        (label, values).
    remarks: sentences about possible improvements of the plugin.
    drops: how many packets the plugin dropped for each of its drop reasons, by name.
    log: what the plugin wrote to `worker.log`, as (level, line). There is no limit as in a run.
    """

    results: list[Result]
    created: list[Result] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    named: dict[str, Any] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    drops: dict[str, int] = field(default_factory=dict)
    log: list[tuple[str, str]] = field(default_factory=list)

    def __getitem__(self, index: Any) -> Any:
        return self.results[index]

    def __len__(self) -> int:
        return len(self.results)


def run_plugin(
    plugin: Any,
    frames: Iterable[bytes | Frame],
    *,
    options: Mapping[str, Any] | None = None,
    ports: int | Sequence[str] = 1,
    queue: int = 0,
    blanks: int = 0,
    state: int = STATE_BYTES,
    batch: int = BATCH,
    debug: bool = True,
    mtu: int = MTU,
) -> Run:
    """Run `plugin` on `frames` and return the results.

    plugin: the plugin object, or its name as in a configuration.
    options: the plugin's options by name.
    ports: the names of the ports, or their number.
    queue: the number of the worker.
    blanks: how many packets the plugin can create per batch, at most 64.
    state: bytes for the plugin's named state and counters. A run has 4 MiB (4 << 20), unless its
        configuration says otherwise.
    batch: how many frames the plugin gets at a time, 1 to 64.
    debug: in compiled plugins, an index out of range raises IndexError.
    mtu: of the ports, in bytes, 1500 to 9216; more than 1500: they have jumbo frames.

    Raises PluginError when the plugin cannot be loaded, prepared or set up, or does not
    accept the options; ValueError when `batch` or the port of a frame is out of range; what the
    plugin's `tick` raises.
    """
    if not 1 <= batch <= BATCH:
        raise ValueError(f"a batch must have 1 to {BATCH} frames, not {batch}")
    if not MTU <= mtu <= MTU_MAX:
        raise ValueError(f"the mtu must be {MTU} to {MTU_MAX} bytes, not {mtu}")
    names = [f"port{n}" for n in range(ports)] if isinstance(ports, int) else list(ports)
    context = Context(queue=queue, ports=names, debug=debug, state_bytes=state)
    tier = _load(plugin)
    tier.accept(options or {})
    tier.prepare(context)
    lines: list[tuple[str, str]] = []

    def write(level: str, line: str) -> bool:
        lines.append((level, line))
        return True

    log, longest = Log(write, limited=False), frame_max(mtu)
    harness = Harness(tier, context, blanks=blanks, log=log, frame_max=longest)
    results: list[Result] = []
    created: list[Result] = []
    for some in _batches(_arrivals(frames, len(names)), batch, harness):
        departures, made = harness.run(some)
        complaint = harness.engine.complaint()
        for arrival, departure in zip(some, departures, strict=True):
            error = None
            if departure.verdict == ERROR:
                error = complaint or harness.explain(arrival)
            reason = harness.reasons.get(departure.verdict)
            results.append(_result(departure, error, longest, reason))
        created += [_result(departure, None, longest) for departure in made]
    _tick(harness, ending=True)
    return Run(
        results,
        created,
        counter_blocks.read(harness.counters),
        named_values(harness.slot),
        tier.remarks,
        {
            name: sum(result.verdict == verdict for result in results)
            for verdict, name in harness.reasons.items()
        },
        lines,
    )


def _load(plugin: Any) -> Tier:
    if isinstance(plugin, str):
        return loading.load(plugin)
    return loading.tier_of(getattr(plugin, "__name__", type(plugin).__name__), plugin)


def _arrivals(frames: Iterable[bytes | Frame], ports: int) -> Iterator[Arrival]:
    now = 0
    for frame in frames:
        it = frame if isinstance(frame, Frame) else Frame(bytes(frame))
        if not 0 <= it.port < ports:
            raise ValueError(f"the port of a frame must be 0 to {ports - 1}, not {it.port}")
        flags = it.flags
        flags |= 0 if it.rss_hash is None else HASH
        flags |= 0 if it.vlan_tci is None else VLAN
        now = now if it.time is None else it.time
        if not TIME_MIN <= now <= TIME_MAX:
            raise ValueError(
                f"the time of a frame must be nanoseconds that fit into 64 bits, not {now}"
            )
        yield it.data, it.port, it.rss_hash or 0, it.vlan_tci or 0, flags, now


def _batches(arrivals: Iterable[Arrival], batch: int, harness: Harness) -> Iterator[list[Arrival]]:
    """Batches of the frames; between two of them the plugin's tick is called when it is due."""
    ticks = Ticks()
    some: list[Arrival] = []
    for arrival in list(arrivals):  # a wrong frame is found before the first batch
        due = ticks.are_due(arrival[-1])
        if some and (due or len(some) == batch):
            yield some
            some = []
        if due:
            _tick(harness)
        some.append(arrival)
    if some:
        yield some


def _tick(harness: Harness, *, ending: bool = False) -> None:
    """Call the plugin's tick; raises what it raises."""
    harness.engine.tick_whole(TICK_SECONDS, ending=ending)
    if harness.engine.raised is not None:
        raise harness.engine.raised


def _result(
    departure: Departure, error: str | None, longest: int, reason: str | None = None
) -> Result:
    if departure.refused is not None:
        error = f"a frame of {len(departure.data)} bytes: {words(departure.refused, longest)}"
    return Result(departure.verdict, departure.data, departure.vlan_tci, error, reason)
