"""Captures as other programs write them: old versions, impossible times, several link types, and
recordings on a disk that fills up."""

from __future__ import annotations

import os
import re
import resource
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ringline.shm.errors import EnvironmentLacks
from ringline.workers.captures.captures import (
    CaptureError,
    CaptureReader,
    CaptureWriter,
    Tally,
    descriptor_named,
    read_capture,
)

from ...data import make

FRAME = bytes(range(64))
COOKED, ETHERNET = 113, 1
CUT = 'use what is good with --cut (where a configuration names the capture: cut = "play")'
LINKS = make.section() + make.interface() + make.interface(link=COOKED)


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[bytes], Path]:
    def save(content: bytes) -> Path:
        path = tmp_path / "file"
        path.write_bytes(content)
        return path

    return save


def old_pcap(major: int, minor: int, *lengths: tuple[int, int]) -> bytes:
    """A pcap file of another version; `lengths` are the two lengths in each packet's header, and
    the smaller one is in the file."""
    packets = [struct.pack("<IIII", 5, 0, *pair) + FRAME[: min(pair)] for pair in lengths]
    return struct.pack("<IHHIIII", 0xA1B2C3D4, major, minor, 0, 0, 1600, 1) + b"".join(packets)


@pytest.mark.parametrize("version", [(2, 0), (2, 1), (2, 2), (2, 3), (543, 0)])
@pytest.mark.parametrize("order", "<>")
def test_old_versions_have_the_length_on_the_wire_first(
    saved: Callable[[bytes], Path], version: tuple[int, int], order: str
) -> None:
    content = old_pcap(*version, (64, 40), (64, 64))
    if order == ">":
        content = struct.pack(">IHHIIII", 0xA1B2C3D4, *version, 0, 0, 1600, 1) + b"".join(
            struct.pack(">IIII", 5, 0, 64, captured) + FRAME[:captured] for captured in (40, 64)
        )
    capture = read_capture(saved(content))
    assert list(capture.frames) == [FRAME[:40], FRAME]
    assert list(capture.original_lengths) == [64, 64]


def test_version_2_3_may_have_the_captured_length_first(saved: Callable[[bytes], Path]) -> None:
    capture = read_capture(saved(old_pcap(2, 3, (40, 64), (64, 64))))
    assert list(capture.frames) == [FRAME[:40], FRAME]
    assert list(capture.original_lengths) == [64, 64]


def test_a_version_that_nobody_reads_is_refused(saved: Callable[[bytes], Path]) -> None:
    with pytest.raises(CaptureError, match=r"is pcap version 2\.5, and only 2\.0 to 2\.4 are"):
        read_capture(saved(old_pcap(2, 5)))


def test_a_frame_has_the_bytes_that_were_on_the_wire(saved: Callable[[bytes], Path]) -> None:
    pcap = bytearray(make.pcap([(0, FRAME), (0, FRAME)]))
    struct.pack_into("<I", pcap, 24 + 12, 40)
    pcapng = make.section() + make.interface() + make.enhanced(FRAME, 0, original=40)
    for content in (bytes(pcap), pcapng + make.enhanced(FRAME, 0)):
        capture = read_capture(saved(content))
        assert list(capture.frames) == [FRAME[:40], FRAME]
        assert capture.cut == 0
        [remark] = capture.remarks()
        assert "1 of 2 frames have more bytes in the file than they had on the wire" in remark


def test_a_time_that_is_impossible_becomes_that_of_the_frame_before(
    saved: Callable[[bytes], Path],
) -> None:
    far = (1 << 64) - 1
    content = make.section() + make.interface()
    content += b"".join(make.enhanced(FRAME, units) for units in (far, 7, far, 9))
    capture = read_capture(saved(content))
    assert list(capture.times) == [0, 7000, 7000, 9000]
    [remark] = capture.remarks()
    assert "2 of 4 frames have a time stamp centuries away from now" in remark


def test_packets_of_other_link_types_are_counted_and_left_out(
    saved: Callable[[bytes], Path],
) -> None:
    content = LINKS + make.interface(link=127)
    for number, interface in enumerate((1, 0, 2, 0, 1)):
        content += make.enhanced(FRAME[number:], 0, number=interface)
    capture = read_capture(saved(content))
    assert list(capture.frames) == [FRAME[1:], FRAME[3:]]
    assert list(capture.numbers) == [2, 4]  # as other programs number them
    [remark] = capture.remarks()
    assert "3 of 5 packets are not Ethernet frames and are left out: " in remark
    assert "2 of link type 113 (Linux cooked capture v1), 1 of link type 127 (IEEE" in remark


