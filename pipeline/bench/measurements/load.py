"""`bench load`: how long packets take through driver and worker at a share of the highest rate.

Packets arrive by the clock, whether or not somebody is ready for them (open loop). The time of a
packet begins when it is due on the wire and ends when the card takes it from a TX descriptor. The
simulated card measures both itself, so the lane and the worker do nothing for it. The histogram of
the lane (`worker_latency_seconds`) is too coarse: its buckets are powers of two, and it leaves out
the time in RX and TX descriptors.

The lane runs in this process, in turns as those of the driver process; the worker is a process.
Both poll and never sleep. The card is stepped once in each pass of the lane. So a time contains up
to one pass before the card delivers the packet, and up to one before it takes the packet back.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ringline.pipeline.bench.figures import Figure, in_windows
from ringline.pipeline.bench.machine import Machine, Runs, quiet_runs
from ringline.pipeline.bench.sampling.disturbance import Watch
from ringline.pipeline.bench.sampling.windows import sample
from ringline.pipeline.bench.serving import serving
from ringline.pipeline.configuration import deadlines
from ringline.pipeline.configuration.config import FlowsConfig, PortConfig
from ringline.pipeline.driver.lane import Lane
from ringline.pipeline.driver.process import BALANCE_EVERY, TURN
from ringline.pipeline.ports.pci.sysfs import sysfs_root
from ringline.pipeline.ports.sim82599.port import Sim82599Port
from ringline.pipeline.ports.sim82599.transits import Transits, quantile
from ringline.pipeline.ports.sim82599.wire import CARD_MAC, FrameTable, from_flows
from ringline.shm.errors import EnvironmentLacks

PLUGIN = "ringline.workers.plugins.mac_swap:mac_swap"
SHARES = (0.1, 0.5, 0.9)  # of the highest rate without loss
QUANTILES = {"median": 0.5, "p99": 0.99, "p99.9": 0.999}
SECONDS = 0.8  # at each share, in one run
CLOSED_RUN = 0.32  # seconds, of the closed loop that shows where to search
SETTLE = 0.04  # seconds after a change of the rate: what waited before has left
# A rate is without loss if one of TRIES times TRIAL seconds is, since other work may disturb some.
# In this time an RX ring of 512 descriptors overflows if packets come 0.3 % too fast at 10 Mpps.
TRIES, TRIAL = 10, 0.02
STEPS = 7  # of the search, each of which halves the range
DROPS = "dropped_"  # counters of the wire that begin so count lost packets


class Loaded:
    """A lane in this process with a simulated card and one worker process, whose id is `pid`."""

    def __init__(self, lane: Lane, port: Sim82599Port, books: Any, pid: int) -> None:
        self._lane, self._port, self._books = lane, port, books
        self._table: FrameTable = from_flows(FlowsConfig(), CARD_MAC)
        # From the beginning: what it costs the card counts for the highest rate, too.
        self._transits: Transits = port.measure_transits()
        self._drops = [name for name in port.wire_statistics() if name.startswith(DROPS)]
        self.counts: list[array[int]] = []  # by `note_transits`
        self._balance_at = 0.0
        self.pid = pid

    def offer(self, mpps: float) -> None:
        """Let packets arrive at this rate from now on, or with 0 as fast as there is room; then
        run until those that waited before have left."""
        self._port.replay(self._table, mpps)
        self.run(SETTLE)

    def run(self, seconds: float) -> None:
        """Run the lane in turns, and count the balances between two, as the driver does."""
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            self._lane.run(min(TURN, end - now))
            if now >= self._balance_at:
                self._lane.balance()
                self._balance_at = now + BALANCE_EVERY

    def read(self) -> dict[str, float]:
        """`sent` and `lost` packets since the start.

        It takes some microseconds, like all that happens between two turns of the lane: 50 us are
        enough to lose packets that come at 10 Mpps.
        """
        wire = self._port.wire_counters()
        lost = sum(getattr(wire, name) for name in self._drops)
        return {"sent": self._books.queues[0].tx_packets, "lost": lost}

    def note_transits(self) -> dict[str, float]:
        """`read`, and append how many packets took how long so far to `counts`."""
        self.counts.append(self._transits.counts())
        return self.read()


@contextlib.contextmanager
def loaded(worker_cpu: int, plugin: str = PLUGIN) -> Iterator[Loaded]:
    """A lane and a worker on `worker_cpu`, which polls; no packets arrive yet."""
    port = Sim82599Port(PortConfig(name="bench", device="sim:82599"), 0, sysfs_root())
    with serving(port, worker_cpu, plugin) as peer:
        peer.lane.add_port(port)
        yield Loaded(peer.lane, port, peer.books, peer.pid)


@dataclass(frozen=True)
class At:
    """At one rate: `sent` and `lost` packets, for each window the packets in each bucket of
    `transits`, and what disturbed it."""

    sent: float
    lost: float
    counts: Sequence[Sequence[int]]
    disturbed: str = ""


@dataclass(frozen=True)
class Run:
    """One run: the highest rate without loss in Mpps, what was measured at each of SHARES, and what
    was wrong with the rate."""

    highest: float
    at: Mapping[float, At]
    trouble: str = ""

    @property
    def disturbed(self) -> str:
        """What disturbed the run."""
        told = [self.trouble, *(each.disturbed for each in self.at.values())]
        return "; ".join(dict.fromkeys(filter(None, told)))


def measure(machine: Machine, runs: int) -> list[Figure]:
    """The highest rate without loss, and quantiles of the time at shares of it."""
    results = quiet_runs(lambda: _once(machine), runs, machine, pair=True)
    figures = [
        Figure(
            "load, highest rate without loss",
            "Mpps",
            tuple(run.highest for run in results),
            more=True,
            disturbed=results.disturbed,
        )
    ]
    for share in SHARES:
        figures += _figures(results, share)
    return figures


def _figures(results: Runs[Run], share: float) -> Iterator[Figure]:
    found = [run.at[share] for run in results]
    lost, sent = sum(each.lost for each in found), sum(each.sent for each in found)
    for name, part in QUANTILES.items():
        yield in_windows(
            f"load {share:.0%} of it, {name}",
            "us",
            [times(each.counts, part) for each in found],
            note=f"{lost / (lost + sent):.2%} of the packets were lost" if lost else "",
            disturbed=results.disturbed,
        )


def times(windows: Sequence[Sequence[int]], share: float) -> list[float]:
    """Microseconds within which this share of the packets left, for each window with packets."""
    return [quantile(counts, share) / 1e3 for counts in windows if sum(counts) > 0]


def _once(machine: Machine) -> Run:
    with loaded(machine.cpus[-1]) as peer:
        os.sched_setaffinity(0, {machine.cpus[0]})
        peer.offer(0.0)
        ceiling = 1.1 * _rate(peer)
        deadline = time.monotonic() + deadlines.BENCH_PROGRESS

        def lossless(mpps: float) -> bool:
            peer.offer(mpps)
            return time.monotonic() < deadline and _without_loss(peer)

        highest = search(lossless, ceiling)
        trouble = "" if highest else "every rate lost packets"
        highest = highest or ceiling / 2**STEPS
        found = {}
        for share in SHARES:
            found[share] = _at(machine, peer, highest * share)
        return Run(highest, found, trouble)


def _at(machine: Machine, peer: Loaded, mpps: float) -> At:
    watch = Watch(machine.cpus, {"driver": os.getpid(), "worker": peer.pid})
    watch.start()  # this takes so long that packets may be lost
    peer.offer(mpps)
    peer.counts.clear()
    windows = sample(peer.note_transits, SECONDS, wait=peer.run)
    growth = [
        [late - early for early, late in zip(before, after, strict=True)]
        for before, after in itertools.pairwise(peer.counts)
    ]
    sent, lost = sum(windows.growth["sent"]), sum(windows.growth["lost"])
    return At(sent, lost, growth, watch.end())


def _rate(peer: Loaded) -> float:
    """Mpps in closed loop, the best of some windows."""
    windows = sample(peer.read, CLOSED_RUN, wait=peer.run)
    rate = max(windows.rate("sent")) / 1e6
    if rate == 0.0:
        raise EnvironmentLacks("the worker of `load` returned no packet: its CPU is busy")
    return rate


def _without_loss(peer: Loaded) -> bool:
    """Whether one of TRIES trials lost no packet."""
    for _ in range(TRIES):
        before = peer.read()["lost"]
        peer.run(TRIAL)
        if peer.read()["lost"] == before:
            return True
    return False


def search(lossless: Callable[[float], bool], ceiling: float) -> float:
    """The highest rate below `ceiling` that is `lossless`, at most `ceiling` / 2**STEPS too low; 0
    if none is."""
    low, high = 0.0, ceiling
    for _ in range(STEPS):
        middle = (low + high) / 2
        if lossless(middle):
            low = middle
        else:
            high = middle
    return low
