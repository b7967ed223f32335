"""`ringline try`: run a plugin on a capture file and print a summary."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ringline.pipeline.configuration.machine_checks import same, why_kept
from ringline.pipeline.configuration.toml import Table
from ringline.pipeline.terminal.progress import Progress
from ringline.shm.errors import PluginError, UsageError
from ringline.workers.trials import trial

BLANKS = 64  # blank buffers for packets that the plugin creates, per batch
TABLE_ROWS = 10  # of each table in the summary


def attempt(
    plugin: str,
    capture: str,
    out: str | None,
    given: Sequence[tuple[str, Any]],
    ports: Sequence[str],
) -> int:
    """Run `plugin` on `capture` and print the summary; the exit code.

    `given` are the options of the plugin as (key, value). The exit code is 2 when the
    plugin failed on a packet. Raises RinglineError when the plugin cannot run.
    """
    options = _checked(given)
    if out is not None:
        if same(Path(out), Path(capture)):
            raise UsageError(f"{out} is the capture that is read; write to another file")
        if why := why_kept(Path(out)):
            raise UsageError(f"{out} {why}")
    sys.path.append(os.getcwd())
    with contextlib.closing(Progress(os.path.basename(capture))) as progress:
        done = trial.run(
            plugin, capture, out, options, ports, blanks=BLANKS, progress=progress.show
        )
    print(summary(plugin, capture, done, out), flush=True)
    for frame, complaint in done.complaints:
        of = f"frame {frame}: " if frame else ""
        print(f"ringline: {of}{complaint}", file=sys.stderr)
    for line in done.trace:
        print(f"ringline: {line}", file=sys.stderr)
    failed = _failures(done)
    return PluginError.exit_code if failed else 0


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


def summary(plugin: str, capture: str, done: trial.Summary, out: str | None) -> str:
    """The summary of a trial, in several lines."""
    count = done.counters
    lines = [
        f"{plugin} ({done.tier}) on {capture}: {count['packets']:,} packets, "
        f"{count['bytes']:,} bytes"
    ]
    each = done.nanoseconds_per_packet
    if each is not None:
        lines.append(f"  time in the plugin: {each:.1f} ns a packet")
    written = f", written to {out}" if out else ""
    lines.append(f"  forwarded {count['forwarded']:,}{written}, dropped {count['dropped']:,}")
    if count["created"]:
        lines.append(f"  created {count['created']:,}")
    if len(done.per_port) > 1:
        sent = ", ".join(f"{name} {number:,}" for name, number in done.per_port.items())
        lines.append(f"  sent by port: {sent}")
    if failed := _failures(done):
        tick = f", tick raised {count['tick_errors']:,}" if count["tick_errors"] else ""
        lines.append(
            f"  failed {failed:,}: raised {count['plugin_errors']:,}, "
            f"verdict out of range {count['verdict_errors']:,}{tick}"
        )
    if done.too_long:
        lines.append(f"  left out {done.too_long:,} frames that no card would receive: too long")
    for name, value in done.named.items():
        lines += _named(name, value)
    lines += [f"  remark: {remark}" for remark in done.remarks]
    return "\n".join(lines)


def _named(name: str, value: Any) -> list[str]:
    """A counter or histogram as one line; a table as its first rows."""
    if not isinstance(value, list | tuple):
        return [f"  {name}: {value}"]
    if len(value) == 2 and isinstance(value[0], int):
        return [f"  {name}: sum {value[0]}; {_buckets(value[1])}"]
    lines = [f"  {name}:"]
    lines += [f"    {_row(row)}" for row in value[:TABLE_ROWS]]
    if len(value) > TABLE_ROWS:
        lines.append(f"    and {len(value) - TABLE_ROWS} more")
    return lines


def _buckets(buckets: Sequence[int]) -> str:
    """The buckets that are not empty, with their upper bounds: powers of two."""
    bounds = [f"below {2**bucket}" for bucket in range(len(buckets) - 1)]
    bounds.append(f"{2 ** (len(buckets) - 2)} and more")
    texts = [f"{bound}: {n}" for bound, n in zip(bounds, buckets, strict=True) if n]
    return ", ".join(texts) or "no values"


def _row(row: Any) -> str:
    if isinstance(row, list | tuple):
        return "  ".join(_row(cell) for cell in row)
    return str(row)
