"""`ringline try`: run a plugin on capture files and print a summary.

The frames reach the plugin as in a run: the device model and the driver's receive burst of a
simulated card deliver them (`CaptureCard`), the worker's loop runs the plugin, and the driver's
check decides which frames can be sent
(tests/e2e/test_try_is_the_card.py: test_try_writes_what_a_run_records).
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fcntl import F_GETFL, fcntl
from pathlib import Path
from typing import Any

from ringline.pipeline.configuration import forms
from ringline.pipeline.configuration.config import PortConfig, WorkerConfig
from ringline.pipeline.configuration.machine_checks import same, why_kept
from ringline.pipeline.configuration.needs import usual_blanks
from ringline.pipeline.configuration.toml import Table
from ringline.pipeline.ports.sim82599.capture_card import CaptureCard, CaptureCards
from ringline.pipeline.terminal import stdio
from ringline.pipeline.terminal.progress import Progress
from ringline.shm.errors import PluginError, UsageError, reason_of
from ringline.shm.frames import frame_max
from ringline.shm.refusals import words
from ringline.shm.text import counted, printable
from ringline.workers.captures.captures import CaptureReader, Tally, descriptor_named
from ringline.workers.trials import trial

BLANKS = 64  # blank buffers for packets that the plugin creates, per batch
TABLE_ROWS = 10  # of each table in the summary
_PAIR = re.compile(r"([A-Za-z][A-Za-z0-9_-]*)=(.+)", re.DOTALL)  # PORT=CAPTURE


@dataclass(frozen=True)
class Attempt:
    """What `ringline try` was asked for.

    captures: a capture, whose frames arrive at the first port; or several, each as PORT=CAPTURE.
    out: a capture file for the packets that the plugin sends; None: none.
    options: the options of the plugin as (key, value).
    ports: the names of the ports; None: those of `captures`, or one with the name "port".
    rss_key, vlan_strip, mtu: settings of the ports that have a capture.
    to_cut: a capture that is cut short is used up to the cut.
    blanks, state_bytes: settings of the worker.
    checked: an index out of range raises IndexError in compiled plugins.
    """

    plugin: str
    captures: Sequence[str]
    out: str | None = None
    options: Sequence[tuple[str, Any]] = ()
    ports: Sequence[str] | None = None
    rss_key: str = PortConfig.rss_key
    vlan_strip: bool = PortConfig.vlan_strip
    mtu: int = PortConfig.mtu
    blanks: int = BLANKS
    state_bytes: int = WorkerConfig.state_bytes
    checked: bool = True
    to_cut: bool = False


def attempt(asked: Attempt) -> int:
    """Run a plugin on captures and print the summary; the exit code.

    The exit code is 2 when the plugin failed on a packet. Raises RinglineError when the plugin
    cannot run, or a capture cannot be read to its end.
    """
    options = checked_options(asked.options)
    ports, captures = captures_of(asked.captures, asked.ports)
    out_descriptor = None if asked.out is None else _output(asked.out, captures.values())
    if asked.out == "-":
        asked = replace(asked, out="standard output")
    to_stdout = out_descriptor is not None and os.path.sameopenfile(out_descriptor, 1)
    with contextlib.ExitStack() as opened:
        if out_descriptor is not None:
            opened.callback(os.close, out_descriptor)
        cards = [
            CaptureCard(
                opened.enter_context(_open(asked, path)),
                PortConfig(
                    name,
                    "sim:82599",
                    rss_key=asked.rss_key,
                    vlan_strip=asked.vlan_strip,
                    mtu=asked.mtu,
                ),
                ports.index(name),
            )
            for name, path in captures.items()
        ]
        names = [os.path.basename(card.reader.tally.path) for card in cards]
        sys.path.append(os.getcwd())
        with contextlib.closing(Progress(printable(" ".join(names)))) as progress:
            done = trial.run(
                asked.plugin,
                cards[0] if len(cards) == 1 else CaptureCards(cards),
                asked.out,
                options,
                ports,
                out_descriptor=out_descriptor,
                blanks=asked.blanks,
                mtu=asked.mtu,
                state_bytes=asked.state_bytes,
                debug=asked.checked,
                progress=progress.show,
            )
    told = [remark for card in cards for remark in card.reader.tally.remarks()]
    print(
        summary(asked, ports, cards, done, [*told, *_remarks(asked, done, len(ports))]),
        file=sys.stderr if to_stdout else sys.stdout,
        flush=True,
    )
    for frame, complaint in done.complaints:
        of = f"frame {frame}: " if frame else ""
        stdio.complain(f"{of}{printable(complaint)}")
    for line in done.trace:
        stdio.complain(printable(line))
    return PluginError.exit_code if done.complaints else 0


def captures_of(
    given: Sequence[str], ports: Sequence[str] | None
) -> tuple[list[str], dict[str, str]]:
    """The names of all ports, and the capture of each port that has one. Raises UsageError.

    A single argument is a path, unless it begins with the name of a port and there is no such file.
    """
    pairs = [_PAIR.fullmatch(text) for text in given]
    if len(given) == 1 and (pairs[0] is None or os.path.exists(given[0])):
        names = list(ports or ["port"])
        return names, {names[0]: given[0]}
    captures: dict[str, str] = {}
    for text, pair in zip(given, pairs, strict=True):
        if pair is None:
            raise UsageError(
                f"{text} has no port: with several captures name the port of each, as in "
                f"wan=a.pcap lan=b.pcap"
            )
        name, path = pair.groups()
        if ports is not None and name not in ports:
            raise UsageError(f"{text}: --ports names no port {name}; add it there")
        if name in captures:
            raise UsageError(
                f"port {name} has two captures; merge them first: "
                f"mergecap -w NEW {captures[name]} {path}"
            )
        captures[name] = path
    inputs: set[int] = set()
    for path in captures.values():
        number = descriptor_named(path, 0)
        if number in inputs:
            source = path if number else "standard input"
            raise UsageError(f"only one capture can come from {source}")
        inputs |= set() if number is None else {number}
    return list(ports or captures), captures


def _open(asked: Attempt, path: str) -> CaptureReader:
    name = "standard input" if path == "-" else path
    tally = Tally(name, to_cut=asked.to_cut)
    return CaptureReader(tally, descriptor=descriptor_named(path, 0), any_link=True)


def _output(out: str, captures: Iterable[str]) -> int | None:
    """A copy of the descriptor that `out` names, None when it is a path. Raises UsageError when
    it must not be written to."""
    number = descriptor_named(out, 1)
    if not out:
        raise UsageError("-w needs the path of a file, not an empty one")
    if number is None:
        if any(same(Path(out), Path(capture)) for capture in captures):
            raise UsageError(f"{out} is the capture that is read; write to another file")
        if why := why_kept(Path(out)):
            raise UsageError(f"{out} {why}")
        return None
    if number in stdio.closed:
        raise UsageError(f"{out} cannot be written: it is closed")
    if os.isatty(number):
        raise UsageError(f"{out} is a terminal, which cannot show a capture; write to a file")
    try:
        if fcntl(number, F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise UsageError(f"{out} cannot be written: it is open for reading only")
        if any(_is_open_at(number, capture) for capture in captures):
            raise UsageError(f"{out} is the capture that is read; write to another file")
        return os.dup(number)
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {reason_of(error)}") from None


def _is_open_at(number: int, capture: str) -> bool:
    """Whether the descriptor `number` is the regular file that `capture` names."""
    try:
        read = descriptor_named(capture, 0)
        found = os.stat(capture if read is None else read)
    except (OSError, ValueError):  # to read it will tell why
        return False
    return stat.S_ISREG(found.st_mode) and os.path.samestat(found, os.fstat(number))


def _remarks(asked: Attempt, done: trial.Summary, ports: int) -> list[str]:
    """Sentences about what a run does differently with the default settings."""
    remarks = list(done.remarks)
    if done.created and asked.blanks:
        remarks.append(
            f"the plugin created packets in {counted(asked.blanks, 'blank')} for each batch; a run "
            "gives it as many as the key blanks of [worker] says, by default "
            f"{usual_blanks(asked.plugin, ports)}"
        )
    return remarks


def checked_options(given: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """The options as a table. Raises UsageError as a configuration file would."""
    problems = forms.given_twice(given)
    options = Table({"-o": dict(given)}, "", problems).json_table("-o")
    if problems:
        raise UsageError("\n".join(problems))
    return options


def _failures(done: trial.Summary) -> int:
    return sum(done.counters[f"{what}_errors"] for what in ("plugin", "verdict", "tick"))


def summary(
    asked: Attempt,
    ports: Sequence[str],
    cards: Sequence[CaptureCard],
    done: trial.Summary,
    remarks: Sequence[str],
) -> str:
    """The summary of a trial, in several lines, without characters that a terminal obeys."""
    return "\n".join(printable(line) for line in _lines(asked, ports, cards, done, remarks))


def _lines(
    asked: Attempt,
    ports: Sequence[str],
    cards: Sequence[CaptureCard],
    done: trial.Summary,
    remarks: Sequence[str],
) -> Iterator[str]:
    count = done.counters
    paths = [card.reader.tally.path for card in cards]
    yield (
        f"{asked.plugin} ({done.tier}) on {' and '.join(paths)}: "
        f"{counted(count['packets'], 'packet')}, {count['bytes']:,} bytes"
    )
    if len(cards) > 1:
        received = ", ".join(f"{ports[card.port]} {card.received:,}" for card in cards)
        yield f"  received by port: {received}"
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
        yield f"  refused {number:,}, {cause}: {words(cause, frame_max(asked.mtu))}"
    if done.too_long:
        yield f"  left out {done.too_long:,} frames that no card would receive: too long"
    for name, value in done.named.items():
        yield from named_lines(name, value, done.headings.get(name))
    for remark in remarks:
        yield f"  remark: {remark}"


def _reasons(done: trial.Summary) -> str:
    """How many of the dropped packets have which of the plugin's drop reasons, in brackets."""
    told = [f"{name} {number:,}" for name, number in done.drops.items() if number]
    return f" ({', '.join(told)})" if told else ""


