"""`ringline analyze`: what a user sees, and what it leaves behind."""

from __future__ import annotations

import csv
import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ringline.pipeline.analysis.output import Folder
from ringline.pipeline.commands.cli import main
from ringline.shm.errors import EnvironmentLacks, UsageError
from ringline.workers.analysis.tables import writing

from ...data.make import save

PLUGINS = Path(__file__).parents[1] / "analysis" / "plugins.py"


def test_a_summary_a_report_and_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    captures = [save(tmp_path / "b.pcap", b"cd", 5), save(tmp_path / "a.pcap", b"ab\x00")]
    out = tmp_path / "results"
    arguments = ["analyze", f"{PLUGINS}:Order", *captures, "-w", str(out), "--workers", "1"]
    assert main(arguments) == 0
    said = capsys.readouterr()
    assert "Order (batch) on 2 captures: 5 packets, 350 bytes on the wire, in " in said.out
    assert f"order: 5 rows, all in {out}/order.csv" in said.out
    assert "in the captures: 0.000 s, 2023-11-14T22:13:20Z to 2023-11-14T22:13:20Z" in said.out
    assert said.err == ""
    report = json.loads((out / "report.json").read_text())
    assert [Path(it["path"]).name for it in report["captures"]] == ["a.pcap", "b.pcap"]
    assert report["counters"]["packets"] == 5
    assert report["is_complete"]
    with open(out / "order.csv", newline="") as file:
        assert list(csv.reader(file)) == [
            ["first", "text"],
            *([str(it), "a,b"] for it in b"ab\x00cd"),
        ]
    assert main(arguments) == 0  # an earlier result is replaced
    again = json.loads((out / "report.json").read_text())
    assert {**again, "run": 0} == {**report, "run": 0}


def test_exit_codes_and_sentences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = save(tmp_path / "a.pcap", b"ab")
    bad = save(tmp_path / "b.pcap", b"ab")
    os.truncate(bad, 150)
    order = f"{PLUGINS}:Order"
    assert main(["analyze", order, good, bad, "--workers", "1"]) == 2
    said = capsys.readouterr()
    assert "left out: 1 capture" in said.out
    assert "b.pcap: packet 2, at byte 110, ends after 24 of its 70 bytes" in said.err
    assert main(["analyze", order, good, bad, "--cut", "--workers", "1"]) == 0
    assert "3 packets" in capsys.readouterr().out
    assert main(["analyze", order, good, bad, "--strict", "--workers", "1"]) == 2
    assert capsys.readouterr().out == ""
    raises = save(tmp_path / "c.pcap", b"\x07")
    assert main(["analyze", f"{PLUGINS}:Raises", raises, "--workers", "1"]) == 2
    assert "c.pcap, packet 1: ValueError: seven" in capsys.readouterr().err
    assert main(["analyze", "no_such_plugin", good, "--workers", "1"]) == 2
    assert "no installed package has an entry point" in capsys.readouterr().err
    assert main(["analyze", good, order]) == 2
    assert "a.pcap: is a capture; name the plugin first, as in `" in capsys.readouterr().err
    assert main(["analyze", str(tmp_path), good]) == 2
    assert f"{tmp_path}: is a folder; name the plugin first" in capsys.readouterr().err


def test_a_folder_of_others_and_one_in_use_are_not_touched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = save(tmp_path / "a.pcap", b"ab")
    arguments = ["analyze", f"{PLUGINS}:Order", good, "--workers", "1", "-w"]
    assert main([*arguments, str(tmp_path)]) == 2
    assert "has files that no analysis wrote" in capsys.readouterr().err
    assert main([*arguments, good]) == 2
    assert "is a file; -w names a folder" in capsys.readouterr().err
    out = tmp_path / "out"
    assert main([*arguments, str(out)]) == 0
    with open(out / ".ringline-analysis") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        capsys.readouterr()
        assert main([*arguments, str(out)]) == 2
    assert "another analysis writes into this folder" in capsys.readouterr().err
    assert main([*arguments, ""]) == 2


