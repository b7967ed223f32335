"""The files of a plugin on their way: which ones travel, and where they arrive."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from ringline.shm.errors import PluginError
from ringline.workers.analysis import parcel
from ringline.workers.tiers import loading

PLUGIN = "import {}\nclass Guard:\n    def process(self, batch): pass\n"


def names(content: bytes) -> list[str]:
    return [name for name, _ in json.loads(content.partition(b"\n")[0])]


def test_neighbours_travel_and_other_files_do_not(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "parcel_tables" / "deep").mkdir(parents=True)
    (home / "parcel_tables" / "__init__.py").write_text("from parcel_tables.deep import one\n")
    (home / "parcel_tables" / "deep" / "one.py").write_text("import json, parcel_beside\n")
    (home / "parcel_beside.py").write_text("")
    (home / "unused.py").write_text("")
    (home / "guard.py").write_text(PLUGIN.format("parcel_tables"))
    (tmp_path / "link.py").symlink_to(home / "guard.py")
    for spec in (f"{home}/guard.py:Guard", "./link.py:Guard"):
        loading.find(spec, str(tmp_path))
        how, content = parcel.packed(spec, str(tmp_path))
        entry = os.path.basename(spec.partition(":")[0])
        assert how["entry"] == f"./{entry}:Guard"
        rest = ["parcel_beside.py", "parcel_tables/__init__.py", "parcel_tables/deep/one.py"]
        found = {entry, *rest}
        assert found <= set(names(content)) <= {*found, "guard.py"}


@pytest.mark.parametrize("spec", ["drop", "ringline.workers.plugins.drop:drop"])
def test_an_installed_plugin_travels_by_its_name(spec: str, tmp_path: Path) -> None:
    loading.find(spec, str(tmp_path))
    assert parcel.packed(spec, str(tmp_path)) == ({}, b"")


def test_a_plugin_that_is_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parcel, "BYTES_MAX", 10)
    (tmp_path / "guard.py").write_text(PLUGIN.format("json"))
    with pytest.raises(PluginError, match="at most 10 travel to an engine: install the plugin"):
        parcel.packed("./guard.py:Guard", str(tmp_path))


def test_damaged_files_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RINGLINE_CACHE", str(tmp_path / "cache"))
    content = json.dumps([["a.py", 3], ["b/c.so", 2]]).encode() + b"\nabcde"
    place = Path(parcel.unpacked(content))
    assert place.is_relative_to(tmp_path / "cache" / "plugins")
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
    for damage in ("x", ""):
        (place / "a.py").write_text(damage)
        assert parcel.unpacked(content) == str(place)
        assert ((place / "a.py").read_bytes(), (place / "b/c.so").read_bytes()) == (b"abc", b"de")
    assert [it.name for it in place.parent.iterdir()] == [place.name]


def test_without_a_cache_the_files_are_in_a_folder_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RINGLINE_CACHE", str(tmp_path / "file"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(parcel, "_own", [])
    place = Path(parcel.unpacked(b'[["a.py", 1]]\na'))
    assert (place / "a.py").read_bytes() == b"a"
    assert place.parent.name.startswith("ringline-plugins-")
