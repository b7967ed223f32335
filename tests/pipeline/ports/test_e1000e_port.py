"""The port of the 82574L over registers that keep what is written; tests/guest/test_e1000e.py has
QEMU's card."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ringline.pipeline._pipeline import ffi, lib
from ringline.pipeline.configuration.deadlines import PortLimits
from ringline.pipeline.ports.e1000e.port import E1000ePort, descriptor_flags
from ringline.pipeline.ports.e1000e.registers import REGISTERS
from ringline.pipeline.ports.port import Link
from ringline.shm.errors import ConfigurationError, HardwareError

from .fake_card import FakeRegisters
from .port_harness import RIGHT, PortHarness

DD, EOP, IXSM, VP, UDPCS, TCPCS, IPCS = (1 << bit for bit in range(7))
CRC_ERROR, TCPE, IPE = 1 << 24, 1 << 29, 1 << 30
EOP_IFCS, IFCS, RS, TX_DD = 3 << 24, 2 << 24, 1 << 27, 1 << 32
RESET, MASTER_DISABLE, READY = 1 << 26, 1 << 2, 1 << 28
CTRL, STATUS, EECD, MDIC, EXTCNF, RCTL, TCTL = 0, 8, 0x10, 0x20, 0xF00, 0x100, 0x400
RA, RDBA, TDBA = 0x5400, 0x2800, 0x3800
UP_1000 = 2 | 2 << 6
MAC = "02:00:00:00:00:77"
L3_OK, L4_OK, BAD = lib.RL_FLAG_L3_OK, lib.RL_FLAG_L4_OK, lib.RL_FLAG_CHECKSUM_BAD


class Registers(FakeRegisters):
    """Resets end at once, and the PHY answers at once. `foreign`: its firmware has the PHY."""

    def __init__(self) -> None:
        super().__init__()
        self.foreign = False
        self.phy: list[int] = []
        self.words[STATUS // 4], self.words[EECD // 4] = UP_1000, 1 << 9

    def write32(self, address: int, value: int) -> None:
        if address == MDIC:
            self.phy.append(value)
            value |= READY
        if address == CTRL:
            value &= ~RESET
        self.words[address // 4] = 0 if address == EXTCNF and self.foreign else value


class FakeE1000ePort(E1000ePort):
    limits = PortLimits(register=0.05, link=0.05, sent=0.05)

    def _map_registers(self) -> FakeRegisters:
        self.access = Registers()
        self.bus_mastering = False
        return self.access

    def _set_bus_mastering(self, on: bool) -> None:
        self.bus_mastering = on


class FakeE1000e(PortHarness):
    port_class = FakeE1000ePort
    port: FakeE1000ePort

    def descriptor(self, base: int, index: int, queue: int = 0) -> Any:
        low, high = (self.port.access.read32(base + 0x100 * queue + 4 * i) for i in (0, 1))
        at = (high << 32 | low) - self.rings_bus
        return ffi.cast("uint64_t *", self.descriptors.segment.address + at + 16 * index)

    def receive(
        self, index: int, status: int, low: int = 0, tag: int = 0, length: int = 60
    ) -> None:
        words = self.descriptor(RDBA, index)
        words[0], words[1] = low, DD | status | length << 32 | tag << 48

    def sent(self, index: int, queue: int = 0) -> tuple[bytes, int]:
        """The bytes that a TX descriptor names, and its commands."""
        words = self.descriptor(TDBA, index, queue)
        low, high = words[0], words[1]
        begin = low - self.addresses.page_bus[0]
        return bytes(self.packets.segment.memory[begin : begin + (high & 0xFFFF)]), high >> 16 << 16

    def register(self, name: str, index: int | None = None) -> int:
        place = REGISTERS[name]
        return self.port.access.read32(place.address + place.stride * (index or 0))


@pytest.fixture
def card(instance: Callable[[], str]) -> Iterator[FakeE1000e]:
    with FakeE1000e(instance(), queues=2, promiscuous=False, mac=MAC) as made:
        yield made.start()


def test_a_frame_has_the_hash_and_the_checksums_of_its_descriptor(card: FakeE1000e) -> None:
    card.receive(0, EOP | IPCS | TCPCS, low=0xABCD1234 << 32 | 1)
    card.receive(1, EOP | IPCS | TCPCS | UDPCS | TCPE, length=1518)
    card.receive(2, EOP)
    first, second, third = card.rx_burst()
    assert (first.length, first.rss_hash, first.flags) == (
        60,
        0xABCD1234,
        lib.RL_FLAG_HASH | L3_OK | L4_OK,
    )
    assert (second.length, second.flags) == (1518, L3_OK | BAD)
    assert third.flags == 0
    assert card.register("RDT", 0) == 2
    for ref in (first, second, third):
        card.held(ref)
    assert card.residuals() == RIGHT


def test_a_frame_with_an_error_or_in_parts_is_dropped_and_counted(card: FakeE1000e) -> None:
    card.receive(0, EOP | CRC_ERROR)
    card.receive(1, 0)
    card.receive(2, EOP)
    card.receive(3, EOP, length=2048)
    card.receive(4, EOP, length=99)
    assert [ref.length for ref in map(card.held, card.rx_burst())] == [99]
    assert card.counters(0).drop_rx_error == 3
    assert card.residuals() == RIGHT


def test_without_a_free_buffer_nothing_is_taken(card: FakeE1000e) -> None:
    free, card.memory.free_count = card.memory.free_count, 0
    card.receive(0, EOP)
    assert card.rx_burst() == []
    assert card.counters(0).rx_starved == 1
    card.memory.free_count = free
    assert len(card.rx_burst()) == 1


def test_flags_of_descriptors() -> None:
    plain, strip = descriptor_flags(False), descriptor_flags(True)
    vp, tcpcs, ipcs = VP >> 2, TCPCS >> 2, IPCS >> 2
    assert (plain[vp], strip[vp]) == (0, lib.RL_FLAG_VLAN)
    assert plain[ipcs | tcpcs] == plain[ipcs | UDPCS >> 2] == L3_OK | L4_OK
    assert plain[ipcs | 1 << 10] == BAD  # IPE
    assert plain[ipcs | tcpcs | 1 << 9] == L3_OK | BAD  # TCPE
    assert plain[1 | ipcs | tcpcs | 1 << 9] == 0  # IXSM
    assert plain[1 << 5] == lib.RL_FLAG_HASH


def test_packets_are_posted_with_one_report_and_come_back(card: FakeE1000e) -> None:
    free = card.memory.free_count
    frames = [bytes([n]) * (60 + n) for n in range(3)]
    assert card.tx_burst([card.packet(frame) for frame in frames], queue=1) == 3
    assert card.register("TDT", 1) == 3
    assert [card.sent(index, 1) for index in range(3)] == [
        (frames[0], EOP_IFCS),
        (frames[1], EOP_IFCS),
        (frames[2], EOP_IFCS | RS),
    ]
    assert card.reclaim(1) == 0
    card.descriptor(TDBA, 2, 1)[1] |= TX_DD
    assert card.reclaim(1) == 3
    assert card.memory.free_count == free
    assert card.residuals() == RIGHT


def test_a_full_ring_takes_the_rest_later(card: FakeE1000e) -> None:
    refs = [card.packet(bytes(60)) for _ in range(64)]
    assert card.tx_burst(refs) == 62, "a packet may need two descriptors"
    assert card.tx_burst(refs[62:]) == 0
    assert card.residuals() == RIGHT


def test_a_frame_across_the_end_of_a_page_takes_two_descriptors(card: FakeE1000e) -> None:
    free = card.memory.free_count
    frame = bytes(range(250)) * 6
    held = [card.packet(frame) for _ in range(8)]
    begins = [card.memory.bus[ref.buffer] + ref.offset for ref in held]
    expected = []
    for here in (4096 - begin % 4096 for begin in begins):
        if here < len(frame):
            expected += [(frame[:here], IFCS), (frame[here:], EOP_IFCS)]
        else:
            expected += [(frame, EOP_IFCS)]
    assert len(held) < len(expected) < 2 * len(held)
    expected[-1] = expected[-1][0], expected[-1][1] | RS
    assert card.tx_burst(held, queue=1) == len(held)
    assert card.register("TDT", 1) == len(expected)
    assert [card.sent(index, 1) for index in range(len(expected))] == expected
    card.descriptor(TDBA, len(expected) - 1, 1)[1] |= TX_DD
    assert card.reclaim(1) == len(held)
    assert card.memory.free_count == free
    assert card.residuals() == RIGHT


def test_the_tag_of_a_packet_is_put_into_its_frame(card: FakeE1000e) -> None:
    frame = bytes(range(60))
    card.tx_burst([card.packet(frame, tag=0x6123)])
    tagged = frame[:12] + bytes.fromhex("81006123") + frame[12:]
    assert card.sent(0) == (tagged, EOP_IFCS | RS)


def test_start_sets_filters_queues_and_address(card: FakeE1000e) -> None:
    assert card.port.mac == MAC
    assert card.port.bus_mastering
    assert card.port.link() == Link(True, 1000)
    assert card.register("RCTL") == 1 << 1 | 1 << 15 | 1 << 26  # EN, BAM, SECRC
    assert card.register("RETA", 31) == 1 << 15 | 1 << 31  # queues 0, 1, 0, 1
    assert card.register("MRQC") & 3 == 1
    assert card.register("RDT", 1) == 63
    assert not card.register("CTRL") & 1 << 30, "VME: tags stay in the frame"
    assert card.port.access.phy == [1 << 26 | 1 << 21 | 0x1200]


def test_more_addresses_and_vlans_are_in_their_tables(instance: Callable[[], str]) -> None:
    macs = tuple(f"02:00:00:00:01:{n:02x}" for n in range(15))
    keys: dict[str, Any] = {"promiscuous": False, "more_macs": macs, "vlan_filter": (33,)}
    with FakeE1000e(instance(), **keys) as card:
        card.start()
        words = [card.register("RA_MORE", n) for n in range(15)]
        assert [word.to_bytes(4, "little")[:4].hex(":") for word in words] == ["02:00:00:00"] * 15
        highs = [card.port.access.read32(RA + 4 + 8 * n) for n in range(1, 16)]
        assert highs == [1 << 31 | n << 8 | 1 for n in range(15)]
        assert [card.register("VFTA", n) for n in range(3)] == [1, 2, 0]
        assert card.register("RCTL") >> 18 & 1
        card.port.stop_receiving()
        assert not any(card.port.access.read32(RA + 4 + 8 * n) >> 31 for n in range(16))
    with pytest.raises(ConfigurationError, match="16 addresses, and the 82574L has room for 15"):
        FakeE1000e(instance(), promiscuous=False, more_macs=(*macs, "02:00:00:00:02:00"))


def test_stop_closes_the_filters_and_leaves_the_receiver_on(card: FakeE1000e) -> None:
    free = card.memory.free_count
    card.port.stop_receiving()
    assert card.register("RCTL") == 1 << 1 | 1 << 26
    assert not card.port.access.read32(RA + 4) >> 31
    card.port.stop()
    assert not card.register("TCTL") & 2
    assert not card.port.bus_mastering
    assert card.memory.free_count == free + 128
    assert card.port.trouble() is None
    card.start()
    assert card.port.mac == MAC


def test_a_phy_that_the_firmware_keeps_is_named(instance: Callable[[], str]) -> None:
    with FakeE1000e(instance()) as card:
        card.port.access.foreign = True
        with pytest.raises(HardwareError, match="has kept the link"):
            card.start()


def test_no_link_has_no_speed(card: FakeE1000e) -> None:
    card.port.access.words[STATUS // 4] = 2 << 6
    assert card.port.link() == Link(False, 0)


def test_statistics_are_those_of_the_card(card: FakeE1000e) -> None:
    card.port.access.words[0x4074 // 4] = 7
    assert card.port.statistics()["rx_good_packets"] == 7
