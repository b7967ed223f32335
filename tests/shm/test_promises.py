"""Guarantees name their tests: those tests have to exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCES = sorted([*ROOT.glob("shm/*.h"), *ROOT.glob("shm/*.py")])


def defined() -> set[str]:
    names = set()
    for path in ROOT.glob("tests/shm/test_*.py"):
        names |= {path.stem, *re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)}
    return names


@pytest.mark.parametrize("source", SOURCES, ids=[path.name for path in SOURCES])
def test_every_test_that_a_guarantee_names_exists(source: Path) -> None:
    named = set(re.findall(r"\btest_\w+", source.read_text()))
    assert named - defined() == set()
