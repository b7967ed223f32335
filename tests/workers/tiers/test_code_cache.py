"""The cache of compiled plugins: it never returns outdated code and never stops a plugin."""

from __future__ import annotations

import errno
import importlib
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ringline.workers.testing import run_plugin
from ringline.workers.tiers import code_cache, loading

PluginFile = Callable[..., str]

HEAD = """
from ringline.workers.api import *

@packet_function
def judge(frame, meta):
"""


@pytest.mark.slow
def test_a_change_in_inlined_code_is_compiled_anew(plugin_file: PluginFile) -> None:
    source = """
from numba import njit
from ringline.workers.api import *
TABLE = ({table},)

@njit
def helper(x):
    return x + {add}

@packet_function
def judge(frame, meta):
    return helper(TABLE[0])
"""
    verdicts = []
    for number, (table, add) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        path = plugin_file(source.format(table=table, add=add), f"plugin{number}.py")
        # Module name and path stay the same; only the contents differ.
        target = Path(path).with_name("same.py")
        os.replace(path, target)
        code = "import sys; from ringline.workers.testing import run_plugin\n"
        code += f"print(run_plugin({str(target) + ':judge'!r}, [bytes(60)], ports=3)[0].verdict)"
        verdicts.append(
            subprocess.run(
                [sys.executable, "-c", code], check=True, capture_output=True, timeout=120
            ).stdout
        )
    assert [int(verdict) for verdict in verdicts] == [0, 1, 1, 2]


def fingerprint(folder: Path, **files: str) -> str:
    """Write plugin.py and its imports; return the fingerprint of its function `judge`."""
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
        sys.modules.pop(name, None)
    importlib.invalidate_caches()
    return code_cache.fingerprint(importlib.import_module("plugin").judge)


