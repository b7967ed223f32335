"""The compiled tier: refusals and their messages, state, fields."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ringline.shm.errors import PluginError
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
        ("    return missing", "name 'missing' is not defined", 8),
        ("    return frame + 'a'", "numba has no add(array(uint8, 1d, C), ", 8),
        ("    meta.length = 4\n    return 0", "meta.length cannot be set; use resize", 8),
        ("    meta.port = 4\n    return 0", "meta.port cannot be set", 8),
        (
            "    return field(frame, 0, 3)",
            "the size of a field must be a constant: 1, 2, 4, 6 or 8",
            8,
        ),
        ("    return field(frame, 0, meta.length)", "the size of a field must be a constant", 8),
        ("    with open('x'):\n        pass\n    return 0", "nsupported", None),
        ("    if frame[0]:\n        return 1", "returns nothing on one of its paths", 6),
        ("    pass", "returns nothing", 8),
        ("    return frame[0] == 1", "returns True or False", 8),
        ("    return 0.5", "returns float64", 8),
    ],
)
def test_a_compile_error_is_one_sentence_with_its_line(
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


def test_debug_applies_to_called_functions(plugin_file: PluginFile) -> None:
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


def test_debug_applies_to_one_plugin_only(plugin_file: PluginFile) -> None:
    path = plugin_file(HEAD + "    return frame[frame[0]] * 0\n")
    for debug, verdict in ((True, ERROR), (False, 0)):
        assert run_plugin(f"{path}:judge", [b"\x40" * 60], debug=debug)[0].verdict == verdict


def test_a_function_that_allocates_gets_a_remark(plugin_file: PluginFile) -> None:
    lists = plugin_file(HEAD + "    x = [1, 2]\n    x.append(frame[0])\n    return len(x)\n")
    assert "allocates" in run_plugin(f"{lists}:judge", [bytes(60)]).remarks[0]
    path = plugin_file(
        HEAD + "    start = frame[:6].copy()\n    return start[0] * 0\n", "copies.py"
    )
    for _ in range(2):  # compiled, then from the cache
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
        ("lambda worker: {}", "setup must return a NumPy array"),
        ("lambda worker: 1 / 0", "setup failed: ZeroDivisionError"),
        ("lambda worker: worker.state('a b', 'u1')", "cannot name a state"),
        ("lambda worker: worker.state('a', object)", "cannot hold Python objects"),
        ("lambda worker: np.zeros((4, 4))[:, 1]", "must be contiguous"),
        ("lambda worker: worker.state('a', 'u1', 1 << 40)", "left in its slot"),
    ],
)
def test_an_impossible_state_is_refused(plugin_file: PluginFile, setup: str, words: str) -> None:
    source = HEAD.partition("@")[0] + f"@packet_function(setup={setup})\n"
    path = plugin_file(source + "def judge(frame, meta, state):\n    return 0\n")
    assert words in refusal(path)


@packet_function
def fields(frame, meta):  # type: ignore[no-untyped-def]  # as a user writes it
    """Copies each field to 24 bytes further on; the verdict is one of them."""
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
        assert "the field is not within the frame" in (result.error or "")
    meta = Meta(bytes(44))
    with pytest.raises(IndexError):
        fields(meta.frame, meta)


def test_huge_offsets_are_beyond_the_end_too() -> None:
    @packet_function
    def far(frame, meta):  # type: ignore[no-untyped-def]
        offset = field(frame, 0, 8)
        set_field(frame, offset, 2, 0)
        return field(frame, offset, 2)

    for offset in (59, 2**63 - 1, -1, -(2**63)):
        [result] = run_plugin(far, [offset.to_bytes(8, "big", signed=True) + bytes(52)])
        assert "the field is not within the frame" in (result.error or ""), offset


def test_the_card_s_metadata_is_in_meta() -> None:
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