def test_a_capture_without_any_ethernet_frame_is_refused(saved: Callable[[bytes], Path]) -> None:
    with pytest.raises(CaptureError, match=r"has link type 113 .*, and only Ethernet"):
        read_capture(saved(LINKS + make.enhanced(FRAME, 0, number=1)))
    assert len(read_capture(saved(LINKS))) == 0, "nothing is left out of nothing"


def test_a_damaged_packet_is_counted_with_those_that_were_left_out(
    saved: Callable[[bytes], Path],
) -> None:
    good = LINKS + make.enhanced(FRAME, 0, number=1) + make.enhanced(FRAME, 0)
    for bad in (make.enhanced(FRAME, 0)[:-8], make.enhanced(FRAME, 0, number=9)):
        path = saved(good + bad)
        with pytest.raises(CaptureError, match=r"2 good packets|packet 3, at byte") as caught:
            read_capture(path)
        way_out = CUT
        if "names interface 9" in str(caught.value):  # it is damaged, and not cut
            way_out = f"keep what is good with tcpdump -r {path} -w NEW"
        assert str(caught.value).endswith(f"copy it again, or {way_out}")


def test_damage_before_the_first_packet_has_nothing_to_keep(
    saved: Callable[[bytes], Path],
) -> None:
    with pytest.raises(CaptureError, match=r"copy it again$"):
        read_capture(saved(LINKS + make.enhanced(FRAME, 0)[:-8]))


def test_a_pipe_is_read_to_its_end_and_refused_early() -> None:
    for content, told in ((make.pcap([(0, FRAME)] * 9), ""), (b"\x7fELF" * 9, "is not a capture")):
        reader, writer = os.pipe()
        os.write(writer, content)
        os.close(writer)
        if told:
            with pytest.raises(CaptureError, match=f"input: {told}"):
                read_capture("input", descriptor=reader)
        else:
            assert len(read_capture("input", descriptor=reader)) == 9
        os.close(reader)
    zero = os.open("/dev/zero", os.O_RDONLY)  # it has no end
    with pytest.raises(CaptureError, match="input: is not a capture"):
        read_capture("input", descriptor=zero)
    os.close(zero)


def test_paths_of_descriptors() -> None:
    assert descriptor_named("-", 0) == 0
    assert descriptor_named("-", 1) == descriptor_named("/dev/stdout", 0) == 1
    assert descriptor_named("/dev/fd/63", 0) == descriptor_named("/proc/self/fd/63", 0) == 63
    for path in ("--", "/dev/fd/", "/dev/fd/x", "/dev/fd/3/4", "fd/3", "/dev/null", "in.pcap"):
        assert descriptor_named(path, 0) is None


