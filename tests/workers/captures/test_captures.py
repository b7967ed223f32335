"""Captures: all frames of the file, or one sentence with the error and its place."""

from __future__ import annotations

import os
import random
import runpy
import shutil
import struct
import subprocess
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringline.shm.errors import EnvironmentLacks, RinglineError
from ringline.workers.captures.captures import (
    CaptureError,
    CaptureWriter,
    read_capture,
    write_capture,
)

DATA = Path(__file__).parents[2] / "data"
make: Any = type("Make", (), runpy.run_path(str(DATA / "make.py")))
SAMPLES = sorted(DATA.glob("*.pcap*"))
PROOF = os.environ.get("RINGLINE_PROOF") == "1"

FRAMES = [bytes([number]) * (14 + 7 * number) for number in range(1, 9)]
TIMED = make.timed(FRAMES)
TIMES = [time for time, _ in TIMED]


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[bytes], Path]:
    def save(content: bytes) -> Path:
        path = tmp_path / "some.pcap"
        path.write_bytes(content)
        return path

    return save


def refusal(path: Path | str) -> str:
    with pytest.raises(CaptureError) as raised:
        read_capture(path)
    assert isinstance(raised.value, RinglineError)
    assert raised.value.exit_code == 2
    sentence = str(raised.value)
    assert str(path) in sentence
    assert "\n" not in sentence
    return sentence


def test_the_captures_are_those_that_the_script_makes() -> None:
    assert {path.name: path.read_bytes() for path in SAMPLES} == make.samples()


@pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])
@pytest.mark.parametrize("nanoseconds", [False, True], ids=["us", "ns"])
def test_pcap_frames_and_times(
    saved: Callable[[bytes], Path], order: str, nanoseconds: bool
) -> None:
    capture = read_capture(saved(make.pcap(TIMED, order, nanoseconds)))
    assert list(capture.frames) == FRAMES
    assert list(capture.times) == [t if nanoseconds else t // 1000 * 1000 for t in TIMES]
    assert list(capture.original_lengths) == [len(frame) for frame in FRAMES]
    assert capture.cut == 0
    assert capture.remark() is None


@pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])
def test_pcapng_frames_and_times(saved: Callable[[bytes], Path], order: str) -> None:
    nanoseconds = make.option(9, b"\x09", order)
    content = make.section(order) + make.interface(order, options=nanoseconds)
    content += b"".join(make.enhanced(frame, time, order) for time, frame in TIMED)
    capture = read_capture(saved(content))
    assert list(capture.frames) == FRAMES
    assert list(capture.times) == TIMES


def test_pcapng_time_units_belong_to_the_interface(saved: Callable[[bytes], Path]) -> None:
    content = make.section() + make.interface()
    content += make.interface(options=make.option(9, b"\x00") + make.option(0, b""))
    content += make.interface(options=make.option(9, b"\x94"))  # 1 / 2^20 of a second
    content += make.interface(options=make.option(14, struct.pack("<q", -5)))
    content += b"".join(make.enhanced(b"f" * 60, 3 << 20, number=n) for n in range(4))
    capture = read_capture(saved(content))
    assert list(capture.times) == [
        (3 << 20) * 1000,
        (3 << 20) * 10**9,
        3 * 10**9,
        (3 << 20) * 1000 - 5 * 10**9,
    ]


def test_pcapng_sections_have_their_own_interfaces_and_byte_order(
    saved: Callable[[bytes], Path],
) -> None:
    content = make.section("<") + make.interface("<", link=113) + make.interface("<")
    content += make.enhanced(FRAMES[0], 1, "<", number=1)
    content += make.section(">") + make.block(5, bytes(20), ">") + make.interface(">", snap=30)
    content += make.enhanced(FRAMES[1], 1, ">") + make.simple(FRAMES[2][:30], 35, ">")
    capture = read_capture(saved(content))
    assert list(capture.frames) == [FRAMES[0], FRAMES[1], FRAMES[2][:30]]
    assert capture.cut == 1


