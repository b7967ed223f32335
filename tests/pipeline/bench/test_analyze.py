"""`bench analyze`: its captures, and that what counts flows finds the same ones."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from ringline.pipeline.bench.analyses import capture, flows, peers
from ringline.pipeline.bench.analyses.flows import Precision, difference
from ringline.pipeline.bench.figures import table
from ringline.pipeline.bench.machine import Runs
from ringline.pipeline.bench.measurements import analyze
from ringline.pipeline.bench.running import FOLDER
from ringline.shm.errors import EnvironmentLacks
from ringline.workers.captures.captures import CaptureReader, Tally

BENCH = [sys.executable, "-P", "-m", "ringline.pipeline.commands.cli", "bench", "analyze"]
SHORT = ["--runs", "1", "--seconds", "0.01"]
CPU = max(os.sched_getaffinity(0))
A, B = (b"\x0a\0\0\1", 1000), (b"\xc0\xa8\0\1", 443)


def test_a_capture_has_the_frames_of_its_mix(tmp_path: Path) -> None:
    for mix in capture.MIXES:
        size = capture.make(path := tmp_path / "made.pcap", mix, 5000)
        assert size == path.stat().st_size
        with CaptureReader(tally := Tally(str(path)), any_link=True) as reader:
            lengths = Counter(len(frame.data) for frame in reader)
        assert tally.used == 5000
        assert set(lengths) == {each for each, _ in mix.sizes}
        mean = sum(each * count for each, count in lengths.items()) / 5000 + capture.CRC
        assert abs(mean - int(mix.name.split()[0])) < 40


def test_the_same_captures_are_made_each_time(tmp_path: Path) -> None:
    for path in (one := tmp_path / "1.pcap", two := tmp_path / "2.pcap"):
        capture.make(path, capture.MIXES[1], 300)
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.slow  # starts each program, and compiles the plugin
@pytest.mark.timeout(900)
def test_all_programs_find_the_same_flows() -> None:
    """The benchmark ends with an error if one does not."""
    command = [*BENCH, *SHORT, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=800)
    assert done.returncode == 0, done.stderr
    found = {each["what"]: each for each in json.loads(done.stdout)["figures"]}
    assert {f"analyze, {mix.name}" for mix in capture.MIXES} <= found.keys()
    assert "  dpkt, ratio" in found
    if len(os.sched_getaffinity(0)) > 1:
        assert found["analyze, two processes to one"]["limit"] > 0
    for peer in peers.PEERS.values():
        note = found["analyze, 64 bytes"]["note"]
        assert peer.is_installed != (f"{peer.name} is not installed" in note)


def test_what_is_not_installed_is_named() -> None:
    there = {name: peers.PEERS[name] for name in ("ringline", "bare")}
    spent = {(name, mix.name): 1e-7 for name in there for mix in capture.MIXES}
    said = " ".join(table(analyze.figures(Runs([analyze.Turn(spent, spent)]), there)).split())
    assert "Scapy is not installed (pip install scapy), so it was not measured" in said
    assert "tshark is not installed (apt install tshark)" in said


@pytest.mark.parametrize(
    ("counts", "precision", "said"),
    [
        ([2, 120, 5, 9, 0, 0, None, None], Precision(), ""),
        ([3, 120, 5, 9, 0, 0, None, None], Precision(bytes=1.0, time=9), "in place of"),
        ([2, 121, 5, 9, 0, 0, None, None], Precision(), "in place of"),
        ([2, 121, 5, 9, 0, 0, None, None], Precision(bytes=0.01), ""),
        ([2, 120, 0, 9, 0, 0, None, None], Precision(), "in place of"),
        ([2, 120, 0, 9, 0, 0, None, None], Precision(time=5), ""),
        ([2, 120, 5, 9, 0, 0, 1, None], Precision(time=5), "in place of"),
    ],
)
def test_a_difference_is_seen(counts: flows.Counts, precision: Precision, said: str) -> None:
    ours: dict[flows.Key, flows.Counts] = {(6, A, B): [2, 120, 5, 9, 0, 0, None, None]}
    found = difference(ours, {(6, A, B): counts}, precision)
    assert (said in found) if said else not found
    assert "1 flows in place of 2" not in found
    assert difference(ours, {}, precision) == "0 flows in place of 1"
    assert difference(ours, {(17, A, B): counts}, precision).startswith("no flow 10.0.0.1 port")


def test_times_of_both_directions_compare_together() -> None:
    ours: dict[flows.Key, flows.Counts] = {(6, A, B): [2, 120, 5, 9, 1, 60, 3, 7]}
    theirs: dict[flows.Key, flows.Counts] = {(6, A, B): [2, 120, 3, 9, 1, 60, None, None]}
    assert not difference(ours, theirs, Precision(whole=True))


def test_the_ends_of_a_flow_have_one_order() -> None:
    counted = flows.Flows()
    counted.count(6, B, A, 60, 7)
    counted.count(6, A, B, 100, 9)
    assert counted.rows() == {(6, A, B): [1, 100, 9, 9, 1, 60, 7, 7]}


def test_the_bare_loop_refuses_another_file(tmp_path: Path) -> None:
    (other := tmp_path / "other.pcap").write_bytes(struct.pack("=I", 0xA1B23C4D) + bytes(40))
    with pytest.raises(EnvironmentLacks, match="cannot read"):
        peers.bare(str(other))


def test_other_flows_end_the_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def count(made: object, name: str, cpu: int, paths: list[Path]) -> list[object]:
        found = {(6, A, B): [1, 60, 5, 5, 0, 0, None, None]} if name != "bare" else {}
        return [([1.0, 1.0], found) for _ in paths]

    monkeypatch.setattr(analyze, "_count", count)
    with pytest.raises(EnvironmentLacks, match="bare loop in C finds other flows than ringline"):
        analyze.take_turn(analyze.Captures(tmp_path, 0.0), CPU, ["ringline", "bare"])


def test_a_program_that_fails_is_named(tmp_path: Path) -> None:
    made = analyze.Captures(tmp_path, 0.0)
    with pytest.raises(EnvironmentLacks, match=r"bare loop in C failed \(exit code 1\): .*absent"):
        analyze._count(made, "bare", CPU, [tmp_path / "absent.pcap"])


@pytest.mark.slow
def test_nothing_is_left(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*BENCH, "--seconds", "5", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    deadline = time.monotonic() + 60
    while not [*tmp_path.glob(f"{FOLDER}*/*.pcap")] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [*tmp_path.glob(f"{FOLDER}*/*.pcap")]
    process.send_signal(signal.SIGTERM)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in errors
    assert not said
    assert not [*tmp_path.iterdir()]
