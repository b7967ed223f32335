"""The floors of ARCHITECTURE.md: every import and every C include goes down or stays level.

So a worker cannot reach a card even by mistake, and a reader can begin at the bottom.
"""

from __future__ import annotations

import ast
import os
import re
import statistics
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("shm", "workers", "pipeline")

# From the bottom to the top. A file belongs to the longest entry that it begins with.
FLOORS = (
    "shm/",
    "workers/",  # the plugin contract and the packet loop
    "workers/captures/",
    "workers/tiers/",
    "workers/process/",
    "workers/trials/",
    "workers/analysis/",
    "workers/api.py",
    "workers/testing.py",
    "workers/plugins/",
    "pipeline/",
    "pipeline/configuration/",
    "pipeline/ports/",
    "pipeline/ports/descriptor_rings/",
    "pipeline/ports/ixgbe/",
    "pipeline/ports/e1000e/",
    "pipeline/ports/igb/",
    "pipeline/ports/virtqueue/",
    "pipeline/ports/virtio/",
    "pipeline/ports/sim82599/sim82599.h",
    "pipeline/ports/sim82599/chip/",
    "pipeline/ports/sim82599/traffic/",
    "pipeline/ports/sim82599/",
    "pipeline/ports/served/",
    "pipeline/ports/packet/",
    "pipeline/ports/xdp/",
    "pipeline/ports/create.py",
    "pipeline/driver/",
    "pipeline/telemetry/",
    "pipeline/supervisor/",
    "pipeline/terminal/",
    "pipeline/analysis/engines/",
    "pipeline/analysis/",
    "pipeline/bench/",
    "pipeline/commands/",
    "pipeline/__main__.py",
)

# What `pipeline` may import of `workers`: nothing here imports a user's code.
PURE = (
    "workers/analysis/children.py",
    "workers/analysis/tables/formats.py",
    "workers/analysis/remote.py",
    "workers/captures/",
    "workers/headers/",
    "workers/lookup/lookup.h",
    "workers/named/part.py",
    "workers/tables.py",
    "workers/process/launch.py",
    "workers/trials/arrivals.py",
    "workers/trials/checking.py",
    "workers/trials/trial.py",
)

FILES_MAX = 16  # in one folder
LINES_MAX = 400  # in one file; tests may have 500
LINES_MEDIAN = 150

Graph = Mapping[str, set[str]]


def sources(root: Path) -> Iterator[Path]:
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*")):
            if path.suffix in {".py", ".c", ".h"} and path.name != "_build.py":
                yield path


def module_file(root: Path, name: str) -> str | None:
    """The file of the module `ringline.…`, or of the one that has the object `name`."""
    parts = name.split(".")[1:]
    while parts:
        path = Path(*parts)
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if (root / file).is_file():
                return str(file)
        parts.pop()
    return None


def imported(root: Path, path: Path) -> Iterator[str]:
    """The files that one file imports or includes, at any place in it."""
    text = path.read_text(encoding="utf-8")
    if path.suffix in {".c", ".h"}:
        for name in re.findall(r'^#\s*include "(.+)"', text, re.MULTILINE):
            yield os.path.relpath(os.path.normpath(path.parent / name), root)
        return
    for node in ast.walk(ast.parse(text)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: line {node.lineno}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            file = module_file(root, name) if name.startswith("ringline.") else None
            if file is not None and file != str(path.relative_to(root)):
                yield file


def graph_of(root: Path) -> Graph:
    return {str(path.relative_to(root)): set(imported(root, path)) for path in sources(root)}


def floor(file: str) -> int:
    entry = max((entry for entry in FLOORS if file.startswith(entry)), key=len)
    return FLOORS.index(entry)


def upward(graph: Graph) -> list[str]:
    return [
        f"{file} imports {other}, which is above it"
        for file, others in graph.items()
        for other in sorted(others)
        if floor(other) > floor(file)
    ]


def circle(graph: Graph) -> list[str]:
    """The files of one import circle, or none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


@pytest.fixture(scope="module")
def graph() -> Graph:
    return graph_of(ROOT)


def test_no_import_and_no_include_goes_upward(graph: Graph) -> None:
    assert upward(graph) == []


def test_there_is_no_import_circle_and_no_include_circle(graph: Graph) -> None:
    assert circle(graph) == []


def test_the_pipeline_imports_nothing_that_runs_plugins(graph: Graph) -> None:
    for file, others in graph.items():
        if file.startswith("pipeline/"):
            of_workers = {other for other in others if other.startswith("workers/")}
            assert all(other.startswith(PURE) for other in of_workers), (file, of_workers)


def test_every_floor_is_there(graph: Graph) -> None:
    for entry in FLOORS:
        assert any(file.startswith(entry) for file in graph), f"{entry} has no file"


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("shm/bottom.py", "from ringline.workers import middle"),
        ("workers/middle.py", "from ringline.pipeline.top import Top"),
        ("workers/middle.py", "def late():\n    import ringline.pipeline.top"),
        ("workers/middle.h", '#include "../pipeline/driver/lane.h"'),
        ("pipeline/ports/card.h", '#include "../driver/lane.h"'),
        ("pipeline/ports/port.py", "from ringline.pipeline.driver import lane"),
    ],
)
def test_an_arrow_upward_is_found(tmp_path: Path, file: str, line: str) -> None:
    for name in (
        "shm/bottom.py",
        "workers/middle.py",
        "workers/middle.h",
        "pipeline/top.py",
        "pipeline/ports/port.py",
        "pipeline/ports/card.h",
        "pipeline/driver/lane.py",
        "pipeline/driver/lane.h",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert upward(graph_of(tmp_path)) == []
    (tmp_path / file).write_text(line + "\n")
    assert [sentence.split()[0] for sentence in upward(graph_of(tmp_path))] == [file]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a.py", "from ringline.shm import b"), ("b.py", "from ringline.shm.a import A")),
        (("a.h", '#include "b.h"'), ("b.h", '#include "a.h"')),
    ],
)
def test_a_circle_is_found(tmp_path: Path, one: tuple[str, str], other: tuple[str, str]) -> None:
    (tmp_path / "shm").mkdir()
    for name, text in (one, other):
        (tmp_path / "shm" / name).write_text(text + "\n")
    assert set(circle(graph_of(tmp_path))) == {f"shm/{one[0]}", f"shm/{other[0]}"}


def test_folders_and_files_are_of_a_size_to_be_read() -> None:
    lengths = {}
    for folder in {path.parent for path in sources(ROOT)} - {ROOT / "shm"}:
        files = [
            path
            for path in folder.iterdir()
            if path.suffix in {".py", ".pyi", ".c", ".h"} or path.name == "py.typed"
        ]
        assert len(files) <= FILES_MAX, f"{folder} has {len(files)} files"
    for path in sources(ROOT):
        if not str(path).startswith(str(ROOT / "shm")):
            lengths[path] = len(path.read_text(encoding="utf-8").splitlines())
            assert lengths[path] <= LINES_MAX, f"{path} has {lengths[path]} lines"
    assert statistics.median(lengths.values()) <= LINES_MEDIAN
    for path in [*(ROOT / "tests").rglob("*.py"), *(ROOT / "tests").rglob("*.[ch]")]:
        if (ROOT / "tests" / "types") in path.parents:
            continue
        assert len(path.read_text(encoding="utf-8").splitlines()) <= LINES_MAX + 100, path
