"""The arguments of `ringline lab`."""

from __future__ import annotations

from argparse import ArgumentParser

from ringline.pipeline.commands.arguments import target, values

NAMES = ("here", "peer")  # of the ports, unless the arguments name them


def add_arguments(parser: ArgumentParser) -> None:
    """Add them to the parser of the command."""
    parser.add_argument(
        "plugin",
        nargs="?",
        metavar="PLUGIN",
        help="package.module:object, ./file.py:object, ./file.so:symbol, or the name of an "
        "installed one; default: forward",
    )
    parser.add_argument(
        "--exec",
        dest="command",
        metavar="CMD",
        help="run this command of the shell on the first host, and end with its exit code; "
        "RINGLINE_HERE and RINGLINE_PEER are the addresses",
    )
    parser.add_argument(
        "--for",
        dest="seconds",
        type=values.seconds,
        metavar="SECONDS",
        help="stop after SECONDS; with --exec: end the command then, with exit code 124",
    )
    wire = parser.add_argument_group(
        "the wire", "What happens to packets in each direction, by netem of the kernel."
    )
    wire.add_argument("--loss", type=values.share, metavar="PERCENT", help="lose this share")
    wire.add_argument(
        "--delay", type=values.duration, metavar="TIME", help="delay by this time, such as 10ms"
    )
    wire.add_argument(
        "--rate", type=values.rate, metavar="RATE", help="bits a second, such as 100mbit"
    )
    run = parser.add_argument_group("the run")
    target.add_plugin_arguments(run, "1", "lab- and the number of the process")
    run.add_argument(
        "--ports",
        type=values.names,
        metavar="NAME,NAME",
        help=f"names of the ports at the first host and the other one (default: {','.join(NAMES)})",
    )
    run.add_argument("--report", metavar="FILE", help="write a JSON report to FILE at the end")
    run.add_argument(
        "--strict",
        action="store_true",
        help="end with exit code 6 after errors, restarts or lost packets",
    )
