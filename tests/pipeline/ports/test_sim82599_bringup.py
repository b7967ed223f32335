"""What the simulated 82599 demands before traffic flows, and how it says what was missing."""

from __future__ import annotations

import pytest

from ringline.pipeline.ports.sim82599.model import Sim82599

from .bare_82599 import DATA, DEXT, EOP, IFCS, LOOKS, RS, Bare82599, table
from .frames import ethernet

FRAME = ethernet(b"hello")


def traffic(bench: Bare82599) -> tuple[int, int]:
    """Frames received and sent when eight of each are on offer."""
    bench.sim.load(table([FRAME], repeat=8))
    for _ in range(8):
        bench.send(FRAME)
    for _ in range(LOOKS):
        bench.sim.step()
    wire = bench.sim.wire()
    return len(bench.receive()), wire["transmitted"]


def test_a_driver_that_does_every_step_passes_traffic_without_a_fault() -> None:
    with Bare82599() as bench:
        bench.bring_up()
        assert traffic(bench) == (8, 8)
        assert bench.sim.faults() == []
        assert bench.sim.finished


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
def test_a_skipped_step_is_named(step: str, kind: str) -> None:
    with Bare82599() as bench:
        bench.bring_up(skip=step)
        traffic(bench)
        assert kind in bench.sim.fault_counts(), bench.sim.faults()


@pytest.mark.parametrize("step", ["link", "laser", "sfi", "restart", "rxen"])
def test_without_link_or_receiver_nothing_arrives(step: str) -> None:
    with Bare82599() as bench:
        bench.bring_up(skip=step)
        received, sent = traffic(bench)
        assert received == 0
        assert step == "rxen" or sent == 0


def test_while_the_arbiter_is_stopped_nothing_is_sent() -> None:
    with Bare82599() as bench:
        bench.bring_up(skip="arbiter_again")
        assert traffic(bench) == (8, 0)


def test_receive_dma_hangs_until_the_next_reset() -> None:
    with Bare82599() as bench:
        bench.bring_up(skip="security")
        assert traffic(bench)[0] == 0
        bench.change(0x3000, 1)
        bench.bring_up()
        assert traffic(bench)[0] == 8


def test_a_card_left_running_is_found_running() -> None:
    with Sim82599(left_running=True) as sim:
        assert sim.read32(0x1028) & 1 << 25
        assert sim.read32(0x0880) != 0
        assert sim.read32(0x4074) != 0
        sim.load(table([FRAME]))
        sim.step()
        assert sim.fault_counts()["dma"] == 1  # it wrote where nobody has memory
    with Sim82599(left_running=False) as sim:
        assert not sim.read32(0x1028) & 1 << 25
        assert sim.read32(0x4074) == 0


def test_the_address_is_there_once_the_eeprom_is_read() -> None:
    with Sim82599(bytes.fromhex("0a0b0c0d0e0f")) as sim:
        sim.write32(0x0888, 0xFFFFFFFF)
        sim.write32(0, 1 << 26 | 1 << 3)
        assert sim.read32(0x5400) == 0
        for register, bit in ((0, 26), (0x10010, 9)):
            for _ in range(LOOKS):
                sim.read32(register)
            assert bool(sim.read32(register) >> bit & 1) == (register != 0)
        assert sim.read32(0x5400) == 0x0D0C0B0A
        assert sim.read32(0xA204) == 1 << 31 | 0x0F0E


def test_statistics_clear_when_read_and_survive_a_reset() -> None:
    with Bare82599() as bench:
        bench.bring_up()
        assert traffic(bench) == (8, 8)
        assert [bench.read(0x4074), bench.read(0x4074)] == [8, 0]
        assert [bench.read(0x6030), bench.read(0x8680)] == [8, 0]  # one counter at two addresses
        bench.mask()
        bench.master()
        bench.reset()
        assert bench.read(0x4080) == 8
        assert bench.read(0x1030) == 8


