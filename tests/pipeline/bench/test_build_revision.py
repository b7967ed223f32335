"""`make bench-compare`: building the other revision."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


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
