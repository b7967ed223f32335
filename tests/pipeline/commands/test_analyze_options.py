"""Each option of `ringline analyze` on how the work is done, with plugins that need it."""

from __future__ import annotations

import argparse
import inspect
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from ringline.pipeline.analysis import run
from ringline.pipeline.commands import analyze as command
from ringline.pipeline.commands.cli import main
from ringline.pipeline.configuration import deadlines

from ...data import make
from ..analysis.clusters import cluster
from ..analysis.conftest import flows

PLUGINS = Path(__file__).parents[1] / "analysis" / "plugins.py"
START = 1_700_000_000_000_000_000
PACKETS = 2000

MORE = '''

class Shown(Connections):
    """Shows the hashes of its flows as a table, and lists a folder while it runs."""

    options = (Option("folder", str, ""), Option("list", str, ""))

    def setup(self, worker: Worker) -> None:
        super().setup(worker)
        if worker.options["list"] and not worker.rehearsal:
            with open(worker.options["list"], "a") as file:
                file.write("\\\\n".join(os.listdir(worker.options["folder"])) + "\\\\n")

    @staticmethod
    def present(part: Part) -> dict[str, Any]:
        return {"hashes": {"hash": part.state["flows"]}}
'''.replace("\\\\n", "\\n")

COMPILED = """
import numpy as np

from ringline.workers.api import packet_function


def setup(worker):
    return worker.counter("sums").array, np.zeros(4096, np.int64)[:8]


@packet_function(setup=setup)
def reads(frame, meta, state):
    sums, numbers = state
    sums[0] += 1 + numbers[frame[0]] * 0
    return meta.port
"""


@pytest.fixture
def halves(tmp_path: Path) -> list[str]:
    """Two captures whose flows go on from the first one to the second one."""
    folder = tmp_path / "captures"
    folder.mkdir()
    packets = sorted(flows(1, PACKETS, START))
    paths = [folder / "1.pcap", folder / "2.pcap"]
    for path, part in zip(paths, (packets[: PACKETS // 2], packets[PACKETS // 2 :]), strict=True):
        path.write_bytes(make.pcap(part, nanoseconds=True))
    whole = tmp_path / "whole.pcap"
    whole.write_bytes(make.pcap(packets, nanoseconds=True))
    return [str(whole), *map(str, paths)]


@pytest.fixture
def shown(tmp_path: Path) -> str:
    plugin = tmp_path / "shown.py"
    plugin.write_text(PLUGINS.read_text() + MORE)
    return f"{plugin}:Shown"


def test_what_is_not_given_is_what_run_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[argparse.Namespace] = []
    monkeypatch.setattr(command, "analyze", lambda it: given.append(it) or 0)
    assert main(["analyze", "drop", "a.pcap"]) == 0
    defaults = {it.name: it.default for it in inspect.signature(run).parameters.values()}
    for option, name in (
        ("piece", "piece_bytes"),
        ("state", "state_bytes"),
        ("silence", "silence"),
        ("by", "by"),
        ("scratch", "scratch"),
        ("checked", "debug"),
        ("cut", "to_cut"),
    ):
        assert getattr(given[0], option) == defaults[name], option


def analyzed(out: Path, *words: str) -> tuple[dict[str, Any], list[str]]:
    """The report, and the rows of the table."""
    assert main(["analyze", *words, "-w", str(out), "--workers", "1"]) == 0
    table = out / "hashes.csv"
    rows = table.read_text().splitlines() if table.exists() else []
    return json.loads((out / "report.json").read_text()), rows


def test_by_flow_gives_the_plugin_whole_flows(
    halves: list[str], shown: str, tmp_path: Path
) -> None:
    whole, *parts = halves
    _, expected = analyzed(tmp_path / "a", shown, whole)
    assert len(expected) > 100
    _, by_flow = analyzed(tmp_path / "b", shown, *parts, "--by", "flow")
    assert by_flow == expected
    _, by_piece = analyzed(tmp_path / "c", shown, *parts, "--by", "piece")
    assert by_piece != expected  # a flow in both captures is two flows there


def test_scratch_is_where_packets_are_meanwhile(
    halves: list[str], shown: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scratch, listed = tmp_path / "scratch", tmp_path / "listed"
    scratch.mkdir()
    options = ["-o", f"folder={scratch}", "-o", f"list={listed}"]
    more = [*options, "--by", "flow", "--scratch"]
    analyzed(tmp_path / "out", shown, *halves[1:], *more, str(scratch))
    assert [it for it in listed.read_text().split("\n") if it]
    assert list(scratch.iterdir()) == []
    capsys.readouterr()
    assert main(["analyze", shown, *halves[1:], *more, str(listed)]) == 2
    assert capsys.readouterr().err == (
        f"ringline: {listed}: there is no such folder; make it first\n"
    )


def test_piece_divides_a_capture(halves: list[str], tmp_path: Path) -> None:
    sizes = [f"{PLUGINS}:Sizes", halves[0]]
    one, _ = analyzed(tmp_path / "a", *sizes)
    many, _ = analyzed(tmp_path / "b", *sizes, "--piece", "64KiB")
    pieces = -(-Path(halves[0]).stat().st_size // 65536)
    assert one["run"]["tasks"] == 1
    assert many["run"]["tasks"] >= pieces > 3  # those that join parts are tasks, too
    assert {**many, "run": None} == {**one, "run": None}


def test_state_is_the_room_for_what_a_plugin_keeps(
    halves: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ["analyze", f"{PLUGINS}:Sizes", halves[0], "--workers", "1", "--state"]
    assert main([*sizes, "40000"]) == 0
    capsys.readouterr()
    assert main([*sizes, "30000"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err
    assert said.err.count("\n") == 1
    assert "'of'" in said.err
    assert "--state" in said.err


def test_checked_finds_an_index_out_of_range(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capture, plugin = tmp_path / "a.pcap", tmp_path / "guard.py"
    firsts = [1, 2, 200, 3]
    packets = [(START + n, bytes([it]) + bytes(69)) for n, it in enumerate(firsts)]
    capture.write_bytes(make.pcap(packets))
    plugin.write_text(COMPILED)
    words = ["analyze", f"{plugin}:reads", str(capture), "--workers", "1"]
    assert main(words) == 0
    capsys.readouterr()
    assert main([*words, "--checked"]) == 2
    said = capsys.readouterr()
    assert f"{capture}, packet 3: IndexError: " in said.err
    assert "failed 1" in said.out


def test_an_address_where_nobody_answers_is_one_sentence(
    halves: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(deadlines, "ANALYSIS_ENGINE", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        words = ["analyze", f"{PLUGINS}:Sizes", *halves, "--engine", "dask", "--address", address]
        assert main([*words, "--patience", "1"]) == 3
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"ringline: Dask at {address} cannot be reached: ")
    assert said.err.count("\n") == 1


def test_patience_ends_an_analysis_without_a_worker(
    halves: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with cluster(tmp_path / "cluster") as made:
        words = ["analyze", f"{PLUGINS}:Sizes", *halves, "--engine", "dask"]
        assert main([*words, "--address", made.address, "--patience", "1"]) == 3
        assert capsys.readouterr().err == (
            f"ringline: Dask at {made.address}: there is no worker, for 1 s: look at its log, and "
            "start it again\n"
        )
