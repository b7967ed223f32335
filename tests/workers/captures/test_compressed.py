"""Compressed captures: the same frames as without compression, and a sentence for what is wrong."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import importlib
import lzma
import random
import shutil
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from ringline.workers.captures import decompression
from ringline.workers.captures.captures import CaptureError, CaptureReader, Tally, read_capture

from ...data import make

DATA = Path(__file__).parents[2] / "data"
MIXED = (DATA / "mixed.pcap").read_bytes()
SECTIONS = (DATA / "sections.pcapng").read_bytes()
Compress = Callable[[bytes], bytes]


def zstd(content: bytes) -> bytes:
    module = importlib.import_module("backports.zstd")
    made: bytes = module.compress(content)
    return made


def lz4(content: bytes) -> bytes:
    module = importlib.import_module("lz4.frame")
    made: bytes = module.compress(content)
    return made


COMPRESS: dict[str, Compress] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd,
    "lz4": lz4,
}
every_format = pytest.mark.parametrize("name", COMPRESS)
# A frame without content, which programs skip (RFC 8878, 3.1.2; the LZ4 frame format).
SKIPPED = b"\x53\x2a\x4d\x18\x05\0\0\0notes"


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[bytes], Path]:
    def save(content: bytes) -> Path:
        path = tmp_path / "some.pcap"  # the name does not tell
        path.write_bytes(content)
        return path

    return save


def refusal(path: Path, *, to_cut: bool = False) -> str:
    with pytest.raises(CaptureError) as raised:
        frames_of(path, to_cut=to_cut)
    sentence = str(raised.value)
    assert sentence.startswith(f"{path}: ")
    assert "\n" not in sentence
    return sentence


def frames_of(path: Path, *, to_cut: bool = False) -> tuple[list[bytes], Tally]:
    tally = Tally(str(path), to_cut=to_cut)
    with CaptureReader(tally) as reader:
        return [bytes(frame.data) for frame in reader], tally


@every_format
@pytest.mark.parametrize("content", [MIXED, SECTIONS], ids=["pcap", "pcapng"])
def test_a_compressed_capture_is_read_like_the_plain_one(
    saved: Callable[[bytes], Path], name: str, content: bytes
) -> None:
    plain = read_capture(saved(content))
    packed = read_capture(saved(COMPRESS[name](content)))
    assert list(packed.frames) == list(plain.frames)
    assert packed.times == plain.times
    assert packed.original_lengths == plain.original_lengths
    assert packed.numbers == plain.numbers
    assert packed.remarks() == plain.remarks()


@every_format
def test_a_real_capture_is_read_like_the_plain_one(
    saved: Callable[[bytes], Path], real_capture: Path, name: str
) -> None:
    plain, _ = frames_of(real_capture)
    assert frames_of(saved(COMPRESS[name](real_capture.read_bytes())))[0] == plain


@every_format
def test_compressed_parts_behind_each_other_are_one_capture(
    saved: Callable[[bytes], Path], name: str
) -> None:
    parts = (MIXED[:700], b"", MIXED[700:5000], MIXED[5000:])
    path = saved(b"".join(map(COMPRESS[name], parts)))
    assert frames_of(path)[0] == [bytes(frame) for frame in read_capture(saved(MIXED)).frames]


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("gzip", ["-9"]),
        ("bzip2", ["-1"]),
        ("xz", ["-9"]),
        ("zstd", ["-19"]),
        ("lz4", ["-9", "--content-size"]),
    ],
)
def test_what_the_program_writes_is_read(
    saved: Callable[[bytes], Path], tool: str, arguments: list[str]
) -> None:
    if not shutil.which(tool):
        pytest.skip(f"{tool} is missing")
    done = subprocess.run(
        [tool, *arguments, "-c"], input=MIXED, check=True, capture_output=True, timeout=60
    )
    path = saved(done.stdout)
    assert frames_of(path)[0] == [bytes(frame) for frame in read_capture(saved(MIXED)).frames]


@every_format
def test_a_compressed_file_that_is_cut_short(saved: Callable[[bytes], Path], name: str) -> None:
    rng = random.Random(5)  # content that does not shrink, so that half a file has some packets
    packets = make.pcap(make.timed(rng.randbytes(1000) for _ in range(400)))
    packed = COMPRESS[name](packets)
    path = saved(packed[: len(packed) // 2])
    half = len(packed) // 2
    sentence = refusal(path)
    good = int(sentence.partition(" bytes, after ")[2].split()[0])
    assert f": its {name} data ends too early, after {half} bytes, after {good} good" in sentence
    if good:
        assert sentence.endswith('(where a configuration names the capture: cut = "play")')
    frames, tally = frames_of(path, to_cut=True) if good else ([], Tally(""))
    assert len(frames) == good
    assert frames == [bytes(frame) for frame in read_capture(saved(packets)).frames][:good]
    if good:
        [remark] = tally.remarks()
        assert (
            f"its {name} data ends too early, after {half} bytes; the file is cut short" in remark
        )
        assert f"the {good} before it are used" in remark
    if name in ("gzip", "zstd", "lz4"):  # those give what they have at every byte
        assert good > 100


@every_format
def test_something_else_behind_is_an_error(saved: Callable[[bytes], Path], name: str) -> None:
    packed = COMPRESS[name](MIXED)
    sentence = refusal(saved(packed + b"and so on"), to_cut=True)
    assert f"something that is not {name} follows its compressed data, at byte {len(packed)}" in (
        sentence
    )


@every_format
def test_the_begin_of_another_part_behind_is_a_cut(
    saved: Callable[[bytes], Path], name: str
) -> None:
    packed = COMPRESS[name](MIXED)
    assert f"its {name} data ends too early" in refusal(saved(packed + packed[:1]))
    assert f"its {name} data ends too early" in refusal(saved(packed + packed[:9]))


def test_zeros_behind_gzip_and_xz_are_padding(saved: Callable[[bytes], Path]) -> None:
    frames, _ = frames_of(saved(MIXED))
    for name in ("gzip", "xz"):
        packed = COMPRESS[name](MIXED[:500]) + bytes(200_000) + COMPRESS[name](MIXED[500:])
        assert frames_of(saved(packed + bytes(512)))[0] == frames
    assert "something that is not bzip2" in refusal(saved(bz2.compress(MIXED) + bytes(4)))


def test_frames_without_content_are_skipped(saved: Callable[[bytes], Path]) -> None:
    frames, _ = frames_of(saved(MIXED))
    for packed in (
        SKIPPED + zstd(MIXED),  # as pzstd writes
        zstd(MIXED) + SKIPPED,
        lz4(MIXED[:500]) + SKIPPED + lz4(MIXED[500:]),
    ):
        assert frames_of(saved(packed))[0] == frames


@every_format
def test_damaged_data_is_an_error_with_its_place(saved: Callable[[bytes], Path], name: str) -> None:
    packed = bytearray(COMPRESS[name](MIXED))
    middle = len(packed) // 2
    packed[middle : middle + 16] = bytes(16)
    sentence = refusal(saved(bytes(packed)), to_cut=True)
    assert f"its {name} data cannot be decompressed" in sentence or "packet " in sentence
    assert "copy it again" in sentence or "keep what is good" in sentence


def test_every_damage_gives_frames_or_a_sentence(saved: Callable[[bytes], Path]) -> None:
    chance = random.Random(2)
    for compress in COMPRESS.values():
        whole = compress(MIXED[:3000])
        for _ in range(60):
            packed = bytearray(whole)
            for _ in range(chance.randint(1, 4)):
                packed[chance.randrange(6, len(packed))] = chance.randrange(256)
            del packed[chance.randrange(6, 2 * len(packed)) :]
            with contextlib.suppress(CaptureError):
                frames_of(saved(bytes(packed)))


def test_a_capture_that_is_compressed_twice(saved: Callable[[bytes], Path]) -> None:
    path = saved(gzip.compress(bz2.compress(MIXED)))
    assert refusal(path) == f"{path}: is compressed twice; decompress it once more: bunzip2 {path}"


def test_offsets_in_sentences_are_those_after_decompression(
    saved: Callable[[bytes], Path],
) -> None:
    sentence = refusal(saved(gzip.compress(MIXED[:5000])))
    assert "packet 16, at byte 4092 after decompression, ends after 892 of its 1514" in sentence


@pytest.mark.parametrize(("name", "package"), [("zstd", "backports.zstd"), ("lz4", "lz4.frame")])
def test_a_missing_package_is_named(
    saved: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    path = saved(COMPRESS[name](MIXED))
    monkeypatch.setitem(sys.modules, package, None)
    sentence = refusal(path)
    assert f"is compressed with {name}, for which a package is missing" in sentence
    assert "pip install 'ringline[captures]'" in sentence
    assert sentence.endswith(f"or decompress the file first: un{name} {path}")


@every_format
def test_memory_does_not_grow_with_the_content(saved: Callable[[bytes], Path], name: str) -> None:
    """Packets of zeros shrink to nothing: a piece of the file has very many of them."""
    packet = make.pcap(make.timed([bytes(1500)]))
    path = saved(COMPRESS[name](packet + packet[24:] * 20_000))
    next(iter(CaptureReader(Tally(str(path)))))  # imports
    tracemalloc.start()
    with CaptureReader(Tally(str(path))) as reader:
        assert sum(1 for _ in reader) == 20_001
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 << 20  # 30 MB were read; xz has a dictionary of 8 MiB


def test_a_file_that_needs_too_much_memory_is_refused(
    saved: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decompression, "MEMORY_BYTES", 1 << 20)
    path = saved(lzma.compress(MIXED, preset=9))
    assert refusal(path) == (
        f"{path}: needs more than 1 MiB of memory to be decompressed; decompress it first: "
        f"unxz {path}"
    )
    module = importlib.import_module("backports.zstd")
    options = {module.CompressionParameter.window_log: 27}
    path = saved(module.compress(random.Random(1).randbytes(3 << 20), options=options))
    assert "needs more than 1 MiB of memory" in refusal(path)


def test_zlib_without_a_header_is_no_compression_of_files(saved: Callable[[bytes], Path]) -> None:
    assert "is not a capture" in refusal(saved(zlib.compress(MIXED)))
