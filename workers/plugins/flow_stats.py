"""Count packets and bytes per flow and export the top talkers; forward as `forward` does.

A flow is the 5-tuple of an IPv4 or IPv6 packet; a fragment is counted by its addresses and
protocol alone. Flows are in a hash table in named state, one cache line per flow, so they
survive a crash of the worker. If all PROBES lines for a new flow are in use, the flow has
no line of its own: `flows_without_place` counts its packets.

`ringline analyze` runs flow_records.py in its place, which keeps all flows. With the option
`export` live.py counts, and the records of flows that ended go to a collector.

The top talkers are updated with each packet: a flow replaces the smallest of them when its
bytes exceed the smallest by a sixteenth. So no scan of the table delays the queue.

Crash safety: a line is valid if its check word is the hash of its key. A worker that is
killed while it writes leaves at most one line with a wrong check word; setup clears that
line and ranks the top talkers again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numba import njit

from ringline.workers.api import DROP, Option, PluginError, packet_function
from ringline.workers.plugins.flow_key import (
    REST,
    SOURCE_HIGH,
    SOURCE_LOW,
    TARGET_HIGH,
    TARGET_LOW,
    flow_key,
    hash_of,
    hash_of_rows,
    label,
)
from ringline.workers.plugins.flows import export as flow_export
from ringline.workers.plugins.forward import MAP, outputs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from ringline.workers.api import Counter, Worker

PROBES = 16
# The words of a flow, behind those of its key.
CHECK, PACKETS, BYTES = 5, 6, 7
WORDS = 8

# CHECK is the hash of the key, never 0; its low byte is the rank: 0, or 1 + the index in
# `State.top`.
RANK = 0xFF
USED = 0x100


class State(NamedTuple):
    """The state of the compiled function."""

    flows: NDArray[np.int64]  # shape (slots, WORDS)
    top: NDArray[np.int64]  # lines in `flows` of the top talkers, -1: none yet
    least: NDArray[np.int64]  # [0]: bytes of the smallest top talker when it was last compared
    outputs: NDArray[np.int64]  # the verdict by input port
    flows_seen: Counter
    flows_without_place: Counter
    other_packets: Counter  # neither IPv4 nor IPv6


def _setup(worker: Worker) -> State:
    slots, top = worker.options["slots"], worker.options["top"]
    if slots & (slots - 1):
        raise PluginError(f"the option slots must be a power of two, such as 32768, not {slots}")
    flows = worker.state("flows", np.int64, (slots, WORDS))
    # Clear a line that a crashed worker left half written.
    flows[flows[:, CHECK] & ~RANK != _check(hash_of_rows(flows))] = 0
    flows[:, CHECK] &= ~RANK
    ranked = np.full(top, -1, np.int64)
    best = np.argsort(flows[:, BYTES])[::-1][:top]
    best = best[flows[best, CHECK] != 0]
    ranked[: len(best)] = best
    flows[best, CHECK] |= np.arange(1, len(best) + 1)
    least = flows[best[-1], BYTES] if len(best) == top else 0
    drop = worker.options["action"] == "drop"
    sends = [DROP] * len(worker.ports) if drop else outputs(worker)
    return State(
        flows,
        ranked,
        np.array([least], np.int64),
        np.array(sends, np.int64),
        worker.counter("flows_seen"),
        worker.counter("flows_without_place"),
        worker.counter("other_packets"),
    )


def _tick(worker: Worker, state: State) -> None:
    """Write the table of top talkers, the largest first."""
    rows = state.flows[state.top[state.top >= 0]]
    rows = rows[np.argsort(rows[:, BYTES])[::-1]]
    table = worker.table("top_talkers", "flow", ["packets", "bytes"], len(state.top))
    table.write([(label(row), (row[PACKETS], row[BYTES])) for row in rows])


def _instead(options: Mapping[str, Any]) -> Any:
    """With `export`, another function counts: it also keeps the times of each flow."""
    if not options.get("export"):
        return None
    from ringline.workers.plugins.flows import live as flow_live

    return flow_live.flow_live


@packet_function(
    setup=_setup,
    tick=_tick,
    options=[
        Option("slots", int, 32768, "flows that can be counted; a power of two", minimum=16),
        Option("top", int, 10, "rows of the table of top talkers", minimum=1, maximum=100),
        Option("action", str, "forward", choices=("forward", "drop")),
        *flow_export.LIVE,
        MAP,
    ],
    instead=_instead,
    analysis="ringline.workers.plugins.flow_records:flow_records",
)
def flow_stats(frame: Any, meta: Any, state: Any) -> int:
    """Count the packet for its flow, and forward it."""
    key = flow_key(frame)
    if key[4] == 0:
        state.other_packets[0] += 1
    else:
        place = find(state, key)
        if place < 0:
            state.flows_without_place[0] += 1
        else:
            flow = state.flows[place]
            flow[PACKETS] += 1
            flow[BYTES] += meta.length
            least = state.least[0]
            if flow[CHECK] & RANK == 0 and flow[BYTES] > least + (least >> 4):
                promote(state, place)
    verdict: int = state.outputs[meta.port]
    return verdict


def _check(hashed: NDArray[np.int64]) -> NDArray[np.int64]:
    """The check words for these hashes, with rank 0; 0 where the hash is 0."""
    return np.where(hashed == 0, 0, hashed & ~RANK | USED)


@njit
def find(state: Any, key: Any) -> Any:
    """The line of the flow `key`, added if it is new; -1 when there is no free line."""
    flows = state.flows
    mask = len(flows) - 1
    hashed = hash_of(key)
    check = hashed & ~RANK | USED
    at = (hashed >> 32) & mask
    for _ in range(PROBES):
        flow = flows[at]
        if flow[CHECK] == 0:
            for word in range(CHECK):
                flow[word] = key[word]
            flow[PACKETS] = 0
            flow[BYTES] = 0
            flow[CHECK] = check
            state.flows_seen[0] += 1
            return at
        if flow[CHECK] & ~RANK == check and same(flow, key):
            return at
        at = (at + 1) & mask
    return -1


@njit
def same(flow: Any, key: Any) -> Any:
    """Whether the line `flow` has this key."""
    return (
        flow[SOURCE_HIGH] == key[0]
        and flow[SOURCE_LOW] == key[1]
        and flow[TARGET_HIGH] == key[2]
        and flow[TARGET_LOW] == key[3]
        and flow[REST] == key[4]
    )


@njit
def promote(state: Any, place: int) -> None:
    """Make the flow a top talker in place of the smallest one, if it has more bytes."""
    flows, top = state.flows, state.top
    smallest = 0
    for rank in range(len(top)):
        if top[rank] < 0:
            smallest = rank
            break
        if flows[top[rank], BYTES] < flows[top[smallest], BYTES]:
            smallest = rank
    loser = top[smallest]
    if loser >= 0:
        if flows[loser, BYTES] >= flows[place, BYTES]:
            state.least[0] = flows[loser, BYTES]
            return
        flows[loser, CHECK] &= ~RANK
    top[smallest] = place
    flows[place, CHECK] |= smallest + 1
    least = flows[place, BYTES]
    for rank in range(len(top)):
        if top[rank] < 0:
            least = 0
        elif flows[top[rank], BYTES] < least:
            least = flows[top[rank], BYTES]
    state.least[0] = least
