"""`bench xdp`: forwarding between two veth pairs in namespaces of their own, frames of 64 bytes.

ringline with the plugin `forward` beside a bare loop in C on the same kind of sockets, Linux's
bridge, a bare loop in Python and Scapy: in turn, and always between the same interfaces. In the
same turns a port on packet sockets and a bare loop in C receive what comes in. The source
has the first CPU; the kernel receives there too, since a veth is received on the CPU that sent.
What forwards or receives has the second one, and the worker of ringline a third one, if there is
one.

Guarantees (tests in tests/pipeline/bench/test_xdp.py):
 - nothing is left at the end, nor after SIGKILL (test_nothing_is_left_of_a_benchmark)
 - what cannot be measured here is said in one sentence (test_without_root_a_sentence_says_so)
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import mmap
import os
import statistics
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TypeVar

from ringline.pipeline.bench.figures import Figure, in_windows
from ringline.pipeline.bench.machine import USABLE, Machine
from ringline.pipeline.bench.running import DRIVER, WORKER, Running
from ringline.pipeline.bench.sampling.disturbance import Watch
from ringline.pipeline.bench.sampling.windows import SECONDS, Windows, best_fifth, sample
from ringline.pipeline.bench.veths.forwarders import COUNT_BYTES, started
from ringline.pipeline.bench.veths.links import INPUT, OUTPUT, Links, links, within
from ringline.pipeline.configuration import deadlines
from ringline.shm.errors import EnvironmentLacks

WARM = 0.3
START_SECONDS = deadlines.BENCH_FORWARDER  # until the first packet comes out
GOAL = 0.85  # of the bare loop
BRIDGE_GOAL = 1.0  # of Linux's bridge
PACKET_GOAL = 0.9  # of the bare loop that receives
TRIES, PAUSE = 4, 0.5  # to start each, and seconds between two
PLUGIN = "ringline.workers.plugins.forward:forward"
DROP = "ringline.workers.plugins.drop:drop"
ALL = 0.99  # of what was sent: the counters are not read at the same moment
FASTER = 1.1  # a source that is not faster than the fastest by this is the limit itself

Result = TypeVar("Result")

# What is measured, and how its row is called.
SOURCE, RINGLINE, BARE, BRIDGE = "source", "ringline", "bare", "bridge"
SOCKETS, SCAPY = "sockets", "scapy"
PACKET, BARE_PACKET = "packet", "packets"  # these only receive
ROWS = {
    BARE: "  bare loop in C",
    BRIDGE: "  Linux's bridge",
    SOCKETS: "  bare loop in Python, AF_PACKET",
    SCAPY: "  Scapy",
}


@dataclass(frozen=True)
class Places:
    """The CPUs of the source, of what forwards, and of the worker of ringline."""

    source: int
    forwarder: int
    worker: int

    def describe(self) -> str:
        """For the notes of the table."""
        shared = " shares it" if self.worker == self.forwarder else f" has CPU {self.worker}"
        return (
            f"the source and the kernel's receiving have CPU {self.source}; what forwards has CPU "
            f"{self.forwarder}, and the worker of ringline{shared}"
        )


@dataclass(frozen=True)
class Measured:
    """What is being measured: its processes by name, and how to count the packets that it has
    forwarded or received so far."""

    processes: dict[str, int]
    count: Callable[[], float]


@dataclass
class Turns:
    """The turns of what is measured, by its name, and how many packets the source offered."""

    found: dict[str, list[Windows]] = field(default_factory=dict)

    def rates(self, what: str, counter: str = "sent") -> list[list[float]]:
        """10^6 packets a second in each window of each turn."""
        return [[rate / 1e6 for rate in turn.rate(counter)] for turn in self.found[what]]

    def best(self, what: str) -> list[float]:
        """The best fifth of each turn."""
        return [best_fifth(turn, more=True) for turn in self.rates(what)]

    def shares(self, what: str) -> list[float]:
        """The share of what the source offered, in each turn."""
        return [
            min(sum(turn.growth["sent"]) / max(sum(turn.growth["offered"]), 1), 1.0)
            for turn in self.found[what]
        ]

    @property
    def disturbed(self) -> str:
        """What disturbed them."""
        told = (turn.disturbed for turns in self.found.values() for turn in turns)
        return "; ".join(dict.fromkeys(filter(None, told)))


def places(machine: Machine) -> Places:
    """Raises EnvironmentLacks with one CPU: the source would take it from what is measured."""
    if len(machine.cpus) < 2:
        raise EnvironmentLacks("bench xdp: two CPUs are needed, and only one can be used here")
    source, forwarder = machine.cpus
    others = sorted(USABLE - set(machine.cpus))
    return Places(source, forwarder, others[-1] if others else forwarder)


def measure(machine: Machine, runs: int, seconds: float = SECONDS) -> list[Figure]:
    """Packets a second of each, and the ratios. Raises EnvironmentLacks."""
    at = places(machine)
    with links() as made:
        turns = take_turns(made, at, runs, seconds)
    return figures(turns, at)


def figures(turns: Turns, at: Places) -> list[Figure]:
    """The rows of the table."""
    disturbed = turns.disturbed
    forwarding = {RINGLINE, *ROWS}.intersection(turns.found)
    fastest = max(statistics.median(turns.best(what)) for what in forwarding)
    offered = in_windows(
        "  the source, nobody forwards",
        "Mpps",
        turns.rates(SOURCE, "offered"),
        more=True,
        disturbed=disturbed,
    )
    note = at.describe()
    if offered.value < fastest * FASTER:
        note += "; the source is hardly faster than what it feeds, so it may be the limit"
    if SCAPY not in turns.found:
        note += "; Scapy is not installed, so it was not measured"
    found = [
        in_windows(
            "xdp, forward between two veths",
            "Mpps",
            turns.rates(RINGLINE),
            turns.rates(BARE),
            more=True,
            goal_of_limit=GOAL,
            disturbed=disturbed,
            note=note,
        )
    ]
    found += [
        in_windows(row, "Mpps", turns.rates(what), more=True, disturbed=disturbed)
        for what, row in ROWS.items()
        if what in turns.found
    ]
    found.append(offered)
    for what, row in ROWS.items():
        if what in turns.found:
            pairs = zip(turns.best(RINGLINE), turns.best(what), strict=True)
            found.append(
                Figure(
                    f"  ringline to {row.strip().removeprefix('bare ')}",
                    "x",
                    tuple(ours / theirs for ours, theirs in pairs),
                    more=True,
                    goal=BRIDGE_GOAL if what == BRIDGE else None,
                    disturbed=disturbed,
                )
            )
    return found + receiving(turns)


def receiving(turns: Turns) -> list[Figure]:
    """The rows of what only receives."""
    note = ""
    if statistics.median(turns.shares(PACKET)) >= ALL:
        note = "it took all that the source sent, so the source and the kernel are its limit"
    return [
        in_windows(
            "packet, receive from a veth",
            "Mpps",
            turns.rates(PACKET),
            turns.rates(BARE_PACKET),
            more=True,
            goal_of_limit=PACKET_GOAL,
            disturbed=turns.disturbed,
            note=note,
        ),
        *(
            Figure(
                f"  {row}, of what was sent",
                "%",
                tuple(100 * share for share in turns.shares(what)),
                more=True,
                disturbed=turns.disturbed,
            )
            for what, row in ((PACKET, "ringline"), (BARE_PACKET, "loop in C"))
        ),
    ]


def take_turns(made: Links, at: Places, runs: int, seconds: float) -> Turns:
    """Let each forward `runs` times in turn; every second round goes backwards."""
    measured: dict[str, Callable[[], AbstractContextManager[Measured]]] = {
        SOURCE: lambda: contextlib.nullcontext(Measured({}, made.sent)),
        RINGLINE: functools.partial(_ringline, made, at),
        PACKET: functools.partial(_packet, made, at),
        BARE_PACKET: functools.partial(_bare_packet, made, at),
    }
    for what in ROWS:
        if what != SCAPY or importlib.util.find_spec("scapy"):
            measured[what] = functools.partial(_other, made, at, what)
    turns = Turns({what: [] for what in measured})
    with within(made.far), started(SOURCE, at.source) as source:
        for number in range(runs):
            order = list(measured)
            for what in order if number % 2 == 0 else order[::-1]:
                with measured[what]() as taking:
                    turns.found[what].append(_windows(made, at, what, source, taking, seconds))
    return turns


def _windows(
    made: Links, at: Places, what: str, source: int, taking: Measured, seconds: float
) -> Windows:
    """One turn, after the first packet has come out or was received."""
    deadline = time.monotonic() + START_SECONDS
    before = taking.count()
    while what != SOURCE and taking.count() == before:
        if time.monotonic() > deadline:
            raise EnvironmentLacks(f"bench xdp: {what} moved nothing in {START_SECONDS:g} s")
        time.sleep(0.01)
    time.sleep(min(WARM, seconds))
    processes = {SOURCE: source, **taking.processes}
    watch = Watch([at.source, at.forwarder], processes, shared=True)
    while True:
        found = sample(lambda: {"sent": taking.count(), "offered": made.offered()}, seconds, watch)
        counter = "offered" if what == SOURCE else "sent"
        if any(found.growth[counter]):
            return found
        if time.monotonic() > deadline:  # a busy machine: the CPUs had no time for it
            raise EnvironmentLacks(f"bench xdp: {what} moved nothing in {START_SECONDS:g} s")


def configuration(at: Places, devices: Sequence[str], plugin: str) -> str:
    """Ringline with a port on each of these devices."""
    return (
        "".join(f'[port.p{number}]\ndevice = "{each}"\n' for number, each in enumerate(devices))
        + f'[worker]\nplugin = "{plugin}"\ncpus = [{at.worker}]\n'
        + f'[driver]\ncpu = {at.forwarder}\nidle = "busy"\n[memory]\nhugepages = "off"\n'
    )


@contextlib.contextmanager
def _run(
    made: Links, at: Places, devices: Sequence[str], plugin: str
) -> Iterator[tuple[Running, dict[str, int]]]:
    """A run in the namespace in the middle, and its processes by name."""
    with contextlib.ExitStack() as stack:

        def start() -> Running:
            with contextlib.ExitStack() as attempt, within(made.middle):
                run = attempt.enter_context(Running(configuration(at, devices, plugin)))
                run.snapshot()
                stack.push(attempt.pop_all())
            return run

        run = _patiently(start)
        deadline = time.monotonic() + START_SECONDS
        while not (run.pids(DRIVER) and run.pids(WORKER)):
            if time.monotonic() > deadline:
                raise EnvironmentLacks("bench xdp: the driver or the worker did not start")
            time.sleep(0.01)
        yield run, {"driver": run.pid(DRIVER), "worker": run.pid(WORKER)}


@contextlib.contextmanager
def _ringline(made: Links, at: Places) -> Iterator[Measured]:
    with _run(made, at, [f"xdp:{INPUT}", f"xdp:{OUTPUT}"], PLUGIN) as (_, processes):
        yield Measured(processes, made.sent)


@contextlib.contextmanager
def _packet(made: Links, at: Places) -> Iterator[Measured]:
    """A port on packet sockets, with a plugin that drops all."""
    with (
        _run(made, at, [f"packet:{INPUT}"], DROP) as (run, processes),
        run.counters() as counters,
    ):
        yield Measured(processes, lambda: counters.read()["worker_packets"])


@contextlib.contextmanager
def _other(made: Links, at: Places, what: str) -> Iterator[Measured]:
    with contextlib.ExitStack() as stack:

        def start() -> int:
            with within(made.middle):
                return stack.enter_context(started(what, at.forwarder))

        yield Measured({what: _patiently(start)}, made.sent)


@contextlib.contextmanager
def _bare_packet(made: Links, at: Places) -> Iterator[Measured]:
    with contextlib.ExitStack() as stack:
        memory = os.memfd_create("bench-count")
        stack.callback(os.close, memory)
        os.truncate(memory, COUNT_BYTES)
        count = stack.enter_context(mmap.mmap(memory, COUNT_BYTES, prot=mmap.PROT_READ))
        with within(made.middle):
            process = stack.enter_context(started(BARE_PACKET, at.forwarder, memory))
        yield Measured({BARE_PACKET: process}, lambda: struct.unpack("=Q", count)[0])


def _patiently(start: Callable[[], Result]) -> Result:
    """`start`, and again if it could not: the kernel releases sockets a moment after the end of
    their process."""
    for _ in range(TRIES - 1):
        try:
            return start()
        except EnvironmentLacks:
            time.sleep(PAUSE)
    return start()
