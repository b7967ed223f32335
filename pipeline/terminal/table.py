"""The content of the live table, the log line and the summary, as text.

All functions are pure. Rates are differences between two snapshots: Mpps are 10^6
packets per second, Gbit/s are 10^9 bits per second of frames without CRC. `display`
draws the table.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ringline.pipeline.telemetry.flaws import ALL_WELL, GIVEN_UP, flaws
from ringline.pipeline.telemetry.report import latency_quantile
from ringline.pipeline.telemetry.snapshot import PortSnapshot, Snapshot, WorkerSnapshot
from ringline.shm.errors import RinglineError
from ringline.shm.text import counted

NOTHING = "-"
RUNNING, ENDED = "running", "ended"
SHORT_STATES = {"waiting to restart": "waiting"}  # a row must fit into 80 columns
COLUMN_GAP = 2  # spaces
WIDTH = 80  # characters of a line of the summary
COUNTERS_MAX = 20  # of a plugin in the summary; all are in the report
RESTARTS, ERRORS = "restarts", "errors"  # headings
LEFT_COLUMNS = 2  # these contain words and align left; the others contain numbers


@dataclass(frozen=True)
class Grid:
    """A table: headings, and rows with one cell per heading.

    `order` has the numbers of the columns, the most important first.
    """

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    order: tuple[int, ...]

    def within(self, width: int) -> Grid:
        """The most important columns, as many as fit into `width` characters."""
        widths = [
            max(map(len, column)) + COLUMN_GAP
            for column in zip(self.headings, *self.rows, strict=True)
        ]
        ends = itertools.accumulate(widths[number] for number in self.order)
        fit = sorted(self.order[: sum(end <= width for end in ends)])
        return Grid(
            tuple(self.headings[number] for number in fit),
            tuple(tuple(row[number] for number in fit) for row in self.rows),
            tuple(fit.index(number) for number in self.order if number in fit),
        )


@dataclass(frozen=True)
class Board:
    """The content of the live table."""

    title: str
    ports: Grid
    workers: Grid
    drops: str
    buffers: str
    books: str
    balanced: bool
    url: str


class Rates:
    """Rates per second between two snapshots; every rate is None while `before` is None."""

    def __init__(self, before: Snapshot | None, now: Snapshot) -> None:
        # A new instance of the same name starts its counters at 0.
        same = before is not None and before.started == now.started
        self.before = before if same else None
        self.now = now
        self.seconds = now.clock - before.clock if before is not None and same else 0.0

    @property
    def known(self) -> bool:
        """Whether both snapshots are of one run, at different times."""
        return self.before is not None and self.seconds > 0

    def port(self, index: int, counter: str) -> float | None:
        """The rate of a counter of a port, over all queues."""
        if self.before is None or not self.known:
            return None
        grown = self.now.ports[index].total(counter) - self.before.ports[index].total(counter)
        return grown / self.seconds

    def worker(self, index: int, counter: str) -> float | None:
        """The rate of a counter of a worker. A worker can write any number there, and the
        supervisor may clear it: a counter that became smaller has no rate."""
        if self.before is None or not self.known:
            return None
        before, now = self.before.workers[index].counters, self.now.workers[index].counters
        return max(0.0, now[counter] - before[counter]) / self.seconds

    def drops(self, port: PortSnapshot, index: int, reason: str) -> float | None:
        """The rate of the drops of a port for one reason."""
        if self.before is None or not self.known:
            return None
        before = self.before.ports[index]
        lost = (port.card_drops | port.drops)[reason]
        return (lost - (before.card_drops | before.drops).get(reason, 0)) / self.seconds


@dataclass(frozen=True)
class Span:
    """A bounded run: `since` is its start (time.monotonic()), `seconds` its length."""

    since: float
    seconds: float


def board(before: Snapshot | None, now: Snapshot, span: Span | None = None) -> Board:
    """The content of the live table; `span` is given for a bounded run."""
    rates = Rates(before, now)
    wrong = [name for name, residual in now.balance.items() if residual]
    return Board(
        title=f"ringline {now.name}  {now.state}  {_elapsed(now, span)}",
        ports=_ports(rates),
        workers=_workers(rates),
        drops=", ".join(_drops(rates)) or "none",
        buffers=", ".join(f"{name} {count:,}" for name, count in now.holders().items() if count),
        books=f"off: {', '.join(wrong)}" if wrong else "balanced",
        balanced=not wrong,
        url=now.metrics_url or "off",
    )


def text(board: Board) -> str:
    """The board as plain text, in several lines."""
    parts = [
        board.title,
        "",
        *_aligned(board.ports),
        *_aligned(board.workers),
        f"drops    {board.drops}",
        f"buffers  {board.buffers}",
        f"books    {board.books}",
        f"metrics  {board.url}",
    ]
    return "\n".join(parts)


def _aligned(grid: Grid) -> Iterator[str]:
    rows = [grid.headings, *grid.rows]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.ljust(width) if number < LEFT_COLUMNS else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield (" " * COLUMN_GAP).join(cells).rstrip()
    yield ""


def line(before: Snapshot | None, now: Snapshot, span: Span | None = None) -> str:
    """The board as one line, for a log."""
    rates = Rates(before, now)
    parts = [_elapsed(now, span)]
    for index, port in enumerate(now.ports):
        received, sent = rates.port(index, "rx_packets"), rates.port(index, "tx_packets")
        bits = _gigabits(rates.port(index, "rx_bytes"))
        parts.append(
            f"{port.name}: rx {millions(received)} Mpps {bits} Gbit/s, tx {millions(sent)} Mpps"
        )
    for index, worker in enumerate(now.workers):
        rate = millions(rates.worker(index, "packets"))
        rings = f"rings {worker.ring_in}/{worker.ring_out}"
        doing = f"{rate} Mpps" if worker.state == RUNNING else worker.state
        restarts = f", restarts {worker.restarts}" if worker.restarts else ""
        parts.append(f"worker {worker.queue}: {doing}, {rings}{restarts}")
    parts.append(f"drops: {', '.join(_drops(rates)) or 'none'}")
    if not now.balanced:
        parts.append(board(before, now).books)
    return "; ".join(parts)


def summary(snapshot: Snapshot, error: RinglineError | None = None) -> str:
    """The summary of a run that has ended, in several lines of at most WIDTH characters; `error`
    is why it ended."""
    head = f"{snapshot.name} ran {snapshot.seconds:.1f} s: "
    found = flaws(snapshot)
    if error is not None and error.ending:
        found.insert(0, error.ending)
    lines = _wrapped(head, found or [ALL_WELL])
    for port in snapshot.ports:
        lines += _port_summary(port)
    for worker in snapshot.workers:
        lines += _worker_summary(worker)
    lines += _plugin_counters(snapshot)
    held = [f"{name} {count:,}" for name, count in snapshot.holders().items() if count]
    total = sum(holder.buffers for holder in snapshot.buffers)
    lines += _wrapped("  buffers: ", [*held, f"{total:,} in all"])
    wrong = [f"{name} {residual:+,}" for name, residual in snapshot.balance.items() if residual]
    if wrong:
        lines += _wrapped("  balance: OFF: ", wrong)
    else:
        lines.append(f"  balance: 0 in all {len(snapshot.balance)} equations")
    return "\n".join(lines)


def _port_summary(port: PortSnapshot) -> list[str]:
    packets, bytes_ = port.total("rx_packets"), port.total("rx_bytes")
    arrived = packets + sum(port.card_drops.values())
    dropped = [
        f"{reason} {number:,} ({percent(number, arrived)})"
        for reason, number in (port.card_drops | port.drops).items()
        if number
    ]
    lines = [
        f"  port {port.name}: received {packets:,} ({size(bytes_)}), "
        f"forwarded {port.total('transmitted'):,}"
    ]
    sent = f"    sent {port.total('tx_packets'):,}; dropped: "
    lines += _wrapped(sent, dropped or ["none"])
    return lines + [f"    fault: {fault}" for fault in port.faults]


def _worker_summary(worker: WorkerSnapshot) -> list[str]:
    packets = int(worker.counters["packets"])
    items = [counted(packets, "packet")]
    if worker.state == GIVEN_UP:
        items.append(GIVEN_UP)
    if worker.restarts:
        items.append(f"restarts {worker.restarts}")
    if packets:
        items.append(f"{1e9 * worker.counters['plugin_seconds'] / packets:.1f} ns in plugin")
    for name, quantile in (("median", 0.5), ("p99", 0.99)):
        latency = latency_quantile(worker.latency, quantile)
        if latency is not None:
            items.append(f"{name} latency < {duration(latency)}")
    lines = _wrapped(f"  worker {worker.queue}: ", items)
    errors = [f"{kind} {number:,}" for kind, number in worker.errors.items() if number]
    return lines + (_wrapped("    errors: ", errors) if errors else [])


def _plugin_counters(snapshot: Snapshot) -> list[str]:
    """The counters of each plugin, summed over its workers."""
    plugins: dict[str, Counter[str]] = {}
    for worker in snapshot.workers:
        counted = plugins.setdefault(worker.plugin, Counter())
        for metric in worker.metrics:
            if metric.kind == "counter":
                name = f"{metric.name} {metric.of}" if metric.label else metric.name
                counted[name] += int(metric.value)
    lines = []
    for plugin, counted in plugins.items():
        items = [f"{name} {number:,}" for name, number in counted.items()]
        if len(items) > COUNTERS_MAX:
            items[COUNTERS_MAX:] = [f"and {len(items) - COUNTERS_MAX} more"]
        if items:
            lines += _wrapped(f"  plugin {plugin}: ", items)
    return lines


def _wrapped(head: str, items: Sequence[str]) -> list[str]:
    """`head` and the items with commas, in lines of at most WIDTH characters; no item is split.
    The lines after the first are indented by two more than `head`."""
    indent = " " * (len(head) - len(head.lstrip()) + 2)
    lines = [head]
    for number, item in enumerate(items):
        piece = item + ("," if number < len(items) - 1 else "")
        gap = "" if lines[-1].endswith(" ") else " "
        if lines[-1].strip() and len(lines[-1]) + len(gap) + len(piece) > WIDTH:
            lines[-1] = lines[-1].rstrip()
            lines.append(indent + piece)
        else:
            lines[-1] += gap + piece
    return lines


def percent(part: int, whole: int) -> str:
    """A share in percent; a small one never reads as 0."""
    share = 100 * part / whole if whole else 0.0
    return "< 0.01 %" if 0 < share < 0.01 else f"{share:.3g} %"


def millions(rate: float | None) -> str:
    """A rate in packets per second, as Mpps."""
    if rate is None:
        return NOTHING
    if 0 < rate < 1000:
        return "<0.001"
    return f"{rate / 1e6:.3f}"


def size(bytes_: int) -> str:
    """A number of bytes with its unit, in three digits."""
    number = float(bytes_)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.1f} TB"


def duration(seconds: float) -> str:
    """A time with its unit, in three digits."""
    for unit, scale in (("us", 1e6), ("ms", 1e3)):
        if seconds * scale < 1000:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds:.3g} s"


def _elapsed(now: Snapshot, span: Span | None) -> str:
    if span is None:
        return f"{now.seconds:.0f} s"
    return f"{min(now.clock - span.since, span.seconds):.0f} of {span.seconds:g} s"


def _gigabits(bytes_per_second: float | None) -> str:
    return NOTHING if bytes_per_second is None else f"{bytes_per_second * 8 / 1e9:.2f}"


def _ports(rates: Rates) -> Grid:
    rows = []
    for index, port in enumerate(rates.now.ports):
        speed = f"{port.link_mbps / 1000:g}G" if port.link_mbps else "up"
        link = speed if port.link_up else "down"
        lost = sum(port.card_drops.values()) + sum(port.drops.values())
        rows.append(
            (
                port.name,
                link,
                millions(rates.port(index, "rx_packets")),
                _gigabits(rates.port(index, "rx_bytes")),
                millions(rates.port(index, "tx_packets")),
                _gigabits(rates.port(index, "tx_bytes")),
                f"{lost:,}",
            )
        )
    headings = ("port", "link", "rx Mpps", "Gbit/s", "tx Mpps", "Gbit/s", "dropped")
    return Grid(headings, tuple(rows), (0, 1, 6, 2, 4, 3, 5))


def _workers(rates: Rates) -> Grid:
    rows = []
    for index, worker in enumerate(rates.now.workers):
        packets = rates.worker(index, "packets")
        busy, idle = rates.worker(index, "busy_seconds"), rates.worker(index, "idle_seconds")
        inside = rates.worker(index, "plugin_seconds")
        whole = (busy or 0.0) + (idle or 0.0)
        share = f"{100 * busy / whole:.0f}%" if busy and whole > 0 else NOTHING
        each = f"{1e9 * inside / packets:.1f}" if inside and packets else NOTHING
        rows.append(
            (
                str(worker.queue),
                SHORT_STATES.get(worker.state, worker.state),
                millions(packets),
                _gigabits(rates.worker(index, "bytes")),
                share,
                each,
                f"{worker.ring_in}/{worker.ring_out}",
                f"{worker.restarts:,}",
                f"{sum(worker.errors.values()):,}",
            )
        )
    return Grid(
        ("worker", "state", "Mpps", "Gbit/s", "busy", "ns/pkt", "in/out", RESTARTS, ERRORS),
        tuple(rows),
        (0, 1, 8, 7, 2, 4, 6, 3, 5),
    )


def _drops(rates: Rates) -> Iterator[str]:
    """The drops that are not the plugin's own verdict come first."""
    several = len(rates.now.ports) > 1
    for own, (index, port) in itertools.product((False, True), enumerate(rates.now.ports)):
        for reason, lost in (port.card_drops | port.drops).items():
            if lost and (port.dropped_by(reason) == "plugin") == own:
                rate = rates.drops(port, index, reason)
                where = f"{port.name} " if several else ""
                per_second = f" ({rate:,.0f}/s)" if rate else ""
                yield f"{where}{reason} {lost:,}{per_second}"
