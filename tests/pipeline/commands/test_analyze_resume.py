"""`ringline analyze --resume`: after Ctrl-C, SIGTERM, SIGHUP, SIGKILL and a full disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ringline.pipeline.commands.cli import main

from ...data.make import save

PLUGINS = Path(__file__).parents[1] / "analysis" / "plugins.py"
PROOF = os.environ.get("RINGLINE_PROOF") == "1"
LEFT = [".ringline-analysis", "order.csv", "report.json"]


def report(folder: Path) -> dict[str, Any]:
    return {**json.loads((folder / "report.json").read_text()), "run": None}


def names(folder: Path) -> list[str]:
    return sorted(it.name for it in folder.iterdir())


@pytest.fixture
def captures(tmp_path: Path) -> list[str]:
    """Four captures; the plugin stops at the third while the file `marker` is missing."""
    folder = tmp_path / "captures"
    folder.mkdir()
    firsts = (b"ab", b"cd", b"\x09e", b"fg")
    return [save(folder / f"{n}.pcap", it, n * 10**9) for n, it in enumerate(firsts)]


STALLS = '''

class Stalls(Order):
    """Stops at a packet that begins with 9 while the file `go` is missing, and says so."""

    options = (Option("go", str, ""), Option("at", str, ""))

    def setup(self, worker: Worker) -> None:
        super().setup(worker)
        self.given = worker.options

    def process(self, batch: Batch) -> None:
        super().process(batch)
        if 9 in self.bytes:
            os.close(os.open(self.given["at"], os.O_CREAT))
            while not os.path.exists(self.given["go"]):
                time.sleep(0.01)
'''


@pytest.fixture
def arguments(tmp_path: Path, captures: list[str]) -> list[str]:
    plugin = tmp_path / "stalls.py"
    plugin.write_text(PLUGINS.read_text() + STALLS)
    options = ["-o", f"go={tmp_path}/go", "-o", f"at={tmp_path}/at"]
    return ["analyze", f"{plugin}:Stalls", *captures, *options, "--workers", "1"]


def stopped(arguments: list[str], tmp_path: Path, number: signal.Signals) -> tuple[int, str]:
    """Start an analysis, and stop it where the plugin stalls; its exit code and output."""
    command = [sys.executable, "-m", "ringline", *arguments]
    (tmp_path / "at").unlink(missing_ok=True)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        until = time.monotonic() + 90
        while not (tmp_path / "at").exists() and time.monotonic() < until:
            time.sleep(0.05)
        process.send_signal(number)
        try:
            said, _ = process.communicate(timeout=90)
        finally:
            process.kill()
    return process.returncode, said


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL", *(["SIGINT", "SIGHUP"] if PROOF else [])])
def test_what_a_signal_ended_goes_on(
    name: str,
    tmp_path: Path,
    arguments: list[str],
    captures: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, number = tmp_path / "out", getattr(signal, name)
    code, said = stopped([*arguments, "-w", str(out)], tmp_path, number)
    finished = out / ".ringline-finished"
    assert len(names(finished)) == 3  # about, and two captures
    if name == "SIGKILL":
        assert code == -number
        assert ".ringline-new" in names(out)
    else:
        assert code == 128 + number, said
        assert "interrupted: 2 captures not finished; --resume goes on from here" in said
        assert names(out) == [".ringline-analysis", ".ringline-finished", *LEFT[1:]]
        assert report(out)["unfinished"] == captures[2:]
        rows = (out / "order.csv").read_text().splitlines()[1:]
        assert rows == [f'{it},"a,b"' for it in b"abcd"]
    (tmp_path / "go").touch()
    assert main([*arguments, "-w", str(out), "--resume"]) == 0
    assert "finished by an earlier analysis: 2 captures and pieces" in capsys.readouterr().out
    assert names(out) == LEFT
    assert main([*arguments, "-w", str(tmp_path / "whole")]) == 0
    assert report(out) == report(tmp_path / "whole")
    assert (out / "order.csv").read_bytes() == (tmp_path / "whole" / "order.csv").read_bytes()


def test_by_flow_nothing_is_finished_so_nobody_is_told_to_resume(
    tmp_path: Path, arguments: list[str]
) -> None:
    command = [*arguments, "-w", str(tmp_path / "out"), "--by", "flow"]
    code, said = stopped(command, tmp_path, signal.SIGTERM)
    assert code == 143, said
    assert "4 captures not finished; nothing is finished that --resume could go on from\n" in said


def test_an_interruption_while_it_goes_on_loses_nothing(
    tmp_path: Path, arguments: list[str], captures: list[str]
) -> None:
    out = tmp_path / "out"
    for _ in range(2):
        code, said = stopped([*arguments, "-w", str(out), "--resume"], tmp_path, signal.SIGTERM)
        assert code == 143, said
        assert report(out)["unfinished"] == captures[2:]
        assert report(out)["counters"]["packets"] == 4


@pytest.mark.parametrize("finished", [2, 0])
def test_an_interruption_leaves_an_earlier_result(
    finished: int, tmp_path: Path, arguments: list[str], captures: list[str]
) -> None:
    out = tmp_path / "out"
    assert main([*without(arguments, captures[2:]), "-w", str(out)]) == 0
    before = {name: (out / name).read_bytes() for name in LEFT}
    given = [*without(arguments, captures[: 2 - finished]), "-w", str(out)]
    code, said = stopped(given, tmp_path, signal.SIGINT)
    assert code == 130, said
    assert f"on {finished} captures: " in said
    assert "interrupted: 2 captures not finished" in said
    assert f"  not written: {out} still has the result of an earlier analysis\n" in said
    assert "report.json" not in said
    assert "order.csv" not in said
    assert {name: (out / name).read_bytes() for name in LEFT} == before
    (tmp_path / "go").touch()
    assert main([*given, "--resume"]) == 0
    assert len(report(out)["captures"]) == 2 + finished
    assert names(out) == LEFT


def test_an_interruption_before_anything_leaves_the_finished_part_of_an_earlier_one(
    tmp_path: Path, arguments: list[str], captures: list[str]
) -> None:
    out = tmp_path / "out"
    stopped([*arguments, "-w", str(out)], tmp_path, signal.SIGINT)
    before = {name: (out / name).read_bytes() for name in LEFT}
    assert report(out)["unfinished"] == captures[2:]
    given = without(arguments, captures[:2])
    assert "not written: " in stopped([*given, "-w", str(out)], tmp_path, signal.SIGINT)[1]
    assert {name: (out / name).read_bytes() for name in LEFT} == before
    given = without(arguments, captures[:1])
    assert "not written: " not in stopped([*given, "-w", str(out)], tmp_path, signal.SIGINT)[1]
    assert [it["path"] for it in report(out)["captures"]] == captures[1:2]


@pytest.mark.parametrize("by", ["piece", "flow"])
def test_an_interruption_that_leaves_nothing_to_go_on_from_says_so(
    by: str,
    tmp_path: Path,
    arguments: list[str],
    captures: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    others = ["analyze", f"{PLUGINS}:Order", captures[0], captures[0] + ".cut", "--workers", "1"]
    Path(others[3]).write_bytes(Path(captures[0]).read_bytes()[:-1])
    assert main([*others, "-w", str(out)]) == 2
    assert len(names(out / ".ringline-finished")) == 2  # about, and a capture of another plugin
    given = arguments if by == "flow" else without(arguments, captures[:2])
    code, said = stopped([*given, "--by", by, "-w", str(out)], tmp_path, signal.SIGINT)
    assert code == 130, said
    count = 4 if by == "flow" else 2
    how = "nothing is finished that --resume could go on from"
    assert f"interrupted: {count} captures not finished; {how}\n" in said
    assert main([*given, "--by", by, "-w", str(out), "--resume"]) == 2  # as it is refused
    assert "without --resume" in capsys.readouterr().err


def without(arguments: list[str], paths: list[str]) -> list[str]:
    return [it for it in arguments if it not in paths]


def test_resume_and_format_need_a_folder(
    captures: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for option, sentence in (
        (["--resume"], "--resume goes on from what is in a folder: name it with -w"),
        (["--format", "csv"], "--format is the format of the tables in a folder: name one with -w"),
    ):
        assert main(["analyze", f"{PLUGINS}:Order", *captures, *option]) == 2
        assert capsys.readouterr().err == f"ringline: {sentence}\n"


def test_resume_with_nothing_there_begins_and_a_wrong_plugin_is_refused(
    tmp_path: Path, arguments: list[str], captures: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    stopped([*arguments, "-w", str(out), "--resume"], tmp_path, signal.SIGTERM)
    before = {name: (out / name).stat().st_mtime_ns for name in LEFT[1:]}
    other = ["analyze", f"{PLUGINS}:Order", *captures, "--workers", "1", "-w", str(out)]
    assert main([*other, "--resume"]) == 2
    said = capsys.readouterr().err
    assert "out/.ringline-finished: the analysis there cannot go on: its plugin was " in said
    assert said.endswith("; begin again without --resume, or in another folder\n")
    assert {name: (out / name).stat().st_mtime_ns for name in before} == before
    assert len(names(out / ".ringline-finished")) == 3
    assert main(other) == 0  # without --resume, the folder is that of the new one
    assert names(out) == LEFT


def test_each_format_replaces_the_one_before(tmp_path: Path, captures: list[str]) -> None:
    out = tmp_path / "out"
    command = ["analyze", f"{PLUGINS}:Order", *captures, "--workers", "1", "-w", str(out)]
    for form in ("parquet", "jsonl", "csv", "parquet"):
        assert main([*command, "--format", form]) == 0
        assert names(out) == [".ringline-analysis", f"order.{form}", "report.json"]
        assert report(out)["tables"]["order"]["types"] == ["u8", "text"]


# A disk of 64 KiB, which is larger the second time.
ON_A_SMALL_DISK = """
set -e
mount -t tmpfs -o size=64k none small
code=0
"$@" 2>said || code=$?
echo "$code" >code
cp -r small/out first
mount -o remount,size=2m small
"$@" --resume
cp -r small/out second
"""


def on_a_small_disk(folder: Path, arguments: list[str]) -> tuple[str, str]:
    """Analyze with the folder small/out, which is full in the end, and again with more room: what
    the first one complained and what the second one said."""
    probe = subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True)
    if probe.returncode != 0:
        pytest.skip("needs root and mount namespaces")
    (folder / "small").mkdir()
    command = ["unshare", "-m", "--propagation", "private", "sh", "-c", ON_A_SMALL_DISK, "sh"]
    command += [sys.executable, "-m", "ringline", *arguments, "-w", "small/out", "--workers", "1"]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "code").read_text() == "3\n"
    return (folder / "said").read_text(), done.stdout


BIG = '''

class Big(Order):
    """Its part has 12,000 bytes for each packet; its table has 40,000 rows if there are few."""

    def collect(self, worker: Worker) -> dict[str, Any] | None:
        import numpy as np

        if not worker.ending:
            return None
        return {"order": np.zeros(12000 * len(self.bytes), np.uint8)}

    @staticmethod
    def present(part: Part) -> dict[str, Any]:
        return {"big": {"n": range(40000 if len(part.state["order"]) < 40000 else 1)}}
'''


def test_a_full_disk_is_one_sentence_and_what_is_finished_stays(tmp_path: Path) -> None:
    (tmp_path / "big.py").write_text(PLUGINS.read_text() + BIG)
    captures = [save(tmp_path / f"{n}.pcap", b"a" * size, n) for n, size in enumerate((1, 2, 2, 2))]
    said, later = on_a_small_disk(tmp_path, ["analyze", "./big.py:Big", *captures])
    assert said == (
        "ringline: small/out/.ringline-finished: what is finished cannot be kept there: No space "
        "left on device: make room\n"
    )
    assert names(tmp_path / "first") == [".ringline-analysis", ".ringline-finished"]
    assert len(names(tmp_path / "first" / ".ringline-finished")) == 3
    assert "finished by an earlier analysis: 2 captures" in later
    assert names(tmp_path / "second") == [".ringline-analysis", "big.csv", "report.json"]


def test_a_disk_that_is_full_at_the_end_costs_no_capture(tmp_path: Path) -> None:
    (tmp_path / "big.py").write_text(PLUGINS.read_text() + BIG)
    capture = save(tmp_path / "a.pcap", b"aa")
    said, later = on_a_small_disk(tmp_path, ["analyze", "./big.py:Big", capture])
    assert said == (
        "ringline: small/out/.ringline-new/big.csv: cannot be written: No space left on device: "
        "make room\n"
    )
    assert names(tmp_path / "first") == [".ringline-analysis", ".ringline-finished"]
    assert "finished by an earlier analysis: 1 capture or piece" in later
    assert len((tmp_path / "second" / "big.csv").read_text().splitlines()) == 40_001


def test_a_folder_that_cannot_be_written_is_one_sentence(
    captures: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("/proc/results", "/sys/results", "/dev/null/results"):
        assert main(["analyze", f"{PLUGINS}:Order", *captures, "-w", folder]) in (2, 3)
        said = capsys.readouterr().err
        assert said.startswith(f"ringline: {folder}: cannot be made: ")
        assert said.count("\n") == 1
