"""`bench analyze`: flows of captures with frames of several sizes, counted by one task of `ringline
analyze flow_stats`, by a bare loop in C, and by other programs: in turn, on one CPU.

Each keeps packets, bytes, the first and the last time of both directions of a 5-tuple. What they
find is compared, so none of them can leave out work. A figure is the time of the processor that the
program, with its children, took for a packet; its start does not count. Slow programs get the first
packets of a capture only.

Guarantees (tests in tests/pipeline/bench/test_analyze.py):
 - programs that find other flows than ringline end the benchmark
   (test_other_flows_end_the_benchmark)
 - what is not installed is named with the command that installs it
   (test_what_is_not_installed_is_named)
 - nothing is left of a benchmark that was ended (test_nothing_is_left)
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ringline.pipeline.bench.analyses import capture
from ringline.pipeline.bench.analyses.flows import Counts, Key, difference
from ringline.pipeline.bench.analyses.peers import PEERS, Peer
from ringline.pipeline.bench.figures import Figure
from ringline.pipeline.bench.machine import Machine, Runs, quiet_runs
from ringline.pipeline.bench.running import FOLDER, ending
from ringline.pipeline.bench.sampling.windows import SECONDS
from ringline.pipeline.configuration import deadlines
from ringline.shm.errors import EnvironmentLacks
from ringline.shm.family import END_WITH

FEWEST = 2_000
EMPTY = 4  # packets of the capture whose time does not count
RINGLINE, BARE, DPKT = "ringline", "bare", "dpkt"
GOAL_OF_BARE = 0.5
GOAL_TO_DPKT = 20.0
GOAL_OF_TWO = 1.8
TIMES_OF_TWO = 5  # so many times the packets, since the start of a process takes long


class Captures:
    """The captures of a benchmark, in `folder`: for each mix a whole one, and its first packets for
    programs that would take longer than `seconds` for it."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder = folder
        self._seconds = seconds
        self.empty = folder / "empty.pcap"
        capture.make(self.empty, capture.MIXES[0], EMPTY)
        self._made: dict[tuple[str, int], Path] = {}

    def packets_for(self, peer: Peer, mix: capture.Mix) -> int:
        """How many packets of a mix a program gets."""
        rate = min(peer.rate or mix.rate, mix.rate)
        return max(int(rate * self._seconds), FEWEST)

    def path(self, mix: capture.Mix, packets: int) -> Path:
        """The capture with so many packets of a mix."""
        if (mix.name, packets) not in self._made:
            path = self.folder / f"{mix.sizes[-1][0]}-{packets}.pcap"
            capture.make(path, mix, packets)
            self._made[mix.name, packets] = path
        return self._made[mix.name, packets]


@dataclass
class Turn:
    """One turn of all programs: seconds of the processor and of the clock for a packet, by program
    and mix. scaling: how much faster two processes are than one, and two bare loops; empty with one
    CPU."""

    processor: dict[tuple[str, str], float] = field(default_factory=dict)
    clock: dict[tuple[str, str], float] = field(default_factory=dict)
    scaling: list[float] = field(default_factory=list)


def measure(machine: Machine, runs: int, seconds: float = SECONDS) -> list[Figure]:
    """The time of a packet, and the ratios. Raises EnvironmentLacks."""
    _require_numba()
    there = {name: peer for name, peer in PEERS.items() if peer.is_installed}
    with tempfile.TemporaryDirectory(prefix=f"{FOLDER}{os.getpid()}-") as folder:
        made = Captures(Path(folder), seconds)
        order = list(there)

        def turn() -> Turn:
            order.reverse()
            taken = take_turn(made, machine.cpus[-1], order)
            if len(machine.cpus) > 1:
                taken.scaling = _scaling(made, machine.cpus[-2:])
            return taken

        return figures(quiet_runs(turn, runs, machine, more=0), there)


def _require_numba() -> None:
    """Raises EnvironmentLacks when the plugin cannot run."""
    import importlib.util

    if importlib.util.find_spec("numba") is None:
        raise EnvironmentLacks(
            "bench analyze: numba is missing, which the plugin flow_stats needs: "
            "pip install 'ringline[compiled]'"
        )