def test_ctrl_c_leaves_what_is_finished(tmp_path: Path) -> None:
    captures = [save(tmp_path / f"{n}.pcap", b"ab", n) for n in range(3)]
    hang = save(tmp_path / "hang.pcap", b"\x09", 9)
    out = tmp_path / "out"
    marker = tmp_path / "marker"
    command = [sys.executable, "-m", "ringline", "analyze", f"{PLUGINS}:Hurt", *captures, hang]
    command += ["-o", "how=hang", "-o", f"once={marker}", "-w", str(out), "--workers", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        until = time.monotonic() + 60
        finished = out / ".ringline-finished"
        kept: list[Path] = []  # about what, and the three captures
        while not (marker.exists() and len(kept) == 4) and time.monotonic() < until:
            time.sleep(0.05)
            kept = [it for it in finished.glob("*") if it.suffix != ".new"]
        process.send_signal(signal.SIGINT)
        said, complained = process.communicate(timeout=60)
    assert process.returncode == 130, complained
    assert b"interrupted: 1 capture not finished" in said
    report = json.loads((out / "report.json").read_text())
    assert report["named"]["seen"] == 6
    assert report["unfinished"] == [hang]
    assert not report["is_complete"]


def files(folder: Path) -> dict[str, bytes]:
    return {it.name: it.read_bytes() for it in folder.iterdir() if it.is_file()}


def test_an_analysis_that_fails_leaves_what_was_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = save(tmp_path / "a.pcap", b"ab")
    order, out = f"{PLUGINS}:Order", tmp_path / "deep" / "out"
    for wrong in ([order, "typo.pcap"], ["no_such_plugin", good]):
        assert main(["analyze", *wrong, "-w", str(out)]) == 2
        assert not out.parent.exists()
    (tmp_path / "empty").mkdir()
    assert main(["analyze", order, "typo.pcap", "-w", str(tmp_path / "empty")]) == 2
    assert list((tmp_path / "empty").iterdir()) == []
    assert main(["analyze", order, good, "-w", str(out), "--workers", "1"]) == 0
    before = files(out)
    assert sorted(before) == [".ringline-analysis", "order.csv", "report.json"]
    bad = tmp_path / "b.pcap"
    bad.write_bytes(b"\xd4\xc3\xb2\xa1")
    cut = save(tmp_path / "c.pcap", b"ab")
    os.truncate(cut, 150)
    stays = "out: still has the result of an earlier analysis\n"
    for said, wrong in (
        ("", [order, "typo.pcap"]),
        (stays, ["no_such_plugin", good]),
        (stays, [order, good, str(bad), "--strict"]),
        (stays, [order, good, cut, "--strict"]),
        ("out still has the result of an earlier analysis\n", [order, str(bad)]),
        ("out still has the result of an earlier analysis\n", [order, cut]),
    ):
        capsys.readouterr()
        assert main(["analyze", *wrong, "-w", str(out), "--workers", "1"]) == 2
        assert said in "".join(capsys.readouterr())
        assert files(out) == before
        assert not (out / ".ringline-new").exists()


def test_ctrl_c_while_a_result_replaces_another_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captures = [save(tmp_path / f"{n}.pcap", b"ab", n) for n in range(2)]
    out = tmp_path / "out"
    arguments = ["analyze", f"{PLUGINS}:Order", "-w", str(out), "--workers", "1"]
    assert main([*arguments, captures[0]]) == 0
    replace = os.replace
    sent: list[str] = []

    def interrupts(source: str, target: str) -> None:
        if target == str(out / "order.csv"):
            assert not (out / "report.json").exists()
            sent.append(target)
            signal.raise_signal(signal.SIGINT)
        replace(source, target)

    monkeypatch.setattr(os, "replace", interrupts)
    assert main([*arguments, *captures]) == 130
    assert len(sent) == 1
    assert sorted(files(out)) == [".ringline-analysis", "order.csv", "report.json"]
    assert len(json.loads((out / "report.json").read_text())["captures"]) == 2


def test_files_of_others_in_the_folder_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = save(tmp_path / "a.pcap", b"ab")
    out = tmp_path / "out"
    arguments = ["analyze", f"{PLUGINS}:Order", good, "-w", str(out), "--workers", "1"]
    assert main(arguments) == 0
    others = {"notes.csv": b"mine", "draft.new": b"mine too"}
    for name, content in others.items():
        (out / name).write_bytes(content)
    (out / "folder.csv").mkdir()
    with open(out / ".ringline-analysis", "a") as file:
        file.write("../a.csv\n")
    (tmp_path / "a.csv").write_text("not here")
    assert main(arguments) == 0
    sizes = ["analyze", f"{PLUGINS}:Sizes", good, "-w", str(out), "--workers", "1"]
    assert main(sizes) == 0
    left = files(out)
    assert others.items() <= left.items()
    assert sorted(left.keys() - others.keys()) == [".ringline-analysis", "report.json"]
    assert (out / "folder.csv").is_dir()
    assert (tmp_path / "a.csv").exists()
    (out / "order.csv").mkdir()
    capsys.readouterr()
    assert main(arguments) == 3
    said = capsys.readouterr().err
    assert said.endswith("out/order.csv: cannot be written: Is a directory\n")
    assert files(out) == left


def test_what_a_killed_analysis_left_is_replaced(tmp_path: Path) -> None:
    (tmp_path / ".ringline-analysis").touch()
    (tmp_path / ".ringline-new").mkdir()
    (tmp_path / ".ringline-new" / "old.csv").touch()
    with Folder(str(tmp_path)) as folder:
        assert os.listdir(folder.new) == []
        folder.write({})
    assert sorted(files(tmp_path)) == [".ringline-analysis", "report.json"]
    assert not (tmp_path / ".ringline-new").exists()


@pytest.mark.parametrize(
    ("number", "kind", "sentence"),
    [
        (errno.ENOLCK, EnvironmentLacks, "cannot be locked: No locks available"),
        (errno.EWOULDBLOCK, UsageError, "another analysis writes into this folder"),
    ],
)
def test_a_folder_that_cannot_be_locked_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    kind: type[Exception],
    sentence: str,
) -> None:
    def fails(fd: int, how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", fails)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(kind, match=sentence):
        Folder(str(tmp_path / "out"))
    assert os.listdir("/proc/self/fd") == before
    assert (tmp_path / "out").exists() == (kind is UsageError)


def test_a_lock_that_was_removed_meanwhile_counts_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = fcntl.flock

    def removes(fd: int, how: int) -> None:
        flock(fd, how)
        os.unlink(tmp_path / ".ringline-analysis")

    monkeypatch.setattr(fcntl, "flock", removes)
    with pytest.raises(UsageError, match="another analysis writes into this folder"):
        Folder(str(tmp_path))


def test_a_table_for_which_there_is_no_room_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(EnvironmentLacks, match=r"t\.csv: cannot be written: No space left on dev"):
        writing.write("p", {"t": {"a": [1, 2]}}, str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    with Folder(str(tmp_path / "out")) as folder, pytest.raises(EnvironmentLacks, match="No space"):
        folder.write({})
    assert not (tmp_path / "out" / ".ringline-new").exists()
