"""Workers of the plugin `switch` are killed while they write its table."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from ringline.shm.segments import segments_of
from ringline.shm.slots import STATE, WorkerSlot
from ringline.workers.plugins.switch import KEY, LINES, SEEN, group_of

from .operator_harness import Operator
from .run_harness import SEED, kill
from .test_switch import warm
from .veth_harness import TIMEOUT, Veths, needs, numbered, port, wait_until
from .xdp_harness import RESTART, started, status

pytestmark = pytest.mark.timeout(1200)  # the first test compiles the plugin
KILLS = 50 if os.environ.get("RINGLINE_PROOF") == "1" else 1
STATIONS = 500
FIRST = 0x021000000000  # the address of the first station
STATE_BYTES = 4 << 20


@pytest.fixture
def veths() -> Iterator[Veths]:
    needs("ethtool")
    with contextlib.closing(Veths(2)) as made:
        made.silence()
        yield made


def frame(source: int, target: int) -> bytes:
    payload = next(numbered([0], flow=source % 64))[12:]
    return (FIRST + target).to_bytes(6, "big") + (FIRST + source).to_bytes(6, "big") + payload


@contextlib.contextmanager
def moving(veths: Veths) -> Iterator[None]:
    """All stations talk and move from one side to the other, all the time."""
    wires, stop = [veths.wire(side) for side in "ab"], threading.Event()

    def send() -> None:
        chance = random.Random(SEED)
        while not stop.is_set():
            for _ in range(50):
                here, there = (chance.randrange(STATIONS) for _ in range(2))
                with contextlib.suppress(OSError):
                    chance.choice(wires).send(frame(here, there))
            time.sleep(0.001)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield
    finally:
        stop.set()
        sender.join()


def entries(name: str) -> list[tuple[int, int, int]]:
    """The entries of the tables of all workers: line, word of the station, time."""
    found = []
    for path in segments_of(name):
        if ".worker." not in path:
            continue
        slot = WorkerSlot.attach(os.open(path, os.O_RDWR | os.O_CLOEXEC), STATE_BYTES)
        [table] = [each for each in slot.entries() if each.name == "table" and each.kind == STATE]
        words = slot.values(table)
        slot.segment.close()
        found += [
            (line, words[2 * line + KEY], words[2 * line + SEEN])
            for line in range(len(words) // 2)
            if words[2 * line + KEY]
        ]
        assert all(words[2 * line + KEY] < 1 << 63 for line in range(len(words) // 2))
    return found


def check(name: str, began: int) -> int:
    """Every entry is a station that talks, at its place; returns how many there are."""
    found = entries(name)
    for line, key, seen in found:
        station, vlan, at = (key >> 16) - FIRST, key >> 4 & 0xFFF, key & 15
        why = (hex(key), line, seen, SEED)
        assert 0 <= station < STATIONS, why
        assert vlan == 0, why
        assert at in (0, 1), why
        with np.errstate(over="ignore"):
            first = group_of(key, 4 * 4096)
        assert first <= line < first + LINES, why
        assert seen == 0 or began <= seen <= time.time_ns() + 10**9, why
    return len(found)


def test_workers_that_are_killed_while_they_learn_leave_whole_entries(
    operator: Operator, veths: Veths
) -> None:
    """The other worker goes on. At the end nothing is flooded: the table knows all stations."""
    warm("switch")
    chance, began = random.Random(SEED), time.time_ns()
    ports = "\n".join(port(side, queues=2, rx_descriptors=2048) for side in "ab")
    text = f'{ports}\n{RESTART}plugin = "switch"\n'
    with started(operator, veths, text=text) as (process, report):
        with moving(veths):
            wait_until(lambda: check(operator.name, began) >= STATIONS, "all stations")
            for _ in range(KILLS):
                time.sleep(chance.uniform(0.0, 0.3))
                workers = wait_until(
                    lambda: [each for each in status(operator.name)["workers"] if each["up"]],
                    "a worker",
                )
                kill(chance.choice(workers)["pid"], signal.SIGKILL)
                assert check(operator.name, began) >= STATIONS
            wait_until(
                lambda: all(each["up"] for each in status(operator.name)["workers"]), "successors"
            )
        wires = {side: veths.wire(side) for side in "ab"}
        for number in range(STATIONS):  # each has its place now
            wires["ab"[number % 2]].send(frame(number, number + 1 if number + 1 < STATIONS else 0))
        arrived(operator)
        before = flooded(operator)
        for number in range(STATIONS - 1):
            wires["ab"[number % 2]].send(frame(number, number + 1))
        arrived(operator)
        assert flooded(operator) == before
        assert check(operator.name, began) >= STATIONS
        process.terminate()
        process.communicate(timeout=TIMEOUT)
    found = json.loads(report.read_text())
    assert not any(found["balance"].values()), (found["balance"], SEED)
    assert sum(each["restarts"] for each in found["workers"]) == KILLS


def arrived(operator: Operator) -> None:
    """Wait until no packet arrives any more and all are through the workers."""
    last = [-1, -1]

    def still() -> bool:
        ports = status(operator.name)["ports"]
        now = [ports[side]["received"]["packets"] for side in "ab"]
        quiet, last[:] = now == last, now
        time.sleep(0.3)
        return quiet and not any(ports[side]["in_flight"] for side in "ab")

    wait_until(still, "silence")


def flooded(operator: Operator) -> int:
    return sum(each["metrics"]["flooded"] for each in status(operator.name)["workers"])
