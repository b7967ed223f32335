"""`flow_stats` with the option `export`: flow records leave for a collector while packets come.

A line of the table is one direction of a flow. Its record leaves when the flow was idle, was active
for long, had to make room for another one, or when the run ends. `flow_live` itself only counts,
and moves a line into a queue when it needs the room. All else is in `tick`: sweep.py.

Crash safety: a line is valid when its check word is the hash of its key, and is in the table or in
the queue, never in both: `marks` says which lines are on their way (see `mend`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

from ringline.workers.api import DROP, PluginError, field, packet_function
from ringline.workers.ipfix import exporter, messages
from ringline.workers.plugins.flow_key import TCP, flow_places, hash_of, octets_of
from ringline.workers.plugins.flows import export as flow_export
from ringline.workers.plugins.flows import sweep as flow_sweep
from ringline.workers.plugins.flows.sweep import (
    ACTIVE_AGAIN,
    BYTES,
    CHECK,
    FIRST,
    FLAGS,
    GONE,
    HEAD,
    KEY,
    LAST,
    LINE,
    MARKS,
    MOVING,
    MOVING_FROM,
    OCTETS,
    PACKETS,
    QUEUE,
    QUEUE_WORDS,
    SENT_OCTETS,
    SENT_PACKETS,
    WORDS,
    State,
)
from ringline.workers.plugins.forward import outputs

if TYPE_CHECKING:
    from ringline.workers.api import Worker

PROBES = 16
TAKEN = exporter.TAKEN


def _setup(worker: Worker) -> State:
    slots = worker.options["slots"]
    if slots & (slots - 1):
        raise PluginError(f"the option slots must be a power of two, such as 32768, not {slots}")
    drop = worker.options["action"] == "drop"
    sends = [DROP] * len(worker.ports) if drop else outputs(worker)
    state = State(
        worker.state("flows", np.int64, (slots, WORDS)),
        worker.state("queue", np.int64, (QUEUE, QUEUE_WORDS)),
        worker.state("marks", np.int64, MARKS),
        worker.state("exporter", np.int64, exporter.COUNTS),
        np.array(sends, np.int64),
        worker.counter("flows_seen"),
        worker.counter("flows_without_place"),
        worker.counter("other_packets"),
    )
    flow_export.keep_collector(worker)
    flow_sweep.mend(state)
    return state


@packet_function(setup=_setup, tick=flow_sweep.tick)
def flow_live(frame: Any, meta: Any, state: Any) -> int:
    """Count the packet for its flow, and forward it."""
    source_high, source_low, target_high, target_low, rest, at, ip, octets = flow_places(frame)
    if rest == 0:
        state.other_packets[0] += 1
    else:
        place = place_of(state, (source_high, source_low, target_high, target_low, rest))
        if place < 0:
            state.flows_without_place[0] += 1
        else:
            flow = state.flows[place]
            time = meta.time
            if flow[FIRST] == 0:
                flow[FIRST] = time
            flow[LAST] = max(flow[LAST], time)
            flow[PACKETS] += 1
            flow[BYTES] += meta.wire_length
            flow[OCTETS] += octets_of(meta.wire_length - ip, octets)
            if rest >> 8 & 0xFF == TCP and at and len(frame) > at + 13:
                flow[FLAGS] |= field(frame, at + 13, 1)
    verdict: int = state.outputs[meta.port]
    return verdict


@njit
def place_of(state: Any, key: Any) -> Any:
    """The line of the flow `key`. If it is new, it gets a free line, or that of the flow which was
    silent for the longest time; -1 when the record of that one finds no room in the queue."""
    flows = state.flows
    mask = len(flows) - 1
    hashed = hash_of(key)
    check = hashed | 1
    at = (hashed >> 32) & mask
    free = oldest = -1
    for _ in range(PROBES):
        flow = flows[at]
        if flow[CHECK] == check and is_of(flow, key):
            return at
        if flow[CHECK] & 1 == 0:
            if free < 0:
                free = at
            if flow[CHECK] != GONE:
                break
        elif oldest < 0 or flow[LAST] < flows[oldest, LAST]:
            oldest = at
        at = (at + 1) & mask
    if free < 0:
        if not make_room(state, oldest):
            return -1
        free = oldest
    flow = flows[free]
    for word in range(KEY):
        flow[word] = key[word]
    for word in range(CHECK + 1, WORDS):
        flow[word] = 0
    flow[CHECK] = check
    state.flows_seen[0] += 1
    return free


@njit
def is_of(flow: Any, key: Any) -> Any:
    """Whether the line `flow` has this key."""
    return (
        flow[0] == key[0]
        and flow[1] == key[1]
        and flow[2] == key[2]
        and flow[3] == key[3]
        and flow[4] == key[4]
    )


@njit
def make_room(state: Any, line: int) -> Any:
    """Move a line into the queue; False when the queue is full."""
    flow, marks = state.flows[line], state.marks
    if flow[PACKETS] != flow[SENT_PACKETS]:
        head = marks[HEAD]
        if head - state.counts[TAKEN] >= len(state.queue):
            return False
        entry = state.queue[head & (len(state.queue) - 1)]
        for word in range(KEY):
            entry[word] = flow[word]
        entry[messages.PACKETS] = flow[PACKETS] - flow[SENT_PACKETS]
        entry[messages.OCTETS] = flow[OCTETS] - flow[SENT_OCTETS]
        entry[messages.FIRST] = flow[FIRST]
        entry[messages.LAST] = flow[LAST]
        entry[messages.FLAGS] = flow[FLAGS]
        entry[messages.REASON] = messages.NO_ROOM
        entry[LINE] = line
        entry[ACTIVE_AGAIN] = 0
        marks[MOVING_FROM] = head
        marks[MOVING] = 1
        flow[CHECK] = GONE
        marks[HEAD] = head + 1
        marks[MOVING] = 0
    else:
        flow[CHECK] = GONE
    return True
