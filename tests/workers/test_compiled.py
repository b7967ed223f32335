"""The compiled tier: what it refuses and in which words, its cache, its state."""

from __future__ import annotations

import errno
import importlib
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ringline.shm.errors import PluginError
from ringline.workers import code_cache, loading
from ringline.workers.api import DROP, Meta, field, packet_function, set_field
from ringline.workers.testing import ERROR, Frame, run_plugin

PluginFile = Callable[..., str]

HEAD = """
import numpy as np
from typing import NamedTuple
from ringline.workers.api import *

@packet_function
def judge(frame, meta):
"""


def refusal(path: str, name: str = "judge", **how: object) -> str:
    with pytest.raises(PluginError) as caught:
        run_plugin(f"{path}:{name}", [bytes(60)], **how)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("body", "words", "line"),
    [
        ("    return meta.prot", "Unknown attribute 'prot'", 8),
        ("    return missing", "name 'missing' is not defined", 6),
        ("    return frame + 'a'", "numba has no add(array(uint8, 1d, C), ", 8),
        ("    meta.length = 4\n    return 0", "meta.length cannot be set; use resize", 6),
        ("    meta.port = 4\n    return 0", "meta.port cannot be set", 6),
        ("    return field(frame, 0, 3)", "the size of a field is a constant: 1, 2, 4, 6 or 8", 8),
        ("    return field(frame, 0, meta.length)", "the size of a field is a constant", 8),
        ("    with open('x'):\n        pass\n    return 0", "nsupported", None),
        ("    if frame[0]:\n        return 1", "returns nothing on one of its paths", 6),
        ("    pass", "returns nothing", 6),
        ("    return frame[0] == 1", "returns True or False", 6),
        ("    return 0.5", "returns float64", 6),
    ],
)
def test_what_does_not_compile_is_one_sentence_with_its_line(
    plugin_file: PluginFile, body: str, words: str, line: int | None
) -> None:
    path = plugin_file(HEAD + body + "\n")
    message = refusal(path)
    assert words in message
    place = re.search(r"\(([^()]*), line (\d+)\)$", message)
    assert place is not None, message
    assert place[1] == path
    if line is not None:
        assert int(place[2]) == line


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (
            "@packet_function\ndef judge(frame): return 0",
            "must take (frame, meta); it takes (frame)",
        ),
        ("@packet_function\ndef judge(frame, meta, state): return 0", "must take (frame, meta);"),
        (
            "@packet_function(setup=lambda worker: 1)\ndef judge(frame, meta): return 0",
            "must take (frame, meta, state), since it has a setup",
        ),
        ("@packet_function\ndef judge(frame, meta, *more): return 0", "must take (frame, meta)"),
        ("@packet_function\nclass judge: pass", "marks a function"),
        ("def judge(frame, meta): return 0", "plain function: mark it with @packet_function"),
    ],
)
def test_a_wrong_signature_is_refused(plugin_file: PluginFile, function: str, words: str) -> None:
    source = "from ringline.workers.api import packet_function\n" + function + "\n"
    assert words in refusal(plugin_file(source))