def test_pcapng_obsolete_packet_blocks_are_read(saved: Callable[[bytes], Path]) -> None:
    old = struct.pack("<HHIIII", 0, 7, 0, 1000, len(FRAMES[0]), len(FRAMES[0])) + FRAMES[0]
    capture = read_capture(saved(make.section() + make.interface() + make.block(2, old)))
    assert list(capture.frames) == [FRAMES[0]]
    assert list(capture.times) == [1_000_000]


def test_frames_cut_by_the_snapshot_length_are_known(saved: Callable[[bytes], Path]) -> None:
    content = bytearray(make.pcap(TIMED))
    struct.pack_into("<I", content, 24 + 12, 1514)  # length on the wire
    capture = read_capture(saved(bytes(content)))
    assert list(capture.frames) == FRAMES
    assert capture.original_lengths[0] == 1514
    assert capture.cut == 1
    remark = capture.remark()
    assert remark is not None
    assert "1 of 8 frames were cut" in remark


def test_frame_check_sequences_are_removed(saved: Callable[[bytes], Path]) -> None:
    content = bytearray(make.pcap(make.timed(frame + b"CRC!" for frame in FRAMES)))
    struct.pack_into("<I", content, 20, 2 << 28 | 1 << 26 | 1)
    assert list(read_capture(saved(bytes(content))).frames) == FRAMES
    for option in (b"\x04", b"\x20"):  # in bytes, as programs write it; in bits, as in the draft
        ng = make.section() + make.interface(options=make.option(13, option))
        ng += b"".join(make.enhanced(frame + b"CRC!", 0) for frame in FRAMES)
        assert list(read_capture(saved(ng)).frames) == FRAMES


def test_frames_are_views_by_index_and_slice(saved: Callable[[bytes], Path]) -> None:
    frames = read_capture(saved(make.pcap(TIMED))).frames
    assert isinstance(frames[0], memoryview)
    assert frames[-1] == FRAMES[-1]
    assert frames[2:5] == FRAMES[2:5]
    assert len(frames) == len(FRAMES)
    with pytest.raises(IndexError):
        frames[len(FRAMES)]


def test_missing_unreadable_and_special_files(tmp_path: Path) -> None:
    assert "there is no such capture file" in refusal(tmp_path / "none.pcap")
    assert "is a directory" in refusal(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in refusal(tmp_path / "pipe")
    assert "cannot be read" in refusal(str(tmp_path / ("long" * 99)))
    with pytest.raises(CaptureError, match="is not a file name"):
        read_capture("a\0b")


def test_a_file_without_permission(saved: Callable[[bytes], Path]) -> None:
    path = saved(make.pcap(TIMED))
    path.chmod(0)
    user = os.geteuid()
    if user == 0:  # root can read every file
        os.seteuid(65534)
    try:
        assert "cannot be read: Permission denied" in refusal(path)
    finally:
        os.seteuid(user)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"\xd4\xc3", "ends after 2 bytes, in the middle of its header"),
        (b"\xd4\xc3\xb2\xa1\2\0\4\0", "ends after 8 of the 24 bytes"),
        (b"GET / HTTP/1.1\r\n", "is not a capture"),
        (b"<!DOCTYPE HTML>\n<html>", "is a page of a web site, not a capture"),
        (b"\x1f\x8b\x08\0\0\0\0\0", "its gzip data ends too early, after 8 bytes"),
        (b"\x1f\x9d\x90\0", "is compressed with compress, which ringline does not read"),
        (b"snoop\0\0\0\0\0\0\2", "snoop"),
        (b"\x34\xcd\xb2\xa1\2\0\4\0" + bytes(40), "variant"),
        (b"\xd4\xc3\xb2\xa1\1\0\2\0" + bytes(16), "is pcap version 1.2"),
        (make.pcap([])[:20] + struct.pack("<I", 113), "link type 113 (Linux cooked capture v1)"),
        (make.pcap([])[:20] + struct.pack("<I", 4321), "link type 4321 (not a common one)"),
        (make.section()[:8] + b"abcd" + make.section()[12:], "without a byte-order mark"),
        (make.section() + make.interface(link=101) + make.enhanced(b"x" * 20, 0), "101 (raw IP)"),
        (make.section() + make.enhanced(b"x" * 20, 0), "names interface 0"),
        (make.section() + b"\6\0\0\0\4\0\0\0", "has a length of 4, which no block can have"),
        (make.section() + b"\6\0\0\0\xff\xff\xff\x7f" + bytes(20), "has a length of 2147483647"),
        (make.section() + b"\7\0\0\0\xf0\xff\xff\x7f" + bytes(20), "ends after 28 of its"),
        (make.section() + make.interface()[:-4] + b"\1\0\0\0", "has two lengths, 20"),
        (make.section() + make.block(1, b""), "too short for an interface"),
        (make.section() + make.interface() + make.block(6, bytes(16)), "too short for a packet"),
        (make.section() + make.interface(options=b"\x09\0\xff\0"), "reaches beyond its end"),
        (make.section() + make.interface() + make.block(3, b""), "too short for a packet"),
        (make.section() + make.interface() + make.simple(b"x" * 8, 9), "claims 9 bytes in a block"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{len(value)}",
)
def test_files_that_are_no_ethernet_captures(
    saved: Callable[[bytes], Path], content: bytes, sentence: str
) -> None:
    assert sentence in refusal(saved(content))


