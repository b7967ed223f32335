"""What an analysis found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Result:
    """What an analysis found.

    plugin, tier: its name, and "batch", "compiled" or "C".
    captures: those that are in the result, in the order of their first packets, as dicts with
        their path, packets and remarks.
    broken: why each other capture is not in it, by path.
    unfinished: the captures that an interruption left out.
    counters: those of a worker, such as packets, bytes, forwarded, dropped, plugin_errors.
    wire_bytes: bytes of all packets on the wire.
    named: the plugin's own counters, gauges, histograms and tables by name, as `ringline try`
        shows them.
    headings: those of its tables by name: of the labels, then one per value.
    drops: how many packets the plugin dropped for each of its reasons, by name.
    tables: what the plugin presents, by name, each as a dict: its `columns`, their `types` (as in
        workers/analysis/tables/columns.py), the number of `rows`, the `first` rows, and the `file`
        of all rows, or None.
    first, last: times of the first and the last packet (ns since 1970); None: there is none.
    complaints: the different errors of the plugin, each with a capture and its packet there.
    remarks: sentences about captures and the plugin.
    tasks, redone: how many tasks were done, and how many of them again after a wrong guess.
    taken: how many captures and pieces an earlier analysis had finished.
    can_go_on: whether an interruption left something finished, for another analysis to go on from.
    state: the joined state and tables, as bytes for `Part.unpack`.
    """

    plugin: str
    tier: str = ""
    captures: list[dict[str, Any]] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)
    unfinished: list[str] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    wire_bytes: int = 0
    named: dict[str, Any] = field(default_factory=dict)
    headings: dict[str, list[str]] = field(default_factory=dict)
    drops: dict[str, int] = field(default_factory=dict)
    tables: dict[str, Any] = field(default_factory=dict)
    first: int | None = None
    last: int | None = None
    nanoseconds: float = 0.0
    complaints: list[tuple[str, int, str]] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    tasks: int = 0
    redone: int = 0
    taken: int = 0
    can_go_on: bool = False
    seconds: float = 0.0
    state: bytes = b""

    def __repr__(self) -> str:
        """In short: a result may have megabytes of state, and Python shows what a line returns."""
        tables = {name: table["rows"] for name, table in self.tables.items()}
        left_out = len(self.broken) + len(self.unfinished)
        return (
            f"Result(plugin={self.plugin!r}, captures={len(self.captures)}, left_out={left_out}, "
            f"packets={self.counters.get('packets', 0)}, named={sorted(self.named)}, "
            f"tables={tables})"
        )
