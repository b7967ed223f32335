"""The README shows what works, and the files, targets and settings that documents name exist.

Guarded here for users: the configuration, commands and plugins of the README. For contributors:
every file that CONTRIBUTING.md names, the settings of the tests, and the list of `make help`.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from ringline.pipeline.commands import cli
from ringline.pipeline.commands.arguments.completion import commands_of
from ringline.pipeline.configuration.builtin import ARGUMENTS
from ringline.pipeline.supervisor.worker_states import RestartPolicy
from ringline.pipeline.telemetry.snapshot import Snapshot
from ringline.pipeline.terminal import pairs, table
from ringline.shm import errors

from .pipeline.idle_instance import idle_instance

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.fixture
def snapshot(instance: Callable[[], str]) -> Iterator[Snapshot]:
    """Of an instance with one port, one worker, and packets lost for every reason."""
    with idle_instance(instance(), queues=1) as idle:
        idle.count()
        yield idle.take()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def uncommented(text: str) -> str:
    """The same configuration with the keys that are shown as comments."""
    return re.sub(r"^# (\w+ = )", r"\1", text, flags=re.MULTILINE)


@pytest.mark.parametrize("edit", [str, uncommented], ids=["as-shown", "all-keys"])
def test_the_configuration_is_accepted(edit: Callable[[str], str], tmp_path: Path) -> None:
    (shown,) = blocks("toml")
    text = edit(shown)
    if edit is uncommented:
        text = re.sub(r"^flows = .*\n", "", text, flags=re.MULTILINE)
    tomllib.loads(text)
    from ringline.pipeline.configuration.schema import read

    problems: list[str] = []
    read(tomllib.loads(text), tmp_path, problems)
    assert problems == []


def test_the_commands_exist() -> None:
    shown = set(re.findall(r"^    ringline ([\w-]+)", README, re.MULTILINE))
    assert shown
    for command in shown:
        done = subprocess.run(
            ["ringline", command, "--help"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"ringline {command} --help: {done.stderr}"


@pytest.mark.parametrize("document", [README, CONTRIBUTING], ids=["README", "CONTRIBUTING"])
def test_every_make_target_that_is_named_exists(document: str) -> None:
    named = set(re.findall(r"(?:`|^ +)make ([a-z-]+)", document, re.MULTILINE))
    assert named
    assert named <= set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))


def test_make_help_lists_every_target_but_the_internal_ones() -> None:
    phony = set(re.findall(r"^\.PHONY: ([a-z-]+)$", MAKEFILE, re.MULTILINE))
    internal = {"tools-for-tests", "tools-for-served", "tools-for-proof", "revision-given"}
    done = subprocess.run(
        ["make", "--no-print-directory"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    lines = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    assert {target for _, target, _ in lines} == phony - internal
    assert len(lines) == len(phony - internal)


@pytest.mark.parametrize("document", ["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_every_file_that_a_document_names_exists(document: str) -> None:
    """A name in code style with a slash or the ending of a source file. The upper folders may be
    left out, as in `ports/registers.py`; NAME stands for any name."""
    text = (ROOT / document).read_text(encoding="utf-8")
    named = re.findall(r"`([\w./@-]+/[\w./@-]*|[\w-]+\.(?:md|toml|py|c|h))`", text)
    assert len(named) > 20
    folders = ("shm", "workers", "pipeline", "tests", "deploy", "docs", "tools", ".ci")
    there = {f"/{path.relative_to(ROOT)}" for name in folders for path in (ROOT / name).rglob("*")}
    there |= {f"/{path.name}" for path in ROOT.iterdir()}
    missing = [
        name
        for name in named
        if "NAME" not in name
        and not name.startswith(("./", "/"))
        and not any(path.endswith(f"/{name.rstrip('/')}") for path in there)
    ]
    assert missing == []


def test_the_settings_of_the_tests_are_those_that_the_tests_read() -> None:
    told = set(re.findall(r"^\| `(RINGLINE_\w+)", CONTRIBUTING, re.MULTILINE))
    settings = (ROOT / "tests" / "conftest.py").read_text(encoding="utf-8").split('"""')[1]
    assert told == set(re.findall(r"RINGLINE_\w+", settings)) | {"RINGLINE_SEED"}


def test_the_plugins_that_are_named_are_there_and_no_others() -> None:
    (listed,) = re.findall(
        r"^These come with ringline: (.*?)\n\n", README, re.MULTILINE | re.DOTALL
    )
    there = {point.name for point in entry_points(group="ringline.plugins")}
    assert set(re.findall(r"`(\w+)`", listed)) == there


def block_with(language: str, words: str) -> str:
    """The only block of this language that contains the words."""
    (found,) = [block for block in blocks(language) if words in block]
    return found


