"""The command `ringline bench`: check the arguments, run the measurements, print the result."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import sys
from argparse import Namespace
from collections.abc import Callable
from typing import Any

from ringline.pipeline.bench import compare, machine
from ringline.pipeline.bench.arguments import (
    COMPARE,
    LONGEST_RUN,
    MEASUREMENTS,
    ON_DEMAND,
    RUNS_MAX,
)
from ringline.pipeline.bench.figures import Figure, paragraphs, table
from ringline.pipeline.bench.measurements import (
    analyze,
    growth,
    handoff,
    lane,
    latency,
    load,
    pipeline,
    plugin,
    ports,
    xdp,
)
from ringline.pipeline.bench.running import remove_stale_folders
from ringline.pipeline.terminal.progress import Progress
from ringline.shm.errors import EnvironmentLacks, RinglineError, UsageError
from ringline.shm.owners import SHARED_MEMORY
from ringline.shm.segments import remove_stale

# Each side runs a busy loop: on one CPU the two never run at the same time.
NEEDS_TWO_CPUS = ("handoff", "lane", "plugin", "latency", "load", "xdp")


def measure(arguments: Namespace) -> int:
    """Run the chosen measurements and print the figures; the exit code.

    Raises UsageError for wrong arguments, EnvironmentLacks when this machine has too few
    CPUs.
    """
    measurements: dict[str, Callable[[machine.Machine, int], list[Figure]]] = {
        "handoff": handoff.measure,
        "driver": ports.measure_driver,
        "tx": ports.measure_tx,
        "lane": lane.measure,
        "pipeline": lambda host, runs: pipeline.measure(host, runs, arguments.seconds),
        "plugin": plugin.measure,
        "latency": latency.measure,
        "load": load.measure,
        "growth": growth.measure,
        "xdp": lambda host, runs: xdp.measure(host, runs, arguments.seconds),
        "analyze": lambda host, runs: analyze.measure(host, runs, arguments.seconds),
    }
    _check_numbers(arguments)
    old = _other_version(arguments.what)
    chosen = [] if old else _chosen(arguments)
    _end_in_order()
    _remove_stale()
    cpus = machine.choose_cpus(_parse_cpus(arguments.cpus))
    _require_cpus(cpus, chosen)
    host = machine.measure_machine(cpus)
    if old:
        return _compare(host, old, arguments)
    figures: list[Figure] = []
    with contextlib.closing(Progress("bench")) as progress:
        for done, name in enumerate(chosen):
            progress.label = f"bench {name}"
            progress.show(done, len(chosen))
            figures += measurements[name](host, arguments.runs)
    if arguments.json:
        told = [figure.to_json() for figure in figures]
        print(json.dumps({"machine": host.to_json(), "figures": told}, indent=2))
    else:
        print("\n".join(paragraphs([host.describe()])))
        print(table(figures))
    return 0


def _end_in_order() -> None:
    """Let SIGTERM, from `timeout` or a service manager, run the same cleanup as Ctrl-C; likewise
    SIGHUP, unless `nohup` ignores it, and SIGQUIT."""
    numbers = [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT]
    heard = [one for one in numbers if signal.getsignal(one) is not signal.SIG_IGN]

    def end(number: int, frame: object) -> None:
        for one in heard:
            signal.signal(one, signal.SIG_IGN)  # a second one must not interrupt the cleanup
        sys.exit(128 + number)

    for one in heard:
        signal.signal(one, end)


def _compare(host: machine.Machine, old: compare.Version, arguments: Namespace) -> int:
    """Compare this version with `old` and print the ratios; the exit code."""
    versions = {"old": old, "new": compare.this_version()}
    with contextlib.closing(Progress("bench compare")) as progress:
        done = itertools.count()

        def told(what: str) -> None:
            progress.label = f"bench compare ({what})"
            progress.show(next(done), 4 * arguments.runs)

        ratios = compare.compare(host, versions, arguments.runs, arguments.seconds, told)
    if arguments.json:
        result: dict[str, Any] = {"machine": host.to_json()}
        for which, version in versions.items():
            result[which] = {"version": version.name, "command": list(version.command)}
        print(json.dumps(result | {"ratios": [each.to_json() for each in ratios]}, indent=2))
    else:
        print("\n".join(paragraphs([host.describe()])))
        print(compare.describe(versions["old"], versions["new"], ratios))
    return 0


def _other_version(what: list[str]) -> compare.Version | None:
    """The version in OLD_VENV of `bench compare OLD_VENV`; None for other measurements."""
    if COMPARE not in what:
        return None
    if what[0] != COMPARE or len(what) != 2:
        raise UsageError(
            f"bench: {COMPARE} needs one folder and nothing else, as in "
            f"`ringline bench {COMPARE} ../old/.venv`"
        )
    return compare.version_in(what[1])


def _remove_stale() -> None:
    """Remove the segments and folders of benchmarks that were killed."""
    remove_stale_folders()
    files = [name for name in os.listdir(SHARED_MEMORY) if name.startswith("ringline.bench-")]
    for instance in {name.split(".")[1] for name in files}:
        with contextlib.suppress(RinglineError):  # that benchmark still runs
            remove_stale(instance, lambda address: None)


def _chosen(arguments: Namespace) -> list[str]:
    """The measurements to run, in the order of MEASUREMENTS."""
    unknown = [name for name in arguments.what if name not in MEASUREMENTS]
    if unknown:
        raise UsageError(
            f"bench: unknown measurement {unknown[0]!r}; choose from {', '.join(MEASUREMENTS)}"
        )
    default = [] if arguments.what else [name for name in MEASUREMENTS if name not in ON_DEMAND]
    return [name for name in MEASUREMENTS if name in arguments.what or name in default]


def _check_numbers(arguments: Namespace) -> None:
    if not 1 <= arguments.runs <= RUNS_MAX:
        raise UsageError(f"bench: --runs must be from 1 to {RUNS_MAX}, not {arguments.runs}")
    if not 0 < arguments.seconds <= LONGEST_RUN:
        raise UsageError(
            f"bench: --seconds must be above 0 and at most {LONGEST_RUN}, not {arguments.seconds:g}"
        )


def _parse_cpus(text: str | None) -> list[int] | None:
    if text is None:
        return None
    # No CPU has a number of ten digits, and int() refuses thousands of them.
    numbers = [int(part[:10]) for part in text.split(",") if part.isascii() and part.isdecimal()]
    if len(set(numbers)) != 2 or text.count(",") != 1:
        raise UsageError(f"bench: --cpus must be two CPUs, as in 0,1, not {text!r}")
    return numbers


def _require_cpus(cpus: tuple[int, ...], chosen: list[str]) -> None:
    impossible = [name for name in chosen if name in NEEDS_TWO_CPUS]
    if len(cpus) < 2 and impossible:
        others = ", ".join(name for name in MEASUREMENTS if name not in NEEDS_TWO_CPUS)
        raise EnvironmentLacks(
            f"bench: two CPUs are needed for {', '.join(impossible)}, and only CPU "
            f"{cpus[0]} can be used here; it is enough for {others}"
        )
