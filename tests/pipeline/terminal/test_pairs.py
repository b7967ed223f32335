"""The line of key=value pairs: a program splits it at spaces."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import pytest

from ringline.pipeline.telemetry.snapshot import Snapshot
from ringline.pipeline.terminal import pairs, table

from ..idle_instance import Idle, idle_instance


@pytest.fixture
def idle(instance: Callable[[], str]) -> Iterator[Idle]:
    with idle_instance(instance(), ports=2) as made:
        yield made


def read(line: str) -> dict[str, str]:
    found = dict(pair.split("=") for pair in line.split(" "))
    assert len(found) == line.count(" ") + 1, "a key is there twice"
    return found


def later(snapshot: Snapshot, before: Snapshot, seconds: float) -> Snapshot:
    return dataclasses.replace(snapshot, clock=before.clock + seconds)


def test_each_value_has_its_key_and_its_unit(idle: Idle) -> None:
    before = idle.take()
    block, counted = idle.books.queues[0], idle.instance.slots[0].counters
    block.rx_packets, block.rx_bytes = 26_000_000, 26_000_000 * 60
    block.drop_plugin, block.drop_worker_lost = 5, 6
    counted.packets, counted.plugin_errors = 13_000_000, 7
    idle.sources.workers[1].state = "waiting to restart"
    idle.sources.workers[1].restarts = 3
    now = later(idle.take(), before, 2.0)
    now = dataclasses.replace(now, taken=1_000_000_000.9)
    found = read(pairs.line(before, now, table.Span(before.clock, 10)))
    assert found["time"] == "2001-09-09T01:46:40Z"
    assert (found["seconds"], found["of"], found["state"]) == ("2", "10", "running")
    assert found["port.wan.rx_mpps"] == "13.000000"
    assert found["port.wan.rx_gbits"] == "6.240000"
    assert found["port.wan.tx_mpps"] == found["port.lan.rx_gbits"] == "0.000000"
    assert found["port.wan.link_mbits"].isdigit()
    assert (found["port.wan.drop.plugin"], found["port.wan.drop.worker_lost"]) == ("5", "6")
    assert "port.lan.drop.plugin" not in found
    assert found["worker.0.mpps"] == "6.500000"
    assert (found["worker.0.errors"], found["worker.0.restarts"]) == ("7", "0")
    assert (found["worker.1.state"], found["worker.1.restarts"]) == ("waiting_to_restart", "3")
    assert (found["worker.1.in"], found["worker.1.out"]) == ("0", "0")
    assert found["books"] == "balanced"


def test_what_is_not_known_has_no_pair_and_nothing_has_a_space(idle: Idle) -> None:
    idle.count()
    idle.books.balance.packets_residual[0] = -2
    found = read(pairs.line(None, idle.take()))
    assert not any(key.endswith(("_mpps", "_gbits", ".mpps")) for key in found)
    assert "of" not in found
    assert found["books"] == "off:packets.wan"
    assert found["port.lan.drop.missed"].isdigit()
