"""Captures and plugins for tests of analyses."""

from __future__ import annotations

import contextlib
import random
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ringline.pipeline.analysis import Result, run
from ringline.pipeline.analysis.output import report_of
from ringline.workers.analysis import children

from ...data import make

PLUGINS = Path(__file__).parent / "plugins.py"
START = 1_700_000_000_000_000_000


@pytest.fixture(autouse=True)
def _no_child_stays() -> Iterator[None]:
    yield
    children.close()


@pytest.fixture
def capture(tmp_path: Path) -> Callable[..., Path]:
    """`capture("a.pcap", first bytes, begin=seconds)`: packets of 100 bytes, one each ms."""

    def save(name: str, firsts: bytes, begin: float = 0.0) -> Path:
        start = START + int(begin * 1e9)
        packets = [
            (start + 1_000_000 * n, bytes([first]) + bytes(99)) for n, first in enumerate(firsts)
        ]
        path = tmp_path / name
        path.write_bytes(make.pcap(packets))
        return path

    return save


def analyze(plugin: str, *given: Path | str, **more: Any) -> Result:
    """Run a plugin of plugins.py, or another one, with one process unless `workers` says more."""
    name = plugin if plugin.islower() else f"{PLUGINS}:{plugin}"
    return run(name, given, **({"workers": 1} | more))


def same(result: Result) -> Mapping[str, Any]:
    """What must not depend on how an analysis was done."""
    report = report_of(result, 0)
    del report["run"]
    return report | {"state": result.state}


def children_of(parent: int) -> list[int]:
    """The children of a process that run plugins of analyses."""
    found = []
    with contextlib.suppress(OSError):  # one that ends meanwhile
        for task in Path(f"/proc/{parent}/task").iterdir():
            for pid in (task / "children").read_text().split():
                if b"analysis.child" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(int(pid))
    return found


def flows(seed: int, count: int, begin: int) -> list[tuple[int, bytes]]:
    """Packets of IPv4 and IPv6, TCP, UDP and ICMP, some with tags, fragments, or no IP."""
    rng = random.Random(seed)
    packets = []
    for number in range(count):
        protocol = rng.choice([6, 6, 17, 1])
        ports = struct.pack(">HH", *rng.choice([(1000, 80), (80, 1000), (5, 5), (7, 8)]))
        layer4 = ports + bytes(8) + bytes([0x50, rng.choice([2, 16, 24, 1])]) + bytes(6)
        ends = [bytes([10, 0, 0, rng.randrange(1, 9)]) for _ in range(2)]
        if rng.random() < 0.2:
            ends = [bytes(15) + end[3:] for end in ends]
            ip = struct.pack(">IHBB", 6 << 28, len(layer4), protocol, 9) + b"".join(ends)
            kind = 0x86DD
        else:
            fragment = rng.choice([0, 0, 0, 0x2000, 100])
            ip = struct.pack(">BBHHHBBH", 0x45, 0, 40, 1, fragment, 9, protocol, 0) + b"".join(ends)
            kind = 0x0800
        if rng.random() < 0.05:
            kind = 0x0806
        tag = struct.pack(">HH", 0x8100, 5) if rng.random() < 0.2 else b""
        frame = bytes(12) + tag + struct.pack(">H", kind) + ip + layer4 + bytes(rng.randrange(200))
        packets.append((begin + 1_700_000 * number + rng.randrange(5_000_000), frame))
    return packets


def captures_of_flows(folder: Path, count: int, packets: int) -> list[Path]:
    """So many captures with so many packets each, one 2 s after the other."""
    paths = [folder / f"{number}.pcap" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(make.pcap(flows(number, packets, START + 2_000_000_000 * number)))
    return paths
