"""The lane over a stand-in for a card, with a real worker process."""

from __future__ import annotations

import os

import pytest

from ringline.pipeline.bench.machine import Machine, Runs
from ringline.pipeline.bench.measurements import lane
from ringline.pipeline.bench.measurements.lane import prefilled
from ringline.pipeline.bench.sampling.windows import Windows
from ringline.shm.segments import segments_of

NATIVE = "ringline.workers.plugins.mac_swap:mac_swap"


def test_every_packet_of_the_stand_in_comes_back_and_the_books_balance() -> None:
    with prefilled(max(os.sched_getaffinity(0)), NATIVE) as peer:
        before = peer.read()
        for _ in range(500):
            peer.lane.run(0.01)
            if peer.read()["sent"] > 20_000:
                break
        assert peer.drain() == 0
        after = peer.read()
        peer.lane.balance(complete=True)
        balance = peer.books.balance
        assert after["sent"] == peer.books.queues[0].rx_packets > 20_000
        assert after["taken"] == after["sent"]
        assert after["driver"] > before["driver"]
        assert after["worker"] > before["worker"]
        assert (balance.packets_residual[0], balance.worker_residual[0]) == (0, 0)
        assert (balance.buffers_residual, balance.scan_missing, balance.scan_duplicates) == (
            0,
            0,
            0,
        )
        queue = peer.books.queues[0]
        assert (queue.drop_bad_reference, queue.drop_plugin, queue.drop_rx_error) == (0, 0, 0)
    assert segments_of(f"bench-{os.getpid()}") == []


def test_what_follows_for_a_core_is_labelled(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Windows(
        (0.1, 0.1),
        {"driver": (0.1, 0.2), "sent": (10e6, 10e6), "worker": (0.05, 0.05), "taken": (10e6, 10e6)},
    )
    monkeypatch.setattr(lane, "_once", lambda machine: run)
    monkeypatch.setattr(
        lane, "quiet_runs", lambda once, runs, machine, pair: Runs([once() for _ in range(2)])
    )
    machine = Machine(cpus=(0, 1), arithmetic=1.0, round_trip=100.0, strays={})
    driver, of_driver, worker, of_worker = lane.measure(machine, 2)
    assert (driver.value, worker.value) == pytest.approx((10.0, 5.0))
    assert (of_driver.value, of_worker.value) == pytest.approx((100.0, 200.0))
    assert [figure.derived for figure in (driver, of_driver, worker, of_worker)] == [
        False,
        True,
        False,
        True,
    ]
    assert "derived, not measured" in of_driver.notes()
