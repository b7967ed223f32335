"""The floors of ARCHITECTURE.md: a worker cannot reach a card even by mistake."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BELOW = {"shm": {"shm"}, "workers": {"shm", "workers"}}


def imports(path: Path) -> set[str]:
    """The packages of ringline that a file names in its imports, wherever they stand."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: line {node.lineno}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("ringline.")}


@pytest.mark.parametrize("package", BELOW)
def test_no_floor_imports_one_above_it(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        assert imports(path) <= BELOW[package], path
    for path in (ROOT / package).rglob("*.[ch]"):
        for name in re.findall(r'#include "\.\./(\w+)/', path.read_text()):
            assert name in BELOW[package], path
