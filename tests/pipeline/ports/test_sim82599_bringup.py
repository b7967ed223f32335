"""The initialisation that the simulated 82599 demands, and its faults for missing steps."""

from __future__ import annotations

import pytest

from ringline.pipeline.ports.sim82599.model import Sim82599

from .bare_82599 import DATA, DEXT, EOP, IFCS, POLLS, RS, Bare82599, table
from .frames import ethernet

FRAME = ethernet(b"hello")


def traffic(driver: Bare82599) -> tuple[int, int]:
    """Numbers of frames received and sent, with eight of each offered."""
    driver.sim.load(table([FRAME], repeat=8))
    for _ in range(8):
        driver.send(FRAME)
    for _ in range(POLLS):
        driver.sim.step()
    wire = driver.sim.wire()
    return len(driver.receive()), wire["transmitted"]


def test_with_every_step_traffic_flows_without_faults() -> None:
    with Bare82599() as driver:
        driver.bring_up()
        assert traffic(driver) == (8, 8)
        assert driver.sim.faults() == []
        assert driver.sim.finished


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        ("mask", "interrupt"),
        ("mask_again", "interrupt"),
        ("master", "master"),
        ("reset", "queue"),
        ("reset_wait", "reset"),
        ("eeprom", "initialising"),
        ("dma", "initialising"),
        ("rdrxctl", "receive"),
        ("rdrxctl_strip", "receive"),
        ("no_snoop", "receive"),
        ("dca", "receive"),
        ("rx_wait", "tail"),
        ("security", "receive_hang"),
        ("arbiter", "arbiter"),
        ("dtxmxszrq", "transmit"),
        ("te", "queue"),
        ("tx_wait", "tail"),
    ],
)
def test_a_skipped_step_is_a_fault(step: str, kind: str) -> None:
    with Bare82599() as driver:
        driver.bring_up(skip=step)
        traffic(driver)
        assert kind in driver.sim.fault_counts(), driver.sim.faults()


@pytest.mark.parametrize("step", ["link", "laser", "sfi", "restart", "rxen"])
def test_without_link_or_receiver_nothing_arrives(step: str) -> None:
    with Bare82599() as driver:
        driver.bring_up(skip=step)
        received, sent = traffic(driver)
        assert received == 0
        assert step == "rxen" or sent == 0


def test_nothing_is_sent_while_the_arbiter_is_disabled() -> None:
    with Bare82599() as driver:
        driver.bring_up(skip="arbiter_again")
        assert traffic(driver) == (8, 0)


def test_receive_dma_hangs_until_the_next_reset() -> None:
    """If frames come while RXEN is switched on."""
    with Bare82599() as driver:
        driver.sim.load(table([FRAME]))
        driver.bring_up(skip="security")
        assert traffic(driver)[0] == 0
        driver.change(0x3000, 1)
        driver.bring_up()
        assert traffic(driver)[0] == 8


def test_a_card_can_be_left_running_or_powered_on() -> None:
    with Sim82599(left_running=True) as sim:
        assert sim.read32(0x1028) & 1 << 25
        assert sim.read32(0x0880) != 0
        assert sim.read32(0x4074) != 0
        sim.load(table([FRAME]))
        sim.step()
        assert sim.fault_counts()["dma"] == 1  # it received to an address outside all windows
    with Sim82599(left_running=False) as sim:
        assert not sim.read32(0x1028) & 1 << 25
        assert sim.read32(0x4074) == 0


def test_the_mac_address_appears_once_the_eeprom_is_read() -> None:
    with Sim82599(bytes.fromhex("0a0b0c0d0e0f")) as sim:
        sim.write32(0x0888, 0xFFFFFFFF)
        sim.write32(0, 1 << 26 | 1 << 3)
        assert sim.read32(0x5400) == 0
        for register, bit in ((0, 26), (0x10010, 9)):
            for _ in range(POLLS):
                sim.read32(register)
            assert bool(sim.read32(register) >> bit & 1) == (register != 0)
        assert sim.read32(0x5400) == 0x0D0C0B0A
        assert sim.read32(0xA204) == 1 << 31 | 0x0F0E


def test_statistics_clear_when_read_and_survive_a_reset() -> None:
    with Bare82599() as driver:
        driver.bring_up()
        assert traffic(driver) == (8, 8)
        assert [driver.read(0x4074), driver.read(0x4074)] == [8, 0]
        assert [driver.read(0x6030), driver.read(0x8680)] == [8, 0]  # one counter at two addresses
        driver.mask()
        driver.master()
        driver.reset()
        assert driver.read(0x4080) == 8
        assert driver.read(0x1030) == 8


def test_queues_count_in_the_counters_of_the_maps() -> None:
    with Bare82599() as driver:
        driver.bring_up()
        driver.change(0x2300, 0xF, 9)
        driver.change(0x8600, 0xF, 12)
        traffic(driver)
        assert driver.read(0x1030) == 0
        assert driver.read(0x1030 + 9 * 0x40) == 8
        assert driver.read(0x8680 + 12 * 4) == 8
        driver.mask()
        driver.master()
        driver.reset()
        driver.eeprom()
        driver.dma()
        assert driver.read(0x2300) == driver.read(0x8600) == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"srrctl": 2}, "DESCTYPE"),
        ({"srrctl": 1 << 25}, "BSIZEPACKET"),
        ({"srrctl": 17 | 1 << 25}, "BSIZEPACKET"),
        ({"rdlen": 100}, "its ring has 0"),
        ({"rdlen": 0}, "its ring has 0"),
        ({"rdlen": 0x80080}, "more than 0x80000 bytes"),
    ],
)
def test_a_receive_queue_with_a_bad_ring_is_not_enabled(options: dict[str, int], says: str) -> None:
    with Bare82599() as driver:
        driver.bring_up(**options)
        assert not driver.wait(0x1028, 25)
        assert any(says in fault for fault in driver.sim.faults()), driver.sim.faults()


