"""The option `export` of `flow_stats`: where records go, and those of an analysis as IPFIX.

What a run does with it is in live.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ringline.workers.api import Option, PluginError
from ringline.workers.ipfix import exporter, messages
from ringline.workers.ipfix.collector import Target, target_of
from ringline.workers.named import place

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ringline.workers.api import Worker

EXPORT = Option(
    "export", str, None, "where flow records go as IPFIX: udp://HOST:PORT or file://PATH"
)

LIVE = (
    EXPORT,
    Option("idle", float, 15.0, "seconds without a packet until a flow is exported", minimum=1),
    Option("active", float, 60.0, "seconds until a record of a flow is exported", minimum=1),
)

_KEPT_BYTES = 8192  # for the address of the collector
_ROWS = 65536  # records that are encoded at a time

# The words of a record of flow_records.py. _MARKS has the flags of TCP.
_MARKS, _PACKETS, _OCTETS, _FIRST, _LAST = 5, 6, 10, 12, 14


def check(worker: Worker) -> None:
    """Raise PluginError if the option is wrong, or its host unknown. A worker of an engine does
    not look: the machine that asked exports."""
    if (url := worker.options["export"]) and worker.rehearsal and not place.is_away():
        _target(url, resolve=True)


def _target(url: str, *, resolve: bool) -> Target:
    try:
        target = target_of(url)
        return target.resolved() if resolve else target
    except PluginError as error:
        raise PluginError(str(error)) from None  # a line of ringline would not help the user


def keep_collector(worker: Worker) -> None:
    """Find the collector of a run, and keep its address for later lives of the worker: then nothing
    about it can fail. Raises PluginError when the option is wrong or the host unknown."""
    url = worker.options["export"]
    kept = worker.state("collector", np.uint8, _KEPT_BYTES)
    if worker.rehearsal:
        _target(url, resolve=False)
    elif bytes(kept).partition(b"\n")[0] != url.encode():
        target = _target(url, resolve=True)
        text = "\n".join((url, target.host, str(target.port), target.path, "")).encode()
        kept[: len(text)] = np.frombuffer(text, np.uint8)


def kept_collector(worker: Worker) -> Target:
    """What `keep_collector` found."""
    text = bytes(worker.state("collector", np.uint8, _KEPT_BYTES)).decode()
    url, host, port, path = text.split("\n")[:4]
    return Target(url, host, int(port), path)


def of_records(rows: NDArray[np.int64], url: str) -> dict[str, dict[str, Any]]:
    """Send the records of an analysis, one for each direction, and return a table that says what
    became of them. Without `url` there is none."""
    if not url:
        return {}
    target = target_of(url)
    # A file does not depend on when it was written.
    last = int(rows[:, _LAST : _LAST + 2].max()) // 1_000_000_000 if len(rows) else 0
    counts = np.zeros(exporter.COUNTS, np.int64)
    stream = exporter.Exporter(
        target if target.path else target.resolved(),
        counts,
        now=last if target.path else None,
        replace=True,
    )
    stream.refresh()
    for start in range(0, len(rows), _ROWS):
        stream.send_paced(flows_of(rows[start : start + _ROWS]))
    stream.refresh()
    stream.close()
    return {
        "export": {
            "collector": [url],
            "records": counts[[exporter.EXPORTED]],
            "messages": counts[[exporter.MESSAGES]],
            "lost": counts[[exporter.LOST]],
            "error": [stream.error],
        }
    }


def flows_of(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The directions of records as rows for messages.py, those of a record one after the other."""
    made = np.empty((len(rows), 2, messages.COLUMNS), np.int64)
    rest = rows[:, 4]
    for way in (0, 1):
        source, target = (0, 2) if way == 0 else (2, 0)
        flow = made[:, way]
        flow[:, messages.SOURCE : messages.SOURCE + 2] = rows[:, source : source + 2]
        flow[:, messages.TARGET : messages.TARGET + 2] = rows[:, target : target + 2]
        flow[:, messages.PACKETS] = rows[:, _PACKETS + way]
        flow[:, messages.OCTETS] = rows[:, _OCTETS + way]
        flow[:, messages.FIRST] = rows[:, _FIRST + way]
        flow[:, messages.LAST] = rows[:, _LAST + way]
        flow[:, messages.FLAGS] = rows[:, _MARKS] >> 32 * way & 0xFF
        flow[:, messages.REASON] = messages.FORCED
    made[:, 0, messages.REST] = rest
    ports = rest >> 32 & 0xFFFF | (rest >> 16 & 0xFFFF) << 16
    made[:, 1, messages.REST] = rest & 0xFFFF | ports << 16
    both = made.reshape(-1, messages.COLUMNS)
    return both[both[:, messages.PACKETS] > 0]
