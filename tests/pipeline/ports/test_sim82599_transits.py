"""The simulated 82599 as a clock: how long frames of an open-loop wire are under way."""

from __future__ import annotations

import itertools
import time

import pytest

from ringline.pipeline._pipeline import lib
from ringline.pipeline.ports.sim82599.transits import BUCKETS, Transits, quantile

from .bare_82599 import PACKETS_BUS, Bare82599, table
from .frames import packet
from .test_sim82599_receive import UDP

FRAME = packet("192.0.2.1", "192.0.2.2", UDP, (1, 2))
LATE = 0.02  # seconds


def received(driver: Bare82599, count: int, rate_mpps: float) -> list[int]:
    """Let `count` frames arrive; the bus addresses of their buffers."""
    driver.sim.load(table([FRAME], repeat=count), rate_mpps=rate_mpps)
    until = time.monotonic() + 30
    first, got = driver.next[0], 0
    while got < count and time.monotonic() < until:
        driver.sim.step()
        got += len(driver.receive())
    return [PACKETS_BUS + driver.buffer(0, first + n) for n in range(got)]


def send(driver: Bare82599, address: int) -> None:
    driver.send(FRAME, address=address)
    driver.sim.step()


def slowest(transits: Transits) -> float:
    return quantile(transits.counts(), 1.0) / 1e9


def test_a_time_begins_when_a_frame_is_due_and_ends_when_its_packet_is_taken() -> None:
    with Bare82599() as driver:
        driver.bring_up()
        transits = driver.sim.measure_transits()
        (address,) = received(driver, 1, 0.01)
        assert sum(transits.counts()) == 0
        time.sleep(LATE)
        begin = time.monotonic()
        send(driver, address)
        assert sum(transits.counts()) == 1
        assert slowest(transits) > LATE * 0.97
        assert slowest(transits) < LATE + 10 + (time.monotonic() - begin)


def test_a_late_card_delays_every_frame_that_was_due() -> None:
    """The card does nothing for a while. All frames that were due meanwhile count as late, each
    by the time since it was due, although the card delivers them in one step."""
    with Bare82599() as driver:
        driver.bring_up()
        transits = driver.sim.measure_transits()
        driver.sim.load(table([FRAME], repeat=20), rate_mpps=0.001)  # 20 ms for all
        driver.sim.step()  # the wire begins
        time.sleep(2 * LATE)
        driver.sim.step()
        for n, _ in enumerate(driver.receive()):
            send(driver, PACKETS_BUS + driver.buffer(0, n))
        counts = transits.counts()
        assert sum(counts) == 20
        assert quantile(counts, 1.0) - quantile(counts, 0.05) >= 15e6  # 19 ms and two buckets
        assert quantile(counts, 0.05) >= LATE * 1e9 * 0.97


def test_packets_that_did_not_arrive_are_not_counted() -> None:
    with Bare82599() as driver:
        driver.bring_up()
        transits = driver.sim.measure_transits()
        (address,) = received(driver, 1, 0.01)
        send(driver, address)
        send(driver, address)  # a packet of the driver in the same buffer
        driver.send_raw(0, 5 << 16, 1 << 29 | 2 << 20)  # a context descriptor: no address
        driver.sim.step()
        assert sum(transits.counts()) == 1
        assert driver.sim.faults() == []


def test_frames_of_a_closed_loop_have_no_time() -> None:
    with Bare82599() as driver:
        driver.bring_up()
        transits = driver.sim.measure_transits()
        (address,) = received(driver, 1, 0.0)
        send(driver, address)
        assert sum(transits.counts()) == 0


def test_buckets_follow_each_other_without_a_gap() -> None:
    begins = [lib.rl_sim_transit_begin(bucket) for bucket in range(BUCKETS)]
    assert begins[:64] == list(range(64))
    for begin, end in itertools.pairwise(begins):
        assert 1 <= end - begin <= max(begin, 32) / 32
    assert begins[-1] > 60e9


@pytest.mark.parametrize(
    ("counts", "share", "nanoseconds"),
    [({10: 1}, 0.5, 10.5), ({10: 99, 40: 1}, 0.99, 10.5), ({10: 99, 40: 1}, 0.999, 40.5)],
)
def test_a_quantile_is_the_middle_of_its_bucket(
    counts: dict[int, int], share: float, nanoseconds: float
) -> None:
    assert quantile([counts.get(n, 0) for n in range(BUCKETS)], share) == nanoseconds


def test_a_quantile_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no frame has arrived and left"):
        quantile([0.0] * BUCKETS, 0.5)