def test_registers_keep_the_bits_that_the_card_has() -> None:
    """As Linux's driver asks in its register test (ixgbe_ethtool.c, reg_test_82599); a tail can be
    read back before its queue is enabled."""
    kept = {
        0x1000: 0xFFFFFF80,  # RDBAL
        0x1008: 0xFFF80,  # RDLEN
        0x6000: 0xFFFFFF80,  # TDBAL
        0x6008: 0xFFF80,  # TDLEN
        0x1018: 0xFFFF,  # RDT
        0x6018: 0xFFFF,  # TDT
        0x5404: 0x8000FFFF,  # RAH
        0xA20C: 0x8000FFFF,
    }
    with Bare82599(left_running=False) as driver:
        for register, mask in kept.items():
            for pattern in (0x5A5A5A5A, 0xA5A5A5A5, 0, 0xFFFFFFFF):
                driver.write(register, pattern)
                assert driver.read(register) == pattern & mask, hex(register)
        assert {"queue", "tail"} == set(driver.sim.fault_counts()), driver.sim.faults()


def test_a_link_that_is_forced_up_needs_no_partner() -> None:
    """AUTOC.FLU; without it, the link is negotiated again."""
    with Bare82599(left_running=False) as driver:
        assert driver.read(0x42A4) == 0
        driver.change(0x42A0, set_=1)
        assert driver.read(0x42A4) >> 30 & 1
        driver.change(0x42A0, 1)
        assert driver.read(0x42A4) == 0


def test_a_tail_beyond_the_ring_stops_the_queue() -> None:
    with Bare82599() as driver:
        driver.bring_up()
        driver.give(0, 64)
        driver.sim.pointer(0x6018)[0] = 1 << 31
        assert traffic(driver) == (0, 0) or driver.sim.fault_counts()["tail"] >= 1
        assert {"tail"} == set(driver.sim.fault_counts())


def test_dma_outside_every_window_is_a_fault_with_the_address() -> None:
    with Bare82599() as driver:
        driver.bring_up()
        driver.post(0, 0, 0x2_0000_0000)
        assert traffic(driver)[0] == 0
        assert any("0x200000000" in fault and "write" in fault for fault in driver.sim.faults())
        driver.send(FRAME, address=0x0FFF_FFFF)
        driver.sim.step()
        assert any("0xfffffff" in fault and "read" in fault for fault in driver.sim.faults())
        assert driver.sim.wire()["dropped_dma"] == 8


def test_dma_may_reach_the_last_byte_of_a_window_but_not_beyond() -> None:
    with Bare82599() as driver:
        driver.bring_up()
        end = 0x1_0000_0000 + len(driver.packets)
        command = EOP | IFCS | RS | DEXT | DATA | 60 << 46 | 60
        driver.send_raw(0, end - 60, command)
        driver.sim.step()
        assert driver.sim.wire()["transmitted"] == 1
        driver.send_raw(0, end - 59, command)
        driver.sim.step()
        assert driver.sim.fault_counts() == {"dma": 1}


def test_without_bus_mastering_or_with_master_disabled_there_is_no_dma() -> None:
    with Bare82599() as driver:
        driver.bring_up()
        driver.sim.bus_master(False)
        assert traffic(driver) == (0, 0)
        driver.sim.bus_master(True)
        driver.master()
        driver.sim.step()
        assert driver.sim.wire()["delivered"] == 0
        driver.change(0, 1 << 2)
        driver.sim.step()
        assert driver.sim.wire()["delivered"] == 8
        assert driver.sim.faults() == []


def test_a_queue_is_disabled_by_a_handshake_and_enabled_again() -> None:
    with Bare82599() as driver:
        driver.bring_up()
        driver.change(0x1028, 1 << 25)
        assert driver.read(0x1028) & 1 << 25  # not at once
        assert driver.wait(0x1028, 25, False)
        driver.sim.load(table([FRAME]))
        driver.sim.step()
        assert driver.sim.wire()["offered"] == 0  # a closed-loop wire waits
        driver.rx_queue(0)
        driver.sim.step()
        assert len(driver.receive()) == 1


@pytest.mark.parametrize(
    "access", [(0x0002, "misaligned"), (0x3F50, "unknown"), (0x20000, "beyond")]
)
def test_access_to_unknown_registers_is_a_fault(access: tuple[int, str]) -> None:
    with Sim82599() as sim:
        assert sim.read32(access[0]) == 0
        sim.write32(access[0], 1)
        assert sim.fault_counts() == {"register": 2}


def test_a_write_to_a_read_only_register_is_a_fault() -> None:
    with Bare82599() as driver:
        driver.bring_up()
        for register in (0x0008, 0x42A4, 0x4074, 0x8D04):
            driver.write(register, 0)
        assert driver.sim.fault_counts() == {"register": 4}


def test_repeated_faults_are_one_sentence_with_a_count() -> None:
    with Sim82599() as sim:
        for _ in range(3):
            sim.read32(0x3F50)
        assert sim.faults() == ["read of 0x03f50: there is no such register (3 times)"]
        for n in range(100):
            sim.read32(0x3F01 + 4 * n)
        assert len(sim.faults()) == 64
        assert sim.card.fault_count == 103
