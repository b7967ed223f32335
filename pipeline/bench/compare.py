"""`ringline bench compare OLD_VENV`: another installed version beside this one.

The two versions alternate, so both have the same good and bad moments of the machine, and the ratio
of two neighbours is steadier than any figure. This program measures the pipeline of both by their
counters. For single parts each version runs its own benchmark, and tells its figures as JSON.

Guarantees (tests in tests/pipeline/bench/test_compare.py):
 - the versions alternate, and each begins every second round (test_the_versions_take_turns)
 - the other version's benchmark ends with this one, in order
   (test_the_other_benchmark_ends_with_this_one)
 - a folder without ringline, and a version whose figures have another form, is refused with one
   sentence (test_a_folder_without_ringline_is_refused, test_figures_of_another_form_are_refused)
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ringline.pipeline.bench.figures import aligned, number, paragraphs
from ringline.pipeline.bench.machine import USABLE, Machine
from ringline.pipeline.bench.measurements.pipeline import Throughput, throughput
from ringline.pipeline.bench.running import OURS, ending
from ringline.pipeline.bench.sampling.counters import Layout, layout_of
from ringline.pipeline.bench.sampling.windows import best_fifth
from ringline.pipeline.configuration import deadlines
from ringline.shm.errors import EnvironmentLacks, UsageError

ALONE = ("driver", "tx")  # measurements that each version makes by itself
PAIR = ("handoff",)  # the same, on two CPUs
RUNS_AS_WINDOWS = 15
# Becomes the command in its arguments, which gets SIGTERM when the process of the first one ends.
END_WITH_THIS = """
import os, signal, sys
from ringline.shm._shm import lib
if lib.rl_die_with_parent(signal.SIGTERM, int(sys.argv[1])) == 0:
    try:
        os.execv(sys.argv[2], sys.argv[2:])
    except OSError as error:
        sys.exit(f"{sys.argv[2]}: {error.strerror}")
