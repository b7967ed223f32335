"""An analysis by flow: each flow whole and in order of time, however captures are divided."""

from __future__ import annotations

import concurrent.futures
import gzip
import os
import random
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ringline.pipeline.analysis import run, scratch, second_stage
from ringline.pipeline.analysis.joining import Outcome, Tree
from ringline.shm.errors import EnvironmentLacks, PluginError, UsageError
from ringline.workers.named.part import Part

from ...data import make
from .conftest import PLUGINS, START, analyze, children_of, flows, same

Saved = Callable[..., Path]
KIB = 1024
PROOF = os.environ.get("RINGLINE_PROOF") == "1"
in_proof = pytest.mark.skipif(not PROOF, reason="needs RINGLINE_PROOF=1: it takes minutes")


@pytest.fixture
def captures(tmp_path: Path) -> list[Path]:
    """Captures that overlap in time, and whose clocks step back; one is compressed, one pcapng."""
    paths = []
    for number in range(4):
        packets = flows(number, 1500, START + 700_000_000 * (3 - number))
        content = make.pcap(packets)
        if number == 2:
            content = gzip.compress(content)
        if number == 3:
            content = make.section() + make.interface()
            content += b"".join(make.enhanced(it, when // 1000) for when, it in packets)
        path = tmp_path / f"{number}.pcap"
        path.write_bytes(content)
        paths.append(path)
    return paths


def by_flow(plugin: str, *given: Path | str, **more: Any) -> Any:
    return analyze(plugin, *given, by="flow", **more)


def test_any_division_gives_the_same(captures: list[Path], tmp_path: Path) -> None:
    whole = by_flow("Connections", *captures, shares=1, piece_bytes=1 << 30)
    assert whole.counters["packets"] == 6000
    divisions: list[tuple[list[Path], int | None, int, int]] = [
        (captures[::-1], 5, 64 * KIB, 2),
        (captures, 40, 99_999, 1),
        ([tmp_path], None, 50_000, 3),
    ]
    for given, shares, piece, workers in divisions if PROOF else divisions[:1]:
        again = by_flow("Connections", *given, shares=shares, piece_bytes=piece, workers=workers)
        assert same(again) == same(whole)
    # What tells the flows of one order from those of another would be in vain otherwise.
    assert same(analyze("Connections", *captures, piece_bytes=64 * KIB)) != same(whole)


def test_flow_stats_is_the_same_by_flow_and_by_piece(
    captures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts: list[bytes] = []  # of the shares

    class Watched(Tree):
        def put(self, leaf: int, outcome: Outcome | None) -> None:
            if outcome is not None and outcome.part:
                parts.append(outcome.part)
            super().put(leaf, outcome)

    monkeypatch.setattr(second_stage, "Tree", Watched)
    result = by_flow("flow_stats", *captures, piece_bytes=80_000, workers=2, shares=4)
    monkeypatch.undo()
    assert same(result) == same(analyze("flow_stats", *captures))
    keys = [set(map(tuple, Part.unpack(it).state["flows"][:, :5].tolist())) for it in parts]
    assert len(keys) == 4
    assert all(keys)
    assert sum(map(len, keys)) == len(set().union(*keys))  # no flow is in two shares


def test_an_engine_may_do_a_task_twice(captures: list[Path]) -> None:
    class Forgetful(concurrent.futures.ThreadPoolExecutor):
        """Does each task once more, as an engine does that lost a worker with its answer."""

        def submit(self, function: Any, /, *arguments: Any, **more: Any) -> Any:
            super().submit(function, *arguments, **more).result()
            return super().submit(function, *arguments, **more)

    with Forgetful(2) as engine:
        result = by_flow("Connections", *captures, shares=2, executor=engine)
    assert same(result) == same(by_flow("Connections", *captures))


def test_packets_of_all_kinds_are_kept(tmp_path: Path) -> None:
    """Times before 1970 and none, cut and empty frames, made-up headers, frames that are longer
    than a chunk."""
    rng = random.Random(9)
    content = make.section() + make.interface() + make.interface(link=101)
    early = make.option(14, struct.pack("<q", -4_000_000_000))
    content += make.interface(options=early) + make.interface(link=189)
    for number in range(400):
        size = rng.choice([0, 1, 13, 14, 60, 61, 1514, 9000, 65_535, 70_000])
        frame = (bytes([rng.randrange(3)]) * 14 + rng.randbytes(size))[:size]
        units = 1_700_000_000_000_000 + 1000 * number + rng.randrange(3000)
        which = rng.choice([0, 0, 0, 1, 2, 3])
        if which == 1:
            frame = make.ipv4(50, frame[:1000])
        original = len(frame) + rng.choice([0, 0, 500])
        content += make.enhanced(frame, units, number=which, original=original)
        if rng.random() < 0.1:
            content += make.simple(frame, len(frame))
    path = tmp_path / "kinds.pcapng"
    path.write_bytes(content)
    whole = analyze("Sizes", path)
    assert "more than 65535 bytes" in whole.remarks[-1]
    for shares in (1, 3, 4000) if PROOF else (4000,):
        result = by_flow("Sizes", path, shares=shares, piece_bytes=100_000, workers=2)
        assert result.remarks == whole.remarks
        assert (result.named | {"newest": 0}) == (whole.named | {"newest": 0})
        assert result.state == whole.state
        assert (result.wire_bytes, result.captures) == (whole.wire_bytes, whole.captures)


def test_the_first_error_of_a_plugin_names_its_packet(capture: Saved) -> None:
    paths = [
        capture("a.pcap", bytes(2000) + b"\x07" + bytes(9) + b"\x07"),
        capture("b.pcap", b"ab"),
    ]
    for shares, piece in ((1, 1 << 30), (6, 64 * KIB)):
        result = by_flow("Raises", *paths, shares=shares, piece_bytes=piece)
        [(path, number, what)] = result.complaints
        assert (path, what[:17]) == (str(paths[0]), "ValueError: seven")
        assert 2001 - 64 < number <= 2001  # the first packet of its batch


def test_a_broken_capture_costs_only_itself(captures: list[Path], capture: Saved) -> None:
    cut = capture("n.pcap", bytes(2000), begin=2)
    cut.write_bytes(cut.read_bytes()[:-5])
    result = by_flow("Connections", *captures, cut, piece_bytes=64 * KIB)
    assert list(result.broken) == [str(cut)]
    judged = by_flow("Connections", *captures)
    assert {**same(result), "broken": {}, "is_complete": True} == same(judged)
    only = by_flow("Connections", cut)
    assert (list(only.broken), only.captures) == ([str(cut)], [])


def test_a_plugin_that_cannot_run_is_refused_before_anything_is_written(
    capture: Saved, tmp_path: Path
) -> None:
    path, folder = capture("a.pcap", b"ab"), tmp_path / "scratch"
    folder.mkdir()
    with pytest.raises(PluginError, match="has no merge"):
        by_flow("Stateful", path, scratch=str(folder))
    with pytest.raises(UsageError, match="by piece or flow, not by host"):
        analyze("Sizes", path, by="host")
    with pytest.raises(UsageError, match="start it without --resume"):
        by_flow("Sizes", path, keep=str(tmp_path / "kept"), resume=True)
    with pytest.raises(UsageError, match="there is no such folder"):
        by_flow("Sizes", path, scratch=str(folder / "x"))
    assert list(folder.iterdir()) == []


def test_a_plugin_that_crashes_on_a_share_is_named(capture: Saved, tmp_path: Path) -> None:
    path = capture("a.pcap", b"ab\x09cd")
    with pytest.raises(PluginError, match=r"crashed \(SIGSEGV\) .*, twice"):
        by_flow("Hurt", path, options={"how": "crash"}, shares=3)
    once = {"how": "crash", "once": str(tmp_path / "once")}
    assert by_flow("Hurt", path, options=once, shares=3).named["seen"] == 5


def test_nothing_is_left(captures: list[Path], capture: Saved, tmp_path: Path) -> None:
    folder = tmp_path / "scratch"
    folder.mkdir()
    there: list[list[str]] = []

    def look(done: int, everything: int, packets: int) -> None:
        there.append([it.name for it in folder.rglob("*.pcapng")])

    def interrupt(done: int, everything: int, packets: int) -> None:
        if 2 * done > everything:  # the second stage has begun
            raise KeyboardInterrupt

    by_flow("Connections", *captures, scratch=str(folder), progress=look)
    assert max(map(len, there)) == 4
    assert list(folder.iterdir()) == []
    result = by_flow("Connections", *captures, scratch=str(folder), progress=interrupt, shares=9)
    assert (len(result.unfinished), result.counters) == (4, {})
    hurt = capture("h.pcap", b"\x09")
    with pytest.raises(PluginError, match="twice"):
        by_flow("Hurt", hurt, options={"how": "crash"}, scratch=str(folder))
    assert list(folder.iterdir()) == []


def test_what_a_killed_analysis_left_goes(capture: Saved, tmp_path: Path) -> None:
    folder, begun = tmp_path / "scratch", tmp_path / "begun"
    folder.mkdir()
    path = capture("a.pcap", b"abc")
    options = {"begun": str(begun), "until": str(tmp_path / "never")}
    code = (
        "import sys; from ringline.pipeline.analysis import run; "
        f"run({f'{PLUGINS}:Waits'!r}, [{str(path)!r}], {options!r}, by='flow', "
        f"scratch={str(folder)!r}, workers=1)"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        end = time.monotonic() + 60
        while not begun.exists() and time.monotonic() < end:
            time.sleep(0.01)
        [left] = folder.iterdir()
        with scratch.Scratch(str(folder)):  # it runs still
            assert left.exists()
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait(60)
    assert [it.name[:2] for it in left.glob("*.pcapng")] == ["1-"]
    (folder / "ringline-scratch-others").mkdir()
    (folder / "ringline-scratch-others" / "file").touch()
    by_flow("Sizes", path, scratch=str(folder))
    assert [it.name for it in folder.iterdir()] == ["ringline-scratch-others"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small file system")
def test_scratch_without_room_is_one_sentence(captures: list[Path], tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(small)], check=True)
    try:
        with pytest.raises(EnvironmentLacks) as raised:
            by_flow("flow_stats", *captures, scratch=str(small), workers=2)
        assert str(raised.value).count("No space left on device: make room") == 1
        assert str(small) in str(raised.value)
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


@in_proof
def test_a_child_that_is_killed_changes_nothing(captures: list[Path]) -> None:
    killed: list[int] = []

    def kill(done: int, everything: int, packets: int) -> None:
        found = children_of(os.getpid())
        if found and len(killed) < 3 and (2 * done > everything or not killed):
            killed.append(found[0])
            os.kill(found[0], signal.SIGKILL)

    result = by_flow("Connections", *captures, shares=30, workers=2, progress=kill)
    assert killed
    assert same(result) == same(by_flow("Connections", *captures))


@in_proof
def test_spills_are_captures_that_other_programs_read(captures: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "scratch"
    folder.mkdir()
    read: list[int] = []

    def look(done: int, everything: int, packets: int) -> None:
        spills = list(folder.rglob("*.pcapng"))
        if len(spills) == 4 and 2 * done > everything and not read:
            read.append(run("drop", spills, workers=1).counters["dropped"])

    by_flow("Connections", *captures, scratch=str(folder), progress=look, shares=30)
    assert read == [6000]
