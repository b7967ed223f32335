"""What the simulated 82599 sends, what it refuses to send, and what the record holds."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from ringline.workers.captures.captures import CaptureError, read_capture

from .bare_82599 import (
    CONTEXT,
    DATA,
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


def test_what_was_sent_is_recorded_and_written_back(tmp_path: Path) -> None:
    frames = [ethernet(bytes([n]) * (46 + 7 * n)) for n in range(60)]
    path = tmp_path / "out.pcap"
    with Bare82599() as bench:
        bench.bring_up()
        bench.sim.record(str(path))
        numbers = [bench.send(frame) for frame in frames]
        bench.sim.step()
        assert all(bench.sent(n) for n in numbers)
        wire = bench.sim.wire()
        assert (wire["transmitted"], wire["recorded"]) == (60, 60)
        assert wire["transmitted_bytes"] == sum(map(len, frames))
        assert bench.read(0x4080) == 60  # GPTC
        assert bench.read(0x4090) == sum(len(frame) + 4 for frame in frames)  # GOTCL
        assert bench.sim.faults() == []
    capture = read_capture(str(path))
    assert [bytes(frame) for frame in capture.frames] == frames
    assert list(capture.times) == sorted(set(capture.times))
    assert path.read_bytes()[:4] == struct.pack("<I", 0xA1B23C4D)


def test_short_frames_are_padded(tmp_path: Path) -> None:
    path = tmp_path / "out.pcap"
    with Bare82599() as bench:
        bench.bring_up()
        bench.sim.record(str(path))
        bench.send(FRAME)
        bench.sim.step()
        bench.send(bytes(range(1, 18)))
        bench.sim.step()
        assert bench.sim.wire()["transmitted_bytes"] == 120
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
        (60, {"command": USUAL | 1 << 31}, "segmentation"),
        (60, {"command": USUAL | 1 << 41}, "checksum"),
    ],
)
def test_what_the_card_would_not_send_is_refused(
    length: int, options: dict[str, int], says: str
) -> None:
    with Bare82599() as bench:
        bench.bring_up()
        number = bench.send(bytes(length), **options)
        bench.sim.step()
        wire = bench.sim.wire()
        assert (wire["transmitted"], wire["refused"]) == (0, 1)
        assert any(says in fault for fault in bench.sim.faults()), bench.sim.faults()
        assert bench.sent(number)
        bench.send(FRAME)
        bench.sim.step()
        assert bench.sim.wire()["transmitted"] == 1


@pytest.mark.parametrize(("bit", "length"), [(0, 60), (10, 59)], ids=["CRC", "padding"])
def test_frames_that_no_peer_would_take_are_refused(bit: int, length: int) -> None:
    with Bare82599() as bench:
        bench.bring_up()
        bench.change(0x4240, 1 << bit)
        bench.send(bytes(length))
        bench.sim.step()
        assert bench.sim.wire()["refused"] == 1
        assert bench.sim.faults()


def test_a_packet_of_several_descriptors_leaves_as_one(tmp_path: Path) -> None:
    path = tmp_path / "out.pcap"
    with Bare82599() as bench:
        bench.bring_up()
        bench.sim.record(str(path))
        bench.send(FRAME[:20], command=USUAL & ~EOP & ~RS, paylen=60)
        bench.sim.step()
        assert bench.sim.wire()["transmitted"] == 0
        bench.send(FRAME[20:30], command=DEXT | DATA, paylen=0)
        number = bench.send(FRAME[30:], command=EOP | RS | DEXT | DATA, paylen=0)
        bench.sim.step()
        assert bench.sent(number)
        assert not bench.sent(0)
    assert records(path) == [FRAME]


def test_tags_come_from_the_context_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "out.pcap"
    with Bare82599() as bench:
        bench.bring_up()
        bench.sim.record(str(path))
        bench.send_raw(0, 0x2345 << 16, DEXT | CONTEXT | 1 << 36)
        bench.send(FRAME, command=USUAL | VLE | 1 << 36)
        bench.send(FRAME, command=USUAL)
        bench.send(bytes(17), command=USUAL | VLE | 1 << 36)
        bench.sim.step()
        assert bench.sim.faults() == []
    tag = bytes.fromhex("81002345")
    assert records(path) == [
        FRAME[:12] + tag + FRAME[12:],
        FRAME,
        (bytes(12) + tag).ljust(60, b"\0"),
    ]


def test_only_what_asks_for_it_is_written_back() -> None:
    with Bare82599() as bench:
        bench.bring_up()
        numbers = [bench.send(FRAME, command=USUAL & ~RS) for _ in range(7)] + [bench.send(FRAME)]
        bench.sim.step()
        assert [bench.sent(n) for n in numbers] == [False] * 7 + [True]


def test_with_a_threshold_nobody_is_asked() -> None:
    with Bare82599() as bench:
        bench.bring_up(wthresh=8)
        numbers = [bench.send(FRAME) for _ in range(7)]
        bench.sim.step()
        assert not any(map(bench.sent, numbers))
        numbers.append(bench.send(FRAME, command=USUAL & ~RS))
        bench.sim.step()
        assert all(map(bench.sent, numbers))


def test_rings_wrap_and_a_step_takes_at_most_64_of_a_queue() -> None:
    with Bare82599() as bench:
        bench.bring_up(2)
        for _ in range(5):
            for queue in range(2):
                for _ in range(RING - 1):
                    bench.send(FRAME, queue)
            assert bench.sim.step() <= 128
        assert bench.sim.wire()["transmitted"] == 5 * 2 * (RING - 1)
        assert [bench.read(0x6030), bench.read(0x6070)] == [5 * (RING - 1)] * 2
        assert bench.sim.faults() == []


def test_a_descriptor_handed_over_as_done_is_named() -> None:
    with Bare82599() as bench:
        bench.bring_up()
        bench.send_raw(0, PACKETS_BUS, USUAL | 60 | 60 << 46 | 1 << 32)
        bench.sim.step()
        assert bench.sim.fault_counts() == {"tx_descriptor": 1}


def test_nothing_is_sent_without_link() -> None:
    with Bare82599() as bench:
        bench.bring_up()
        bench.change(0x42A0, 7 << 13, 4 << 13)
        bench.change(0x42A0, set_=1 << 12)
        bench.send(FRAME)
        for _ in range(10):
            bench.sim.step()
        assert bench.sim.wire()["transmitted"] == 0
        bench.link()
        for _ in range(10):
            bench.sim.step()
        assert bench.sim.wire()["transmitted"] == 1


def test_a_full_disk_ends_the_recording_with_a_reason() -> None:
    with Bare82599() as bench:
        bench.bring_up()
        bench.sim.record("/dev/full")
        for _ in range(20):
            for _ in range(RING - 1):
                bench.send(ethernet(bytes(1400)))
            bench.sim.step()
        bench.sim.flush()
        wire = bench.sim.wire()
        assert wire["transmitted"] == 20 * (RING - 1)
        assert wire["recorded"] == 0
        assert "No space left on device" in (bench.sim.record_error or "")


def test_what_a_full_disk_leaves_is_a_whole_capture(tmp_path: Path) -> None:
    path = tmp_path / "out.pcap"
    with Bare82599() as bench:
        bench.bring_up()
        bench.sim.record(str(path))
        for turn in range(3):
            for _ in range(RING - 1):
                bench.send(ethernet(bytes(1000)))
            bench.sim.step()
            bench.sim.flush()
            if turn == 1:  # the file can take no more from here
                os.dup2(os.open("/dev/full", os.O_WRONLY), bench.sim._record_fd)
        assert bench.sim.record_error
        assert bench.sim.wire()["recorded"] == 2 * (RING - 1)
    assert len(records(path)) == 2 * (RING - 1)


def test_a_record_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with Bare82599() as bench, pytest.raises(CaptureError, match="cannot be written"):
        bench.sim.record(str(tmp_path / "no" / "out.pcap"))


def test_transmit_needs_no_source_and_receive_no_record() -> None:
    with Bare82599() as bench:
        bench.bring_up()
        bench.send(FRAME)
        bench.sim.load(table([FRAME]))
        assert bench.sim.step() == 2
