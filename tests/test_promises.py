"""A guarantee names the test that keeps it: file and test exist, and nothing else is named.

A text names a test in one of two ways:

    Guarantees (tests in tests/shm/test_slots.py):
     - an entry is seen whole or not at all (test_half_written_entry_is_not_there)
     - names outlive a worker (tests/shm/test_owners.py: test_names_stay)

The first form names the file for all tests that follow, the second for those up to the bracket.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(
    path
    for pattern in ("shm/**/*.py", "workers/**/*.py", "pipeline/**/*.py", "*/**/*.[ch]", "*.md")
    for path in ROOT.glob(pattern)
    if path.relative_to(ROOT).parts[0] in {"shm", "workers", "pipeline", path.name}
)
TOKEN = re.compile(
    r"(?P<file>\btests/[\w/]+\.py)(?P<here>:\s)?|(?P<name>\btest_\w+)(?P<py>\.py)?|\)"
)
# Shown to plugin authors as a test of their own, or written for them by `ringline new`.
EXAMPLES = re.compile(
    r"test_bounce\w*|test_(guard|NAME)\.py|test_ipv4_goes_back_and_\w+|test_a_protocol_above_its_limit_\w+"
)


def promised(text: str) -> Iterator[tuple[str, str]]:
    """Every (file, test) that a text names; the file is "" where none was named before."""
    listed = here = ""
    for token in TOKEN.finditer(text):
        if token["file"] and token["here"]:
            here = token["file"]
        elif token["file"]:
            listed = token["file"]
            yield listed, ""
        elif token["name"] and not token["py"]:
            yield here or listed, token["name"]
        elif token["py"]:
            yield "", f"{token['name']}.py"
        else:
            here = ""


def broken(text: str, root: Path = ROOT) -> list[str]:
    """What is wrong with the promises of a text, one sentence each."""
    wrong = []
    for file, name in promised(text):
        if EXAMPLES.fullmatch(name):
            continue
        if not file:
            wrong.append(f"{name} is named without its file, as in tests/shm/test_ring.py")
        elif not (root / file).is_file():
            wrong.append(f"there is no {file}")
        elif name and name not in defined(root / file):
            wrong.append(f"{file} has no {name}")
    wrong += [
        f"this guarantee names no test: {item}" for item in items(text) if "test_" not in item
    ]
    return wrong


@functools.cache
def defined(path: Path) -> set[str]:
    """The functions and classes of a file."""
    kinds = ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


def items(text: str) -> Iterator[str]:
    """The items of the lists headed "Guarantees", each on one line; a blank line ends a list."""
    for part in re.split(r"\bGuarantees\b[^\n]*:\n", text)[1:]:
        block = re.split(r"\n[ *#]*(?:\n|$)|\*/", part)[0]
        for item in re.split(r"^[ *]*(?:-|[A-Z]\d+) ", block, flags=re.MULTILINE)[1:]:
            yield " ".join(item.replace("*", " ").split())


@pytest.mark.parametrize("source", SOURCES, ids=[str(path.relative_to(ROOT)) for path in SOURCES])
def test_every_test_that_a_guarantee_names_exists(source: Path) -> None:
    assert broken(source.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("folder", ["shm", "workers", "pipeline"])
def test_every_package_is_read(folder: str) -> None:
    """If a folder moved, the test above would find nothing there, and pass."""
    mine = [path for path in SOURCES if path.relative_to(ROOT).parts[0] == folder]
    assert sum(path.suffix == ".py" for path in mine) > 5
    assert sum(path.suffix in {".c", ".h"} for path in mine) > 3
    assert any(name for path in mine for _, name in promised(path.read_text()))


def test_a_promise_breaks_when_its_test_is_renamed_or_moved(tmp_path: Path) -> None:
    file = tmp_path / "tests" / "test_door.py"
    file.parent.mkdir()
    file.write_text("def test_it_opens() -> None: ...\n")
    text = "Guarantees (tests in tests/test_door.py):\n - it opens (test_it_opens)\n"
    assert broken(text, tmp_path) == []
    assert broken(text.replace("Guarantees (tests in tests/test_door.py)", ""), tmp_path)
    assert broken("it opens (tests/test_door.py: test_it_opens) as said", tmp_path) == []
    assert broken("it shuts (tests/test_door.py: test_it_shuts)", tmp_path) == [
        "tests/test_door.py has no test_it_shuts"
    ]
    defined.cache_clear()
    file.write_text(
        '"""\ndef test_it_opens() -> None: ...\n"""\ndef test_it_opens_wide() -> None: ...\n'
    )
    assert broken(text, tmp_path) == ["tests/test_door.py has no test_it_opens"]
    assert broken(
        "Guarantees (tests in tests/test_door.py):\n - it opens\n   and shuts\n", tmp_path
    ) == ["this guarantee names no test: it opens and shuts"]
    file.rename(file.with_name("test_gate.py"))
    assert "there is no tests/test_door.py" in broken(text, tmp_path)