def test_the_plugins_run_and_the_test_passes(tmp_path: Path) -> None:
    """The compiled ones and the class by `ringline try` on a capture, the test by pytest."""
    (tmp_path / "bounce.py").write_text(block_with("python", "def bounce("))
    (tmp_path / "guard.py").write_text(block_with("python", "class Guard"))
    (tmp_path / "limit.py").write_text(block_with("python", "def limit("))
    (tmp_path / "test_bounce.py").write_text(block_with("python", "def test_bounce"))
    (tmp_path / "hop.py").write_text(block_with("python", "def hop("))
    capture = str(ROOT / "tests" / "data" / "mixed.pcap")
    for command in (
        ["ringline", "try", "./bounce.py:bounce", capture, "-w", "out.pcap"],
        ["ringline", "try", "./guard.py:Guard", capture],
        ["ringline", "try", "./hop.py:hop", capture],
        ["ringline", "try", "./limit.py:limit", capture],
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_bounce.py"],
    ):
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "out.pcap").stat().st_size > 24


@pytest.mark.parametrize(
    ("language", "words", "tier", "file"),
    [
        ("python", "def quota(", "compiled", "quota.py"),
        ("python", "class Quota", "batch", "quota.py"),
        ("c", "quota_packet", "c", "quota.c"),
    ],
)
def test_the_complete_plugins_are_those_that_new_writes(
    language: str, words: str, tier: str, file: str
) -> None:
    """Their tests pass (tests/pipeline/commands/test_starters.py), so these plugins work."""
    from ringline.pipeline.commands.starters.plugins import written

    assert block_with(language, words) == written(tier, "quota")[0][file]


def test_the_plugin_in_c_compiles_and_runs(tmp_path: Path) -> None:
    """With the commands that the README shows."""
    (tmp_path / "reflect.c").write_text(block_with("c", "reflect_plugin"))
    (script,) = re.findall(
        r"^((?:    .*\n)*    ringline try ./reflect.so.*\n)", README, re.MULTILINE
    )
    capture = ROOT / "tests" / "data" / "mixed.pcap"
    done = subprocess.run(
        ["bash", "-ec", script.replace("capture.pcap", str(capture))],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "reflect_plugin (C) on" in done.stdout


def rows_of(title: str) -> list[str]:
    """The names in the first column of the table below a title."""
    (section,) = re.findall(rf"^### {title}\n(.*?)^##", README, re.MULTILINE | re.DOTALL)
    cells = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`(.*?)`", cell)]


def test_every_column_of_the_live_table_is_explained(snapshot: Snapshot) -> None:
    board = table.board(None, snapshot)
    columns = {*board.ports.headings[1:], *board.workers.headings[1:]}
    assert set(rows_of("The live table")) == columns


def test_every_key_for_programs_is_explained(snapshot: Snapshot) -> None:
    line = pairs.line(snapshot, replace(snapshot, clock=snapshot.clock + 1), table.Span(0, 9))
    told = set()
    for name in rows_of("Output for programs"):
        whole = name if "." in name or "_" not in name else f"port.NAME.{name}"
        told.add(whole)
    shown = {
        re.sub(r"drop\.\w+", "drop.REASON", key.replace(".wan.", ".NAME.").replace(".0.", ".N."))
        for key in (pair.split("=")[0] for pair in line.split(" "))
    }
    assert told - {"worker.N.busy_percent"} == shown - {"worker.N.busy_percent"}


def test_the_restarts_are_those_of_the_policy() -> None:
    (sentence,) = re.findall(r"When a worker dies, its first restart.*?\n\n", README, re.DOTALL)
    numbers = re.findall(r"([\d.]+) s\b", sentence)
    assert numbers == [f"{RestartPolicy.backoff:g}", f"{RestartPolicy.backoff_max:g}"]
    assert RestartPolicy.blank_after == 3


def test_the_exit_codes_are_those_of_the_errors() -> None:
    (section,) = re.findall(r"^## Exit codes\n(.*?)^## ", README, re.MULTILINE | re.DOTALL)
    told = {int(code) for code in re.findall(r"^\| (\d) \|", section, re.MULTILINE)}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    codes = {kind.exit_code for kind in kinds if issubclass(kind, errors.RinglineError)}
    assert told == codes | {0}


def test_the_arguments_in_place_of_a_file_are_all_named() -> None:
    before, _, _ = README.partition("\n## Writing a plugin\n")
    told = set(re.findall(r"^\| `(-[-\w]+)", before, re.MULTILINE))
    assert told == set(ARGUMENTS.values())


def test_the_arguments_of_lab_are_all_named() -> None:
    (section,) = re.findall(r"^## A laboratory\n(.*?)^## ", README, re.MULTILINE | re.DOTALL)
    table, _, _ = section.partition("\n| environment")
    told = set(re.findall(r"`(-[-\w]+)", table))
    (lab,) = (each for each in commands_of(cli.parser(), []) if each.name == "lab")
    assert told == set(lab.flags) - {"-h", "--help"}


def test_the_sentences_about_cards_are_those_of_the_program() -> None:
    guide = (ROOT / "docs" / "cards.md").read_text(encoding="utf-8")
    _, _, table = guide.partition("\n## When it does not work\n")
    code = "".join(path.read_text() for path in (ROOT / "pipeline").rglob("*.py"))
    code = re.sub(r'"\s*\n\s*f?"', "", code)  # a string that goes on in the next line
    quoted = re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)
    assert len(quoted) >= 9
    assert [each for each in quoted if each not in code] == []
