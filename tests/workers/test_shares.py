"""Packets divided by flow, and brought back in order of time."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path
from typing import Any

import pytest

from ringline.shm.errors import EnvironmentLacks, RinglineError
from ringline.workers._workers import ffi, lib
from ringline.workers.analysis.shares import merged
from ringline.workers.analysis.shares.merged import Merged
from ringline.workers.analysis.shares.spill import Sharer
from ringline.workers.captures.capture_table import Tally
from ringline.workers.captures.reader import CaptureReader
from ringline.workers.captures.scanner import Range, Scanner

from ..data import make

START = 1_700_000_000_000_000_000
Packets = list[tuple[int, bytes]]


def spilled(tmp_path: Path, captures: list[Packets], shares: int) -> str:
    """The list of the spills of these captures."""
    names = []
    for place, packets in enumerate(captures):
        path = tmp_path / "capture.pcap"
        path.write_bytes(make.pcap(packets, nanoseconds=True))
        job = {"spill": str(tmp_path / "s"), "shares": shares, "place": place, "packets": 0}
        sharer = Sharer(job, ffi.new("uint64_t[3]"))
        scanner = Scanner(Tally(str(path)), sharer.scan, Range())
        sharer.run(scanner)
        sharer.finish()
        sharer.close()
        scanner.close()
        names.append(Path(sharer.numbers()["spill"]).name)
    listed = tmp_path / "spills.json"
    listed.write_text(json.dumps(names))
    return str(listed)


def share(listed: str, number: int) -> tuple[Packets, Merged]:
    source = Merged({"spills": listed, "share": number}, [0, 0, 0])
    with CaptureReader(Tally("share"), file=source) as reader:
        return [(it.nanoseconds, bytes(it.data)) for it in reader], source


def disordered(seed: int, count: int, size: int) -> Packets:
    rng = random.Random(seed)
    return [
        (START + rng.randrange(2_000_000), bytes([rng.randrange(2)]) * 12 + rng.randbytes(size))
        for _ in range(count)
    ]


def test_chunks_that_have_no_room_in_memory_are_merged_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captures = [disordered(seed, 400, 500) for seed in range(12)]
    listed = spilled(tmp_path, captures, 2)
    # Packets of the same time are in the order of the captures, and there of the file.
    expected = sorted((it for packets in captures for it in packets), key=lambda it: it[0])
    made: list[str] = []
    reduced = merged.SpillWriter

    class Watched(reduced):  # type: ignore[misc, valid-type]
        def __init__(self, base: str, shares: int) -> None:
            super().__init__(base, shares)
            made.append(self.path)

    monkeypatch.setattr(merged, "SpillWriter", Watched)
    for memory in (48 << 20, 400_000):
        monkeypatch.setattr(merged, "MEMORY_BYTES", memory)
        found = [share(listed, number)[0] for number in range(2)]
        for packets in found:
            those = set(packets)
            assert packets == [it for it in expected if it in those]
        assert sum(map(len, found)) == len(expected)
        assert bool(made) == (memory < 1 << 20)
    assert not any(Path(it).exists() for it in made)


def test_the_origin_of_a_packet_is_known(tmp_path: Path) -> None:
    captures = [disordered(seed, 50, 60) for seed in range(3)]
    packets, source = share(spilled(tmp_path, captures, 1), 0)
    assert len(packets) == 150
    for number, (when, frame) in enumerate(packets, 1):
        time, place, inside = source.origin(number)
        assert (time, captures[place][inside - 1]) == (when, (when, frame))


def test_a_task_that_is_done_again_leaves_alone_what_a_dead_process_left(tmp_path: Path) -> None:
    job = {"spill": str(tmp_path / "s"), "shares": 2, "place": 0, "packets": 0}
    dead, again = (Sharer(job, ffi.new("uint64_t[3]")) for _ in range(2))
    again.finish()
    again.close()
    spills = {Path(it.numbers()["spill"]) for it in (dead, again)}
    assert set(tmp_path.iterdir()) == spills
    assert len(spills) == 2
    dead.close()


def test_a_worker_that_lacks_the_folder_says_which_one_it_needs(tmp_path: Path) -> None:
    job = {"spill": str(tmp_path / "gone" / "1"), "shares": 2, "place": 0, "packets": 0}
    with pytest.raises(EnvironmentLacks, match=r"/gone: there is no such folder: .* --scratch"):
        Sharer(job, ffi.new("uint64_t[3]"))


def test_a_damaged_spill_is_an_error_and_no_crash(tmp_path: Path) -> None:
    rng = random.Random(4)
    listed = spilled(tmp_path, [disordered(1, 60, 90)], 2)
    [path] = tmp_path.glob("s-*.pcapng")
    whole = path.read_bytes()
    failed = 0
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(rng.choice([1, 3])):
            content[rng.randrange(len(content))] = rng.choice([0, 255, rng.randrange(256)])
        if rng.random() < 0.2:
            del content[rng.randrange(len(content)) :]
        path.write_bytes(content)
        try:
            for number in range(2):
                share(listed, number)
        except RinglineError:
            failed += 1
    assert failed > 60
    path.unlink()
    with pytest.raises(EnvironmentLacks, match=r"cannot be read on the host .*: No such file"):
        share(listed, 0)


def frames(rng: random.Random) -> tuple[bytes, bytes]:
    """A frame and one of the other direction."""
    ends = [rng.randbytes(4) for _ in range(2)]
    stations = [rng.randbytes(6) for _ in range(2)]
    ports = [rng.randbytes(2) for _ in range(2)]
    protocol, fragment = rng.choice([6, 17, 132, 1, 47]), rng.choice([0, 0, 0x2000, 7])
    kind = rng.choice([4, 4, 6, 0])
    tag = rng.choice([b"", b"\x81\x00\x00\x07"])

    def made(way: int) -> bytes:
        a, b = way, 1 - way
        tail = ports[a] + ports[b] + rng.randbytes(20)
        if kind == 4:
            head = struct.pack(">BBHHHBBH", 0x45, 0, 44, 0, fragment, 9, protocol, 0)
            ip = b"\x08\x00" + head + ends[a] + ends[b]
        elif kind == 6:
            pad = bytes(12)
            head = struct.pack(">IHBB", 6 << 28, 32, 60, 9) + pad + ends[a] + pad + ends[b]
            ip = b"\x86\xdd" + head + bytes([protocol, 0]) + bytes(6)
        else:
            ip = b"\x08\x06"
        return stations[b] + stations[a] + tag + ip + tail

    return made(0), made(1)


def test_both_directions_are_in_one_share_and_flows_spread() -> None:
    rng = random.Random(8)
    counts = [0] * 50
    for _ in range(5000):
        one, other = frames(rng)
        which = lib.rl_share_of(one, len(one), 50)
        assert lib.rl_share_of(other, len(other), 50) == which
        counts[which] += 1
        for size in (0, 13, 14, 20, 33, 34, 37, 53, 60):  # reads nothing behind the frame
            cut: Any = ffi.new("uint8_t[]", one[:size])
            assert lib.rl_share_of(cut, min(size, len(one)), 50) < 50
    assert min(counts) > 50
    assert max(counts) < 160
