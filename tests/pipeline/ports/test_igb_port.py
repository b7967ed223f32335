"""The port of the 82576 over registers that keep what is written; tests/guest/test_igb.py has
QEMU's card. It receives as the 82574L does (test_e1000e_port.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ringline.pipeline._pipeline import ffi, lib
from ringline.pipeline.configuration.deadlines import PortLimits
from ringline.pipeline.ports.igb.port import IgbPort
from ringline.pipeline.ports.igb.registers import REGISTERS
from ringline.pipeline.ports.port import Link
from ringline.shm.errors import ConfigurationError, HardwareError

from .fake_card import FakeRegisters
from .port_harness import RIGHT, PortHarness

DD, EOP, TCPCS, IPCS, TCPE = 1, 1 << 1, 1 << 5, 1 << 6, 1 << 29
DATA, RS, TX_DD = 0x23 << 24 | 3 << 20, 1 << 27, 1 << 32
CTRL, STATUS, EECD, EERD, MDIC, SWSM, SYNC = 0, 8, 0x10, 0x14, 0x20, 0x5B50, 0x5B5C
RESET, READY, UP_1000, SECOND_PORT = 1 << 26, 1 << 28, 2 | 2 << 6, 1 << 2
ENABLE = 1 << 25
MAC = "02:00:00:00:00:77"


class Registers(FakeRegisters):
    """Resets end at once, and the PHY answers at once. `owners` are the bits of SW_FW_SYNC when the
    PHY was written; `foreign`: the firmware does not give SWESMBI."""

    def __init__(self) -> None:
        super().__init__()
        self.foreign = False
        self.phy: list[int] = []
        self.owners: list[int] = []
        self.words[STATUS // 4], self.words[EECD // 4] = UP_1000, 1 << 9

    def write32(self, address: int, value: int) -> None:
        if address == MDIC:
            self.phy.append(value)
            self.owners.append(self.read32(SYNC))
            value |= READY
        if address == CTRL:
            value &= ~RESET
        if address == EERD:
            value |= 2
        if address == SWSM and self.foreign:
            value &= ~2
        self.words[address // 4] = value


class FakeIgbPort(IgbPort):
    limits = PortLimits(register=0.05, link=0.05, sent=0.05)

    def _map_registers(self) -> FakeRegisters:
        self.access = Registers()
        self.bus_mastering = False
        return self.access

    def _set_bus_mastering(self, on: bool) -> None:
        self.bus_mastering = on


class FakeIgb(PortHarness):
    port_class = FakeIgbPort
    port: FakeIgbPort

    def descriptor(self, ring: str, index: int, queue: int) -> Any:
        low, high = self.register(ring, queue), self.register(ring, queue, 4)
        at = (high << 32 | low) - self.rings_bus
        return ffi.cast("uint64_t *", self.descriptors.segment.address + at + 16 * index)

    def register(self, name: str, index: int = 0, more: int = 0) -> int:
        place = REGISTERS[name]
        return self.port.access.read32(place.address + place.stride * index + more)


@pytest.fixture
def card(instance: Callable[[], str]) -> Iterator[FakeIgb]:
    with FakeIgb(instance(), buffers=1024, queues=4, promiscuous=False, mac=MAC) as made:
        yield made.start()


def test_a_frame_has_the_hash_and_the_checksums_of_its_descriptor(card: FakeIgb) -> None:
    """The packet type, bits 4 to 16, is none of the RSS type."""
    for index, error in enumerate((0, TCPE)):
        words = card.descriptor("RDBA", index, 3)
        words[0] = 0xABCD1234 << 32 | 0x11 << 4 | 1
        words[1] = DD | EOP | IPCS | TCPCS | error | 60 << 32
    first, second = card.rx_burst(3)
    assert (first.length, first.rss_hash) == (60, 0xABCD1234)
    assert first.flags == lib.RL_FLAG_HASH | lib.RL_FLAG_L3_OK | lib.RL_FLAG_L4_OK
    assert second.flags == lib.RL_FLAG_HASH | lib.RL_FLAG_L3_OK | lib.RL_FLAG_CHECKSUM_BAD
    for ref in (first, second):
        card.held(ref, 3)
    assert card.residuals() == RIGHT


def test_packets_are_posted_in_advanced_descriptors_and_come_back(card: FakeIgb) -> None:
    free = card.memory.free_count
    lengths = (60, 500)
    assert card.tx_burst([card.packet(bytes(length)) for length in lengths], queue=3) == 2
    assert card.register("TDT", 3) == 2
    for index, (length, report) in enumerate(zip(lengths, (0, RS), strict=True)):
        upper = card.descriptor("TDBA", index, 3)[1]
        assert upper == DATA | report | length | length << 46
    assert card.reclaim(3) == 0
    card.descriptor("TDBA", 1, 3)[1] |= TX_DD
    assert card.reclaim(3) == 2
    assert card.memory.free_count == free
    assert card.residuals() == RIGHT


def test_start_sets_filters_queues_and_address(card: FakeIgb) -> None:
    assert card.port.mac == MAC
    assert card.port.bus_mastering
    assert card.port.link() == Link(True, 1000)
    assert card.register("RCTL") == 1 << 1 | 1 << 15 | 1 << 26  # EN, BAM, SECRC
    assert card.register("RETA", 31) == 0x03020100
    assert card.register("MRQC") & 7 == 2
    for queue in range(4):
        assert card.register("SRRCTL", queue) == 2 | 1 << 25 | 1 << 31
        assert card.register("RXDCTL", queue) & ENABLE
        assert card.register("TXDCTL", queue) & ENABLE
        assert card.register("RDT", queue) == 63
    assert not card.register("RXDCTL", 4) & ENABLE
    assert not card.register("CTRL") & 1 << 30, "VME: tags stay in the frame"
    assert card.port.access.phy == [1 << 26 | 1 << 21 | 0x1200]
    assert card.port.access.owners == [2]
    assert card.register("SW_FW_SYNC") == card.register("SWSM") == 0


def test_stop_stops_the_receiver_the_queues_and_the_dma(card: FakeIgb) -> None:
    free = card.memory.free_count
    card.port.stop_receiving()
    assert not card.register("RCTL") & 1 << 1
    assert card.register("RXDCTL", 3) & ENABLE, "frames that the card has can be received"
    card.port.stop()
    assert not card.register("RXDCTL", 3) & ENABLE
    assert not card.register("TXDCTL", 3) & ENABLE
    assert not card.register("TCTL") & 2
    assert not card.port.bus_mastering
    assert card.memory.free_count == free + 256
    assert card.port.trouble() is None
    card.start()
    assert card.port.mac == MAC


def test_the_second_port_of_a_card_has_its_own_phy(instance: Callable[[], str]) -> None:
    """A driver of the other port that was killed has left SWSM.SMBI."""
    with FakeIgb(instance()) as card:
        card.port.access.words[STATUS // 4] |= SECOND_PORT
        card.port.access.words[SWSM // 4] = 1
        card.start()
        assert card.port.access.owners == [4]
        assert card.register("SW_FW_SYNC") == card.register("SWSM") == 0


def test_a_card_that_did_not_start_is_not_waited_for_long(
    instance: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may never answer, and the driver must end in time."""
    with FakeIgb(instance()) as card:
        card.port.access.foreign = True
        with pytest.raises(HardwareError):
            card.start()
        given: list[float] = []
        monkeypatch.setattr(card.port._card, "begin_call", given.append)
        card.port.stop(3.0)
    assert given[0] <= 0.1


