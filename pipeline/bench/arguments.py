"""The arguments of `ringline bench`.

They are not in `command`: the command line must not import the measurements.
"""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError

MEASUREMENTS = (
    "handoff",
    "driver",
    "tx",
    "lane",
    "pipeline",
    "plugin",
    "latency",
    "load",
    "growth",
    "xdp",
    "analyze",
)
# Measured only when they are named: the first needs root, the second other programs.
ON_DEMAND = ("xdp", "analyze")
RUNS = 3
RUNS_MAX = 1000
SECONDS = 2.5
LONGEST_RUN = 3600
COMPARE = "compare"


def add_arguments(parser: ArgumentParser) -> None:
    """The options of `ringline bench`."""
    parser.add_argument(
        "what",
        nargs="*",
        metavar="WHAT",
        help=f"what to measure: {', '.join(MEASUREMENTS)}; default: all but "
        f"{', '.join(ON_DEMAND)}. Or `{COMPARE} OLD_VENV`: alternate with another installed "
        "version, in the virtual environment OLD_VENV, and print the ratios",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--runs",
        type=_integer,
        default=RUNS,
        metavar="N",
        help=f"runs per measurement; the median counts (default {RUNS})",
    )
    parser.add_argument(
        "--seconds",
        type=_number,
        default=SECONDS,
        metavar="S",
        help=f"seconds of each run of `pipeline`, `xdp` and `compare`, and for about how long "
        f"a program of `analyze` has packets (default {SECONDS:g})",
    )
    parser.add_argument(
        "--cpus", metavar="A,B", help="the two CPUs to measure on (default: the last two usable)"
    )


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ArgumentTypeError(f"must be an integer, not {text!r}") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ArgumentTypeError(f"must be a number, not {text!r}") from None