def take_turn(made: Captures, cpu: int, order: Sequence[str]) -> Turn:
    """Let each program count once, and compare what they found. Raises EnvironmentLacks."""
    turn = Turn()
    mixes = {mix.name: mix for mix in capture.MIXES}
    found: dict[tuple[str, str, int], Mapping[Key, Counts]] = {}
    for name in order:
        counts = [made.packets_for(PEERS[name], mix) for mix in mixes.values()]
        paths = list(map(made.path, mixes.values(), counts))
        answers = _count(made, name, cpu, paths)
        for mix, packets, (spent, rows) in zip(mixes, counts, answers, strict=True):
            turn.processor[name, mix], turn.clock[name, mix] = (each / packets for each in spent)
            found[name, mix, packets] = rows
    # What ringline finds in the first packets, which the slower programs got.
    parts = sorted(
        {(mix, packets) for _, mix, packets in found if (RINGLINE, mix, packets) not in found}
    )
    paths = [made.path(mixes[mix], packets) for mix, packets in parts]
    for part, (_, rows) in zip(parts, _count(made, RINGLINE, cpu, paths), strict=True):
        found[RINGLINE, *part] = rows
    for (name, mix, packets), rows in found.items():
        ours = found[RINGLINE, mix, packets]
        if said := difference(ours, rows, PEERS[name].precision):
            raise EnvironmentLacks(
                f"bench analyze: {PEERS[name].name} finds other flows than ringline in {packets} "
                f"packets of {mix}, so their times cannot be compared: {said}"
            )
    return turn


def _count(
    made: Captures, name: str, cpu: int, paths: Sequence[Path]
) -> list[tuple[list[float], Mapping[Key, Counts]]]:
    """Let a program count the flows of the captures: the seconds of the processor and of the clock,
    and the flows. Raises EnvironmentLacks."""
    out = made.folder / "flows"
    arguments = name, str(cpu), str(made.empty), str(out), *map(str, paths)
    said = _answers_of("peers", arguments, PEERS[name].name)
    return [
        (json.loads(line), pickle.loads(Path(f"{out}.{number}").read_bytes()))
        for number, line in enumerate(said)
    ]


def _scaling(made: Captures, cpus: Sequence[int]) -> list[float]:
    """What scaling.py says of the mix with frames of several sizes. Raises EnvironmentLacks."""
    mix = capture.MIXES[1]
    path = made.path(mix, TIMES_OF_TWO * made.packets_for(PEERS[RINGLINE], mix))
    arguments = str(made.empty), str(path), *map(str, cpus)
    [said] = _answers_of("scaling", arguments, "two processes")
    ratios: list[float] = json.loads(said)
    return ratios


def _answers_of(module: str, arguments: Sequence[str], name: str) -> list[str]:
    """The lines that a process of a benchmark prints. Raises EnvironmentLacks."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", f"ringline.pipeline.bench.analyses.{module}", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, END_WITH: str(os.getpid())},
    )
    try:
        said, errors = process.communicate(timeout=deadlines.BENCH_PEER)
    except subprocess.TimeoutExpired:
        raise EnvironmentLacks(
            f"bench analyze: {name} did not end in {deadlines.BENCH_PEER:g} s: give it "
            "fewer packets with --seconds"
        ) from None
    finally:
        process.kill()
        process.wait()
    if process.returncode:
        last = (errors.strip().splitlines() or ["it said nothing"])[-1]
        raise EnvironmentLacks(
            f"bench analyze: {name} failed ({ending(process.returncode)}): {last}"
        )
    return said.splitlines()


def figures(turns: Runs[Turn], there: Mapping[str, Peer]) -> list[Figure]:
    """The rows of the table."""
    note = "; ".join(
        f"{peer.name} is not installed ({peer.remedy}), so it was not measured"
        for name, peer in PEERS.items()
        if name not in there
    )
    found = []
    for mix in (mix.name for mix in capture.MIXES):
        cost = {name: tuple(turn.processor[name, mix] * 1e9 for turn in turns) for name in there}
        found.append(
            Figure(
                f"analyze, {mix}",
                "ns",
                cost[RINGLINE],
                cost[BARE],
                goal_of_limit=GOAL_OF_BARE,
                disturbed=turns.disturbed,
                note=note,
            )
        )
        found.append(
            Figure(
                "  by the clock",
                "ns",
                tuple(turn.clock[RINGLINE, mix] * 1e9 for turn in turns),
                tuple(turn.clock[BARE, mix] * 1e9 for turn in turns),
                disturbed=turns.disturbed,
            )
        )
        for name, peer in there.items():
            if name not in (RINGLINE, BARE):
                pairs = zip(cost[RINGLINE], cost[name], strict=True)
                found += [
                    Figure(f"  {peer.name}", "ns", cost[name], disturbed=turns.disturbed),
                    Figure(
                        f"  {peer.name}, ratio",
                        "x",
                        tuple(theirs / ours for ours, theirs in pairs),
                        more=True,
                        goal=GOAL_TO_DPKT if name == DPKT else None,
                        disturbed=turns.disturbed,
                    ),
                ]
    if all(turn.scaling for turn in turns):
        ours, bare = zip(*(turn.scaling for turn in turns), strict=True)
        found.append(
            Figure(
                "analyze, two processes to one",
                "x",
                ours,
                bare,
                goal=GOAL_OF_TWO,
                more=True,
                compares=True,
                disturbed=turns.disturbed,
            )
        )
    return found
