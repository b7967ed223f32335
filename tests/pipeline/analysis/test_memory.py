"""The memory of processes of an analysis does not grow with the captures, nor with what a plugin
keeps in order: a small sample, and large captures with `make proof`."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ...data import make
from . import large
from .conftest import children_of

PROOF = os.environ.get("RINGLINE_PROOF") == "1"
needs_proof = pytest.mark.skipif(not PROOF, reason="needs RINGLINE_PROOF=1: it takes a minute")
SIZE, FLOWS = 500_000_000, 1000
MOST = 200_000_000  # bytes above a process that has only loaded and compiled the plugin
# Flows of one packet each: how many, bytes of a piece, bytes of rows in memory, and how many more
# bytes a process may have.
MANY = (150_000, 4_000_000, 1 << 20, 80_000_000)
if PROOF:
    MANY = (2_000_000, 20_000_000, 8 << 20, MOST)
ONE = (60,)  # bytes of the frame
LOOK = 0.01  # seconds: what a process takes shortly before its end is seen, too

ANALYSIS = """
import json, sys
from ringline.pipeline.analysis import run

result = run(**json.loads(sys.argv[1]))
print(json.dumps([result.counters["packets"], result.broken]))
"""


def _note(most: dict[int, int], pid: int) -> None:
    """Note the most memory that a process had at a time (VmHWM of proc(5))."""
    with contextlib.suppress(OSError):  # it ends meanwhile
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                most[pid] = 1024 * int(line.split()[1])


def most(*paths: Path, packets: int, by: str, **more: Any) -> tuple[int, int]:
    """The bytes that the process of an analysis had at most, and the largest of its children."""
    given = {"plugin": "flow_stats", "given": list(map(str, paths)), "by": by, "with_state": False}
    command = [sys.executable, "-c", ANALYSIS, json.dumps(given | {"workers": 2} | more)]
    found: dict[int, int] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            while process.poll() is None:
                for pid in (process.pid, *children_of(process.pid)):
                    _note(found, pid)
                time.sleep(LOOK)
            assert process.stdout is not None
            assert json.loads(process.stdout.read()) == [packets, {}]
        finally:
            process.kill()
    return found.pop(process.pid), max(found.values())


def packed(path: Path) -> Path:
    """The capture, compressed with zstd."""
    to = path.with_suffix(".pcap.zst")
    zstd = importlib.import_module("backports.zstd")
    with path.open("rb") as file, zstd.open(to, "wb", level=1) as out:
        while data := file.read(1 << 20):
            out.write(data)
    path.unlink()
    return to


Recorded = Callable[[str, object], None]


def check(
    record: Recorded, what: str, alone: tuple[int, int], found: tuple[int, int], limit: int
) -> None:
    """Neither the process of an analysis nor its children have more memory than the limit allows
    above those of an analysis without packets."""
    for of, before, after in zip(("command", "child"), alone, found, strict=True):
        record(f"bytes of a {of} without packets, at most", before)
        record(f"bytes of a {of} of the analysis, at most", after)
        print(f"{what}: {before:,} bytes of a {of} without packets, {after:,} bytes")
        assert before > 10_000_000
    assert [found[n] <= alone[n] + limit for n in range(2)] == [True, True]


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    path = tmp_path / "empty.pcap"
    path.write_bytes(make.pcap([]))
    return path


@needs_proof
@pytest.mark.parametrize(
    ("by", "change"),
    [("piece", Path), ("flow", Path), ("piece", packed)],
    ids=["by piece", "by flow", "compressed"],
)
def test_memory_does_not_grow_with_the_captures(
    tmp_path: Path, empty: Path, record_property: Recorded, by: str, change: Callable[[Path], Path]
) -> None:
    alone = most(empty, packets=0, by=by)
    path = tmp_path / "large.pcap"
    count = large.write(path, SIZE, FLOWS)
    size = path.stat().st_size
    found = most(change(path), packets=count, by=by)
    record_property("bytes of packets", size)
    check(record_property, f"{by}, {size:,} bytes", alone, found, MOST)


@pytest.mark.parametrize("keeps", ["keeps", *(["resumes", "does not keep"] if PROOF else [])])
def test_memory_does_not_grow_with_the_flows(
    tmp_path: Path, empty: Path, record_property: Recorded, keeps: str
) -> None:
    flows, piece, rows, limit = MANY
    path, out = tmp_path / "large.pcap", tmp_path / "out"
    out.mkdir()
    count = large.write(path, flows * (16 + ONE[0]), 1 << 32, sizes=ONE)
    more: dict[str, Any] = {
        "piece_bytes": piece,
        "rows_bytes": rows,
        "out": str(out),
        "by": "piece",
    }
    alone = most(empty, packets=0, **more)
    if keeps != "does not keep":
        more |= {"keep": str(tmp_path / "keep")}
    for _ in range(1 + (keeps == "resumes")):
        found = most(path, packets=count, **more)
        more["resume"] = True
    with (out / "flows.csv").open("rb") as file:
        lines = sum(data.count(b"\n") for data in iter(lambda: file.read(1 << 20), b""))
    assert lines > 0.99 * flows
    record_property("flows", lines - 1)
    check(record_property, f"{keeps}, {lines - 1:,} flows", alone, found, limit)
