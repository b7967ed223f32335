"""`make bench-compare`: building the other revision."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SETTINGS = ("CC", "CFLAGS", "RINGLINE_NO_HINTS")


def build(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / "tools" / "build-revision"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_revision_that_does_not_exist_is_named() -> None:
    ended = build("no-such-revision")
    assert (ended.returncode, ended.stdout) == (3, "")
    in_archive = "this is no git checkout, so there are no other revisions"
    told = "git knows no revision 'no-such-revision'" if (ROOT / ".git").exists() else in_archive
    assert ended.stderr == f"tools/build-revision: {told}\n"


def test_one_revision_is_needed() -> None:
    ended = build()
    assert (ended.returncode, ended.stderr) == (2, "usage: tools/build-revision REVISION\n")


def test_make_asks_for_a_revision() -> None:
    ended = subprocess.run(
        ["make", "-C", str(ROOT), "bench-compare"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert "make bench-compare: say which revision, as in REV=v0.1" in ended.stderr


def test_make_compiles_again_when_the_hints_change() -> None:
    """Of the modules with the hints and those without them, one at most is there."""
    told = []
    for value in ("0", "1"):
        command = ["make", "-C", str(ROOT), "--dry-run", "build"]
        environment = {**os.environ, "RINGLINE_NO_HINTS": value}
        ended = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60, check=True
        )
        told.append("Compiling workers/_workers.abi3.so" in ended.stdout)
    assert any(told)


def test_other_settings_of_the_compiler_are_kept_apart(tmp_path: Path) -> None:
    """In a repository of its own, whose revision is there already for one setting."""
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "build-revision", tmp_path / "tools")
    git = [
        "git",
        "-C",
        str(tmp_path),
        "-c",
        "user.name=nobody",
        "-c",
        "user.email=nobody@localhost",
    ]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "-m", "Begin"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    kept = tmp_path / ".bench-cache" / head.stdout.strip()
    kept.mkdir(parents=True)
    (kept / "complete").touch()
    plain = {key: value for key, value in os.environ.items() if key not in SETTINGS}
    command = [str(tmp_path / "tools" / "build-revision"), "HEAD"]
    found = subprocess.run(command, env=plain, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (0, f"{kept}\n")
    (tmp_path / "tools" / "find-python").write_text("#!/bin/sh\necho false\n")  # builds nothing
    (tmp_path / "tools" / "find-python").chmod(0o755)
    for setting in SETTINGS:
        environment = {**plain, setting: "1"}
        other = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False
        )
        assert other.returncode != 0, f"{setting}: it is another build, which is not there"
        assert other.stdout == ""
