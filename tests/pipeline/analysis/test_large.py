"""A large capture that the test makes: 2 GB in `make proof`. However it is divided, whoever is
killed, the result is that of one process, and its flows are those of other programs."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import random
import re
import shutil
import signal
import struct
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ringline.pipeline.analysis import engines, run
from ringline.workers.named.part import Part

from ...data import make
from . import large
from .clusters import descendants_of
from .conftest import analyze, children_of, same

PROOF = os.environ.get("RINGLINE_PROOF") == "1"
in_proof = pytest.mark.skipif(not PROOF, reason="needs RINGLINE_PROOF=1: it takes minutes")
SIZE, FLOWS = (2_000_000_000, 100_000) if PROOF else (4_000_000, 500)
FOLDERS = [
    Path(__file__).parents[2] / "data",
    Path(os.environ.get("RINGLINE_CAPTURES", "/nonexistent")),
]
SMALL = sorted(path for folder in FOLDERS for path in folder.glob("*.pcap*"))
PIECE = 5_000  # bytes of a small capture, for one task
ETHERNET = 14

# Of one direction: protocol, ends; and what is counted.
Way = tuple[int, tuple[str, int], tuple[str, int]]


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "large.pcap"
    large.write(path, SIZE, FLOWS)
    return path


@pytest.fixture(scope="module")
def whole(capture: Path) -> Any:
    """What one process finds that reads everything in one go."""
    return analyze("flow_stats", capture, *SMALL, piece_bytes=1 << 40)


class Killer:
    """Kills a process when each of these shares of the work is done. They are far from each other:
    a task whose child was killed twice is taken for one that the plugin cannot do."""

    def __init__(self, *when: float, find: Callable[[], list[int]]) -> None:
        self._find = find
        self._left = list(when)
        self._random = random.Random(1)

    def __call__(self, done: int, everything: int, packets: int) -> None:
        if self._left and done > self._left[0] * everything and (found := self._find()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._random.choice(found), signal.SIGKILL)
                self._left.pop(0)

    def check(self) -> None:
        """All that were to be killed were."""
        assert self._left == []


def children() -> list[int]:
    """Those of local processes."""
    return children_of(os.getpid())


def workers() -> list[int]:
    """Those of an engine that was started here, if they do something now."""
    found = descendants_of(os.getpid())
    return [it for it in found if it != os.getpid() and children_of(it)]


@in_proof
@pytest.mark.parametrize(
    "given",
    [
        {"by": "flow", "workers": 2, "piece_bytes": SIZE // 7, "kill": (0.1, 0.7)},
        {"by": "piece", "workers": 2, "piece_bytes": SIZE // 31, "kill": (0.1, 0.8)},
        {"by": "flow", "workers": 1, "shares": 3},
        {
            "by": "flow",
            "workers": 3,
            "piece_bytes": SIZE // 50,
            "shares": 200,
            "kill": (0, 0.3, 0.7),
        },
    ],
    ids=str,
)
def test_any_division_gives_the_result_of_one_process(
    capture: Path, whole: Any, given: dict[str, Any]
) -> None:
    more = dict(given)
    killer = Killer(*more.pop("kill", ()), find=children)
    paths = [capture, *SMALL]
    random.Random(str(given)).shuffle(paths)
    result = analyze("flow_stats", *paths, progress=killer, **more)
    killer.check()
    assert same(result) == same(whole)


@in_proof
@pytest.mark.filterwarnings("ignore")  # those of the engines
@pytest.mark.parametrize(("name", "by"), [("dask", "piece"), ("ray", "flow")])
def test_engines_whose_workers_are_killed_give_the_result_of_one_process(
    capture: Path, whole: Any, name: str, by: str
) -> None:
    killer = Killer(0.1, 0.7, find=workers)
    with engines.opened(name, workers=2) as engine:
        result = run(
            *("flow_stats", [capture, *SMALL], None, engine),
            piece_bytes=SIZE // 31,
            by=by,
            progress=killer,
        )
    killer.check()
    assert same(result) == same(whole)


@pytest.mark.parametrize("by", ["piece", "flow"])
def test_any_division_of_small_captures_gives_the_result_of_one_process(by: str) -> None:
    paths = SMALL if PROOF else sorted(FOLDERS[0].glob("*.pcap*"))
    killer = Killer(0.1, 0.8, find=children)
    result = analyze("flow_stats", *paths, workers=2, piece_bytes=PIECE, by=by, progress=killer)
    killer.check()
    divided = sum(path.stat().st_size >= 2 * PIECE for path in paths)
    assert divided >= 4
    assert result.tasks > len(paths) + divided
    assert same(result) == same(analyze("flow_stats", *paths, piece_bytes=1 << 40))


def found_by_ringline(result: Any) -> tuple[Counter[Way], Counter[Way]]:
    """Packets and bytes on the wire of each direction, for the large capture."""
    packets: Counter[Way] = Counter()
    sizes: Counter[Way] = Counter()
    for row in Part.unpack(result.state).state["flows"].tolist():
        rest = row[4] & 0xFFFF_FFFF_FFFF_FFFF
        a, b = (
            (str(ipaddress.ip_address(row[at] & 0xFFFFFFFF)), port)
            for at, port in ((1, rest >> 32 & 0xFFFF), (3, rest >> 16 & 0xFFFF))
        )
        for way, ends in enumerate(((a, b), (b, a))):
            if row[6 + way]:
                packets[rest >> 8 & 0xFF, *ends] = row[6 + way]
                sizes[rest >> 8 & 0xFF, *ends] = row[8 + way]
    return packets, sizes


@pytest.fixture(scope="module")
def alone(capture: Path) -> tuple[Counter[Way], Counter[Way]]:
    result = analyze("flow_stats", capture, by="flow", workers=2)
    return found_by_ringline(result)


@pytest.mark.skipif(shutil.which("nfpcapd") is None, reason="nfpcapd is missing")
def test_flows_are_those_of_nfdump(
    capture: Path, alone: tuple[Counter[Way], Counter[Way]], tmp_path: Path
) -> None:
    subprocess.run(
        ["nfpcapd", "-r", str(capture), "-l", str(tmp_path), "-t", "86400"],
        check=True,
        capture_output=True,
        timeout=1800,
    )
    command = ["nfdump", "-R", str(tmp_path), "-q", "-N", "-6"]
    command += [
        "-A",
        "proto,srcip,srcport,dstip,dstport",
        "-o",
        "fmt:%pr %sa %sp %da %dp %pkt %byt",
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=1800)
    packets: Counter[Way] = Counter()
    sizes: Counter[Way] = Counter()
    for line in done.stdout.splitlines():
        protocol, source, port, target, other, count, size = line.split()
        way = int(protocol), (source, int(port)), (target, int(other))
        packets[way] += int(count)
        sizes[way] += int(size) + ETHERNET * int(count)
    assert len(packets) > FLOWS
    assert (packets, sizes) == alone


# 10.0.0.1:80 <-> 10.0.0.2:9, then frames and bytes of both ways: "231 B", "12 kB", "3 MB".
CONVERSATION = re.compile(r"(\S+):(\d+)\s+<->\s+(\S+):(\d+)" + r"\s+(\d+) (\d+) (\w+)" * 2 + r"\s")
UNITS = {"bytes": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}


@in_proof
@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is missing")
def test_flows_are_the_conversations_of_tshark(
    capture: Path, alone: tuple[Counter[Way], Counter[Way]]
) -> None:
    packets, sizes = alone
    found: Counter[Way] = Counter()
    least: Counter[Way] = Counter()
    most: Counter[Way] = Counter()
    for kind, protocol in (("tcp", 6), ("udp", 17)):
        command = ["tshark", "-q", "-n", "-r", str(capture), "-z", f"conv,{kind}"]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=3000)
        # A pair of ends has several lines when a SYN follows on a FIN.
        for match in CONVERSATION.finditer(done.stdout):
            a, a_port, b, b_port, *numbers = match.groups()
            ends = (a, int(a_port)), (b, int(b_port))
            for way, (count, size, unit) in (
                ((protocol, *ends[::-1]), numbers[:3]),
                ((protocol, *ends), numbers[3:]),
            ):
                rounding = UNITS[unit] - 1
                found[way] += int(count)
                least[way] += int(size) * UNITS[unit] - rounding
                most[way] += int(size) * UNITS[unit] + rounding
    assert +found == packets
    assert [way for way, size in sizes.items() if not least[way] <= size <= most[way]] == []


@in_proof
@pytest.mark.parametrize("piece", [1 << 40, 3 << 30])
def test_a_file_may_be_larger_than_4_gib(tmp_path: Path, piece: int) -> None:
    """Of its frames only the headers are on disk; the rest are holes."""
    path, packets, size = tmp_path / "a.pcap", 75_000, 60_000
    header = make.pcap([])
    with path.open("wb") as file:
        file.write(header)
        for number in range(packets):
            file.seek(len(header) + number * (16 + size))
            file.write(struct.pack("<IIII", 1_700_000_000 + number, 0, size, size))
        file.truncate(len(header) + packets * (16 + size))
    assert path.stat().st_size > 4 << 30
    result = analyze("drop", path, piece_bytes=piece)
    assert (result.counters["packets"], result.broken) == (packets, {})
    assert result.last == (1_700_000_000 + packets - 1) * 10**9
