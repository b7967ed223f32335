"""A learning switch: send each frame to the port where its target was last heard.

A station is a MAC address in a VLAN; frames without a tag are in VLAN 0. Each worker writes the
stations that it hears into its own part of a shared table and looks targets up in the parts of
all workers; the newest entry wins. So it does not matter on which queue the frames of a station
arrive, and two workers never write the same memory. If each worker knew only what it heard itself,
a target whose answers arrive on another queue would be flooded for ever.

An entry is two words. The first is the whole entry: address, VLAN and port, written at once. The
second is when the station was heard, at most REFRESH ns ago; so a reader that sees the words of
two different moments takes at worst a wrong age for one frame.

A group of LINES lines has the entries of all stations with the same hash.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ringline.shm.text import counted
from ringline.workers.api import (
    VLAN,
    Counter,
    Option,
    PluginError,
    create,
    field,
    packet_function,
)
from ringline.workers.plugins.helper import helper, mix

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ringline.workers.api import Worker

KEY, SEEN = 0, 1  # the words of an entry
LINES = 8  # of a group; two cache lines
SPARE = 4  # lines for each station that is asked for, so that a group is seldom full
REFRESH = 10_000_000  # nanoseconds: so seldom is the time of a busy station written again
SHORTEST = 17  # bytes of a frame that can be sent

# Addresses that no bridge forwards (IEEE 802.1Q-2022, table 8-1): 01:80:c2:00:00:00 to :0f.
RESERVED = 0x0180C2000000
GROUP = 1 << 40  # the bit of the addresses of more than one station


class State(NamedTuple):
    mine: NDArray[np.int64]  # shape (lines, 2): what this worker heard
    all: NDArray[np.int64]  # shape (workers, lines, 2): what all workers heard
    lifetime: int  # nanoseconds after which a silent station is forgotten
    reserved: int  # the drop reasons
    same_port: int
    bad_frame: int
    learned: Counter
    moved: Counter
    table_full: Counter
    flooded: Counter
    without_blank: Counter
    told: NDArray[np.int64]  # [0]: `without_blank` when the log last told of it


def _setup(worker: Worker) -> State:
    if len(worker.ports) < 2:
        raise PluginError("a switch needs at least two ports")
    stations = worker.options["stations"]
    if stations & (stations - 1):
        raise PluginError(
            f"the option stations must be a power of two, such as 4096, not {stations}"
        )
    mine, all_ = worker.shared("table", np.int64, (SPARE * stations, 2))
    return State(
        mine,
        all_,
        int(worker.options["age"] * 1e9),
        worker.drop_reason("reserved"),
        worker.drop_reason("same_port"),
        worker.drop_reason("bad_frame"),
        worker.counter("learned"),
        worker.counter("moved"),
        worker.counter("table_full"),
        worker.counter("flooded"),
        worker.counter("without_blank"),
        np.zeros(1, np.int64),
    )


def _tick(worker: Worker, state: State) -> None:
    """Forget the stations of this worker that were silent for too long."""
    used = state.mine[:, KEY] != 0
    old = used & (worker.time - state.mine[:, SEEN] > state.lifetime)
    state.mine[old, KEY] = 0
    worker.gauge("stations").set(int(used.sum() - old.sum()))
    missing = int(state.without_blank.array[0])
    if missing > state.told[0]:
        worker.log.warning(
            "%s of flooded frames found no blank: set more blanks under [worker], at most 512",
            counted(missing - int(state.told[0]), "copy", "copies"),
        )
    state.told[0] = missing


@packet_function(
    setup=_setup,
    tick=_tick,
    options=[
        Option("age", float, 300.0, "seconds until a silent station is forgotten", minimum=1),
        Option(
            "stations",
            int,
            4096,
            "stations that each worker can learn",
            minimum=64,
            maximum=1 << 20,
        ),
    ],
)
def switch(frame: Any, meta: Any, state: Any) -> int:
    """Learn where the sender is; send the frame to its target, or to all other ports."""
    if meta.length < SHORTEST:
        return state.bad_frame  # type: ignore[no-any-return]
    target, source = field(frame, 0, 6), field(frame, 6, 6)
    if source == 0 or source & GROUP:
        return state.bad_frame  # type: ignore[no-any-return]
    if target & ~15 == RESERVED:
        return state.reserved  # type: ignore[no-any-return]
    vlan = 0
    if meta.flags & VLAN:
        vlan = meta.vlan_tci & 0xFFF
    elif field(frame, 12, 2) == 0x8100 and meta.length >= 18:
        vlan = field(frame, 14, 2) & 0xFFF
    now = meta.time
    learn(state, source << 16 | vlan << 4 | meta.port, now)
    port = -1
    if not target & GROUP:
        port = find(state, target << 16 | vlan << 4, now)
    if port >= 0:
        return port if port != meta.port else state.same_port
    # Flood: the frame itself goes to one port, copies go to the others.
    state.flooded[0] += 1
    first = 1 if meta.port == 0 else 0
    tag = 4 if meta.flags & VLAN else 0
    for other in range(first + 1, meta.ports):
        if other == meta.port:
            continue
        made = meta.length + tag <= meta.frame_max
        if made:
            copy = create(meta, meta.length + tag, other)
            made = len(copy) > 0
            if made:
                copy_into(copy, frame, meta, tag)
        if not made:
            state.without_blank[0] += 1
    return first


@helper
def group_of(key: Any, lines: Any) -> Any:
    """The first line of the group of a station, whatever its port."""
    return mix(0, key >> 4) & (lines - LINES)


@helper
def learn(state: Any, key: Any, now: Any) -> None:
    """Write into the own part that the station of `key` is at the port of `key`."""
    mine = state.mine
    first = group_of(key, len(mine))
    free = -1
    for line in range(first, first + LINES):
        there = mine[line, KEY]
        if there >> 4 == key >> 4 and there != 0:
            if there != key:
                mine[line, KEY] = key
                mine[line, SEEN] = now
                state.moved[0] += 1
            elif now - mine[line, SEEN] > REFRESH or now < mine[line, SEEN]:
                mine[line, SEEN] = now
            return
        if free < 0 and (there == 0 or now - mine[line, SEEN] > state.lifetime):
            free = line
    if free < 0:
        state.table_full[0] += 1
        return
    mine[free, KEY] = key
    mine[free, SEEN] = now
    state.learned[0] += 1


@helper
def find(state: Any, key: Any, now: Any) -> Any:
    """The port where the station of `key` was last heard by any worker; -1 if by none."""
    found, newest = -1, now - state.lifetime - 1
    first = group_of(key, len(state.mine))
    for worker in range(len(state.all)):
        for line in range(first, first + LINES):
            there = state.all[worker, line, KEY]
            if there >> 4 == key >> 4 and there != 0:
                if state.all[worker, line, SEEN] > newest:
                    newest = state.all[worker, line, SEEN]
                    found = there & 15
                break
    return found


@helper
def copy_into(copy: Any, frame: Any, meta: Any, tag: Any) -> None:
    """Write the frame into a new one that is `tag` bytes longer, with the tag that the card took
    away in its place: the card does not give a created packet one."""
    for i in range(12):
        copy[i] = frame[i]
    if tag:
        copy[12], copy[13] = 0x81, 0x00
        copy[14], copy[15] = meta.vlan_tci >> 8, meta.vlan_tci & 0xFF
    for i in range(12, len(frame)):
        copy[tag + i] = frame[i]