"""


@dataclass(frozen=True)
class Version:
    """An installed version: the command that starts it, and where its counters are."""

    name: str  # as `--version` prints it
    command: Sequence[str]
    layout: Layout


@dataclass(frozen=True)
class Value:
    """One figure of one version. `more`: a larger value is better."""

    value: float
    unit: str
    more: bool
    disturbed: str = ""


@dataclass(frozen=True)
class Ratio:
    """One figure of both versions, by rounds."""

    what: str
    unit: str
    more: bool
    old: tuple[float, ...]
    new: tuple[float, ...]
    disturbed: str = ""

    @property
    def rounds(self) -> list[float]:
        """New by old in each round."""
        return [new / old for old, new in zip(self.old, self.new, strict=True)]

    @property
    def ratio(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.rounds)

    def to_json(self) -> dict[str, Any]:
        """All fields and derived values as JSON values."""
        return asdict(self) | {"ratios": self.rounds, "ratio": self.ratio}


def compare(
    machine: Machine,
    versions: Mapping[str, Version],
    runs: int,
    seconds: float,
    told: Callable[[str], object],
) -> list[Ratio]:
    """Measure the versions `old` and `new`, `runs` times each in turn; their ratios.

    `told` is called with what is measured next. Raises EnvironmentLacks when a version cannot be
    measured.
    """

    def measure(which: str) -> dict[str, Value]:
        told(f"{which}, pipeline")
        found = _pipeline(machine, versions[which], seconds)
        told(f"{which}, parts")
        return found | _parts(machine, versions[which])

    return take_turns(measure, runs)


def take_turns(measure: Callable[[str], Mapping[str, Value]], rounds: int) -> list[Ratio]:
    """`measure` the versions `old` and `new` alternately; each begins every second round. Figures
    that only one of them has are left out."""
    found: dict[str, list[Mapping[str, Value]]] = {"old": [], "new": []}
    for number_ in range(rounds):
        for which in ("old", "new") if number_ % 2 == 0 else ("new", "old"):
            found[which].append(measure(which))
    everything = [*found["old"], *found["new"]]
    ratios = []
    for what, first in found["new"][0].items():
        if not all(what in one and one[what].value > 0 for one in everything):
            continue
        reasons = dict.fromkeys(one[what].disturbed for one in everything)
        ratios.append(
            Ratio(
                what,
                first.unit,
                first.more,
                tuple(one[what].value for one in found["old"]),
                tuple(one[what].value for one in found["new"]),
                "; ".join(filter(None, reasons)),
            )
        )
    return ratios


def version_in(venv: str) -> Version:
    """The version of ringline that is installed in a virtual environment.

    Raises UsageError when there is none, EnvironmentLacks when it does not run.
    """
    folder = Path(venv).absolute()
    program, python = folder / "bin" / "ringline", folder / "bin" / "python"
    for file in (program, python):
        if not os.access(file, os.X_OK):
            raise UsageError(
                f"bench compare: {venv!r} must be a virtual environment in which ringline is "
                f"installed, but there is no program {file}; `make bench-compare REV=…` makes one"
            )
    return Version(
        _ask([str(program), "--version"]).strip(), [str(program)], layout_of(str(python))
    )


def this_version() -> Version:
    """The version that runs."""
    return Version(_ask([*OURS, "--version"]).strip(), OURS, layout_of(sys.executable))


def _ask(command: Sequence[str]) -> str:
    """The output of a command. Raises EnvironmentLacks with its last error when it fails."""
    os.sched_setaffinity(0, USABLE)  # the command inherits it
    try:
        program = subprocess.Popen(
            [sys.executable, "-P", "-c", END_WITH_THIS, str(os.getpid()), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
        )
        with program:
            try:
                told, errors = program.communicate(timeout=deadlines.BENCH_PARTS)
            finally:
                _end(program)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvironmentLacks(f"`{' '.join(command)}` does not run: {error}") from None
    if program.returncode:
        last = (errors.strip().splitlines() or [ending(program.returncode)])[-1]
        last = last.removeprefix("ringline: ")
        raise EnvironmentLacks(f"`{' '.join(command)}` failed: {last}")
    return told


def _end(program: subprocess.Popen[str]) -> None:
    """End a benchmark that still runs: with SIGTERM it removes its memory."""
    if program.poll() is None:
        program.terminate()
        try:
            program.wait(deadlines.BENCH_PROGRESS)
        except subprocess.TimeoutExpired:
            program.kill()


def _pipeline(machine: Machine, version: Version, seconds: float) -> dict[str, Value]:
    """Throughput of a run, and the time of each part for each packet."""
    one, last = machine.cpus[0], machine.cpus[-1]
    run = throughput(one, last, seconds, command=version.command, layout=version.layout)
    cores = "two cores" if one != last else "one core"
    found = {f"pipeline, {cores}": Value(_best(run.mpps, more=True), "Mpps", more=True)}
    parts = {
        "  driver and simulated card": ("driver", "model"),
        "  driver": ("driver",),
        "  simulated card": ("model",),
        "  worker": ("worker",),
    }
    for what, names in parts.items():
        found[what] = Value(_best(_sum(run, names), more=False), "ns", more=False)
    return {
        what: Value(value.value, value.unit, value.more, run.disturbed)
        for what, value in found.items()
    }


def _best(windows: Sequence[float], *, more: bool) -> float:
    return best_fifth(windows, more=more) if windows else 0.0


def _sum(run: Throughput, parts: Iterable[str]) -> list[float]:
    """The nanoseconds of several parts in each window."""
    return [sum(each) for each in zip(*(run.nanoseconds(part) for part in parts), strict=True)]


def _parts(machine: Machine, version: Version) -> dict[str, Value]:
    """The best fifth of the windows of each measurement in ALONE and PAIR. The runs of an older
    version have no windows, but are as short as one."""
    names = [*ALONE, *(PAIR if len(machine.cpus) > 1 else ())]
    command = [*version.command, "bench", *names, "--json"]
    if len(machine.cpus) > 1:
        command += ["--cpus", ",".join(map(str, machine.cpus))]
    text = _ask([*command, "--runs", "1"])
    if not has_windows(text):
        text = _ask([*command, "--runs", str(RUNS_AS_WINDOWS)])
    return figures_in(text, version.name)


def has_windows(text: str) -> bool:
    """Whether the JSON of `bench --json` tells the windows of each run."""
    return '"windows"' in text


def figures_in(text: str, version: str) -> dict[str, Value]:
    """The figures in the JSON of `bench --json`, of any version.

    Raises EnvironmentLacks when it has another form.
    """
    try:
        return {str(each["what"]): _figure(each) for each in json.loads(text)["figures"]}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise EnvironmentLacks(
            f"bench compare: the benchmark of {version} printed figures in an unknown form: only "
            "versions whose `bench --json` has a list `figures`, each with `what`, `runs`, `unit` "
            "and `more`, can be compared"
        ) from None


def _figure(each: dict[str, Any]) -> Value:
    more = bool(each["more"])
    windows = [float(value) for value in each.get("windows") or each["runs"]]
    best = best_fifth(windows, more=more)
    return Value(best, str(each["unit"]), more, str(each.get("disturbed", "")))


def describe(old: Version, new: Version, ratios: Sequence[Ratio]) -> str:
    """The ratios as a table: medians of both versions, and new by old."""
    rows: list[tuple[str, ...]] = [
        ("", "", "", "", "new", "", ""),
        ("", "old", "new", "unit", "/ old", "lowest", "highest"),
    ]
    for each in ratios:
        rows.append(
            (
                each.what,
                number(statistics.median(each.old)),
                number(statistics.median(each.new)),
                each.unit,
                f"{each.ratio:.3f}",
                f"{min(each.rounds):.3f}",
                f"{max(each.rounds):.3f}",
            )
        )
    below = [
        f"old: {old.name} ({old.command[0]}); new: {new.name}. Medians of the rounds; for Mpps, "
        "above 1.000 is better, for ns below."
    ]
    disturbed = [each for each in ratios if each.disturbed]
    if disturbed:
        below.append(
            f"disturbed: {disturbed[0].disturbed}. Ratios of disturbed runs say little: try again "
            "on a quiet machine."
        )
    return "\n".join([*aligned(rows, left=3), *paragraphs(below)])
