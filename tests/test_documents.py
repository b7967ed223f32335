"""What the README shows works as it is shown."""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


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
    from ringline.pipeline.schema import read

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


def test_every_make_target_that_is_named_exists() -> None:
    named = set(re.findall(r"\bmake (\w+)\b", README)) - {"it"}
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert named <= targets


def test_the_plugins_that_are_named_are_there_and_no_others() -> None:
    (listed,) = re.findall(
        r"^These come with ringline: (.*?)\n\n", README, re.MULTILINE | re.DOTALL
    )
    there = {point.name for point in entry_points(group="ringline.plugins")}
    assert set(re.findall(r"`(\w+)`", listed)) == there


def test_the_plugin_runs(tmp_path: Path) -> None:
    """Compiled by numba and run by `ringline try` on a capture."""
    (shown,) = blocks("python")
    (tmp_path / "bounce.py").write_text(shown)
    capture = str(ROOT / "tests" / "data" / "mixed.pcap")
    done = subprocess.run(
        ["ringline", "try", "./bounce.py:bounce", capture, "-w", "out.pcap"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.pcap").stat().st_size > 24
