"""The arguments of `ringline analyze`."""

from __future__ import annotations

import argparse
from typing import Any

from ringline.pipeline.analysis import engines
from ringline.pipeline.analysis.analysis import PIECE_BYTES, STATE_BYTES
from ringline.pipeline.commands.arguments import values
from ringline.pipeline.commands.arguments.values import Takes
from ringline.pipeline.configuration import deadlines
from ringline.pipeline.terminal.interrupts import fatal


def add_command(command: Any) -> None:
    """Add the command."""
    to: Takes = command(
        "analyze", _analyze, "run a plugin over any number of captures, on all cores"
    )
    to.add_argument(
        "plugin",
        metavar="PLUGIN",
        help="package.module:object, ./file.py:object, ./file.so:symbol, or an entry point",
    )
    to.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="a capture, a folder of captures, a pattern such as 'day*.pcap.gz', or @FILE, a list "
        "of them; each may be a URL, such as s3://bucket/day/",
    )
    to.add_argument(
        "--storage-options",
        dest="storage",
        metavar="FILE",
        help='options of fsspec for URLs by scheme, as JSON: {"s3": {"endpoint_url": "https://…"}}',
    )
    to.add_argument(
        "-w",
        "--out",
        dest="out",
        metavar="FOLDER",
        help="write a JSON report and the tables of the plugin into this folder",
    )
    to.add_argument(
        "--format",
        choices=("csv", "jsonl", "parquet"),
        help="of the tables: csv, jsonl (an object in each line) or parquet (default: csv)",
    )
    to.add_argument(
        "--resume",
        action="store_true",
        help="go on from what is finished in the folder: after Ctrl-C, a crash or a full disk, or "
        "when captures were left out. Give the same plugin and options.",
    )
    values.add_options(to)
    to.add_argument(
        "--workers",
        type=values.positive,
        metavar="N",
        help="how many processes run the plugin (default: one for each core)",
    )
    to.add_argument(
        "--engine",
        choices=engines.NAMES,
        default="local",
        help="what runs the plugin: processes of this machine, or the workers of Dask or Ray "
        "(default: local)",
    )
    to.add_argument(
        "--address",
        metavar="ADDRESS",
        help="of the engine that runs already, such as tcp://10.0.0.1:8786 for Dask, 10.0.0.1:6379 "
        "for Ray (default: start it on this machine, and end it)",
    )
    to.add_argument(
        "--patience",
        type=values.seconds,
        metavar="SECONDS",
        help="for how long the engine may be without any worker (default: 60), and its address may "
        "refuse connections at first (default: 3)",
    )
    to.add_argument(
        "--piece",
        type=values.size,
        default=PIECE_BYTES,
        metavar="SIZE",
        help="divide captures that are not compressed into pieces of about this size, such as "
        "64MB (default: 256MiB)",
    )
    to.add_argument(
        "--by",
        choices=("piece", "flow"),
        default="piece",
        help="what the plugin sees at a time: a piece of a capture (the default), or some of the "
        "flows of all captures, each whole and in order of time",
    )
    to.add_argument(
        "--scratch",
        metavar="FOLDER",
        help="put what has no room in memory, and the packets with --by flow, into this folder "
        "meanwhile (default: that of -w, else the system's folder for temporary files)",
    )
    to.add_argument(
        "--cut",
        action="store_true",
        help="use a capture that is cut short up to the cut, instead of leaving it out",
    )
    to.add_argument(
        "--strict",
        action="store_true",
        help="end with the first capture that cannot be used, instead of leaving it out",
    )
    to.add_argument(
        "--silence",
        type=values.seconds,
        default=deadlines.ANALYSIS_SILENCE,
        metavar="SECONDS",
        help="end a task that makes no progress for SECONDS, and do it once more (default: 30)",
    )
    to.add_argument(
        "--state",
        type=values.number,
        default=STATE_BYTES,
        metavar="BYTES",
        help="memory for the plugin's named state and counters, in each process "
        "(default: 67108864)",
    )
    to.add_argument(
        "--checked",
        action="store_true",
        help="with bounds checks in compiled plugins, as in `ringline try`; slower",
    )


def _analyze(given: argparse.Namespace) -> int:
    with fatal():
        from ringline.pipeline.commands.analyze import analyze

    return analyze(given)
