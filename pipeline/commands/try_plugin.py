"""`ringline try`: run a plugin on a capture file and print a summary.

The frames reach the plugin as in a run: the device model and the driver's receive burst of a
simulated card deliver them (`CaptureCard`), the worker's loop runs the plugin, and the driver's
check decides which frames can be sent
(tests/e2e/test_try_is_the_card.py: test_try_writes_what_a_run_records).
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ringline.pipeline.configuration.config import PortConfig, WorkerConfig
from ringline.pipeline.configuration.machine_checks import same, why_kept
from ringline.pipeline.configuration.toml import Table
from ringline.pipeline.ports.sim82599.capture_card import CaptureCard
from ringline.pipeline.terminal import stdio
from ringline.pipeline.terminal.progress import Progress
from ringline.shm.errors import PluginError, UsageError, reason_of
from ringline.shm.refusals import WORDS
from ringline.shm.text import printable
from ringline.workers.captures.captures import descriptor_named, read_capture
from ringline.workers.trials import trial

BLANKS = 64  # blank buffers for packets that the plugin creates, per batch
TABLE_ROWS = 10  # of each table in the summary


@dataclass(frozen=True)
class Attempt:
    """What `ringline try` was asked for.

    out: a capture file for the packets that the plugin sends; None: none.
    options: the options of the plugin as (key, value).
    ports: the names of the ports; all frames arrive at the first one.
    rss_key, vlan_strip: settings of this port.
    blanks, state_bytes: settings of the worker.
    checked: an index out of range raises IndexError in compiled plugins.
    """

    plugin: str
    capture: str
    out: str | None = None
    options: Sequence[tuple[str, Any]] = ()
    ports: Sequence[str] = ("port",)
    rss_key: str = PortConfig.rss_key
    vlan_strip: bool = PortConfig.vlan_strip
    blanks: int = BLANKS
    state_bytes: int = WorkerConfig.state_bytes
    checked: bool = True


def attempt(asked: Attempt) -> int:
    """Run a plugin on a capture and print the summary; the exit code.

    The exit code is 2 when the plugin failed on a packet. Raises RinglineError when the plugin
    cannot run.
    """
    options = _checked(asked.options)
    out_descriptor = None if asked.out is None else _output(asked.out, asked.capture)
    if asked.out == "-":
        asked = replace(asked, out="standard output")
    to_stdout = out_descriptor is not None and os.path.sameopenfile(out_descriptor, 1)
    try:
        descriptor = descriptor_named(asked.capture, 0)
        name = "standard input" if asked.capture == "-" else asked.capture
        capture = read_capture(name, descriptor=descriptor)
        port = PortConfig(
            asked.ports[0], "sim:82599", rss_key=asked.rss_key, vlan_strip=asked.vlan_strip
        )
        sys.path.append(os.getcwd())
        with contextlib.closing(Progress(printable(os.path.basename(name)))) as progress:
            done = trial.run(
                asked.plugin,
                CaptureCard(capture, port),
                asked.out,
                options,
                asked.ports,
                out_descriptor=out_descriptor,
                blanks=asked.blanks,
                state_bytes=asked.state_bytes,
                debug=asked.checked,
                progress=progress.show,
            )
    finally:
        if out_descriptor is not None:
            os.close(out_descriptor)
    remarks = [*capture.remarks(), *_remarks(asked, done)]
    print(
        summary(asked, name, done, remarks),
        file=sys.stderr if to_stdout else sys.stdout,
        flush=True,
    )
    for frame, complaint in done.complaints:
        of = f"frame {frame}: " if frame else ""
        stdio.complain(f"{of}{printable(complaint)}")
    for line in done.trace:
        stdio.complain(printable(line))
    return PluginError.exit_code if done.complaints else 0


def _output(out: str, capture: str) -> int | None:
    """A copy of the descriptor that `out` names, None when it is a path. Raises UsageError when
    it must not be written to."""
    number = descriptor_named(out, 1)
    if number is None:
        if same(Path(out), Path(capture)):
            raise UsageError(f"{out} is the capture that is read; write to another file")
        if why := why_kept(Path(out)):
            raise UsageError(f"{out} {why}")
        return None
    if os.isatty(number):
        raise UsageError(f"{out} is a terminal, which cannot show a capture; write to a file")
    try:
        return os.dup(number)
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {reason_of(error)}") from None


def _remarks(asked: Attempt, done: trial.Summary) -> list[str]:
    """Sentences about what a run does differently with the default settings."""
    remarks = list(done.remarks)
    if done.created and asked.blanks:
        remarks.append(
            f"the plugin created packets in {asked.blanks} blanks for each batch; a run gives "
            f"it as many as the key blanks of [worker] says, by default {WorkerConfig.blanks}"
        )
    return remarks


def _checked(given: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """The options as a table. Raises UsageError as a configuration file would."""
    problems: list[str] = []
    options = Table({"-o": dict(given)}, "", problems).json_table("-o")
    if problems:
        raise UsageError("\n".join(problems))
    if len(options) != len(given):
        raise UsageError("an option is given twice with -o")
    return options


def _failures(done: trial.Summary) -> int:
    return sum(done.counters[f"{what}_errors"] for what in ("plugin", "verdict", "tick"))


def summary(asked: Attempt, capture: str, done: trial.Summary, remarks: Sequence[str]) -> str:
    """The summary of a trial, in several lines, without characters that a terminal obeys."""
    return "\n".join(printable(line) for line in _lines(asked, capture, done, remarks))


def _lines(
    asked: Attempt, capture: str, done: trial.Summary, remarks: Sequence[str]
) -> Iterator[str]:
    count = done.counters
    yield (
        f"{asked.plugin} ({done.tier}) on {capture}: {count['packets']:,} packets, "
        f"{count['bytes']:,} bytes"
    )
    each = done.nanoseconds_per_packet
    if each is not None:
        checks = ", bounds checks included" if asked.checked and done.tier == "compiled" else ""
        yield f"  time in the plugin: {each:.1f} ns a packet{checks}"
    written = f", written to {asked.out}" if asked.out else ""
    yield f"  forwarded {done.forwarded:,}{written}, dropped {count['dropped']:,}{_reasons(done)}"
    if count["created"]:
        yield f"  created {done.created:,}"
    if len(done.per_port) > 1:
        sent = ", ".join(f"{name} {number:,}" for name, number in done.per_port.items())
        yield f"  sent by port: {sent}"
    if failed := _failures(done):
        tick = f", tick raised {count['tick_errors']:,}" if count["tick_errors"] else ""
        yield (
            f"  failed {failed:,}: raised {count['plugin_errors']:,}, "
            f"verdict out of range {count['verdict_errors']:,}{tick}"
        )
    for cause, number in done.refused.items():
        yield f"  refused {number:,}, {cause}: {WORDS[cause]}"
    if done.too_long:
        yield f"  left out {done.too_long:,} frames that no card would receive: too long"
    for name, value in done.named.items():
        yield from _named(name, value, done.headings.get(name))
    for remark in remarks:
        yield f"  remark: {remark}"


def _reasons(done: trial.Summary) -> str:
    """How many of the dropped packets have which of the plugin's drop reasons, in brackets."""
    told = [f"{name} {number:,}" for name, number in done.drops.items() if number]
    return f" ({', '.join(told)})" if told else ""


