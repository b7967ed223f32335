"""The simulated 82599 as a sender: packets sent, packets refused, and the record."""

from __future__ import annotations

import os
import resource
import struct
from pathlib import Path

import pytest

from ringline.workers.captures.captures import CaptureError, read_capture

from .bare_82599 import (
    CONTEXT,
    DATA,
    DESCRIPTORS_BUS,
    DEXT,
    EOP,
    IFCS,
    PACKETS_BUS,
    RING,
    RS,
    VLE,
    Bare82599,
    table,
)
from .frames import ethernet

FRAME = ethernet(b"sent")
USUAL = EOP | IFCS | RS | DEXT | DATA


def records(path: Path) -> list[bytes]:
    return [bytes(frame) for frame in read_capture(str(path)).frames]


def test_sent_packets_are_recorded_and_written_back(tmp_path: Path) -> None:
    frames = [ethernet(bytes([n]) * (46 + 7 * n)) for n in range(60)]
    path = tmp_path / "out.pcap"
    with Bare82599() as driver:
        driver.bring_up()
        driver.sim.record(str(path))
        numbers = [driver.send(frame) for frame in frames]
        driver.sim.step()
        assert all(driver.sent(n) for n in numbers)
        wire = driver.sim.wire()
        assert (wire["transmitted"], wire["recorded"]) == (60, 60)
        assert wire["transmitted_bytes"] == sum(map(len, frames))
        assert driver.read(0x4080) == 60  # GPTC
        assert driver.read(0x4090) == sum(len(frame) + 4 for frame in frames)  # GOTCL
        assert driver.sim.faults() == []
    capture = read_capture(str(path))
    assert [bytes(frame) for frame in capture.frames] == frames
    assert list(capture.times) == sorted(set(capture.times))
    assert path.read_bytes()[:4] == struct.pack("<I", 0xA1B23C4D)


def test_short_frames_are_padded(tmp_path: Path) -> None:
    path = tmp_path / "out.pcap"
    with Bare82599() as driver:
        driver.bring_up()
        driver.sim.record(str(path))
        driver.send(FRAME)
        driver.sim.step()
        driver.send(bytes(range(1, 18)))
        driver.sim.step()
        assert driver.sim.wire()["transmitted_bytes"] == 120
    assert records(path) == [FRAME, bytes(range(1, 18)).ljust(60, b"\0")]


@pytest.mark.parametrize(
    ("length", "options", "says"),
    [
        (60, {"command": USUAL & ~DEXT}, "DEXT"),
        (60, {"command": USUAL & ~DATA | 1 << 20}, "DTYP"),
        (60, {"command": USUAL & ~IFCS}, "IFCS"),
        (60, {"paylen": 61}, "PAYLEN"),
        (60, {"paylen": 0}, "PAYLEN"),
        (16, {}, "17 bytes"),
        (1519, {}, "longer"),
        (60, {"command": USUAL | VLE}, "VLE"),
        (60, {"command": USUAL | 1 << 31}, "no context descriptor says where the headers are"),
        (60, {"command": USUAL | 1 << 41}, "no context descriptor says where the headers are"),
        (60, {"command": USUAL | 1 << 42}, "IPsec"),
    ],
)
def test_packets_that_the_card_would_not_send_are_refused(
    length: int, options: dict[str, int], says: str
) -> None:
    with Bare82599() as driver:
        driver.bring_up()
        number = driver.send(bytes(length), **options)
        driver.sim.step()
        wire = driver.sim.wire()
        assert (wire["transmitted"], wire["refused"]) == (0, 1)
        assert any(says in fault for fault in driver.sim.faults()), driver.sim.faults()
        assert driver.sent(number)
        driver.send(FRAME)
        driver.sim.step()
        assert driver.sim.wire()["transmitted"] == 1


@pytest.mark.parametrize(("bit", "length"), [(0, 60), (10, 59)], ids=["CRC", "padding"])
def test_frames_without_crc_or_padding_are_refused(bit: int, length: int) -> None:
    with Bare82599() as driver:
        driver.bring_up()
        driver.change(0x4240, 1 << bit)
        driver.send(bytes(length))
        driver.sim.step()
        assert driver.sim.wire()["refused"] == 1
        assert driver.sim.faults()


