"""A running 82599 port over the device model: hashes, filters, statistics, link, stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ringline.pipeline._pipeline import lib
from ringline.pipeline.configuration.config import PortConfig
from ringline.pipeline.ports.ixgbe.initialisation import STEPS, start_link
from ringline.pipeline.ports.ixgbe.port import IxgbePort
from ringline.pipeline.ports.port import Link
from ringline.shm.errors import ConfigurationError, HardwareError

from .bare_82599 import table
from .fake_card import LINKS, FakeCard
from .frames import BROADCAST, CARD, OTHER, packet
from .model_card import ModelCard, ModelPort

# The published verification vectors of receive-side scaling (Microsoft): addresses and ports, the
# hash of the addresses alone, and the hash of both.
VECTORS = [
    ("66.9.149.187", "161.142.100.80", 2794, 1766, 0x323E8FC2, 0x51CCC178),
    ("199.92.111.2", "65.69.140.83", 14230, 4739, 0xD718262A, 0xC626B0EA),
    ("24.19.198.95", "12.22.207.184", 12898, 38024, 0xD2D0A5DE, 0x5C2B394A),
    ("38.27.205.30", "209.142.163.6", 48228, 2217, 0x82989176, 0xAFC7327F),
    ("153.39.163.191", "202.188.127.2", 44251, 1303, 0x5D1809C5, 0x10E828A2),
    ("3ffe:2501:200:1fff::7", "3ffe:2501:200:3::1", 2794, 1766, 0x2CC18CD5, 0x40207D3D),
    ("3ffe:501:8::260:97ff:fe40:efab", "ff02::1", 14230, 4739, 0x0F0C461C, 0xDDE51BBF),
    (
        "3ffe:1900:4545:3:200:f8ff:fe21:67cf",
        "fe80::200:f8ff:fe21:67cf",
        44251,
        38024,
        0x4B61E985,
        0x02D1FEEF,
    ),
]
FLOWS = [packet("10.0.0.1", "10.9.8.7", 17, (1000 + n, 53)) for n in range(500)]


@pytest.mark.parametrize("vector", VECTORS, ids=[vector[0] for vector in VECTORS])
def test_hashes_are_those_of_the_published_vectors(
    instance: Callable[[], str], vector: tuple[str, str, int, int, int, int]
) -> None:
    source, destination, source_port, destination_port, plain, full = vector
    ports = (source_port, destination_port)
    with ModelCard(instance(), queues=16, buffers=4096).start() as card:
        alone = packet(source, destination, 89)
        tcp, udp = (packet(source, destination, protocol, ports) for protocol in (6, 17))
        seen = {one.frame: one for one in card.carry([alone, tcp, udp])}
        assert {frame: one.rss_hash for frame, one in seen.items()} == {
            alone: plain,
            tcp: full,
            udp: full,
        }
        for one in seen.values():
            assert one.queue == one.rss_hash % 128 % 16
            assert one.flags & lib.RL_FLAG_HASH


@pytest.mark.parametrize("queues", [1, 2, 4, 16])
def test_every_queue_gets_its_share(instance: Callable[[], str], queues: int) -> None:
    with ModelCard(instance(), queues=queues, buffers=4096).start() as card:
        share = [0] * queues
        for one in card.carry(FLOWS, steps=60):
            share[one.queue] += 1
        assert sum(share) == len(FLOWS)
        assert min(share) > len(FLOWS) / queues / 2
        assert set(card.residuals().values()) == {0}


def test_frames_other_than_ip_go_to_queue_0(instance: Callable[[], str]) -> None:
    with ModelCard(instance(), queues=4).start() as card:
        arp = BROADCAST + CARD + b"\x08\x06" + bytes(46)
        (one,) = card.carry([arp])
        assert one.queue == 0
        assert not one.flags & lib.RL_FLAG_HASH


@pytest.mark.parametrize("protocol", [6, 17])
def test_with_the_symmetric_key_both_directions_take_the_same_queue(
    instance: Callable[[], str], protocol: int
) -> None:
    there = [packet("10.0.0.1", "10.9.8.7", protocol, (1000 + n, 53)) for n in range(50)]
    back = [packet("10.9.8.7", "10.0.0.1", protocol, (53, 1000 + n)) for n in range(50)]
    with ModelCard(instance(), queues=4, buffers=1024, rss_key="symmetric").start() as card:
        seen = {one.frame: (one.queue, one.rss_hash) for one in card.carry([*there, *back])}
        assert [seen[frame] for frame in there] == [seen[frame] for frame in back]
        assert len({queue for queue, _ in seen.values()}) == 4


def test_a_configured_key_is_used(instance: Callable[[], str]) -> None:
    hashes = []
    for key in ("00" * 40, "6d5a" * 20, "symmetric"):
        with ModelCard(instance(), rss_key=key).start() as card:
            hashes.append([one.rss_hash for one in card.carry(FLOWS[:10])])
    assert hashes[0] == [0] * 10
    assert hashes[1] == hashes[2] != hashes[0]


@pytest.mark.parametrize(
    ("config", "accepted"),
    [
        ({}, [CARD, OTHER, BROADCAST]),
        ({"promiscuous": False}, [CARD, BROADCAST]),
        ({"promiscuous": False, "mac": OTHER.hex(":")}, [OTHER, BROADCAST]),
        ({"mac": OTHER.hex(":")}, [CARD, OTHER, BROADCAST]),
    ],
)
def test_the_configuration_says_which_destinations_the_card_accepts(
    instance: Callable[[], str], config: dict[str, Any], accepted: list[bytes]
) -> None:
    def to(address: bytes) -> bytes:
        return address + FLOWS[0][6:]

    frames = [to(CARD), to(OTHER), to(BROADCAST)]
    with ModelCard(instance(), **config).start() as card:
        assert card.port.mac == config.get("mac", CARD.hex(":"))
        assert [one.frame[:6] for one in card.carry(frames)] == accepted
        assert card.sim.faults() == []


class BackplanePort(ModelPort):
    device_id = 0x10F7


class BackplaneCard(ModelCard):
    port_class = BackplanePort


def test_a_backplane_negotiates_in_the_mode_of_its_eeprom(instance: Callable[[], str]) -> None:
    with BackplaneCard(instance()).start() as card:
        assert card.port.link() == Link(True, 10000)
        assert card.sim.read32(0x42A0) >> 13 & 7 == 4  # AUTOC.LMS: KX4 and KR, negotiated
        assert [one.frame for one in card.carry(FLOWS[:5])] == FLOWS[:5]


def test_a_card_receives_for_all_the_addresses_that_it_has_room_for(
    instance: Callable[[], str],
) -> None:
    macs = tuple(f"02:00:00:00:01:{n:02x}" for n in range(127))
    frames = [bytes.fromhex(mac.replace(":", "")) + FLOWS[0][6:] for mac in macs]
    with ModelCard(instance(), promiscuous=False, more_macs=macs).start() as card:
        seen = [one.frame for n in range(0, 127, 32) for one in card.carry(frames[n : n + 32])]
        assert seen == frames
        assert card.port.mac == CARD.hex(":")
        assert card.sim.faults() == []
    with pytest.raises(
        ConfigurationError, match="128 addresses, and the 82599 has room for 127 beside"
    ):
        ModelCard(instance(), promiscuous=False, more_macs=(*macs, "02:00:00:00:02:00"))


@pytest.mark.parametrize(
    ("vlans", "kept"), [((100, 4094), (None, 0, 100, 4094)), ((), (None, 0)), (None, None)]
)
@pytest.mark.parametrize("promiscuous", [False, True])
def test_frames_of_other_vlans_are_dropped_and_not_counted(
    instance: Callable[[], str],
    vlans: tuple[int, ...] | None,
    kept: tuple[int | None, ...] | None,
    promiscuous: bool,
) -> None:
    tags = (None, 0, 99, 100, 101, 4094, 4095)
    frames = {
        tag: CARD + packet("10.0.0.1", "10.0.0.2", 17, (1, 2), vlan=tag)[6:]
        if tag is not None
        else CARD + FLOWS[0][6:]
        for tag in tags
    }
    with ModelCard(instance(), promiscuous=promiscuous, vlan_filter=vlans).start() as card:
        wanted = [frames[tag] for tag in (tags if kept is None else kept)]
        assert [one.frame for one in card.carry(list(frames.values()))] == wanted
        statistics = card.port.statistics()
        assert statistics["rx_good_packets"] == len(wanted)
        assert sum(n for name, n in statistics.items() if "missed" in name or "drop" in name) == 0
        assert card.sim.faults() == []


def test_packets_in_the_ring_can_be_received_after_receiving_has_stopped(
    instance: Callable[[], str],
) -> None:
    with ModelCard(instance()).start() as card:
        card.carry(FLOWS[:5])
        card.carry(FLOWS[5:15], steps=0)
        card.sim.step()
        card.port.stop_receiving()
        refs = [card.held(ref) for ref in card.rx_burst()]
        assert [card.frame(ref) for ref in refs] == FLOWS[5:15]
        card.carry(FLOWS[15:20], steps=0)
        for _ in range(10):
            card.sim.step()
        assert card.rx_burst() == []
        assert card.tx_burst(refs) == 10
        card.port.stop()
        assert card.counters(0).transmitted == 15
        assert set(card.residuals().values()) == {0}
        assert card.sim.faults() == []


def test_stop_disables_queues_receiver_and_dma(instance: Callable[[], str]) -> None:
    enable, rxen, disable, enabled = 1 << 25, 1, 1 << 2, 1 << 19
    with ModelCard(instance(), queues=2).start() as card:
        card.carry(FLOWS[:5])
        queues = [0x1028, 0x1068, 0x6028, 0x6068]
        assert all(card.sim.read32(control) & enable for control in queues)
        card.port.stop()
        assert not any(card.sim.read32(control) & enable for control in queues)
        assert not card.sim.read32(0x3000) & rxen
        assert card.sim.read32(0) & disable
        assert not card.sim.read32(8) & enabled


def test_the_statistics_of_two_readings_add_up(instance: Callable[[], str]) -> None:
    with ModelCard(instance()).start() as card:
        card.carry(FLOWS[:5])
        assert card.port.statistics()["rx_good_packets"] == 5
        assert card.port.statistics()["rx_good_packets"] == 5
        card.carry(FLOWS[:7])
        assert card.port.statistics()["rx_good_packets"] == 12


def test_frames_without_a_descriptor_are_counted_by_the_card(
    instance: Callable[[], str],
) -> None:
    with ModelCard(instance()).start() as card:
        card.sim.load(table(FLOWS), rate_mpps=1000.0)
        for _ in range(100):
            card.sim.step()
        dropped = len(FLOWS) - 63
        assert card.port.statistics()["rx_queue0_dropped"] == dropped
        assert card.sim.wire()["dropped_no_descriptor"] == dropped


def test_the_link_decides_whether_the_lane_may_send(instance: Callable[[], str]) -> None:
    with FakeCard(instance()).start() as card:
        words = card.port.access.words
        assert card.port.link() == Link(True, 10000)
        assert card.c_port.ready == 1
        words[LINKS // 4] = 0
        assert card.port.link() == Link(False, 0)
        assert card.c_port.ready == 0
        for speed, mbps in ((1, 100), (2, 1000), (3, 10000), (0, 0)):
            words[LINKS // 4] = 1 << 30 | speed << 28
            assert card.port.link() == Link(True, mbps)
        assert card.c_port.ready == 1
        card.port.stop()
        assert card.c_port.ready == 0
        card.port.link()
        assert card.c_port.ready == 0


def test_a_port_starts_without_a_link(instance: Callable[[], str]) -> None:
    with ModelCard(instance()) as card:
        card.port.steps = tuple(step for step in STEPS if step is not start_link)
        card.start()
        assert card.port.link() == Link(False, 0)


@pytest.mark.parametrize(
    ("address", "bits", "words"),
    [
        (0x10010, 0, "EEC.AUTO_RD to become 1; it is 0"),
        (0x2F00, 0, "RDRXCTL.DMAIDONE to become 1; it is 0"),
        (0x8D04, 0, "SECRXSTAT.SECRX_RDY to become 1; it is 0"),
    ],
)
def test_a_card_that_does_not_answer_is_an_error_that_names_the_awaited_field(
    instance: Callable[[], str], address: int, bits: int, words: str
) -> None:
    with FakeCard(instance()) as card:
        card.port.access.words[address // 4] = bits
        with pytest.raises(HardwareError, match=words):
            card.start()
        card.port.stop()
        assert set(card.residuals().values()) == {0}
        assert not card.port.bus_mastering


def test_a_card_that_does_not_answer_is_stopped_and_reported(
    instance: Callable[[], str],
) -> None:
    with FakeCard(instance()).start() as card:
        card.port.access.words[0x8D04 // 4] = 0
        card.tx_burst([card.packet(FLOWS[0])])
        card.port.stop()
        assert "SECRXSTAT.SECRX_RDY" in card.port.faults()[0]
        assert set(card.residuals().values()) == {0}
        assert card.memory.free_count == card.memory.buffers
        assert not card.port.bus_mastering


def test_counters_in_plain_memory_count_from_the_start(
    instance: Callable[[], str],
) -> None:
    with FakeCard(instance()) as card:
        words = card.port.access.words
        words[0x4074 // 4] = 1000  # counted before the start
        card.start()
        assert card.port.statistics()["rx_good_packets"] == 0
        words[0x4074 // 4] = 1005
        assert card.port.statistics()["rx_good_packets"] == 5
        assert card.port.statistics()["rx_good_packets"] == 5


@pytest.mark.parametrize("queues", [0, 17])
def test_a_number_of_queues_that_the_card_does_not_have_is_refused(queues: int) -> None:
    config: Any = replace(PortConfig("wan", "pci:0000:03:00.0"), queues=queues)
    with pytest.raises(ConfigurationError, match=f"1 to 16 queues, not {queues}"):
        IxgbePort(config, 0, None)


def test_close_stops_the_port_and_may_be_repeated(instance: Callable[[], str]) -> None:
    with ModelCard(instance()).start() as card:
        card.carry(FLOWS[:5])
        card.port.close()
        assert card.memory.free_count == card.memory.buffers
        card.port.close()
        card.port.stop()
