"""Options that are paths: where a relative path begins, and what is said of a wrong one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ringline.pipeline.commands.check import check
from ringline.shm.errors import ConfigurationError, PluginError
from ringline.workers.options import Option, resolve
from ringline.workers.testing import run_plugin
from ringline.workers.trials.checking import check as check_plugin

from .conftest import WorkerHarness

PLUGIN = """
from pathlib import Path
from ringline.workers.api import Option

class Acl:
    options = [Option("rules", Path, help="a CSV file"), Option("other", Path, None)]
    def setup(self, worker):
        assert worker.options["other"] is None
        self.rules = worker.options["rules"]
        assert isinstance(self.rules, Path) and self.rules.is_absolute()
        worker.gauge("lines").set(len(self.rules.read_text().splitlines()))
    def process(self, batch): pass
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "acl.py").write_text(PLUGIN)
    (tmp_path / "rules.csv").write_text("a\nb\n")
    return tmp_path


def test_a_path_is_relative_to_the_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    declared = [Option("rules", Path)]
    assert resolve(declared, {"rules": "rules.csv"}, str(folder)) == (
        {"rules": folder / "rules.csv"},
        [],
    )
    monkeypatch.chdir(folder)
    assert resolve(declared, {"rules": Path("rules.csv")})[0] == {"rules": folder / "rules.csv"}
    monkeypatch.setenv("HOME", str(folder))
    assert resolve(declared, {"rules": "~/rules.csv"}, "/")[0] == {"rules": folder / "rules.csv"}
    given = {"rules": str(folder / "rules.csv")}
    assert resolve(declared, given, "/")[0] == {"rules": folder / "rules.csv"}


def test_a_default_is_a_path_like_any_other(folder: Path) -> None:
    for default in ("rules.csv", Path("rules.csv")):
        values, problems = resolve([Option("rules", Path, default)], {}, str(folder))
        assert (values, problems) == ({"rules": folder / "rules.csv"}, [])
    _, problems = resolve([Option("rules", Path, "none.csv")], {}, str(folder))
    assert problems == [f'"rules" names {folder}/none.csv, which does not exist']
    assert resolve([Option("rules", Path, None)], {}) == ({"rules": None}, [])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (3, "must be the path of a file, not 3"),
        (True, "must be the path of a file, not True"),
        ("", "must be the path of a file, not ''"),
        ("a\0b", r"must be the path of a file, not 'a\x00b'"),
        ("none.csv", "names {folder}/none.csv, which does not exist"),
        ("sub", "names {folder}/sub, which is a folder"),
        ("rules.csv/x", "names {folder}/rules.csv/x, which cannot be read: Not a directory"),
        ("fifo", "names {folder}/fifo, which is not a regular file"),
        ("x" * 300, "which cannot be read: File name too long"),
        ("a\nb", "names {folder}/a\\nb, which does not exist"),
    ],
)
def test_a_wrong_path_is_one_sentence_with_its_place(folder: Path, given: Any, words: str) -> None:
    (folder / "sub").mkdir()
    os.mkfifo(folder / "fifo")
    _, problems = resolve(
        [Option("rules", Path)],
        {"rules": given},
        str(folder),
        {"rules": "worker.options.rules in line 9"},
    )
    assert len(problems) == 1
    assert words.format(folder=folder) in problems[0]
    assert problems[0].endswith(" (worker.options.rules in line 9)")


def test_a_file_that_may_not_be_read_is_reported(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may read everything
    _, problems = resolve([Option("rules", Path)], {"rules": "rules.csv"}, str(folder))
    assert problems == [
        f'"rules" names {folder}/rules.csv, which cannot be read: Permission denied'
    ]


CONFIG = """
[port.wan]
device = "sim:82599"
queues = 2
[worker]
plugin = "./acl.py:Acl"
options = {{ rules = "{rules}" }}
[worker.1.options]
rules = "rules.csv"
"""


def test_check_names_the_line_of_the_key(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    file = folder / "edge.toml"
    file.write_text(CONFIG.format(rules="rules.csv"))
    assert "all well" in check(str(file))
    file.write_text(CONFIG.format(rules="none.csv"))
    with pytest.raises(ConfigurationError) as caught:
        check(str(file))
    assert caught.value.problems == [
        f'{file}: worker 0: plugin ./acl.py:Acl: option "rules" names {folder}/none.csv, which '
        "does not exist (worker.options.rules in line 7)"
    ]


def test_a_worker_finds_the_file_and_refuses_a_missing_one(
    worker: WorkerHarness, folder: Path
) -> None:
    worker.serve("./acl.py:Acl", folder=str(folder), options={"rules": "rules.csv"})
    worker.stop()
    worker.start(
        "./acl.py:Acl",
        folder=str(folder),
        options={"rules": "none.csv"},
        places={"rules": "worker.options.rules in line 7"},
    )
    failed = worker.event("failed", "ready")
    assert failed["error"]["message"] == (
        f'plugin ./acl.py:Acl: option "rules" names {folder}/none.csv, which does not exist '
        "(worker.options.rules in line 7)"
    )


def test_try_and_testing_take_it_from_the_current_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    run = run_plugin("./acl.py:Acl", [bytes(60)], options={"rules": Path("rules.csv")})
    assert run.named["lines"] == 2
    with pytest.raises(PluginError, match=r"none\.csv, which does not exist"):
        run_plugin("./acl.py:Acl", [], options={"rules": "none.csv"})
    assert check_plugin("./acl.py:Acl", {"rules": "rules.csv"}, ["wan"]) == []
    (problem,) = check_plugin("./acl.py:Acl", {"rules": "."}, ["wan"])
    assert problem.endswith("which is a folder")