def test_a_packet_of_several_descriptors_leaves_as_one(tmp_path: Path) -> None:
    path = tmp_path / "out.pcap"
    with Bare82599() as driver:
        driver.bring_up()
        driver.sim.record(str(path))
        driver.send(FRAME[:20], command=USUAL & ~EOP & ~RS, paylen=60)
        driver.sim.step()
        assert driver.sim.wire()["transmitted"] == 0
        driver.send(FRAME[20:30], command=DEXT | DATA, paylen=0)
        number = driver.send(FRAME[30:], command=EOP | RS | DEXT | DATA, paylen=0)
        driver.sim.step()
        assert driver.sent(number)
        assert not driver.sent(0)
    assert records(path) == [FRAME]


def test_tags_come_from_the_context_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "out.pcap"
    with Bare82599() as driver:
        driver.bring_up()
        driver.sim.record(str(path))
        driver.send_raw(0, 0x2345 << 16, DEXT | CONTEXT | 1 << 36)
        driver.send(FRAME, command=USUAL | VLE | 1 << 36)
        driver.send(FRAME, command=USUAL)
        driver.send(bytes(17), command=USUAL | VLE | 1 << 36)
        driver.sim.step()
        assert driver.sim.faults() == []
    tag = bytes.fromhex("81002345")
    assert records(path) == [
        FRAME[:12] + tag + FRAME[12:],
        FRAME,
        (bytes(12) + tag).ljust(60, b"\0"),
    ]


def test_only_descriptors_with_rs_are_written_back() -> None:
    with Bare82599() as driver:
        driver.bring_up()
        numbers = [driver.send(FRAME, command=USUAL & ~RS) for _ in range(7)] + [driver.send(FRAME)]
        driver.sim.step()
        assert [driver.sent(n) for n in numbers] == [False] * 7 + [True]


def test_with_a_threshold_rs_is_ignored() -> None:
    with Bare82599() as driver:
        driver.bring_up(wthresh=8)
        numbers = [driver.send(FRAME) for _ in range(7)]
        driver.sim.step()
        assert not any(map(driver.sent, numbers))
        numbers.append(driver.send(FRAME, command=USUAL & ~RS))
        driver.sim.step()
        assert all(map(driver.sent, numbers))


def test_rings_wrap() -> None:
    with Bare82599() as driver:
        driver.bring_up(2)
        for _ in range(5):
            for queue in range(2):
                for _ in range(RING - 1):
                    driver.send(FRAME, queue)
            driver.sim.step()
        assert driver.sim.wire()["transmitted"] == 5 * 2 * (RING - 1)
        assert [driver.read(0x6030), driver.read(0x6070)] == [5 * (RING - 1)] * 2
        assert driver.sim.faults() == []


def test_a_descriptor_offered_with_dd_set_is_a_fault() -> None:
    with Bare82599() as driver:
        driver.bring_up()
        driver.send_raw(0, PACKETS_BUS, USUAL | 60 | 60 << 46 | 1 << 32)
        driver.sim.step()
        assert driver.sim.fault_counts() == {"tx_descriptor": 1}


def test_a_step_takes_at_most_128_descriptors_of_a_queue() -> None:
    with Bare82599() as driver:
        driver.bring_up()
        bank, ring = 0x6040, 0x8000  # registers and descriptors of queue 1
        for register, value in ((0x00, DESCRIPTORS_BUS + ring), (0x04, 0), (0x08, 256 * 16)):
            driver.write(bank + register, value)
        driver.change(bank + 0x28, set_=1 << 25)
        assert driver.wait(bank + 0x28, 25)
        for n in range(200):
            descriptor = (PACKETS_BUS, USUAL | 60 | 60 << 46)
            struct.pack_into("<QQ", driver.descriptors, ring + 16 * n, *descriptor)
        driver.sim.pointer(bank + 0x18)[0] = 200
        assert [driver.sim.step() for _ in range(3)] == [128, 72, 0]
        assert driver.sim.faults() == []