def test_a_numba_that_does_not_import_says_why(
    plugin_file: PluginFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "numba.py").write_text("raise ImportError('Numba needs NumPy 2.3 or less')\n")
    monkeypatch.delitem(sys.modules, "numba", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    path = plugin_file(HEAD + "    return 0\n")
    assert "does not import: ImportError: Numba needs NumPy 2.3 or less" in refusal(path)


def test_without_numba_the_message_says_what_to_install(
    plugin_file: PluginFile, no_numba: None
) -> None:
    path = plugin_file(HEAD + "    return 0\n")
    assert "pip install ringline[compiled]" in refusal(path)


def test_an_index_out_of_range_is_an_error_in_debug(plugin_file: PluginFile) -> None:
    path = plugin_file(HEAD + "    return frame[frame[0]]\n")
    [fine, wrong] = run_plugin(f"{path}:judge", [bytes(60), b"\x40" * 60], debug=True)
    assert fine.verdict == 0
    assert wrong.verdict == ERROR
    assert "IndexError" in (wrong.error or "")
    assert f"{path}, line 8" in (wrong.error or "")


def test_so_it_is_in_the_functions_that_it_calls(plugin_file: PluginFile) -> None:
    source = """
from numba import njit
from ringline.workers.api import *

@njit
def look(frame, at):
    return frame[at]

@packet_function
def judge(frame, meta):
    return look(frame, frame[0]) * 0
"""
    [wrong] = run_plugin(f"{plugin_file(source)}:judge", [b"\x40" * 60], debug=True)
    assert wrong.verdict == ERROR


def test_debug_ends_with_the_plugin_that_asked_for_it(plugin_file: PluginFile) -> None:
    path = plugin_file(HEAD + "    return frame[frame[0]] * 0\n")
    for debug, verdict in ((True, ERROR), (False, 0)):
        assert run_plugin(f"{path}:judge", [b"\x40" * 60], debug=debug)[0].verdict == verdict


def test_a_function_that_allocates_gets_a_remark(plugin_file: PluginFile) -> None:
    lists = plugin_file(HEAD + "    x = [1, 2]\n    x.append(frame[0])\n    return len(x)\n")
    assert "allocates" in run_plugin(f"{lists}:judge", [bytes(60)]).remarks[0]
    path = plugin_file(HEAD + "    start = frame[:6].copy()\n    return start[0] * 0\n", "copy.py")
    for _ in range(2):  # compiled and from the cache
        [remark] = run_plugin(f"{path}:judge", [bytes(60)]).remarks
        assert "allocates" in remark
        assert f"{path}, line 6" in remark
    resized = plugin_file(HEAD + "    return len(resize(meta, 4, 0)) - 64\n", "resized.py")
    assert run_plugin(f"{resized}:judge", [bytes(60)]).remarks == []
    views = plugin_file(HEAD + "    start = frame[:6]\n    return start[0] * 0\n", "views.py")
    assert run_plugin(f"{views}:judge", [bytes(60)]).remarks == []


STATE = """
import numpy as np
from typing import NamedTuple
from ringline.workers.api import *

class State(NamedTuple):
    seen: Counter
    sizes: Histogram
    lengths: np.ndarray
    limit: int
    half: float

def setup(worker):
    return State(
        worker.counter("seen"),
        worker.histogram("sizes"),
        worker.state("lengths", [("count", "i8"), ("last", "u2")], (2, 3)),
        worker.options["limit"],
        0.5,
    )

def tick(worker, state):
    worker.gauge("last").set(int(state.lengths[1, 2]["last"]))

@packet_function(setup=setup, tick=tick, options=[Option("limit", int, 3)])
def judge(frame, meta, state):
    state.seen[0] += 1
    state.sizes[3] += 1
    state.lengths[1, 2].count += 1
    state.lengths[1, 2].last = meta.length
    if state.lengths[1, 2].count > state.limit:
        return DROP
    return int(state.half * 2) - 1

@packet_function(setup=lambda worker: (np.zeros(2), worker.counter("seen")))
def plain(frame, meta, state):
    numbers, seen = state
    seen[0] += 2
    return 0

@packet_function(setup=lambda worker: worker.state("all", "i4", 5))
def alone(frame, meta, state):
    state[4] += 1
    return 0 if state[4] < 3 else DROP
"""


def test_state_arrives_with_its_names_and_types(plugin_file: PluginFile) -> None:
    path = plugin_file(STATE)
    run = run_plugin(f"{path}:judge", [bytes(60)] * 5, options={"limit": 4})
    assert [result.verdict for result in run] == [0, 0, 0, 0, DROP]
    assert run.named["seen"] == 5
    assert run.named["last"] == 60
    assert run.named["sizes"][1][2] == 5
    assert run_plugin(f"{path}:plain", [bytes(60)] * 5).named == {"seen": 10}
    verdicts = [result.verdict for result in run_plugin(f"{path}:alone", [bytes(60)] * 3)]
    assert verdicts == [0, 0, DROP]


@pytest.mark.parametrize(
    ("setup", "words"),
    [
        ("lambda worker: {}", "setup returned dict; state is a NumPy array"),
        ("lambda worker: 1 / 0", "setup failed: ZeroDivisionError"),
        ("lambda worker: worker.state('a b', 'u1')", "cannot name a state"),
        ("lambda worker: worker.state('a', object)", "cannot hold Python objects"),
        ("lambda worker: np.zeros((4, 4))[:, 1]", "not writable, contiguous"),
        ("lambda worker: worker.state('a', 'u1', 1 << 40)", "left in its slot"),
    ],
)
def test_a_state_that_cannot_be_is_refused(plugin_file: PluginFile, setup: str, words: str) -> None:
    source = HEAD.partition("@")[0] + f"@packet_function(setup={setup})\n"
    path = plugin_file(source + "def judge(frame, meta, state):\n    return 0\n")
    assert words in refusal(path)


@pytest.mark.slow
def test_a_change_anywhere_in_what_was_inlined_is_compiled_anew(plugin_file: PluginFile) -> None:
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
        # The same module name and path for all: only the contents differ.
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
    """Of the function `judge` of plugin.py, after it and what it imports were written anew."""
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
        sys.modules.pop(name, None)
    importlib.invalidate_caches()
    return code_cache.fingerprint(importlib.import_module("plugin").judge)


@pytest.mark.parametrize(
    ("plugin", "constants"),
    [
        # An enum's value, which its class does not show.
        (
            "from constants import Kind\ndef judge(frame, meta): return 0 + Kind.A",
            "from enum import IntEnum\nclass Kind(IntEnum): A = {}",
        ),
        # A constant that only the second of two functions takes of a module.
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
        # A module with an attribute that marks other things as functions.
        (
            "import constants\ndef judge(frame, meta): return constants.A",
            "def function(): pass\nA = {}",
        ),
    ],
    ids=["enum", "module", "tuple", "type", "vectorize", "intrinsic", "overload", "attribute"],
)
def test_the_fingerprint_changes_with_whatever_the_function_reaches(
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


def test_state_whose_names_change_places_is_compiled_anew(plugin_file: PluginFile) -> None:
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


def test_what_was_compiled_is_loaded_by_the_next_process(
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
    # And when the note of what was found out has not been written yet:
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


def test_what_nobody_used_for_a_month_is_forgotten(
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


@packet_function
def fields(frame, meta):  # type: ignore[no-untyped-def]  # as a user would write it
    """Copies each field 24 bytes further; the verdict is one of them."""
    set_field(frame, 24, 1, field(frame, 0, 1))
    set_field(frame, 25, 2, field(frame, 1, 2))
    set_field(frame, 27, 4, field(frame, 3, 4))
    set_field(frame, 31, 6, field(frame, 7, 6))
    set_field(frame, 37, 8, field(frame, 13, 8))
    if field(frame, 13, 8) < 0:
        return DROP
    return field(frame, 1, 2) - 0x0102


@pytest.mark.parametrize("high", [0x0D, 0xFF])
def test_fields_are_the_same_numbers_compiled_and_in_python(high: int) -> None:
    frame = bytes([0x77, 1, 2, *range(3, 13), high, *range(14, 60)])
    [result] = run_plugin(fields, [frame])
    assert result.frame[24:45] == frame[:21]
    meta = Meta(frame)
    assert fields(meta.frame, meta) == result.verdict == (DROP if high == 0xFF else 0)
    assert meta.frame.tobytes() == result.frame


def test_a_field_beyond_the_end_is_an_error_with_and_without_debug() -> None:
    for debug in (True, False):
        [result] = run_plugin(fields, [bytes(44)], debug=debug)
        assert result.verdict == ERROR
        assert "the frame ends before this field" in (result.error or "")
    meta = Meta(bytes(44))
    with pytest.raises(IndexError):
        fields(meta.frame, meta)


def test_no_offset_is_too_large_to_be_beyond_the_end() -> None:
    @packet_function
    def far(frame, meta):  # type: ignore[no-untyped-def]
        offset = field(frame, 0, 8)
        set_field(frame, offset, 2, 0)
        return field(frame, offset, 2)

    for offset in (59, 2**63 - 1, -1, -(2**63)):
        [result] = run_plugin(far, [offset.to_bytes(8, "big", signed=True) + bytes(52)])
        assert "the frame ends before this field" in (result.error or ""), offset


def test_what_a_card_tells_is_in_meta() -> None:
    @packet_function
    def tell(frame, meta):  # type: ignore[no-untyped-def]
        set_field(frame, 0, 4, meta.rss_hash)
        set_field(frame, 4, 2, meta.vlan_tci)
        set_field(frame, 6, 1, meta.flags)
        set_field(frame, 7, 1, meta.queue)
        set_field(frame, 8, 1, meta.ports)
        set_field(frame, 9, 2, meta.length)
        return meta.port

    frame = Frame(bytes(61), port=2, rss_hash=0xFEDCBA98, vlan_tci=0xABC, flags=4)
    [result] = run_plugin(tell, [frame], ports=3, queue=5)
    assert result.verdict == 2
    assert result.frame[:11].hex() == "fedcba98" + "0abc" + "07" + "05" + "03" + "003d"