def test_a_number_of_a_port_that_cannot_be_is_no_fault_of_the_program(
    instance: Callable[[], str],
) -> None:
    """All ones in STATUS: a card that was removed while it starts says the same."""
    with FakeIgb(instance()) as card:
        card.port.access.words[STATUS // 4] = 0xFFFFFFFF
        card.start()
        assert card.register("SW_FW_SYNC") == 0


@pytest.mark.parametrize("why", ["SWSM.SWESMBI stays 0", "SW_FW_SYNC.FW_PHY0 stays 1"])
def test_a_phy_that_the_firmware_keeps_is_named(instance: Callable[[], str], why: str) -> None:
    with FakeIgb(instance()) as card:
        card.port.access.foreign = "SWSM" in why
        card.port.access.words[SYNC // 4] = 1 << 17
        with pytest.raises(
            HardwareError, match=f"has kept the link for .* \\({why}\\); start again"
        ):
            card.start()


def test_a_bit_that_a_killed_driver_left_is_taken(instance: Callable[[], str]) -> None:
    with FakeIgb(instance()) as card:
        card.port.access.words[SYNC // 4] = 2
        card.start()
        assert card.port.access.owners == [2]
        assert card.register("SW_FW_SYNC") == card.register("SWSM") == 0


def test_a_card_without_an_eeprom_starts(instance: Callable[[], str]) -> None:
    with FakeIgb(instance()) as card:
        card.port.access.words[EECD // 4] = 0
        assert card.start().port.link() == Link(True, 1000)


def test_more_addresses_and_a_list_of_vlans(instance: Callable[[], str]) -> None:
    macs = ("02:00:00:00:01:01", "02:00:00:00:01:02")
    with FakeIgb(instance(), promiscuous=False, more_macs=macs, vlan_filter=(33,)) as card:
        card.port.access.words[0x54E4 // 4] = 1 << 31  # an address that another driver left
        card.start()
        assert card.register("RA_MORE", 1) == 0x00000002
        assert card.register("RA_MORE", 1, 4) == 1 << 31 | 0x0201
        assert card.register("RA_MORE", 2, 4) == card.register("RA_LAST", 0, 4) == 0
        assert [card.register("VFTA", n) for n in range(3)] == [1, 2, 0]
        assert card.register("RCTL") & 1 << 18


def test_a_wrong_eeprom_is_refused(instance: Callable[[], str]) -> None:
    with FakeIgb(instance()) as card:
        card.port.access.words[EECD // 4] |= 1 << 8
        with pytest.raises(HardwareError, match="the checksum of the card's EEPROM is wrong"):
            card.start()


def test_more_queues_than_the_card_has_are_refused(instance: Callable[[], str]) -> None:
    with pytest.raises(ConfigurationError, match="scaling of the 82576 addresses no more"):
        FakeIgb(instance(), queues=17)


def test_statistics_are_those_of_the_card(card: FakeIgb) -> None:
    card.port.access.words[0x4074 // 4] = 7
    card.port.access.words[(0xC030 + 3 * 0x40) // 4] = 2
    told = card.port.statistics()
    assert told["rx_good_packets"] == 7
    assert told["rx_queue3_dropped"] == 2
