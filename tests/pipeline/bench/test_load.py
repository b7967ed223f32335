"""`bench load`: the search for the highest rate without loss, and the time of packets."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from ringline.pipeline.bench.measurements import load
from ringline.pipeline.ports.sim82599.transits import BUCKETS

CPUS = sorted(os.sched_getaffinity(0))


@pytest.fixture(autouse=True)
def cpus_as_before() -> Iterator[None]:
    before = os.sched_getaffinity(0)
    yield
    os.sched_setaffinity(0, before)


@pytest.mark.parametrize("limit", [0.3, 7.7, 12.1])
def test_the_search_ends_below_the_first_rate_with_loss(limit: float) -> None:
    ceiling = 12.8
    found = load.search(lambda mpps: mpps <= limit, ceiling)
    assert limit - ceiling / 2**load.STEPS <= found <= limit


def test_the_search_finds_nothing_when_all_rates_lose() -> None:
    assert load.search(lambda mpps: False, 10.0) == 0.0


def test_each_window_has_its_own_quantile_and_an_empty_one_has_none() -> None:
    first, empty, last = [0] * BUCKETS, [0] * BUCKETS, [0] * BUCKETS
    first[10], first[40], last[10] = 99, 1, 10
    assert load.times([first, empty, last], 0.999) == [0.0405, 0.0105]


def test_a_run_says_once_what_disturbed_it() -> None:
    quiet, stolen = load.At(1, 0, []), load.At(1, 0, [], "the hypervisor took 9% of CPU 1")
    assert load.Run(1.0, {0.1: quiet, 0.5: quiet}).disturbed == ""
    run = load.Run(1.0, {0.1: stolen, 0.5: stolen}, "every rate lost packets")
    assert run.disturbed == "every rate lost packets; the hypervisor took 9% of CPU 1"


def test_every_packet_that_is_sent_has_a_time() -> None:
    with load.loaded(CPUS[-1], plugin="ringline.workers.plugins.forward:forward") as peer:
        os.sched_setaffinity(0, {CPUS[0]})
        peer.offer(0.02)
        before = peer.note_transits()
        for _ in range(50):
            peer.run(0.1)
            after = peer.note_transits()
            if after["sent"] - before["sent"] > 100:
                break
        sent = after["sent"] - before["sent"]
        timed = sum(peer.counts[-1]) - sum(peer.counts[0])
        assert sent > 100
        # A packet has its time when the card takes it, and is counted when the lane reclaims it.
        assert abs(timed - sent) <= 64


def test_more_than_the_worker_can_do_is_lost_and_counted() -> None:
    with load.loaded(CPUS[-1], plugin="ringline.workers.plugins.mac_swap:mac_swap") as peer:
        os.sched_setaffinity(0, {CPUS[0]})
        before = peer.read()["lost"]
        peer.offer(1000.0)
        peer.run(0.1)
        assert peer.read()["lost"] > before