def test_nothing_is_sent_without_link() -> None:
    with Bare82599() as driver:
        driver.bring_up()
        driver.change(0x42A0, 7 << 13, 4 << 13)
        driver.change(0x42A0, set_=1 << 12)
        driver.send(FRAME)
        for _ in range(10):
            driver.sim.step()
        assert driver.sim.wire()["transmitted"] == 0
        driver.link()
        for _ in range(10):
            driver.sim.step()
        assert driver.sim.wire()["transmitted"] == 1


def test_a_full_disk_ends_the_recording_with_a_reason() -> None:
    with Bare82599() as driver:
        driver.bring_up()
        driver.sim.record("/dev/full")
        for _ in range(20):
            for _ in range(RING - 1):
                driver.send(ethernet(bytes(1400)))
            driver.sim.step()
        driver.sim.flush()
        wire = driver.sim.wire()
        assert wire["transmitted"] == 20 * (RING - 1)
        assert wire["recorded"] == 0
        assert "No space left on device" in (driver.sim.record_error or "")


def test_a_full_disk_leaves_a_valid_capture(tmp_path: Path) -> None:
    path = tmp_path / "out.pcap"
    with Bare82599() as driver:
        driver.bring_up()
        driver.sim.record(str(path))
        for turn in range(3):
            for _ in range(RING - 1):
                driver.send(ethernet(bytes(1000)))
            driver.sim.step()
            driver.sim.flush()
            if turn == 1:  # from here on the disk is full
                os.dup2(os.open("/dev/full", os.O_WRONLY), driver.sim._record_fd)
        assert driver.sim.record_error
        assert driver.sim.wire()["recorded"] == 2 * (RING - 1)
    assert len(records(path)) == 2 * (RING - 1)


def test_a_record_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with Bare82599() as driver, pytest.raises(CaptureError, match="cannot be written"):
        driver.sim.record(str(tmp_path / "no" / "out.pcap"))


def test_transmit_needs_no_source_and_receive_no_record() -> None:
    with Bare82599() as driver:
        driver.bring_up()
        driver.send(FRAME)
        driver.sim.load(table([FRAME]))
        assert driver.sim.step() == 2


def test_a_disk_that_fills_up_keeps_as_many_whole_frames_as_fit(tmp_path: Path) -> None:
    """The first write of the record stops at the limit; the model must find the frames in it."""
    path = tmp_path / "out.pcap"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    frames = [ethernet(bytes([number]) * (50 + number)) for number in range(RING - 1)]
    with Bare82599() as driver:
        driver.bring_up()
        driver.sim.record(str(path))
        limit = 24 + sum(16 + max(60, len(frame)) for frame in frames[:20]) + 30
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            for frame in frames:
                driver.send(frame)
            driver.sim.step()
            driver.sim.flush()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert driver.sim.wire()["recorded"] == 20
        assert "recording ended after 20 of " in (driver.sim.record_error or "")
    kept = [bytes(frame) for frame in read_capture(path).frames]
    assert kept == [frame.ljust(60, b"\0") for frame in frames[:20]]


def test_in_loopback_the_card_receives_what_it_sends(tmp_path: Path) -> None:
    """HLREG0.LPBK: nothing goes to the wire or comes from it."""
    path = tmp_path / "out.pcap"
    frames = [ethernet(bytes([n]) * (46 + 20 * n)) for n in range(20)]
    with Bare82599() as driver:
        driver.bring_up()
        driver.sim.load(table([FRAME]))
        driver.sim.record(str(path))
        driver.change(0x4240, set_=1 << 15)
        for frame in frames:
            driver.send(frame)
        driver.sim.step()
        assert [each.data for each in driver.receive()] == frames
        assert driver.sim.wire()["recorded"] == 0
        assert driver.read(0x4074) == driver.read(0x4080) == 20  # GPRC, GPTC
        driver.change(0x4240, 1 << 15)
        driver.sim.step()
        assert [each.data for each in driver.receive()] == [FRAME]
        assert driver.sim.faults() == []


def test_in_loopback_a_frame_without_a_descriptor_is_dropped() -> None:
    with Bare82599() as driver:
        driver.bring_up(rdt=8)
        driver.change(0x4240, set_=1 << 15)
        for _ in range(20):
            driver.send(FRAME)
        driver.sim.step()
        assert len(driver.receive()) == 8
        assert driver.read(0x1430) == 12  # QPRDC
