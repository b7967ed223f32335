"""The flows of an analysis as IPFIX: nfdump and tshark read them."""

from __future__ import annotations

import concurrent.futures
import ipaddress
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ringline.shm.errors import PluginError

from ... import nfdump
from ...data import make
from .conftest import analyze, flows
from .test_other_programs import TSHARK, captures, of_tshark


def saved(tmp_path: Path, seed: int, count: int = 300) -> Path:
    path = tmp_path / f"{seed}.pcap"
    path.write_bytes(make.pcap(flows(seed, count, make.START), nanoseconds=True))
    return path


def of_nfdump(records: list[dict[str, object]]) -> Counter[tuple[object, str]]:
    """TCP and UDP, as `of_tshark` has them."""
    found: Counter[tuple[object, str]] = Counter()
    for it in records:
        if it["proto"] not in (6, 17) or not (it["src_port"] or it["dst_port"]):
            continue
        ends = [
            (ipaddress.ip_address(it.get(f"{end}4_addr") or it[f"{end}6_addr"]).packed, port)
            for end, port in (("src", it["src_port"]), ("dst", it["dst_port"]))
        ]
        way, a, b = (0, *ends) if ends[0] <= ends[1] else (1, *ends[::-1])
        found[(a, b), f"packets{way}"] += it["in_packets"]
        found[(a, b), f"octets{way}"] += it["in_bytes"]
        found[(a, b), f"flags{way}"] |= nfdump.flags_of(it)
    return found


@nfdump.needed
@pytest.mark.skipif(TSHARK is None, reason="tshark is missing")
def test_flows_in_a_collector_are_those_of_tshark(tmp_path: Path) -> None:
    paths = [*captures(), saved(tmp_path, 1)]
    with nfdump.Collector(tmp_path / "nfcapd") as collector:
        result = analyze("flow_stats", *paths, options={"export": collector.url})
        collector.stop()
    expected: Counter[tuple[object, str]] = Counter()
    for path in paths:
        for (ends, name), number in of_tshark(path).items():
            if name.startswith("flags"):
                expected[ends, name] |= number
            elif not name.startswith(("bytes", "vlan")):  # of Ethernet: not exported
                expected[ends, name] += number
    assert len(expected) > 20
    records = collector.flows()
    assert +of_nfdump(records) == +expected
    (sent,) = result.tables["export"]["first"]
    assert sent[1] == len(records)
    assert sent[3:] == [0, ""]
    _, packets, _ = result.tables["totals"]["first"][0]
    assert sum(it["in_packets"] for it in records) == packets


@nfdump.needed
def test_a_collector_may_have_an_address_of_ipv6(tmp_path: Path) -> None:
    with nfdump.Collector(tmp_path / "nfcapd", host="::1") as collector:
        analyze("flow_stats", saved(tmp_path, 2), options={"export": collector.url})
        collector.stop()
    assert len(collector.flows()) > 20


@pytest.mark.skipif(TSHARK is None, reason="tshark is missing")
def test_tshark_finds_nothing_wrong_in_a_file(tmp_path: Path) -> None:
    path = saved(tmp_path, 3, 2000)
    exported = [tmp_path / "a.ipfix", tmp_path / "b.ipfix"]
    for file, piece in zip(exported, (1 << 20, 20_000), strict=True):
        analyze("flow_stats", path, options={"export": f"file://{file}"}, piece_bytes=piece)
    assert exported[0].read_bytes() == exported[1].read_bytes(), "it depends on the pieces"
    command = [str(shutil.which("tshark")), "-r", str(exported[0]), "-T", "fields"]
    for name in ("cflow.template_frame", "cflow.packets", "_ws.expert.message"):
        command += ["-e", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    packets = 0
    for line in done.stdout.splitlines():
        _, numbers, wrong = line.split("\t")
        assert wrong == "", line
        packets += sum(map(int, filter(None, numbers.split(","))))
    assert packets == sum(
        1 for _, frame in flows(3, 2000, make.START) if b"\x08\x06" not in frame[12:18]
    )


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://collector", "neither udp:// nor file://"),
        ("file:///nobody/flows", "no folder /nobody"),
        ("udp://nobody.invalid", "nobody.invalid has no address"),
    ],
)
def test_a_bad_collector_ends_the_analysis_at_its_begin(tmp_path: Path, url: str, why: str) -> None:
    with pytest.raises(PluginError, match=why):
        analyze("flow_stats", saved(tmp_path, 4), options={"export": url})


def test_only_the_machine_that_asks_needs_the_folder(tmp_path: Path) -> None:
    folder, hidden = tmp_path / "folder", tmp_path / "hidden"
    folder.mkdir()

    class Elsewhere(concurrent.futures.ThreadPoolExecutor):
        """Does tasks where the folder is missing."""

        def submit(self, function: Any, /, *arguments: Any, **more: Any) -> Any:
            folder.rename(hidden)
            try:
                future = super().submit(function, *arguments, **more)
                future.exception()
            finally:
                hidden.rename(folder)
            return future

    options = {"export": f"file://{folder}/flows.ipfix"}
    with Elsewhere(1) as executor:
        result = analyze("flow_stats", saved(tmp_path, 6), options=options, executor=executor)
    assert result.tables["export"]["first"][0][1] > 20
    assert (folder / "flows.ipfix").stat().st_size > 1000


def test_records_that_nobody_takes_are_counted(tmp_path: Path) -> None:
    url = f"udp://127.0.0.1:{nfdump.free_port()}"
    result = analyze("flow_stats", saved(tmp_path, 5), options={"export": url})
    (sent,) = result.tables["export"]["first"]
    assert sent[1] == 0
    assert sent[3] > 20
    assert sent[4] == "the port of the collector is closed"
