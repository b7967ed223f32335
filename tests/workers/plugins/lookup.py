"""The plugin of test_lookup_tiers.py in Python: the frame's first byte selects the action.

Byte 1 is the key, bytes 2 to 5 are an address; the verdict is the answer, modulo 200.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from numba import njit

from ringline.workers.api import DROP, Map, Prefixes, packet_function

RULES = [("10.0.0.0/8", 1), ("10.1.0.0/16", 2), ("2001:db8::/32", 3), ("2001:db8:1::/48", 4)]
SECOND = 10**9


class State(NamedTuple):
    rules: Prefixes
    flows: Map
    named: Map


def setup(worker: Any) -> State:
    rules = worker.prefixes("rules", ipv4=10, ipv6=10, missing=0)
    rules.fill(RULES)
    return State(
        rules,
        worker.map("flows", 3, key=2, value=2, lifetime=10),
        worker.map("named", 3, key=["byte"], value=["packets", "bytes"]),
    )


def judge(frame: Any, length: Any, rules: Any, flows: Any, named: Any) -> Any:
    """The answer: 0 to 199."""
    todo, key = frame[0], frame[1]
    address = frame[2] << 24 | frame[3] << 16 | frame[4] << 8 | frame[5]
    if todo == 0:
        return rules.find4(address)
    if todo == 1:
        return rules.find6(address << 32, key)
    if todo == 2:
        place = flows.insert((address, key), (key, 7), (100 + frame[6]) * SECOND)
        if place < 0:
            return 100
        flows.values[place, 0] += 1
        return flows.values[place, 0] + flows.values[place, 1]
    if todo == 3:
        return flows.find((address, key), (100 + frame[6]) * SECOND) >= 0
    if todo == 4:
        return flows.delete((address, key))
    if todo == 5:
        return flows.expire((100 + frame[6]) * SECOND)
    if todo == 6:
        return flows.touch(flows.find((address, key)), (100 + frame[6]) * SECOND)
    if todo == 7:
        place = named.insert(key, (0, 0))
        if place >= 0:
            named.values[place].packets += 1
            named.values[place].bytes += length
            return named.values[place].packets * 10 + named.values[place].bytes // 60
        return 100
    return len(flows) * 10 + len(named)


judge_compiled = njit(judge)


@packet_function(setup=setup)
def compiled(frame: Any, meta: Any, state: Any) -> int:
    answer = judge_compiled(frame, meta.length, state.rules, state.flows, state.named)
    frame[50] = answer
    return DROP


@packet_function(setup=setup)
def plain(frame: Any, meta: Any, state: Any) -> int:
    frame[50] = int(judge(frame, meta.length, state.rules, state.flows, state.named))
    return DROP


class Packets:
    """Plain Python, packet by packet."""

    def setup(self, worker: Any) -> None:
        self.state = setup(worker)

    def process(self, batch: Any) -> None:
        for packet in batch:
            frame = [int(byte) for byte in packet.data]
            packet.data[50] = int(judge(frame, packet.length, *self.state)) & 0xFF


class Helper:
    """A batch class that gives its tables to a compiled helper."""

    def setup(self, worker: Any) -> None:
        self.state = setup(worker)

    def process(self, batch: Any) -> None:
        import numpy as np

        for packet in batch:
            frame = np.frombuffer(packet.data, np.uint8)
            packet.data[50] = int(judge_compiled(frame, packet.length, *self.state)) & 0xFF