@pytest.fixture
def small_files() -> Iterator[int]:
    """Files cannot grow beyond this number of bytes, as on a disk that is full then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit = 150_000
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [60, 1000, 1514])
def test_a_full_disk_keeps_as_many_whole_frames_as_fit(
    tmp_path: Path, small_files: int, size: int
) -> None:
    path = tmp_path / "out.pcap"
    fit = (small_files - 24) // (16 + size)
    with (
        pytest.raises(EnvironmentLacks, match=f"recording stopped after {fit:,} frames: "),
        CaptureWriter(path) as writer,
    ):
        for number in range(2 * fit):
            writer.write(bytes([number & 255]) * size)
    kept = read_capture(path)
    assert [frame[0] for frame in kept.frames] == [number & 255 for number in range(fit)]


def told_of(path: Path, *, to_cut: bool = True) -> tuple[list[bytes], Tally]:
    tally = Tally(str(path), to_cut=to_cut)
    with CaptureReader(tally) as reader:
        return [bytes(frame.data) for frame in reader], tally


@pytest.mark.parametrize("left_of_it", [1, 15, 16, 40, 79])
@pytest.mark.parametrize("good", [1, 3])
def test_a_file_is_used_up_to_its_cut(
    saved: Callable[[bytes], Path], left_of_it: int, good: int
) -> None:
    """For pcap and pcapng alike, wherever the cut is."""
    head = make.section() + make.interface()
    pcapng = head + make.enhanced(FRAME, 0) * good + make.enhanced(FRAME, 0)[:left_of_it]
    pcap = make.pcap([(0, FRAME)] * good) + make.pcap([(0, FRAME)])[24:][:left_of_it]
    used = "the one before it is used" if good == 1 else f"the {good} before it are used"
    for content in (pcap, pcapng):
        path = saved(content)
        frames, tally = told_of(path)
        assert frames == [FRAME] * good
        [remark] = tally.remarks()
        assert remark.startswith(f"{path}: ")
        assert "ends after" in remark
        assert remark.endswith(f"; the file is cut short, and {used}")
        with pytest.raises(CaptureError, match=re.escape(CUT)):
            told_of(path, to_cut=False)


def test_what_is_left_out_before_a_cut_is_not_used(saved: Callable[[bytes], Path]) -> None:
    good = make.enhanced(FRAME, 0, number=1) + make.enhanced(FRAME, 0) * 2
    frames, tally = told_of(saved(LINKS + good + make.enhanced(FRAME, 0)[:-8]))
    assert frames == [FRAME] * 2
    assert "the file is cut short, and 2 of the 3 before it are used" in tally.remarks()[0]


def test_a_cut_is_no_excuse_for_damage(saved: Callable[[bytes], Path]) -> None:
    damaged = make.section() + make.interface() + make.enhanced(FRAME, 0, number=9)
    with pytest.raises(CaptureError, match="names interface 9"):
        told_of(saved(damaged))
    with pytest.raises(CaptureError, match="ends after 10 of the 24 bytes"):
        told_of(saved(make.pcap([])[:10]))


def test_two_files_that_were_joined_are_named(saved: Callable[[bytes], Path]) -> None:
    one, other = make.pcap([(0, FRAME)] * 3), make.pcap([(0, FRAME)], nanoseconds=True)
    with pytest.raises(CaptureError) as raised:
        told_of(saved(one + other))
    assert f"packet 4, at byte {len(one)}, is the header of another pcap file: files must be " in (
        str(raised.value)
    )


@pytest.mark.parametrize("format_", ["pcap", "pcapng"])
def test_a_clock_that_steps_back_is_counted(saved: Callable[[bytes], Path], format_: str) -> None:
    times = [5_000, 7_000, 6_000, 6_500, 9_000, 8_000]
    content = make.pcap([(time, FRAME) for time in times], nanoseconds=True)
    if format_ == "pcapng":
        content = make.section() + make.interface(options=make.option(9, b"\x09"))
        content += b"".join(make.enhanced(FRAME, time) for time in times)
        content += make.simple(FRAME, len(FRAME))  # it has no time, and steps nowhere
    frames, tally = told_of(saved(content))
    assert len(frames) == len(times) + (format_ == "pcapng")
    assert tally.backward == 2
    [remark] = tally.remarks()
    assert f"the clock of the capture steps back: 2 of {len(frames)} frames have a time" in remark
    assert tally.remarks(clock=False) == []


def test_a_long_block_of_another_kind_is_skipped(saved: Callable[[bytes], Path]) -> None:
    long = make.block(0x0BAD, bytes(20 << 20))
    head = make.section() + make.interface()
    frames, _ = told_of(saved(head + make.enhanced(FRAME, 0) + long + make.enhanced(FRAME, 0)))
    assert frames == [FRAME, FRAME]
    frames, tally = told_of(saved(head + make.enhanced(FRAME, 0) + long[:-9]))
    assert frames == [FRAME]
    assert f"ends after {len(long) - 9} of its {len(long)} bytes" in tally.remarks()[0]
    packet = make.block(6, bytes(20 << 20))
    with pytest.raises(CaptureError, match="which is too much for a packet"):
        told_of(saved(head + packet))


def test_a_pipe_that_gives_byte_by_byte_is_read() -> None:
    content = make.pcap([(0, FRAME)] * 3)
    reader, writer = os.pipe()
    thread = threading.Thread(target=lambda: [os.write(writer, bytes([b])) for b in content])
    thread.start()
    frames = []
    with CaptureReader(Tally("input"), descriptor=reader) as capture:
        for frame in capture:
            frames.append(bytes(frame.data))
            if len(frames) == 3:
                thread.join()
                os.close(writer)
    assert frames == [FRAME] * 3
    os.close(reader)