@pytest.mark.parametrize("part", [1, 15, 16, 17, 16 + 34])
def test_a_truncated_pcap_names_the_packet_and_the_good_ones(
    saved: Callable[[bytes], Path], part: int
) -> None:
    """The third packet ends too early, in its header or in its frame."""
    start = 24 + sum(16 + len(frame) for frame in FRAMES[:2])
    sentence = refusal(saved(make.pcap(TIMED)[: start + part]))
    assert f"packet 3, at byte {start}, ends after" in sentence
    assert "the 2 before it are good" in sentence


def test_a_truncated_pcapng_names_the_block_and_the_good_packets(
    saved: Callable[[bytes], Path],
) -> None:
    good = make.section() + make.interface() + make.enhanced(FRAMES[0], 0)
    sentence = refusal(saved(good + make.enhanced(FRAMES[1], 0)[:-5]))
    assert f"the block at byte {len(good)}, after 1 good packets, ends after" in sentence


@pytest.mark.parametrize("claim", [262_145, 0x7FFFFFFF, 0xFFFFFFFF])
def test_absurd_lengths_are_refused_before_they_are_used(
    saved: Callable[[bytes], Path], claim: int
) -> None:
    content = bytearray(make.pcap(TIMED))
    struct.pack_into("<I", content, 24 + 8, claim)
    tracemalloc.start()
    sentence = refusal(saved(bytes(content)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert f"packet 1, at byte 24, claims to hold {claim} bytes" in sentence
    assert peak < 100_000
    ng = bytearray(make.section() + make.interface() + make.enhanced(FRAMES[0], 0))
    struct.pack_into("<I", ng, 28 + 20 + 20, claim)
    assert f"packet 1, at byte 48, claims {claim} bytes" in refusal(saved(bytes(ng)))


def test_a_capture_without_packets_is_a_capture(saved: Callable[[bytes], Path]) -> None:
    assert len(read_capture(saved(make.pcap([])))) == 0
    assert len(read_capture(saved(make.section()))) == 0


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "new.pcap"
    views = [memoryview(frame) for frame in FRAMES]
    assert write_capture(path, views, TIMES) == len(FRAMES)
    capture = read_capture(path)
    assert list(capture.frames) == FRAMES
    assert list(capture.times) == TIMES
    with CaptureWriter(path) as writer:
        writer.write(FRAMES[0])
    assert len(read_capture(path)) == 1


def test_unwritable_and_full_places_are_named(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="cannot be written: Is a directory"):
        CaptureWriter(tmp_path)
    with pytest.raises(EnvironmentLacks, match="No space left on device; make room"):
        write_capture("/dev/full", [bytes(1000)] * 1000)


BASES = [path.read_bytes()[:6000] for path in SAMPLES]
BASES += [make.pcap(TIMED), make.section() + make.interface() + make.enhanced(b"x" * 60, 1)]
WORDS = [0, 1, 3, 4, 12, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFC, 0x40000, 0x40001]


def mutated(chance: random.Random) -> bytes:
    """A sample file with a few bytes, words or ranges changed."""
    content = bytearray(chance.choice(BASES))
    for _ in range(chance.randint(1, 6)):
        # Most changes go to the first packets: headers are the sensitive part.
        at = chance.randrange(min(len(content), chance.choice((64, 400, 6000))))
        match chance.randrange(5):
            case 0:
                content[at] = chance.randrange(256)
            case 1:
                content[at : at + 4] = struct.pack(chance.choice("<>") + "I", chance.choice(WORDS))
            case 2:
                del content[at : at + chance.randint(1, 40)]
            case 3:
                other = chance.choice(BASES)
                start = chance.randrange(len(other))
                content[at:at] = other[start : start + chance.randint(1, 200)]
            case _:
                del content[max(at, 4) :]
        content = content or bytearray(b"\0")
    return bytes(content)


def check_reading(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        capture = read_capture(path)
    except CaptureError:
        return
    frames = list(capture.frames)
    assert [len(frame) for frame in frames] == list(capture.lengths)
    assert len(capture.times) == len(capture.original_lengths) == len(frames)
    assert sum(capture.lengths) <= len(content)
    assert capture.cut == 0 or capture.remark()


@pytest.mark.slow
def test_damaged_captures_give_frames_or_a_sentence(tmp_path: Path) -> None:
    chance = random.Random(1)
    for _ in range(300_000 if PROOF else 3_000):
        check_reading(tmp_path / "some.pcap", mutated(chance))


@given(
    start=st.sampled_from(
        [b"", make.pcap([]), make.section(), make.section(">") + make.interface(">")]
    ),
    rest=st.binary(max_size=300),
)
def test_any_bytes_give_frames_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, start: bytes, rest: bytes
) -> None:
    check_reading(tmp_path_factory.getbasetemp() / "any.pcap", start + rest)


@pytest.mark.slow
def test_memory_is_in_proportion_to_the_file(saved: Callable[[bytes], Path]) -> None:
    """Many of the smallest blocks: they need the most memory per byte of the file."""
    for content in (
        make.pcap([(0, b"")] * 20_000),
        make.section() + make.interface() * 20_000,
        make.section() + make.interface() + make.simple(b"", 0) * 20_000,
    ):
        path = saved(content)
        tracemalloc.start()
        read_capture(path)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 16 * len(content)


@pytest.mark.skipif(not shutil.which("capinfos"), reason="capinfos (wireshark-common) is missing")
@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_capinfos_counts_the_same(path: Path) -> None:
    answer = subprocess.run(
        ["capinfos", "-T", "-r", "-c", "-d", str(path)],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    _, packets, size = answer.stdout.split("\t")
    capture = read_capture(path)
    assert (len(capture), sum(capture.lengths)) == (int(packets), int(size))


@pytest.mark.skipif(not shutil.which("tcpdump"), reason="tcpdump is missing")
def test_tcpdump_reads_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "new.pcap"
    write_capture(path, FRAMES, TIMES)
    answer = subprocess.run(
        ["tcpdump", "--time-stamp-precision=nano", "-tt", "-n", "-e", "-r", str(path)],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert [line.split()[0] for line in answer.stdout.splitlines() if line[:1].isdigit()] == [
        f"{time // 10**9}.{time % 10**9:09}" for time in TIMES
    ]