def test_queues_count_where_the_maps_say() -> None:
    with Bare82599() as bench:
        bench.bring_up()
        bench.change(0x2300, 0xF, 9)
        bench.change(0x8600, 0xF, 12)
        traffic(bench)
        assert bench.read(0x1030) == 0
        assert bench.read(0x1030 + 9 * 0x40) == 8
        assert bench.read(0x8680 + 12 * 4) == 8
        bench.mask()
        bench.master()
        bench.reset()
        bench.eeprom()
        bench.dma()
        assert bench.read(0x2300) == bench.read(0x8600) == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"srrctl": 2}, "DESCTYPE"),
        ({"srrctl": 1 << 25}, "BSIZEPACKET"),
        ({"srrctl": 17 | 1 << 25}, "BSIZEPACKET"),
        ({"rdlen": 100}, "length"),
        ({"rdlen": 0}, "length"),
    ],
)
def test_a_receive_queue_with_a_bad_ring_is_not_enabled(options: dict[str, int], says: str) -> None:
    with Bare82599() as bench:
        bench.bring_up(**options)
        assert not bench.wait(0x1028, 25)
        assert any(says in fault for fault in bench.sim.faults()), bench.sim.faults()


def test_a_tail_beyond_the_ring_stops_the_queue() -> None:
    with Bare82599() as bench:
        bench.bring_up()
        bench.give(0, 64)
        bench.sim.pointer(0x6018)[0] = 1 << 31
        assert traffic(bench) == (0, 0) or bench.sim.fault_counts()["tail"] >= 1
        assert {"tail"} == set(bench.sim.fault_counts())


def test_dma_outside_every_window_is_refused_and_named() -> None:
    with Bare82599() as bench:
        bench.bring_up()
        bench.post(0, 0, 0x2_0000_0000)
        assert traffic(bench)[0] == 0
        assert any("0x200000000" in fault and "write" in fault for fault in bench.sim.faults())
        bench.send(FRAME, address=0x0FFF_FFFF)
        bench.sim.step()
        assert any("0xfffffff" in fault and "read" in fault for fault in bench.sim.faults())
        assert bench.sim.wire()["dropped_dma"] == 8


def test_the_last_byte_of_a_window_is_its_last() -> None:
    with Bare82599() as bench:
        bench.bring_up()
        end = 0x1_0000_0000 + len(bench.packets)
        command = EOP | IFCS | RS | DEXT | DATA | 60 << 46 | 60
        bench.send_raw(0, end - 60, command)
        bench.sim.step()
        assert bench.sim.wire()["transmitted"] == 1
        bench.send_raw(0, end - 59, command)
        bench.sim.step()
        assert bench.sim.fault_counts() == {"dma": 1}


def test_without_bus_mastering_or_with_master_disabled_there_is_no_dma() -> None:
    with Bare82599() as bench:
        bench.bring_up()
        bench.sim.bus_master(False)
        assert traffic(bench) == (0, 0)
        bench.sim.bus_master(True)
        bench.master()
        bench.sim.step()
        assert bench.sim.wire()["delivered"] == 0
        bench.change(0, 1 << 2)
        bench.sim.step()
        assert bench.sim.wire()["delivered"] == 8
        assert bench.sim.faults() == []


def test_a_queue_goes_off_by_a_handshake_and_on_again() -> None:
    with Bare82599() as bench:
        bench.bring_up()
        bench.change(0x1028, 1 << 25)
        assert bench.read(0x1028) & 1 << 25  # not at once
        assert bench.wait(0x1028, 25, False)
        bench.sim.load(table([FRAME]))
        bench.sim.step()
        assert bench.sim.wire()["offered"] == 0  # a closed-loop wire waits
        bench.rx_queue(0)
        bench.sim.step()
        assert len(bench.receive()) == 1


@pytest.mark.parametrize(
    "access", [(0x0002, "misaligned"), (0x3F00, "unknown"), (0x20000, "beyond")]
)
def test_registers_that_are_not_there_are_faults(access: tuple[int, str]) -> None:
    with Sim82599() as sim:
        assert sim.read32(access[0]) == 0
        sim.write32(access[0], 1)
        assert sim.fault_counts() == {"register": 2}


def test_writing_what_is_read_only_is_a_fault() -> None:
    with Bare82599() as bench:
        bench.bring_up()
        for register in (0x0008, 0x42A4, 0x4074, 0x8D04):
            bench.write(register, 0)
        assert bench.sim.fault_counts() == {"register": 4}


def test_faults_are_sentences_and_repeat_as_one() -> None:
    with Sim82599() as sim:
        for _ in range(3):
            sim.read32(0x3F00)
        assert sim.faults() == ["read of 0x03f00: there is no such register (3 times)"]
        for n in range(100):
            sim.read32(0x3F01 + 4 * n)
        assert len(sim.faults()) == 64
        assert sim.card.fault_count == 103
