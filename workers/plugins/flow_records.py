"""Whole flow records: what `flow_stats` is in an analysis of captures.

A flow is both directions of a 5-tuple, as in `tshark -z conv`, but a fragment has no ports here.
Its end A has the smaller address and port. For each direction a record has packets, bytes on the
wire, octets of IP, the times of the first and the last packet, the flags of TCP that were seen, and
the VLAN, all of which are in the end the same whatever the order of the packets. So records of
parts join exactly.

No flow is lost: when half of the table is in use, `collect` takes all records out of it, and more
follow for the same flows. One collect and the next are too near to each other to fill the table.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numba import njit

from ringline.workers.api import (
    DROP,
    Option,
    Part,
    PluginError,
    field,
    ordered,
    packet_function,
)
from ringline.workers.named import steps
from ringline.workers.plugins.flow_key import (
    PROTOCOLS,
    REST,
    TCP,
    flow_places,
    hash_of,
    label,
    octets_of,
)
from ringline.workers.plugins.flows import export as flow_export
from ringline.workers.plugins.forward import MAP, outputs
from ringline.workers.plugins.lazy_table import lazy_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from ringline.workers.api import Counter, Worker

# The words of a record: five of the key, the last of which is never 0, then these. Those in pairs
# are of the direction from A to B, and of that from B to A. MARKS has 32 bits for each of the two,
# those for A to B are the low ones. They begin with the flags of TCP, in 8 bits. From the bit VLAN
# on, they have 1 + the VLAN of the outermost tag, the largest of several; 0 there: no packet had a
# tag. So a record has two cache lines.
MARKS, PACKETS, BYTES, OCTETS, FIRST, LAST, WORDS = 5, 6, 8, 10, 12, 14, 16
VLAN = 16
EACH = 32
KEY = 5
NEVER = np.iinfo(np.int64).max  # the first time of a direction without packets

PIECE_ROWS = 65536  # of all records, which may be in a file
SLOTS_MIN = 65536  # more than twice the packets between two calls of collect


class State(NamedTuple):
    """The state of the compiled function."""

    records: NDArray[np.int64]  # shape (slots, WORDS)
    used: NDArray[np.int64]  # [0]: how many of them are in use
    outputs: NDArray[np.int64]  # the verdict by input port
    other_packets: Counter  # neither IPv4 nor IPv6


def _setup(worker: Worker) -> State:
    slots = worker.options["slots"]
    if slots & (slots - 1):
        raise PluginError(f"the option slots must be a power of two, such as 65536, not {slots}")
    drop = worker.options["action"] == "drop"
    sends = [DROP] * len(worker.ports) if drop else outputs(worker)
    top = worker.state("top", np.int64)
    top[0] = worker.options["top"]
    flow_export.check(worker)
    return State(
        worker.state("records", np.int64, (max(slots, SLOTS_MIN), WORDS)),
        worker.state("used", np.int64),
        np.array(sends, np.int64),
        worker.counter("other_packets"),
    )


def collect(worker: Worker, state: State) -> dict[str, Any] | None:
    """Take all records out of the table, if it is half full or no packet follows."""
    if 2 * state.used[0] < len(state.records) and not worker.ending:
        return None
    used = np.flatnonzero(state.records[:, REST])
    taken = state.records[used]
    state.records[used] = 0  # to write to all of them would take memory for those never in use
    state.used[0] = 0
    order = np.lexsort(taken[:, :KEY].T[::-1])
    export = np.frombuffer((worker.options["export"] or "").encode(), np.uint8)
    return {"flows": taken[order], "top": np.array([worker.options["top"]]), "export": export}


def marks_of(rows: NDArray[np.int64], way: int) -> NDArray[np.int64]:
    """The bits of MARKS for a direction; 0: from A to B."""
    return rows[:, MARKS] >> EACH * way & (1 << EACH) - 1


@ordered(flows=KEY)
def merge(a: Part, b: Part) -> Part:
    """One record for each flow of both parts."""
    rows = np.concatenate([a.state["flows"], b.state["flows"]])
    rows = rows[np.lexsort(rows[:, :KEY].T[::-1])]
    if len(rows):
        begins = np.flatnonzero(np.r_[True, (rows[1:, :KEY] != rows[:-1, :KEY]).any(axis=1)])
        merged = rows[begins]
        merged[:, PACKETS:FIRST] = np.add.reduceat(rows[:, PACKETS:FIRST], begins)
        merged[:, FIRST:LAST] = np.minimum.reduceat(rows[:, FIRST:LAST], begins)
        merged[:, LAST:WORDS] = np.maximum.reduceat(rows[:, LAST:WORDS], begins)
        merged[:, MARKS] = 0
        for way in (0, 1):
            marks = marks_of(rows, way)
            flags = np.bitwise_or.reduceat(marks & 0xFF, begins)
            vlans = np.maximum.reduceat(marks >> VLAN, begins)
            merged[:, MARKS] |= (flags | vlans << VLAN) << EACH * way
        rows = merged
    return Part({"flows": rows, "top": a.state["top"], "export": a.state["export"]})


def present(part: Part) -> dict[str, dict[str, Any]]:
    """The flows, and the largest of them."""
    rows = part.state["flows"]
    total = np.zeros(FIRST - PACKETS, np.int64)
    best = rows[:0]
    for start in range(0, len(rows), PIECE_ROWS):
        piece = rows[start : start + PIECE_ROWS]
        steps.step()
        total += piece[:, PACKETS:FIRST].sum(axis=0)
        best = np.concatenate([best, piece])
        order = np.lexsort((*best[:, :KEY].T[::-1], -best[:, BYTES : BYTES + 2].sum(axis=1)))
        best = best[order[: int(part.state["top"][0])]]
    exported = flow_export.of_records(rows, part.state["export"].tobytes().decode())
    return {
        "top_talkers": {
            "flow": [label(row).replace(" > ", " - ") for row in best],
            "packets": best[:, PACKETS : PACKETS + 2].sum(axis=1),
            "bytes": best[:, BYTES : BYTES + 2].sum(axis=1),
        },
        "totals": {
            "flows": [len(rows)],
            "packets": [int(total[0] + total[1])],
            "bytes": [int(total[2] + total[3])],
        },
        "flows": lazy_table(rows, _columns),
    } | exported


def _columns(rows: NDArray[np.int64]) -> dict[str, Any]:
    """The columns of the table of flows."""
    rest = rows[:, REST].view(np.uint64)
    columns: dict[str, Any] = {
        "protocol": Texts(rows, _protocols),
        "address_a": Texts(rows, lambda piece: _addresses(piece, 0)),
        "port_a": (rest >> np.uint64(32)).astype(np.uint16),
        "address_b": Texts(rows, lambda piece: _addresses(piece, 2)),
        "port_b": (rest >> np.uint64(16)).astype(np.uint16),
        "first": rows[:, FIRST:LAST].min(axis=1).view("M8[ns]"),
        "last": rows[:, LAST:WORDS].max(axis=1).view("M8[ns]"),
    }
    for direction, name in enumerate(("a_to_b", "b_to_a")):
        empty = rows[:, PACKETS + direction] == 0
        flags = marks_of(rows, direction)
        columns |= {
            f"packets_{name}": rows[:, PACKETS + direction].view(np.uint64),
            f"bytes_{name}": rows[:, BYTES + direction].view(np.uint64),
            f"first_{name}": np.ma.masked_array(rows[:, FIRST + direction].view("M8[ns]"), empty),
            f"last_{name}": np.ma.masked_array(rows[:, LAST + direction].view("M8[ns]"), empty),
            f"tcp_flags_{name}": flags.astype(np.uint8),
            f"vlan_{name}": np.ma.masked_array(
                ((flags >> VLAN) - 1).astype(np.uint16), flags >> VLAN == 0
            ),
        }
    return columns


class Texts:
    """A column of texts, which are made when they are needed: they take more memory than the
    records. `made` returns those of some rows."""

    dtype = np.dtype(str)

    def __init__(
        self, rows: NDArray[np.int64], made: Callable[[NDArray[np.int64]], list[str]]
    ) -> None:
        self._rows = rows
        self._made = made

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, which: slice) -> list[str]:
        return self._made(self._rows[which])


def _protocols(rows: NDArray[np.int64]) -> list[str]:
    numbers = (rows[:, REST] >> 8 & 0xFF).tolist()
    return [PROTOCOLS.get(number, str(number)) for number in numbers]


def _addresses(rows: NDArray[np.int64], at: int) -> list[str]:
    """The addresses in the words `at` and `at` + 1 as text."""
    swapped = np.ascontiguousarray(rows[:, at : at + 2].astype(">i8"))
    packed = swapped.tobytes()
    version = (rows[:, REST] & 0xFF).tolist()
    texts = []
    for number, kind in enumerate(version):
        whole = packed[16 * number : 16 * number + 16]
        if kind == 4:
            texts.append(socket.inet_ntop(socket.AF_INET, whole[12:]))
        else:
            texts.append(socket.inet_ntop(socket.AF_INET6, whole))
    return texts


@packet_function(
    setup=_setup,
    options=[
        Option("slots", int, SLOTS_MIN, "lines of the table; a power of two", minimum=16),
        Option("top", int, 10, "rows of the table of top talkers", minimum=1, maximum=100),
        Option("action", str, "forward", choices=("forward", "drop")),
        flow_export.EXPORT,
        MAP,
    ],
    merge=merge,
    collect=collect,
    present=present,
)
def flow_records(frame: Any, meta: Any, state: Any) -> int:
    """Count the packet for its flow, and forward it."""
    source_high, source_low, target_high, target_low, rest, at, ip, octets = flow_places(frame)
    if rest == 0:
        state.other_packets[0] += 1
    else:
        source_port = rest >> 32 & 0xFFFF
        target_port = rest >> 16 & 0xFFFF
        way = 0
        if is_after(source_high, source_low, source_port, target_high, target_low, target_port):
            way = 1
            rest = rest & 0xFFFF | source_port << 16 | target_port << 32
            key = target_high, target_low, source_high, source_low, rest
        else:
            key = source_high, source_low, target_high, target_low, rest
        record = state.records[find(state, key)]
        time = meta.time
        record[PACKETS + way] += 1
        record[BYTES + way] += meta.wire_length
        record[OCTETS + way] += octets_of(meta.wire_length - ip, octets)
        record[FIRST + way] = min(record[FIRST + way], time)
        record[LAST + way] = max(record[LAST + way], time)
        if rest >> 8 & 0xFF == TCP and at and len(frame) > at + 13:
            record[MARKS] |= field(frame, at + 13, 1) << EACH * way
        kind = field(frame, 12, 2)
        if kind == 0x8100 or kind == 0x88A8:  # noqa: PLR1714  # numba
            vlan, place = 1 + (field(frame, 14, 2) & 0xFFF), EACH * way + VLAN
            seen = record[MARKS] >> place & 0xFFFF
            record[MARKS] += max(vlan - seen, 0) << place
    verdict: int = state.outputs[meta.port]
    return verdict


@njit
def is_after(
    high: Any, low: Any, port: Any, other_high: Any, other_low: Any, other_port: Any
) -> Any:
    """Whether an end of a flow is B, and the other one A: it has the larger address, or the
    larger port of equal addresses. The halves of an address compare as signed numbers."""
    if high != other_high:
        return high > other_high
    if low != other_low:
        return low > other_low
    return port > other_port


@njit
def find(state: Any, key: Any) -> Any:
    """The line of the flow `key`, added if it is new. There is always a free line."""
    records = state.records
    mask = len(records) - 1
    at = (hash_of(key) >> 32) & mask
    while True:
        record = records[at]
        if record[REST] == 0:
            for word in range(KEY):
                record[word] = key[word]
            record[FIRST] = record[FIRST + 1] = NEVER
            record[LAST] = record[LAST + 1] = -NEVER
            state.used[0] += 1
            return at
        if (
            record[4] == key[4]
            and record[0] == key[0]
            and record[1] == key[1]
            and record[2] == key[2]
            and record[3] == key[3]
        ):
            return at
        at = (at + 1) & mask
