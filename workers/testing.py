"""For a user's own tests: run a plugin on frames, without a card or a process.

    from ringline.workers.testing import DROP, run_plugin

    def test_bounce_drops_what_is_not_ip():
        [result] = run_plugin("./bounce.py:bounce", [bytes(60)])
        assert result.verdict == DROP

All three tiers run as they do in a worker: the compiled one compiled, in batches of
up to 64, through the same C loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ringline.shm import counters as counter_blocks
from ringline.shm.errors import PluginError
from ringline.workers.packets import DROP, HASH, VLAN
from ringline.workers.tiers import loading
from ringline.workers.tiers.tier import Context, Tier
from ringline.workers.trials.harness import BATCH, ERROR, Arrival, Departure, Harness, named_values

__all__ = ["DROP", "ERROR", "Frame", "PluginError", "Result", "Run", "run_plugin"]


@dataclass(frozen=True)
class Frame:
    """A frame with what a card would tell of it. `port` is the number of the input port."""

    data: bytes
    port: int = 0
    rss_hash: int | None = None
    vlan_tci: int | None = None
    flags: int = 0


@dataclass(frozen=True)
class Result:
    """What became of a frame. `verdict` is a port's number, DROP, or ERROR with `error` saying
    why; `frame` its bytes afterwards, `vlan_tci` the tag that the card shall insert."""

    verdict: int
    frame: bytes
    vlan_tci: int | None = None
    error: str | None = None


@dataclass(frozen=True)
class Run(Sequence[Result]):
    """The results in the order of the frames.

    `created` are the packets that the plugin made, in order. `counters` is what a worker
    counts for every plugin, `named` what this one names itself: counters and gauges as
    numbers, histograms as (sum, buckets), tables as rows of (label, values). `remarks`
    are sentences about what could be better.
    """

    results: list[Result]
    created: list[Result] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    named: dict[str, Any] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

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
    batch: int = BATCH,
    debug: bool = True,
) -> Run:
    """Run `plugin`, an object or its name in a configuration, on `frames`.

    `ports` are the names of the ports, or how many there are; `blanks` is how many packets
    the plugin may make per batch; `batch` frames (at most 64) come at a time. `debug`
    makes an index out of range an error in compiled plugins.

    Raises PluginError when the plugin cannot be loaded, prepared or set up, or does not
    take the options.
    """
    if not 1 <= batch <= BATCH:
        raise ValueError(f"a batch has 1 to {BATCH} frames, not {batch}")
    names = [f"port{n}" for n in range(ports)] if isinstance(ports, int) else list(ports)
    context = Context(queue=queue, ports=names, debug=debug)
    tier = _load(plugin)
    tier.accept(options or {})
    tier.prepare(context)
    harness = Harness(tier, context, blanks=blanks)
    arrivals = [_arrival(frame, len(names)) for frame in frames]
    results: list[Result] = []
    created: list[Result] = []
    for start in range(0, len(arrivals), batch):
        some = arrivals[start : start + batch]
        departures, made = harness.run(some)
        complaint = harness.engine.complaint()
        for arrival, departure in zip(some, departures, strict=True):
            error = None
            if departure.verdict == ERROR:
                error = complaint or harness.explain(arrival)
            results.append(_result(departure, error))
        created += [_result(departure, None) for departure in made]
    harness.engine.tick()
    return Run(
        results,
        created,
        counter_blocks.read(harness.counters),
        named_values(harness.slot),
        tier.remarks,
    )


def _load(plugin: Any) -> Tier:
    if isinstance(plugin, str):
        return loading.load(plugin)
    return loading.tier_of(getattr(plugin, "__name__", type(plugin).__name__), plugin)


def _arrival(frame: bytes | Frame, ports: int) -> Arrival:
    it = frame if isinstance(frame, Frame) else Frame(bytes(frame))
    if not 0 <= it.port < ports:
        raise ValueError(f"a frame comes in at port {it.port}, and there are {ports}")
    flags = it.flags
    flags |= 0 if it.rss_hash is None else HASH
    flags |= 0 if it.vlan_tci is None else VLAN
    return it.data, it.port, it.rss_hash or 0, it.vlan_tci or 0, flags


def _result(departure: Departure, error: str | None) -> Result:
    return Result(departure.verdict, departure.data, departure.vlan_tci, error)
