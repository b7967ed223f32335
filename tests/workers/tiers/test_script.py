"""A plugin file is a script: its folder comes first in the search path, and its module has the
name that `import` would give it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringline.shm.errors import PluginError
from ringline.workers.testing import run_plugin
from ringline.workers.tiers import loading

BATCH = "    def process(self, batch): pass\n"
TIMEOUT = 120.0


@pytest.fixture(autouse=True)
def _own_path() -> Iterator[None]:
    """Undo what the plugins of a test do to the search path and the modules."""
    path, modules = list(sys.path), dict(sys.modules)
    yield
    sys.path[:] = path
    for name in sys.modules.keys() - modules:
        del sys.modules[name]


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return folder


def test_what_is_beside_the_file_comes_before_all_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = write(tmp_path / "installed", beside_xyz="where = 'installed'\n")
    current = write(tmp_path / "current", beside_xyz="where = 'current'\n")
    source = f"import beside_xyz\nclass P:\n    where = beside_xyz.where\n{BATCH}"
    plug = write(tmp_path / "plug", first_xyz=source, beside_xyz="where = 'beside'\n")
    monkeypatch.chdir(current)
    sys.path[:0] = [str(current), str(installed)]
    assert loading.find("../plug/first_xyz.py:P").where == "beside"
    assert sys.path[0] == str(plug)


def test_a_link_to_a_file_imports_from_the_folder_of_the_file(tmp_path: Path) -> None:
    source = f"import there_xyz\nclass P:\n    where = there_xyz.where\n{BATCH}"
    real = write(tmp_path / "real", linked_xyz=source, there_xyz="where = 'real'\n")
    (tmp_path / "linked_xyz.py").symlink_to(real / "linked_xyz.py")
    assert loading.find(f"{tmp_path}/linked_xyz.py:P").where == "real"


def test_plugins_of_two_folders_each_import_what_is_beside_them(tmp_path: Path) -> None:
    source = f"import limit_xyz\nclass P:\n    limit = limit_xyz.limit\n{BATCH}"
    for name in "ab":
        write(tmp_path / name, same_xyz=source, limit_xyz=f"limit = {name!r}\n")
    a, b = (loading.find(f"{tmp_path}/{name}/same_xyz.py:P") for name in "ab")
    assert (a.limit, b.limit) == ("a", "b")
    assert sys.modules["same_xyz"].P is b
    assert loading.find(f"{tmp_path}/a/same_xyz.py:P") is a
    assert sys.modules["same_xyz"].P is a
    assert sys.path[0] == f"{tmp_path}/a"


def test_a_module_beside_the_configuration_imports_from_there(tmp_path: Path) -> None:
    installed = write(tmp_path / "installed", near_xyz="where = 'installed'\n")
    source = f"import near_xyz\nclass P:\n    where = near_xyz.where\n{BATCH}"
    folder = write(tmp_path / "folder", module_xyz=source, near_xyz="where = 'near'\n")
    sys.path.insert(0, str(installed))
    sys.path.append(str(folder))  # as the commands do
    assert loading.find("module_xyz:P", str(folder)).where == "near"


def test_the_module_is_the_one_that_import_gives(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        once_xyz=f"import asks_xyz\nclass P:\n{BATCH}",
        asks_xyz="import once_xyz\nasked = once_xyz\n",
    )
    found = loading.find(f"{folder}/once_xyz.py:P")
    assert found.__module__ == "once_xyz"
    assert sys.modules["asks_xyz"].asked.P is found
    write(tmp_path, twice_xyz=f"class P:\n{BATCH}")
    imported = __import__("twice_xyz")
    assert loading.find(f"{folder}/twice_xyz.py:P") is imported.P


@pytest.mark.parametrize(
    ("file", "name"),
    [("os", "plugin_os"), ("guard.v2", "guard_v2"), ("my-guard", "my-guard")],
)
def test_a_name_that_is_taken_or_no_module_is_changed(tmp_path: Path, file: str, name: str) -> None:
    write(tmp_path, **{file: f"class P:\n{BATCH}"})
    assert loading.find(f"{tmp_path}/{file}.py:P").__module__ == name
    assert sys.modules["os"] is os


def test_a_plugin_may_have_the_name_of_a_module_of_python(tmp_path: Path) -> None:
    sys.modules.pop("pyclbr", None)
    write(tmp_path, pyclbr=f"class P:\n{BATCH}")
    assert loading.find(f"{tmp_path}/pyclbr.py:P").__module__ == "plugin_pyclbr"
    assert hasattr(__import__("pyclbr"), "readmodule")


def test_a_file_that_hides_a_module_of_python_is_named(tmp_path: Path) -> None:
    sys.modules.pop("this", None)
    write(tmp_path, hides_xyz="import this\nthis.zen\n", this="")
    with pytest.raises(PluginError, match=r"this\.py hides the module this of Python: rename it"):
        loading.find(f"{tmp_path}/hides_xyz.py:P")


GUARD = """
import numba
from ringline.workers.api import DROP, packet_function

@numba.njit(cache=True)
def ethertype(frame):
    return (frame[12] << 8) | frame[13]

@packet_function
def only_ip(frame, meta):
    return meta.port if ethertype(frame) == 0x0800 else DROP
"""
USE = "import numpy, cached_xyz; print(cached_xyz.ethertype(numpy.zeros(60, numpy.uint8)))"
RUN = """
from ringline.workers.testing import run_plugin
print(run_plugin("./cached_xyz.py:only_ip", [bytes(60)], debug=False)[0].verdict)
"""


@pytest.mark.slow
def test_the_cache_of_a_helper_loads_in_any_python_and_any_folder(tmp_path: Path) -> None:
    here = write(tmp_path / "here", cached_xyz=GUARD)
    run_plugin(f"{here}/cached_xyz.py:only_ip", [bytes(60)], debug=False)
    cached = sorted((here / "__pycache__").iterdir())
    assert cached
    elsewhere = shutil.copytree(here, tmp_path / "elsewhere")
    environment = {**os.environ, "RINGLINE_CACHE": str(tmp_path / "empty")}
    for folder in (here, elsewhere):
        for code in (USE, RUN):
            done = subprocess.run(
                [sys.executable, "-c", code],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=TIMEOUT,
            )
            assert done.returncode == 0, done.stderr
    # The user's own Python loaded what ringline had stored, and stored nothing of its own.
    assert sorted((here / "__pycache__").iterdir())[: len(cached)] == cached
