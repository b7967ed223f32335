"""Common mistakes in compiled plugins: one sentence in the author's words, with the line."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

from ringline.shm.errors import PluginError
from ringline.workers.testing import ERROR, run_plugin
from ringline.workers.tiers import refusals

PluginFile = Callable[..., str]

HEAD = """
import functools, numba, struct, time
import numpy as np
from ringline.workers.api import *
NAMES = {1: 2}
KNOWN = {3}
LIST = [1, 2]
class Thing: x = 3
THING = Thing()
def helper(number):
    return number + 1
HALF = functools.partial(helper, 1)

@packet_function
def other(frame, meta):
    return meta.port

@packet_function
def judge(frame, meta):
    first = frame[0]
"""
LINE = 1 + HEAD.count("\n")  # of the first line of a body
GLOBAL = "which compiled code cannot read: use a number, a tuple or a NumPy array"


def refusal(path: str) -> str:
    with pytest.raises(PluginError) as caught:
        run_plugin(f"{path}:judge", [bytes(60)])
    message = str(caught.value)
    assert "\n" not in message
    assert "numba.core" not in message
    return message


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("    return helper(first)", "it calls helper, which is a plain Python function: put @nu"),
        ("    return NAMES[first]", f"it uses NAMES, a dict, {GLOBAL}"),
        ("    return first in KNOWN", f"it uses KNOWN, a set, {GLOBAL}"),
        ("    return first in LIST", f"it uses LIST, a list, {GLOBAL}"),
        ("    return THING.x", f"it uses THING, a Thing, {GLOBAL}"),
        ("    return Thing().x", "it uses Thing, which compiled code cannot call"),
        ("    return len(open('x'))", "it uses open, which compiled code cannot call"),
        ("    return HALF(first)", "it uses HALF, which compiled code cannot call"),
        ("    return other(frame, meta)", "it uses other, which is a packet function: move what"),
        ("    if frame[12:14] == b'\\x08\\x00':\n        return 0\n    return 1", refusals.COMPARE),
        ("    if frame[12:14] == [8, 0]:\n        return 0\n    return 1", refusals.COMPARE),
        ("    if bytes(frame[:2]) == b'ab':\n        return 0\n    return 1", refusals.COMPARE),
        ("    if b'GET' in frame:\n        return 0\n    return 1", refusals.COMPARE),
        (
            "    return int(time.time())",
            "compiled code cannot use time.time: read the clock in tick",
        ),
        ("    return time.monotonic_ns()", "compiled code cannot use time.monotonic_ns: read the"),
        (
            "    return struct.unpack_from('!H', frame, 12)[0]",
            "struct.unpack_from: field(frame, of",
        ),
        ("    return int.from_bytes(frame[:2], 'big')", "no int.from_bytes: use field(frame, offs"),
        ("    meta.length = 4\n    return 0", "meta.length cannot be set; use resize"),
        ("    return nowhere", "NameError: name 'nowhere' is not defined"),
        ("    return first == 1", "returns True or False"),
        ("    return 0.5", "returns float64"),
        ("    return meta.prot", "Unknown attribute 'prot'"),
    ],
)
def test_a_mistake_is_named_with_its_own_line(
    plugin_file: PluginFile, body: str, words: str
) -> None:
    path = plugin_file(HEAD + body + "\n")
    message = refusal(path)
    assert words in message
    assert message.endswith(f" ({path}, line {LINE})"), message


def test_a_global_that_is_assigned_and_a_yield_are_named(plugin_file: PluginFile) -> None:
    body = "    global count\n    count = 1\n    return 0\n"
    message = refusal(plugin_file(HEAD + body))
    assert "it assigns to a global variable" in message
    assert message.endswith(f"line {LINE + 1})")
    message = refusal(plugin_file(HEAD + "    yield 0\n", "generator.py"))
    assert "returns a generator, since it has a yield" in message


def test_a_helper_in_another_file_is_named_where_it_is_called(plugin_file: PluginFile) -> None:
    other = plugin_file(
        "import numba\ndef plain(x): return x\n\n@numba.njit\ndef good(x):\n    return plain(x)\n",
        "other_helpers_file.py",
    )
    head = HEAD.replace("import functools,", "import other_helpers_file as others, functools,")
    message = refusal(plugin_file(head + "    return others.plain(first)\n"))
    assert "it calls other_helpers_file.plain, which is a plain Python function" in message
    message = refusal(plugin_file(head + "    return others.good(first)\n", "second.py"))
    assert "it calls plain, which is a plain Python function" in message
    assert message.endswith(f"({other}, line 6)")


def test_two_parts_of_a_frame_that_are_compared_are_an_error(plugin_file: PluginFile) -> None:
    """numba compiles it, and it raises."""
    body = "    if frame[0:6] == frame[6:12]:\n        return 0\n    return 1\n"
    path = plugin_file(HEAD + body)
    [result] = run_plugin(f"{path}:judge", [bytes(60)])
    assert result.verdict == ERROR
    assert result.error == f"{refusals.COMPARE} ({path}, line {LINE})"


def test_a_numba_that_does_not_compile_is_named(
    plugin_file: PluginFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numba

    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    message = refusal(plugin_file(HEAD + "    return 0\n"))
    assert "NUMBA_DISABLE_JIT is set: unset it" in message


@pytest.mark.parametrize(
    ("dtype", "words"),
    [
        (">u4", "has another byte order than this machine: use uint32"),
        ([("at", "u8"), ("address", ">u4")], "its field 'address': >u4 has another byte order"),
        ([("part", [("deep", ">i2", 3)])], "its field 'part': its field 'deep'"),
        ("longdouble", "does not know float128: use float32 or float64"),
        ("clongdouble", "does not know complex256: use complex64 or complex128"),
        ("f2", "does not know float16: use float32 or float64"),
        ("V6", "has no fields"),
        ("O", "does not know object"),
    ],
)
def test_a_state_that_compiled_code_cannot_use_is_refused(
    plugin_file: PluginFile, dtype: object, words: str
) -> None:
    source = (
        HEAD.partition("@")[0] + f"@packet_function(setup=lambda worker: np.zeros(4, {dtype!r}))"
    )
    path = plugin_file(source + "\ndef judge(frame, meta, state):\n    return 0\n")
    message = refusal(path)
    assert words in message
    assert re.search(rf"\({re.escape(path)}, line \d+\)$", message)


@pytest.mark.parametrize(
    "dtype",
    ["?", "u1", "i8", "f4", "f8", "c16", "S4", "U4", "M8[s]", "m8[s]", [("a", "u1", (2, 3))]],
)
def test_every_other_dtype_has_a_numba_type(dtype: str) -> None:
    from ringline.workers.tiers import codegen

    assert refusals.unusable(np.dtype(dtype)) is None
    parts, holder = codegen.parts_of("plugin", np.zeros(4, dtype))
    codegen.shape_of(parts, holder)
