"""How a program of the package starts: without Python's site, and still with what site finds."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from ringline.workers.process import launch

TIMEOUT = 120.0
MIXED = Path(__file__).parents[2] / "data" / "mixed.pcap"

# What `pip install --editable` writes for many projects.
FINDER = """
import importlib.util, sys

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "hooked_xyz":
            return importlib.util.spec_from_file_location(name, {file!r})
"""
PLUGINS = """
class Early:
    import hooked_xyz
    def process(self, batch):
        for packet in batch:
            packet.verdict = self.hooked_xyz.verdict(packet.port)

class Late:
    def process(self, batch):
        import hooked_xyz
        for packet in batch:
            packet.verdict = hooked_xyz.verdict(packet.port)
"""


@pytest.fixture(scope="module")
def hooked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python whose site-packages have an import hook; it also finds what this one finds."""
    folder = tmp_path_factory.mktemp("hooked")
    venv.create(folder / "venv", with_pip=False)
    (library,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (folder / "hooked.py").write_text("def verdict(port): return port\n")
    (library / "hook_xyz.py").write_text(FINDER.format(file=str(folder / "hooked.py")))
    (library / "a.pth").write_text(
        f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
        "import sys, hook_xyz; sys.meta_path.append(hook_xyz.Finder)\n"
    )
    return folder / "venv" / "bin" / "python"


@pytest.mark.parametrize("plugin", ["./plugins.py:Early", "./plugins.py:Late", "plugins:Early"])
def test_an_import_hook_of_site_is_found(hooked: Path, tmp_path: Path, plugin: str) -> None:
    (tmp_path / "plugins.py").write_text(PLUGINS)
    command = [hooked, "-P", "-m", "ringline.pipeline.commands.cli", "try", plugin, MIXED]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=TIMEOUT
    )
    assert done.returncode == 0, done.stderr
    assert "dropped 0" in done.stdout


def test_a_worker_pays_for_site_only_when_there_are_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    python = [finder for finder in sys.meta_path if finder.__module__ == "_frozen_importlib"]
    monkeypatch.setattr(sys, "meta_path", python)
    assert launch.environment()["RINGLINE_HOOKS"] == ""

    class Finder:
        pass

    monkeypatch.setattr(sys, "meta_path", [*python, Finder])
    assert launch.environment()["RINGLINE_HOOKS"] == "1"


def test_a_folder_of_the_search_path_may_have_any_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a:b c"
    folder.mkdir()
    (folder / "colon_xyz.py").write_text(
        "class P:\n    def process(self, batch):\n        batch.verdicts[:] = batch.ports\n"
    )
    command = [sys.executable, "-P", "-m", "ringline.pipeline.commands.cli", "try"]
    done = subprocess.run(
        [*command, "colon_xyz:P", MIXED],
        cwd=folder,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stderr
