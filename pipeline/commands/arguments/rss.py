"""The arguments of `ringline rss`.

They are not in `rss`: the command line must not import the simulated card.
"""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError

from ringline.pipeline.commands.arguments import values
from ringline.pipeline.configuration.config import QUEUES_MAX


def add_arguments(parser: ArgumentParser) -> None:
    """The options of `ringline rss`."""
    parser.add_argument(
        "capture", nargs="?", metavar="CAPTURE", help="pcap or pcapng file; - is standard input"
    )
    parser.add_argument(
        "--tuple",
        dest="tuples",
        action="append",
        default=[],
        metavar="FLOW",
        help='instead of a capture: "10.0.0.1:1234 > 10.0.0.2:80/tcp" or "10.0.0.1 > 10.0.0.2"',
    )
    parser.add_argument(
        "--queues", type=_queues, default=4, metavar="N", help="queues of the port (default: 4)"
    )
    parser.add_argument(
        "--key",
        type=values.rss_key,
        default="default",
        metavar="KEY",
        help="rss_key of the port: default, symmetric, or 80 hexadecimal digits",
    )
    parser.add_argument(
        "--flows",
        type=values.number,
        default=10,
        metavar="N",
        help="how many of the heaviest flows to show (default: 10)",
    )
    parser.add_argument(
        "--cut",
        action="store_true",
        help="use a capture that is cut short up to the cut, instead of refusing it",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def _queues(text: str) -> int:
    queues = values.queues(text)
    if not 1 <= queues <= QUEUES_MAX:
        raise ArgumentTypeError(f"must be an integer from 1 to {QUEUES_MAX}, not {text!r}")
    return queues