def named_lines(name: str, value: Any, headings: Sequence[str] | None) -> list[str]:
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
    return table_lines(headings, [(label, *values) for label, values in rows], len(rows))


def table_lines(
    headings: Sequence[str], rows: Sequence[Sequence[Any]], count: int
) -> Iterator[str]:
    """The headings and up to TABLE_ROWS of `count` rows: texts to the left, numbers to the
    right."""
    texts = [[_cell(value) for value in row] for row in rows[:TABLE_ROWS]]
    lines = [list(headings), *texts]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    first = rows[0] if rows else ()
    left = [not number or isinstance(value, str) for number, value in enumerate(first)]
    for line in lines:
        cells = [
            cell.ljust(width) if to_left else cell.rjust(width)
            for cell, width, to_left in zip(line, widths, left or [True] * len(line), strict=True)
        ]
        yield f"    {'  '.join(cells)}".rstrip()
    if count > TABLE_ROWS:
        yield f"    and {count - TABLE_ROWS:,} more"


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return printable(value) if isinstance(value, str) else f"{value:,}"


def _buckets(buckets: Sequence[int]) -> str:
    """The buckets that are not empty, with their upper bounds: powers of two."""
    bounds = [f"below {2**bucket}" for bucket in range(len(buckets) - 1)]
    bounds.append(f"{2 ** (len(buckets) - 2)} and more")
    texts = [f"{bound}: {n:,}" for bound, n in zip(bounds, buckets, strict=True) if n]
    return ", ".join(texts) or "no values"