@pytest.mark.parametrize(
    ("plugin", "constants"),
    [
        # An enum's value, which the enum class does not show.
        (
            "from constants import Kind\ndef judge(frame, meta): return 0 + Kind.A",
            "from enum import IntEnum\nclass Kind(IntEnum): A = {}",
        ),
        # A constant of a module that only the second of two functions uses.
        (
            "import constants\ndef other(): return constants.B\n"
            "def judge(frame, meta): return constants.A + other()",
            "A, B = 1, {}",
        ),
        (
            "from constants import PAIR\ndef judge(frame, meta): return PAIR.a",
            "from typing import NamedTuple\n"
            "PAIR = NamedTuple('Pair', zip(('ab', 'ba')[{}], (int, int)))(1, 2)",
        ),
        (
            "from constants import T\ndef judge(frame, meta): return T(meta.length)",
            "import numba\nT = (numba.uint8, numba.uint16)[{}]",
        ),
        (
            "from constants import up\ndef judge(frame, meta): return up(meta.port)",
            "import numba\n@numba.vectorize\ndef up(x): return x + {}",
        ),
        (
            "from constants import up\ndef judge(frame, meta): return up(meta.port)",
            "from numba import types\nfrom numba.extending import intrinsic\n@intrinsic\n"
            "def up(_, x): return types.int64(x), lambda c, b, s, a: c.get_constant(s, {})",
        ),
        (
            "from constants import up\ndef judge(frame, meta): return up(meta.port)",
            "from numba.extending import overload\ndef up(x): return x\n@overload(up)\n"
            "def _up(x): return lambda x: x + {}",
        ),
        # A module with an attribute that normally marks functions.
        (
            "import constants\ndef judge(frame, meta): return constants.A",
            "def function(): pass\nA = {}",
        ),
    ],
    ids=["enum", "module", "tuple", "type", "vectorize", "intrinsic", "overload", "attribute"],
)
def test_the_fingerprint_changes_with_everything_the_function_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plugin: str, constants: str
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for name in ("plugin", "constants"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    one = fingerprint(tmp_path, plugin=plugin, constants=constants.format(0))
    again = fingerprint(tmp_path, plugin=plugin, constants=constants.format(0))
    other = fingerprint(tmp_path, plugin=plugin, constants=constants.format(1))
    assert one == again
    assert one != other


def test_a_new_order_of_state_names_is_compiled_anew(plugin_file: PluginFile) -> None:
    source = """
from typing import NamedTuple
from ringline.workers.api import *
State = NamedTuple("State", [("{}", int), ("{}", int)])

@packet_function(setup=lambda worker: State(a=1, b=2))
def judge(frame, meta, state):
    return state.a
"""
    for names in ("ab", "ba"):
        spec = f"{plugin_file(source.format(*names))}:judge"
        assert run_plugin(spec, [bytes(60)], ports=3)[0].verdict == 1
        del sys.modules[loading.find(spec).function.__module__]


@pytest.mark.parametrize("kind", ["nbi", "nbc", "remarks"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe damaged"])
def test_a_damaged_cache_is_compiled_anew(
    plugin_file: PluginFile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    content: bytes,
) -> None:
    monkeypatch.setenv("RINGLINE_CACHE", str(tmp_path / "cache"))
    spec = f"{plugin_file(HEAD + '    return 0' + chr(10))}:judge"
    for good in (False, True):
        assert run_plugin(spec, [bytes(60)])[0].verdict == 0
        found = list((tmp_path / "cache").rglob(f"*.{kind}"))
        assert len(found) == (not good)
        for file in found:
            file.write_bytes(content)
    assert run_plugin(spec, [bytes(60)])[0].verdict == 0
    assert len(list((tmp_path / "cache").rglob(f"*.{kind}"))) == 1


def test_a_full_disk_costs_the_cache_and_not_the_plugin(
    plugin_file: PluginFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(code_cache, "store", full)
    path = plugin_file(HEAD + "    x = [frame[0]]\n    x.append(1)\n    return len(x) - 2\n")
    run = run_plugin(f"{path}:judge", [bytes(60)])
    assert run[0].verdict == 0
    assert len(run.remarks) == 1


def test_compiled_code_is_loaded_by_the_next_process(
    plugin_file: PluginFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RINGLINE_CACHE", str(tmp_path / "cache"))
    path = plugin_file(HEAD + "    return 0\n")
    code = f"from ringline.workers.testing import run_plugin; run_plugin('{path}:judge', [b'x'*60])"
    times = []
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
        found = sorted((tmp_path / "cache").rglob("*.nb[ci]"))
        times.append({file: file.stat().st_mtime_ns for file in found})
    assert len(times[0]) == 2  # numba's index and its code
    assert times[0] == times[1]


def test_two_workers_that_compile_at_once_do_not_disturb_each_other(
    plugin_file: PluginFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RINGLINE_CACHE", str(tmp_path / "cache"))
    path = plugin_file(HEAD + "    x = [frame[0]]\n    x.append(1)\n    return len(x) - 2\n")
    code = f"from ringline.workers.testing import *\nr = run_plugin('{path}:judge', [bytes(60)])"
    code += "\nassert r[0].verdict == 0 and len(r.remarks) == 1, r"
    both = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [process.wait(120) for process in both] == [0, 0]
    # Also while the note about the compiled function is not written yet:
    [remarks] = (tmp_path / "cache").rglob("*.remarks")
    remarks.unlink()
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_cache_that_others_could_write_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plugin_file: PluginFile
) -> None:
    monkeypatch.setenv("RINGLINE_CACHE", str(tmp_path / "cache"))
    place = code_cache.folder()
    assert place is not None
    assert stat.S_IMODE(os.stat(place).st_mode) == 0o700
    os.chmod(place, 0o777)
    assert code_cache.folder() is None
    path = plugin_file(HEAD + "    return 0\n")
    assert run_plugin(f"{path}:judge", [bytes(60)])[0].verdict == 0
    assert list(Path(place).iterdir()) == []


def test_it_works_without_any_cache(
    monkeypatch: pytest.MonkeyPatch, plugin_file: PluginFile
) -> None:
    monkeypatch.setenv("RINGLINE_CACHE", "/proc/nowhere")
    path = plugin_file(HEAD + "    return 0\n")
    assert run_plugin(f"{path}:judge", [bytes(60)])[0].verdict == 0


def test_entries_unused_for_a_month_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plugin_file: PluginFile
) -> None:
    monkeypatch.setenv("RINGLINE_CACHE", str(tmp_path / "cache"))
    first = plugin_file(HEAD + "    return 0\n", "first.py")
    run_plugin(f"{first}:judge", [bytes(60)])
    place = Path(code_cache.folder() or "")
    old = {file for file in place.rglob("*") if file.is_file()}
    [remarks] = [file for file in old if file.suffix == ".remarks"]
    os.utime(remarks, (0, 0))
    other = plugin_file(HEAD + "    return DROP\n", "other.py")
    run_plugin(f"{other}:judge", [bytes(60)])
    left = {file for file in place.rglob("*") if file.is_file()}
    assert not old & left
    assert left
