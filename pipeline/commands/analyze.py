"""`ringline analyze`: run a plugin over any number of captures, on all cores."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from ringline.pipeline.analysis import analysis, engines, sources, urls
from ringline.pipeline.analysis.output import Folder, report_of
from ringline.pipeline.analysis.result import Result
from ringline.pipeline.commands.try_plugin import checked_options, named_lines, table_lines
from ringline.pipeline.terminal import stdio
from ringline.pipeline.terminal.interrupts import held, like_ctrl_c
from ringline.pipeline.terminal.rate_bar import RateBar
from ringline.shm.errors import PluginError, UsageError
from ringline.shm.text import counted, printable
from ringline.workers.captures.capture_table import CaptureError

INTERRUPTED = 130  # exit code, as of a shell
COLUMNS = 8  # of a table whose first rows are in the summary, at most
REMARKS = 20  # in the summary; the report has all


def analyze(given: argparse.Namespace) -> int:
    """Analyze the captures and print a summary; the exit code.

    It is 2 when a capture could not be used or the plugin failed on a packet; 130 after Ctrl-C, 143
    after SIGTERM, 129 after SIGHUP.
    Raises RinglineError when there is no result.
    """
    if given.out is None and given.format is not None:
        raise UsageError("--format is the format of the tables in a folder: name one with -w")
    if given.out is None and given.resume:
        raise UsageError("--resume goes on from what is in a folder: name it with -w")
    _refuse_capture(given.plugin)
    options = checked_options(given.options)
    sys.path.append(os.getcwd())
    with like_ctrl_c(signal.SIGTERM, signal.SIGHUP) as came:
        try:
            return _analyze(given, options, came)
        except KeyboardInterrupt:
            return 128 + came[0] if came else INTERRUPTED


def _analyze(given: argparse.Namespace, options: dict[str, Any], came: Sequence[int]) -> int:
    """The same; `came` has the signals that interrupted it."""
    with contextlib.ExitStack() as opened:
        folder = None if given.out is None else opened.enter_context(Folder(given.out))
        opened.push(partial(_tell_what_stays, folder))
        engine = opened.enter_context(
            engines.opened(
                given.engine, given.address, workers=given.workers, patience=given.patience
            )
        )
        if dashboard := getattr(engine, "dashboard", ""):
            stdio.complain(f"{given.engine} shows its progress at {printable(dashboard)}")
        shown = opened.enter_context(contextlib.closing(RateBar("analyze")))

        def show(done: int, everything: int, packets: int) -> None:
            if came:  # Python loses an exception that is raised in some callbacks
                raise KeyboardInterrupt
            shown.show(done, everything, packets)

        result = analysis.run(
            given.plugin,
            given.sources,
            options,
            engine,
            workers=given.workers,
            out=None if folder is None else folder.new,
            format=given.format or "csv",
            to_cut=given.cut,
            strict=given.strict,
            debug=given.checked,
            piece_bytes=given.piece,
            state_bytes=given.state,
            silence=given.silence,
            by=given.by,
            scratch=given.scratch,
            with_state=False,
            storage=None if given.storage is None else urls.options_in(given.storage),
            progress=show,
            keep=None if folder is None else folder.finished,
            resume=given.resume,
        )
        shown.close()
        code = _code(result, came)
        with held(signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # or the earlier one is lost
            is_written = folder is not None and folder.write(report_of(result, code))
        for table in result.tables.values():
            name = table["file"] and os.path.basename(table["file"])
            table["file"] = os.path.join(given.out, name) if is_written else None
    lines = _lines(result, given.out, is_written=is_written)
    print("\n".join(printable(line) for line in lines), flush=True)
    for why in result.broken.values():
        stdio.complain(printable(why))
    for path, packet, what in result.complaints:
        of = f"{path}, packet {packet}: " if packet else ""
        stdio.complain(f"{of}{printable(what)}")
    for line in result.trace:
        stdio.complain(printable(line))
    return code


def _tell_what_stays(folder: Folder | None, kind: type[BaseException] | None, *_: object) -> None:
    """Say that an analysis that ended with an error or an interruption has replaced nothing."""
    if kind is None or issubclass(kind, UsageError):
        return
    if folder is not None and folder.has_earlier:
        stdio.complain(f"{printable(folder.path)}: still has the result of an earlier analysis")


def _code(result: Result, came: Sequence[int]) -> int:
    if result.unfinished:
        return 128 + came[0] if came else INTERRUPTED
    if result.broken:
        return CaptureError.exit_code
    return PluginError.exit_code if result.complaints or _failed(result) else 0


def _failed(result: Result) -> int:
    return sum(result.counters.get(f"{what}_errors", 0) for what in ("plugin", "verdict", "tick"))


def _lines(result: Result, out: str | None, *, is_written: bool) -> Iterator[str]:
    """The summary."""
    count = result.counters
    tier = f" ({result.tier})" if result.tier else ""
    yield (
        f"{result.plugin}{tier} on {counted(len(result.captures), 'capture')}: "
        f"{counted(count.get('packets', 0), 'packet')}, {result.wire_bytes:,} bytes on the wire, "
        f"in {result.seconds:.1f} s"
    )
    if result.first is not None and result.last is not None:
        length = f"{(result.last - result.first) / 1e9:,.3f} s"
        yield f"  time in the captures: {length}, {_utc(result.first)} to {_utc(result.last)}"
    if count:
        drops = [f"{name} {number:,}" for name, number in result.drops.items() if number]
        reasons = f" ({', '.join(drops)})" if drops else ""
        yield f"  forwarded {count['forwarded']:,}, dropped {count['dropped']:,}{reasons}"
    if failed := _failed(result):
        yield f"  failed {failed:,}"
    for name, value in result.named.items():
        yield from named_lines(name, value, result.headings.get(name))
    for name, table in result.tables.items():
        is_wide = len(table["columns"]) > COLUMNS
        where = f", all in {table['file']}" if table["file"] else ""
        if is_wide and out is None:
            where = "; -w FOLDER writes them"
        yield f"  {name}: {counted(table['rows'], 'row')}{where}"
        if not is_wide:
            yield from table_lines(table["columns"], table["first"], table["rows"])
    if is_written and out is not None:
        yield f"  report: {os.path.join(out, 'report.json')}"
    elif out is not None:
        yield f"  not written: {out} still has the result of an earlier analysis"
    if result.taken:
        taken = counted(result.taken, "capture or piece", "captures and pieces")
        yield f"  finished by an earlier analysis: {taken}"
    if result.unfinished:
        how = "nothing is finished that --resume could go on from"
        if result.can_go_on:
            how = "--resume goes on from here"
        how = f"; {how}" if out is not None else ""
        yield f"  interrupted: {counted(len(result.unfinished), 'capture')} not finished{how}"
    if result.broken:
        yield f"  left out: {counted(len(result.broken), 'capture')}, see below"
    for remark in result.remarks[:REMARKS]:
        yield f"  remark: {remark}"
    if len(result.remarks) > REMARKS:
        yield f"  and {counted(len(result.remarks) - REMARKS, 'remark')} more, see the report"


def _refuse_capture(plugin: str) -> None:
    """Raise UsageError when a capture stands where the plugin should."""
    is_folder = os.sep in plugin and os.path.isdir(plugin)
    if ":" in plugin or not (is_folder or sources.looks_like_capture(plugin)):
        return
    what = "a folder" if is_folder else "a capture"
    raise UsageError(
        f"{printable(plugin)}: is {what}; name the plugin first, as in "
        f"`ringline analyze flow_stats {printable(plugin)}`"
    )


def _utc(nanoseconds: int) -> str:
    """A time since 1970, as in 2026-01-31T12:00:00Z."""
    moment = datetime(1970, 1, 1) + timedelta(seconds=nanoseconds // 10**9)
    return f"{moment.isoformat()}Z"
