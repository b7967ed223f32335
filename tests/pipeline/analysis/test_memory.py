"""The memory of processes that run a plugin does not grow with the captures: `make proof`."""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ...data import make
from . import large
from .conftest import analyze, children_of

pytestmark = pytest.mark.skipif(
    os.environ.get("RINGLINE_PROOF") != "1", reason="needs RINGLINE_PROOF=1: it takes a minute"
)
SIZE, FLOWS = 500_000_000, 1000
MOST = 200_000  # KiB above a process that has only loaded and compiled the plugin
LOOK = 0.02  # seconds: what a process takes shortly before its end is seen, too


class Watched:
    """The most memory that each child of this process had at a time, in KiB (VmHWM of proc(5))."""

    def __init__(self) -> None:
        self.most: dict[int, int] = {}
        self._end = threading.Event()

    def look(self) -> None:
        while not self._end.wait(LOOK):
            for pid in children_of(os.getpid()):
                with contextlib.suppress(OSError):  # it ends meanwhile
                    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                        if line.startswith("VmHWM:"):
                            self.most[pid] = int(line.split()[1])

    @contextlib.contextmanager
    def during(self) -> Iterator[None]:
        thread = threading.Thread(target=self.look)
        thread.start()
        try:
            yield
        finally:
            self._end.set()
            thread.join()


def most(*paths: Path, packets: int, by: str) -> int:
    """What the largest child of an analysis had at most, in KiB."""
    watched = Watched()
    with watched.during():
        result = analyze("flow_stats", *paths, by=by, workers=2)
    assert (result.counters["packets"], result.broken) == (packets, {})
    return max(watched.most.values())


def packed(path: Path) -> Path:
    """The capture, compressed with zstd."""
    to = path.with_suffix(".pcap.zst")
    zstd = importlib.import_module("backports.zstd")
    with path.open("rb") as file, zstd.open(to, "wb", level=1) as out:
        while data := file.read(1 << 20):
            out.write(data)
    path.unlink()
    return to


@pytest.mark.parametrize(
    ("by", "change"),
    [("piece", Path), ("flow", Path), ("piece", packed)],
    ids=["by piece", "by flow", "compressed"],
)
def test_memory_does_not_grow_with_the_captures(
    tmp_path: Path,
    record_property: Callable[[str, object], None],
    by: str,
    change: Callable[[Path], Path],
) -> None:
    empty = tmp_path / "empty.pcap"
    empty.write_bytes(make.pcap([]))
    alone = most(empty, packets=0, by=by)
    path = tmp_path / "large.pcap"
    count = large.write(path, SIZE, FLOWS)
    size = path.stat().st_size
    found = most(change(path), packets=count, by=by)
    record_property("bytes of packets", size)
    record_property("KiB of a process without packets, at most", alone)
    record_property("KiB of a process of the analysis, at most", found)
    print(f"{by}: {size:,} bytes, {alone:,} KiB without packets, {found:,} KiB")
    assert alone > 20_000
    assert found <= alone + MOST
