"""The README shows what works, and the files, targets and settings that documents name exist.

Guarded here for users: the configuration, commands and plugins of the README. For contributors:
every file that CONTRIBUTING.md names, the settings of the tests, and the list of `make help`.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


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
    shown = set(re.findall(r"^    ringline (\w+)", README, re.MULTILINE))
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
    done = subprocess.run(
        ["make", "--no-print-directory"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    lines = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    assert {target for _, target, _ in lines} == phony - {"tools-for-tests"}
    assert len(lines) == len(phony) - 1


def test_every_file_that_contributors_are_sent_to_exists() -> None:
    """A name in code style with a slash or a known ending; capitals stand for any name."""
    named = re.findall(r"`([\w./@-]+/[\w./@-]*|[\w-]+\.(?:md|toml|py))`", CONTRIBUTING)
    assert len(named) > 20
    missing = [
        name
        for name in named
        if "NAME" not in name and not (ROOT / name).exists() and not name.startswith("./")
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


def test_the_plugins_run_and_the_test_passes(tmp_path: Path) -> None:
    """The compiled one and the class by `ringline try` on a capture, the test by pytest."""
    compiled, batch, test = blocks("python")
    (tmp_path / "bounce.py").write_text(compiled)
    (tmp_path / "guard.py").write_text(batch)
    (tmp_path / "test_bounce.py").write_text(test)
    capture = str(ROOT / "tests" / "data" / "mixed.pcap")
    for command in (
        ["ringline", "try", "./bounce.py:bounce", capture, "-w", "out.pcap"],
        ["ringline", "try", "./guard.py:Guard", capture],
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_bounce.py"],
    ):
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "out.pcap").stat().st_size > 24
