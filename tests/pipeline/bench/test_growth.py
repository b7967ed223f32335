"""`bench growth`: the lane with several queues and ports, and frames of many flows."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from ringline.pipeline.bench.measurements import growth
from ringline.pipeline.bench.measurements.growth import Point, Sweep, frames, grown
from ringline.pipeline.bench.sampling.windows import Windows
from ringline.pipeline.ports.sim82599.wire import FrameTable
from ringline.workers.captures import headers

RUN_SECONDS = 0.02
TRIES = 200


@pytest.fixture(autouse=True)
def cpus_as_before() -> Iterator[None]:
    before = os.sched_getaffinity(0)
    yield
    os.sched_setaffinity(0, before)


@pytest.mark.parametrize("card", [True, False])
def test_packets_go_through_all_queues_of_all_ports(card: bool) -> None:
    point = Point(queues=4, ports=2, card=card)
    with grown(point) as peer:

        def idle_queues() -> list[tuple[int, int]]:
            return [
                (port, queue)
                for port in range(point.ports)
                for queue in range(point.queues)
                if peer.books.queues[port * 16 + queue].transmitted == 0
            ]

        for _ in range(TRIES):
            peer.lane.run(RUN_SECONDS)
            if not idle_queues():
                break
        assert idle_queues() == []
        read = peer.read()
        assert read["sent"] > 0
        assert read["driver"] > 0
        peer.lane.receiving = False
        peer.lane.run(RUN_SECONDS)
        peer.lane.balance(complete=True)
        balance = peer.books.balance
        assert balance.scan_missing == balance.scan_duplicates == balance.buffers_residual == 0
        assert not any(balance.packets_residual)


def test_sixteen_queues_and_eight_ports_have_room() -> None:
    for point in (Point(queues=16), Point(ports=8)):
        with grown(point) as peer:
            peer.lane.run(RUN_SECONDS)
            assert peer.read()["sent"] > 0


def test_empty_queues_stay_empty() -> None:
    with grown(Point(queues=4, busy=1)) as peer:
        peer.lane.run(RUN_SECONDS)
        received = [queue.rx_packets > 0 for queue in peer.books.queues]
        assert received[:4] == [True, False, False, False]


def flows_of(table: FrameTable) -> set[bytes]:
    """Addresses and ports of the frames, which are IPv4 without options."""
    return {bytes(table.frame(n)[26:38]) for n in range(len(table.lengths))}


@pytest.mark.parametrize("flows", [100, 70_000])
def test_every_flow_differs_and_its_checksums_are_right(flows: int) -> None:
    table = frames(flows, 128, 0)
    assert len(flows_of(table)) == flows == len(table.order)
    assert set(table.lengths) == {128 - 4}
    for number in (0, 1, flows // 2, flows - 1):
        frame = bytes(table.frame(number))
        assert headers.checksum(frame[14:34], 0) == 0
        # The pseudo header: addresses, protocol, length of the UDP packet (RFC 768).
        pseudo = sum(int.from_bytes(frame[at : at + 4], "big") for at in (26, 30))
        assert headers.checksum(frame[34:], pseudo + frame[23] + len(frame) - 34) == 0


def test_the_others_are_ratios_to_the_first() -> None:
    first, second = Point(), Point(queues=16)
    results = {
        point: [Windows((0.1,) * 2, {"driver": driver, "sent": (100.0, 100.0)})]
        for point, driver in ((first, (2e-6, 4e-6)), (second, (3e-6, 3e-6)))
    }
    one, other = growth._figures(
        Sweep({"1 queue": first, "16 queues": second}, {"16 queues": 1.15}), results
    )
    assert (one.what, one.unit, one.value) == ("driver, 1 queue", "ns", pytest.approx(20.0))
    assert (other.what, other.unit, other.value) == ("  16 queues", "x", pytest.approx(1.5))
    assert other.met is False


def test_the_goals_are_for_points_that_exist() -> None:
    for sweep in growth.SWEEPS:
        assert set(sweep.goals) <= set(list(sweep.points)[1:])
