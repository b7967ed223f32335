"""Rows on disk are finished, too: an analysis goes on from the files where they are."""

from __future__ import annotations

import concurrent.futures
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ringline.pipeline.analysis import Result
from ringline.shm.errors import EnvironmentLacks, UsageError
from ringline.workers.named.part import RUN

from ...data import make
from .conftest import PLUGINS, START, analyze, same

PIECE, ROWS = 60_000, 2_000  # bytes of a piece, and of rows that a part holds in memory
PACKETS = 3000


@pytest.fixture
def given(tmp_path: Path) -> list[Path]:
    """A capture in four pieces, and a small one; each has about 2,900 different rows."""
    rng = np.random.default_rng(1)
    paths = []
    for number in range(2):
        path = tmp_path / f"{number}.pcap"
        frames = [rng.bytes(2) + bytes(58) for _ in range(PACKETS)]
        times = range(START + number * 10**10, START + number * 10**10 + PACKETS)
        path.write_bytes(make.pcap(list(zip(times, frames, strict=True))))
        paths.append(path)
    return paths


def go(given: list[Path], keep: Path, **more: Any) -> Result:
    more = {"piece_bytes": PIECE, "rows_bytes": ROWS, "resume": True} | more
    return analyze("Rows", *given, keep=str(keep), **more)


def interrupted_in(keep: Path) -> Callable[[int, int, int], None]:
    """Interrupts when a capture is finished."""

    def interrupt(done: int, everything: int, packets: int) -> None:
        if any(len(it.name) == 32 for it in keep.iterdir()):
            raise KeyboardInterrupt

    return interrupt


def runs_in(keep: Path) -> list[Path]:
    return sorted(keep.glob(f"*{RUN}"))


def test_rows_are_on_disk_and_the_result_is_that_in_memory(
    given: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = analyze("Rows", *given, piece_bytes=PIECE)
    keep, scratch = tmp_path / "keep", tmp_path / "scratch"
    scratch.mkdir()
    stopped = go(given, keep, progress=interrupted_in(keep), scratch=str(scratch))
    assert len(stopped.unfinished) == 1
    there = runs_in(keep)
    assert there
    assert not list(scratch.iterdir())
    lines = [it for it in keep.iterdir() if it.name != "about" and it not in there]
    assert max(it.stat().st_size for it in lines) < ROWS + 3000  # numbers, and no rows
    keep = keep.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    for n in range(2):
        result = go(given, Path("moved"))
        assert result.taken == (len(lines) if n == 0 else 2)
        assert same(result) == same(whole)


@pytest.mark.parametrize("damage", ["cut", "gone", "changed"])
def test_a_damaged_run_is_done_again(given: list[Path], tmp_path: Path, damage: str) -> None:
    keep = tmp_path / "keep"
    whole = go(given, keep)
    run, *others = runs_in(keep)
    data = run.read_bytes()
    if damage == "gone":
        run.unlink()
    else:
        run.write_bytes(data[:-1] if damage == "cut" else bytes([data[0] ^ 1]) + data[1:])
    result = go(given, keep)
    assert (result.taken, same(result)) == (1, same(whole))
    assert len(runs_in(keep)) == len(others) + 1


def test_runs_are_there_as_long_as_they_are_needed(given: list[Path], tmp_path: Path) -> None:
    keep = tmp_path / "keep"
    go(given, keep)
    there = runs_in(keep)
    (keep / f"left{RUN}").write_bytes(b"of an analysis that was killed")
    go(given, keep)
    assert runs_in(keep) == there
    go(given[1:], keep, resume=False)
    assert 0 < len(runs_in(keep)) < len(there)
    assert not set(runs_in(keep)) & set(there)
    go(given, keep, resume=False, rows_bytes=1 << 20)
    assert runs_in(keep) == []


KILLED = """
import os, signal, sys
from ringline.pipeline.analysis import run

def kill(done, everything, packets):
    if packets > int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)

run(sys.argv[2], sys.argv[4:], workers=2, piece_bytes={piece}, rows_bytes={rows},
    keep=sys.argv[3], scratch=os.path.dirname(sys.argv[3]), resume=True, progress=kill)
"""


def test_a_killed_analysis_goes_on(given: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    keep = folder / "keep"
    code = KILLED.format(piece=PIECE, rows=ROWS)
    for packets in (1, PACKETS):
        arguments = [str(packets), f"{PLUGINS}:Rows", str(keep), *map(str, given)]
        done = subprocess.run([sys.executable, "-c", code, *arguments], check=False, timeout=100)
        assert done.returncode == -signal.SIGKILL
        assert runs_in(keep)
    result = go(given, keep, scratch=str(folder))
    assert result.taken >= 2
    assert same(result) == same(analyze("Rows", *given, piece_bytes=PIECE))
    assert list(folder.iterdir()) == [keep]


@pytest.mark.parametrize("code", [errno.EXDEV, errno.ENOSPC])
def test_scratch_on_another_disk_and_a_full_one(
    given: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    replace: Callable[[str, str], None] = os.replace

    def refuses(path: str, to: str) -> None:
        if path.endswith(RUN):
            raise OSError(code, os.strerror(code))
        replace(path, to)

    keep = tmp_path / "keep"
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuses)
        if code == errno.ENOSPC:
            with pytest.raises(EnvironmentLacks, match="keep: what is finished cannot be kept the"):
                go(given, keep)
        else:
            assert go(given, keep).taken == 0
            assert runs_in(keep)
    result = go(given, keep)
    assert result.taken == (2 if code == errno.EXDEV else 0)
    assert same(result) == same(analyze("Rows", *given, piece_bytes=PIECE))


ON_A_SMALL_DISK = """
set -e
mount -t tmpfs -o size=16k none "$1"
shift
exec "$@"
"""


def test_a_full_scratch_is_one_sentence(given: list[Path], tmp_path: Path) -> None:
    probe = subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True)
    if probe.returncode != 0:
        pytest.skip("needs root and mount namespaces")
    small, keep = tmp_path / "small", tmp_path / "keep"
    small.mkdir()
    code = KILLED.format(piece=PIECE, rows=ROWS).replace("os.path.dirname(sys.argv[3])", '"small"')
    command = ["unshare", "-m", "--propagation", "private", "sh", "-c", ON_A_SMALL_DISK, "sh"]
    command += ["small", sys.executable, "-c", code, str(10**9), f"{PLUGINS}:Rows", str(keep)]
    done = subprocess.run(
        [*command, *map(str, given)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.endswith(
        "the results of an analysis cannot be written: No space left on device: make room, or name "
        "another folder with --scratch\n"
    )
    assert same(go(given, keep)) == same(analyze("Rows", *given, piece_bytes=PIECE))


def test_an_executor_without_scratch_does_not_go_on_from_runs(
    given: list[Path], tmp_path: Path
) -> None:
    keep, scratch = tmp_path / "keep", tmp_path / "scratch"
    scratch.mkdir()
    go(given, keep, progress=interrupted_in(keep))
    there = sorted(keep.iterdir())
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        with pytest.raises(UsageError, match="keep: what is finished there has rows on disk, so "):
            go(given, keep, executor=threads)
        assert sorted(keep.iterdir()) == there
        result = go(given, keep, executor=threads, scratch=str(scratch))
    assert result.taken > 1
    whole = analyze("Rows", *given, piece_bytes=PIECE)
    assert same(result) == same(whole)
