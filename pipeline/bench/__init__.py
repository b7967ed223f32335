"""The benchmark: our parts beside what the machine can do at best, in the same minute."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable

WHAT = ("handoff", "driver", "tx", "pipeline", "plugin", "latency")
ON_TWO = ("handoff", "plugin", "latency")  # two busy loops: on one processor they never meet
RUNS = 5


def add_arguments(parser: ArgumentParser) -> None:
    """The options of `ringline bench`."""
    parser.add_argument(
        "what", nargs="*", metavar="WHAT", help=f"one or more of {', '.join(WHAT)}; default: all"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--runs", type=int, default=RUNS, metavar="N", help=f"quiet runs of each (default {RUNS})"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=10.0,
        metavar="S",
        help="length of each run of `pipeline` (default 10)",
    )
    parser.add_argument(
        "--cpus", metavar="A,B", help="the two processors to measure on (default: the last two)"
    )


def main(arguments: Namespace) -> int:
    """Measure what is asked for and print it. Raises RinglineError for a user's mistake."""
    from ringline.pipeline.bench import handoff, latency, machine, pipeline, plugin, ports
    from ringline.pipeline.bench.figures import Figure, table

    measures: dict[str, Callable[[machine.Machine, int], list[Figure]]] = {
        "handoff": handoff.measure,
        "driver": ports.measure_driver,
        "tx": ports.measure_tx,
        "pipeline": lambda at, runs: pipeline.measure(at, runs, arguments.seconds),
        "plugin": plugin.measure,
        "latency": latency.measure,
    }
    wanted = _wanted(arguments)
    # `timeout` and service managers end a command so: leave in order, as at a Ctrl-C.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    _remove_stale()
    cpus = machine.choose_cpus(_cpus(arguments.cpus))
    _enough(cpus, wanted)
    at = machine.look(cpus)
    started = time.monotonic()
    figures: list[Figure] = []
    try:
        for number, what in enumerate(wanted, 1):
            begun = time.monotonic() - started
            _progress(f"[{number}/{len(wanted)}] {what} … since second {begun:.0f}")
            figures += measures[what](at, arguments.runs)
    finally:
        _progress("")
    if arguments.json:
        result = {
            "machine": {
                "cpus": at.cpus,
                "arithmetic_ns": at.arithmetic,
                "round_trip_ns": at.round_trip,
                "strays": at.strays,
            },
            "figures": [figure.to_json() for figure in figures],
        }
        print(json.dumps(result, indent=2))
    else:
        print(at.describe())
        print(table(figures))
    return 0


def _remove_stale() -> None:
    """Remove the segments of benchmarks that were killed."""
    from ringline.shm.errors import RinglineError
    from ringline.shm.owners import SHARED_MEMORY
    from ringline.shm.segments import remove_stale

    files = [name for name in os.listdir(SHARED_MEMORY) if name.startswith("ringline.bench-")]
    for instance in {name.split(".")[1] for name in files}:
        with contextlib.suppress(RinglineError):  # that one runs
            remove_stale(instance, lambda address: None)


def _wanted(arguments: Namespace) -> list[str]:
    from ringline.shm.errors import UsageError

    unknown = [what for what in arguments.what if what not in WHAT]
    if unknown:
        raise UsageError(f"bench: there is no {unknown[0]!r}; one or more of {', '.join(WHAT)}")
    if arguments.runs < 1:
        raise UsageError(f"bench: --runs must be at least 1, not {arguments.runs}")
    if not arguments.seconds > 0:
        raise UsageError(f"bench: --seconds must be above 0, not {arguments.seconds:g}")
    return [what for what in WHAT if what in arguments.what or not arguments.what]


def _cpus(text: str | None) -> list[int] | None:
    from ringline.shm.errors import UsageError

    if text is None:
        return None
    numbers = [int(part) for part in text.split(",") if part.isdecimal()]
    if len(set(numbers)) != 2 or text.count(",") != 1:
        raise UsageError(f"bench: --cpus wants two processors, as in 0,1, not {text!r}")
    return numbers


def _enough(cpus: tuple[int, ...], wanted: list[str]) -> None:
    from ringline.shm.errors import EnvironmentLacks

    lacking = [what for what in wanted if what in ON_TWO]
    if len(cpus) < 2 and lacking:
        others = ", ".join(what for what in WHAT if what not in ON_TWO)
        raise EnvironmentLacks(
            f"bench: two processors are needed for {', '.join(lacking)}, and only processor "
            f"{cpus[0]} can be used here; it is enough for {others}"
        )


def _progress(text: str) -> None:
    """One line that is written over, where somebody looks on."""
    if sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        sys.stderr.write(f"\r\033[K{text}")
        sys.stderr.flush()
