"""The simulated card with the driver of the real one: in one process and in two."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest

from ringline.pipeline.configuration.config import FlowsConfig, WireConfig
from ringline.pipeline.ports.sim82599.replay import frame_table
from ringline.shm.errors import Bug, ConfigurationError, HardwareError
from ringline.workers.captures.captures import CaptureError, read_capture

from ...packet_headers import rss_input
from .forwarding import card_harness

FLOWS = FlowsConfig(
    count=64, sizes=((60, 3), (594, 2), (1514, 1)), ip="mixed", protocol="mixed", packets=5000
)


def flows_of(frames: list[bytes]) -> dict[bytes, list[bytes]]:
    """Frames grouped by the bytes that receive-side scaling hashes, in order."""
    found: dict[bytes, list[bytes]] = {}
    for frame in frames:
        found.setdefault(rss_input(frame), []).append(frame)
    return found


@pytest.mark.parametrize("process", [False, True], ids=["inside", "process"])
@pytest.mark.parametrize("queues", [1, 4])
def test_the_pair_forwards_every_frame_in_order(tmp_path: Path, process: bool, queues: int) -> None:
    record = tmp_path / "out.pcap"
    wire = WireConfig(flows=FLOWS, record=str(record))
    with card_harness(wire, process=process, queues=queues) as harness:
        with harness.pair() as pair:
            pair.until_finished()
            statistics = pair.port.statistics()
            assert statistics["rx_good_packets"] == FLOWS.packets
            assert statistics["tx_good_packets"] == FLOWS.packets
            assert pair.port.link().up
            counted = Counter(queue for queue, _ in pair.received)
            for queue in range(queues):
                assert statistics[f"rx_queue{queue}_packets"] == counted[queue] > 0
            assert pair.port.faults() == []
            free = pair.lane.memory.free_count
        assert pair.port.faults() == []
        wire_statistics = pair.port.wire_statistics()
        assert wire_statistics["delivered"] == wire_statistics["transmitted"] == FLOWS.packets
        assert free > 0
        if harness.process is not None:
            stopped = harness.process.ask({"do": "stop"})
            assert (stopped["event"], stopped["trouble"]) == ("stopped", None)
            assert stopped["wire"]["recorded"] == FLOWS.packets
    table = frame_table(wire)
    assert table is not None
    offered = [bytes(frame) for frame in table.sent()]
    recorded = [bytes(frame) for frame in read_capture(str(record)).frames]
    assert flows_of(recorded) == flows_of(offered)


def test_every_buffer_comes_back_when_the_port_stops() -> None:
    wire = WireConfig(flows=FlowsConfig(count=16))
    with card_harness(wire, queues=2) as harness, harness.pair() as pair:
        before = pair.lane.memory.free_count + sum(pair.port.posted())
        for _ in range(50):
            pair.turn()
        pair.port.stop()
        assert pair.port.posted() == (0, 0)
        assert pair.lane.memory.free_count == before
        pair.port.start()
        for _ in range(50):
            pair.turn()
        assert pair.port.faults() == []


def test_a_card_process_outlives_its_driver() -> None:
    wire = WireConfig(flows=FlowsConfig(count=16))
    with card_harness(wire, process=True, queues=2) as harness:
        assert harness.process is not None
        with harness.pair() as pair:
            while len(pair.received) < 1000:
                pair.turn()
            # The driver died while forwarding: only the supervisor stops the card, by switching
            # bus mastering off.
            answer = harness.process.ask({"do": "bus_master", "on": False})
            assert answer == {"event": "bus_master", "on": False}
            delivered = pair.port.wire_statistics()["delivered"]
        assert pair.port.wire_statistics()["delivered"] == delivered
        with harness.pair() as pair:
            while len(pair.received) < 1000:
                pair.turn()
            assert pair.port.faults() == []
            # A running card publishes its counters from time to time.
            deadline = time.monotonic() + 20
            while pair.port.wire_statistics()["delivered"] < delivered + 1000:
                assert time.monotonic() < deadline, "the wire of the card did not count"
                pair.turn()


@pytest.mark.slow
def test_a_card_whose_process_is_gone_is_a_hardware_error() -> None:
    with card_harness(WireConfig(), process=True) as harness:
        assert harness.process is not None
        harness.process.process.kill()
        with (
            pytest.raises(HardwareError, match="its process is gone or hangs"),
            harness.pair(),
        ):
            pass


def test_the_card_process_ends_with_its_supervisor() -> None:
    with card_harness(WireConfig(), process=True) as harness:
        assert harness.process is not None
        harness.process.control.close()
        assert harness.process.process.wait(20) == 0


def test_a_missing_capture_and_an_unwritable_record_are_errors(tmp_path: Path) -> None:
    wire = WireConfig(replay=str(tmp_path / "missing.pcap"))
    with (
        card_harness(wire) as harness,
        pytest.raises(CaptureError, match=r"missing\.pcap"),
        harness.pair(),
    ):
        pass
    record = WireConfig(record=str(tmp_path / "no" / "out.pcap"))
    unwritable = pytest.raises(CaptureError, match="cannot be written")
    with card_harness(record) as harness, unwritable, harness.pair():
        pass


def test_a_recording_that_stopped_is_reported() -> None:
    wire = WireConfig(flows=FlowsConfig(packets=100), record="/dev/full")
    with card_harness(wire) as harness, harness.pair() as pair:
        pair.until_finished()
        pair.port.wire_statistics()
        assert any("No space left on device" in fault for fault in pair.port.faults())


def test_physical_addresses_are_refused() -> None:
    with card_harness(WireConfig()) as harness, harness.pair(start=False) as pair:
        addresses = harness.descriptors.device_addresses("offset")
        addresses.page_bus = [0, 4096]
        with pytest.raises(ConfigurationError, match="cannot use physical addresses"):
            pair.port.open(pair.lane.memory, harness.descriptors, addresses)


def test_a_card_in_a_process_needs_its_segment() -> None:
    with card_harness(WireConfig(), process=True) as harness:
        harness.card, card = None, harness.card
        assert card is not None
        with pytest.raises(Bug, match="use_card"), harness.pair():
            pass
