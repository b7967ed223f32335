"""The reader in C gives what the readers in Python give, for any file, in any ranges."""

from __future__ import annotations

import bz2
import gzip
import os
import random
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ringline.workers.captures.scanner import Range, Section

from ...data import make
from .scanning import ByC, Read, by_python

ROOT = Path(__file__).parents[3]
DATA = Path(__file__).parents[2] / "data"
SAMPLES = sorted(DATA.glob("*.pcap*"))
REAL = sorted(Path(os.environ.get("RINGLINE_CAPTURES", "/nonexistent")).glob("*.pcap*"))
PROOF = os.environ.get("RINGLINE_PROOF") == "1"
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


def agree(path: Path, *, to_cut: bool = False) -> ByC:
    judged, found = by_python(path, to_cut=to_cut), ByC(path, to_cut=to_cut)
    assert ByC(path, to_cut=to_cut, in_place=True).read == found.read
    expected = judged
    if judged.error and "has link type" in judged.error and found.error is None:
        # That no packet can be used is found by who knows all ranges of the file.
        expected = Read(judged.frames, None, judged.tally)
    assert found.read == expected
    return found


def many(seed: int, count: int = 300) -> list[tuple[int, bytes]]:
    """(time, frame) of random lengths; some times run back."""
    rng = random.Random(seed)
    time = 1_700_000_000_000_000_000
    packets = []
    for _ in range(count):
        time += rng.choice([1000, 5_000_000, 900_000_000, -3000])
        packets.append((time, rng.randbytes(rng.choice([1, 14, 60, 61, 333, 1514, 9000]))))
    return packets


def pcapng(seed: int, count: int = 300) -> bytes:
    """Two sections with three interfaces each, of other resolutions, and blocks without packets."""
    rng = random.Random(seed)
    content = b""
    for _ in range(2):
        content += make.section() + make.interface() + make.interface(link=113)
        for number in range(count // 2):
            if number == count // 4:
                content += make.interface()
            if rng.random() < 0.05:
                content += struct.pack("<IIII", 0x0BAD, 16, 7, 16)
            which = rng.choice([0, 0, 0, 0, 1, 2 if number >= count // 4 else 0])
            content += make.enhanced(
                rng.randbytes(rng.choice([20, 60, 700])), 10**15 + number, number=which
            )
    return content


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[bytes], Path]:
    def save(content: bytes) -> Path:
        path = tmp_path / "file.pcap"
        path.write_bytes(content)
        return path

    return save


@pytest.mark.parametrize("path", [*SAMPLES, *REAL], ids=lambda path: path.name)
def test_both_readers_agree_on_every_sample(path: Path) -> None:
    agree(path)


def test_usual_packets_are_read_in_c(saved: Callable[[bytes], Path]) -> None:
    for content in (make.pcap(many(1)), make.pcap(many(2), order=">")):
        assert agree(saved(content)).odd == 0
    usual = make.section() + make.interface() + make.enhanced(bytes(60), 10**15) * 50
    assert agree(saved(usual)).odd <= 1  # the first one, with its section and interface


def test_packets_of_all_kinds_agree(saved: Callable[[bytes], Path]) -> None:
    for content in (make.pcap(many(3)), pcapng(4)):
        path = saved(content)
        agree(path)
        for pack in (gzip.compress, bz2.compress):
            agree(saved(pack(content)))


def test_both_readers_agree_on_damaged_files(saved: Callable[[bytes], Path]) -> None:
    rng = random.Random(5)
    contents = [make.pcap(many(6, 40)), make.pcap(many(7, 40), order=">"), pcapng(8, 40)]
    for number in range(3000 if PROOF else 150):
        damaged = bytearray(contents[number % 3])
        for _ in range(rng.choice([1, 1, 2, 5])):
            place = rng.randrange(len(damaged))
            damaged[place] = rng.choice([0, 255, rng.randrange(256), damaged[place] ^ 1])
        if rng.random() < 0.3:
            del damaged[rng.randrange(len(damaged)) :]
        agree(saved(bytes(damaged)), to_cut=rng.random() < 0.5)


def test_a_file_cut_anywhere_agrees(saved: Callable[[bytes], Path]) -> None:
    for content in (make.pcap(many(9, 5)[:3]), pcapng(10, 4)):
        for length in range(0, len(content), 7):
            agree(saved(content[:length]), to_cut=bool(length % 2))


def ranges(path: Path, bounds: list[int]) -> list[ByC]:
    """The file in ranges between these bytes, each with a guess where it begins; a guess that is
    wrong is replaced, as an analysis does it."""
    done: list[ByC] = []
    for start, stop in zip([0, *bounds], [*bounds, None], strict=True):
        part = ByC(path, Range(start, stop, is_guess=start > 0))
        if done and (part.begin != done[-1].end or part.section != done[-1].section):
            section = done[-1].section
            known = None if section is None else Section(*section)
            part = ByC(path, Range(done[-1].end, stop, section=known))
            part.begin = -1
        done.append(part)
    return done


@pytest.mark.parametrize("seed", range(6))
def test_ranges_of_pcap_give_each_packet_once(saved: Callable[[bytes], Path], seed: int) -> None:
    path = saved(make.pcap(many(seed, 600), order="<>"[seed % 2]))
    rng = random.Random(seed)
    size = path.stat().st_size
    bounds = sorted(rng.randrange(25, size) for _ in range(9))
    parts = ranges(path, bounds)
    assert [frame for part in parts for frame in part.frames] == by_python(path).frames
    assert sum(part.begin == -1 for part in parts) == 0  # random bytes do not look like packets


def test_a_capture_in_a_capture_is_not_taken_for_packets(saved: Callable[[bytes], Path]) -> None:
    """The frames hold captures themselves: the guess is wrong, and that is found out."""
    inner = make.pcap([(1_700_000_000_000_000_000, bytes(60))] * 200)[24:]
    path = saved(make.pcap([(1_700_000_000_000_000_000 + n, inner) for n in range(40)]))
    bounds = [path.stat().st_size * n // 7 for n in range(1, 7)]
    parts = ranges(path, bounds)
    assert [frame for part in parts for frame in part.frames] == by_python(path).frames
    assert any(part.begin == -1 for part in parts)


def test_no_access_outside_and_nothing_undefined(tmp_path: Path) -> None:
    compiler = shutil.which("clang") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler: neither clang nor gcc is installed")
    program = tmp_path / "scan_random"
    sources = ["tests/workers/captures/scan_random.c", "workers/captures/scan.c"]
    flags = ["-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", f"-I{ROOT}", *SANITIZERS]
    subprocess.run(
        [compiler, *flags, *(str(ROOT / source) for source in sources), "-o", str(program)],
        check=True,
        timeout=120,
    )
    rounds = "300000" if PROOF else "20000"
    done = subprocess.run(
        [str(program), rounds], capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
