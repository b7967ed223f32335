"""The package `ringline` itself: its version, `python -m ringline`, and which copy Python finds."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import ringline
from ringline.pipeline.commands import cli

ROOT = Path(__file__).resolve().parents[1]
VERSION = metadata.version("ringline")
MIXED = Path(__file__).parent / "data" / "mixed.pcap"


def python(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    """The parent folder of a clone that is not compiled."""
    clone = tmp_path / "ringline"
    clone.mkdir()
    shutil.copy(ROOT / "__init__.py", clone)
    for name in ("package", "shm", "workers", "pipeline"):
        shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("*.so", "__pyc*"))
    return tmp_path


def test_the_version_is_told_in_every_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ringline.__version__ == VERSION
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"ringline {VERSION}\n"
    done = python("-m", "ringline", "--version", folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"ringline {VERSION}\n", "")
    with pytest.raises(AttributeError, match="module 'ringline' has no attribute 'nothing'"):
        ringline.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_a_plugin_sees_the_version_in_its_worker_too(tmp_path: Path) -> None:
    (tmp_path / "tells.py").write_text(
        "import ringline\n"
        "class Tells:\n"
        "    def setup(self, worker): print('version', ringline.__version__)\n"
        "    def process(self, batch): batch.verdicts[:] = batch.ports\n"
    )
    done = python("-m", "ringline", "try", "./tells.py:Tells", str(MIXED), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"version {VERSION}" in done.stderr


@pytest.mark.parametrize("statement", ["import ringline", "import ringline.workers.api"])
def test_a_clone_in_the_current_folder_does_not_hide_the_installed_package(
    parent: Path, statement: str
) -> None:
    show = "print(ringline.__version__, ringline.__file__); import ringline.shm as s; print(s)"
    done = python("-c", f"{statement}; {show}", folder=parent)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{VERSION} ")
    assert str(parent) not in done.stdout
    done = python("-m", "ringline", "try", "forward", str(MIXED), folder=parent)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_link_to_a_clone_and_a_second_clone_do_not_hide_it_either(parent: Path) -> None:
    for name in ("one", "two"):
        (parent / name).mkdir()
        (parent / name / "ringline").symlink_to(parent / "ringline")
    shutil.copytree(parent / "ringline", parent / "three" / "ringline")
    paths = [str(parent / name) for name in ("two", "three")]
    code = f"import sys; sys.path[1:1] = {paths!r}; import ringline; print(ringline.__version__)"
    done = python("-c", code, folder=parent / "one")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{VERSION}\n", "")


def test_a_clone_that_is_not_installed_says_so(parent: Path) -> None:
    (parent / "link").symlink_to(parent)  # the same folder twice in the search path
    paths = [str(parent), str(parent / "link")]
    code = f"import sys; sys.path[:0] = {paths!r}; import ringline"
    done = python("-I", "-S", "-c", code, folder=parent)
    assert done.stderr.splitlines()[-1] == (
        f"ImportError: {parent}/ringline is the source of ringline, and ringline is not installed "
        f"for this Python: pip install {parent}/ringline"
    )


def test_a_package_that_is_not_compiled_says_so(parent: Path) -> None:
    shutil.copy(ROOT / "package" / "__init__.py", parent / "ringline")
    code = f"import sys; sys.path.insert(0, {str(parent)!r}); import ringline.workers.api"
    done = python("-I", "-S", "-c", code, folder=parent)
    assert done.stderr.splitlines()[-1] == (
        f"ImportError: ringline in {parent}/ringline is not compiled: run `make build` there"
    )