def _named(name: str, value: Any, headings: Sequence[str] | None) -> list[str]:
    """A counter or histogram as one line; a table as its headings and its first rows."""
    if headings is not None:
        return [f"  {name}:", *_table(headings, value or [])]
    if isinstance(value, dict):
        counted = [f"{of} {number:,}" for of, number in value.items()]
        return [f"  {name}: {', '.join(counted)}"]
    if not isinstance(value, list | tuple):
        return [f"  {name}: {value:,}"]
    return [f"  {name}: sum {value[0]:,}; {_buckets(value[1])}"]


def _table(headings: Sequence[str], rows: Sequence[Any]) -> Iterator[str]:
    """The headings and up to TABLE_ROWS rows (label, values): labels to the left, numbers to the
    right."""
    lines = [list(headings)]
    lines += [
        [printable(label), *(f"{n:,}" for n in values)] for label, values in rows[:TABLE_ROWS]
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for label, *numbers in lines:
        cells = [cell.rjust(width) for cell, width in zip(numbers, widths[1:], strict=True)]
        yield "    " + "  ".join([label.ljust(widths[0]), *cells])
    if len(rows) > TABLE_ROWS:
        yield f"    and {len(rows) - TABLE_ROWS:,} more"


def _buckets(buckets: Sequence[int]) -> str:
    """The buckets that are not empty, with their upper bounds: powers of two."""
    bounds = [f"below {2**bucket}" for bucket in range(len(buckets) - 1)]
    bounds.append(f"{2 ** (len(buckets) - 2)} and more")
    texts = [f"{bound}: {n:,}" for bound, n in zip(bounds, buckets, strict=True) if n]
    return ", ".join(texts) or "no values"
