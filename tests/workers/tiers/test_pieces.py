"""A batch loop is optimised and translated once; a helper can do all that it could do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ringline.workers.testing import ERROR, run_plugin

PluginFile = Callable[..., str]

HEAD = """
from numba import njit
from ringline.workers.api import *
"""


def translated(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the modules that become machine code from now on."""
    from numba.core.registry import cpu_target

    from ringline.workers.tiers import jit_packets  # noqa: F401  # numba has its own modules

    codegen = cpu_target.target_context.codegen()
    seen: list[str] = []
    add = codegen._add_module

    def note(module: Any) -> Any:
        seen.append(module.name)
        return add(module)

    monkeypatch.setattr(codegen, "_add_module", note)
    return seen


INSIDE = """
@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def inside(frame):
    return headers(frame).version

@packet_function
def judge(frame, meta):
    return inside(frame)
"""


def test_only_the_loop_becomes_machine_code(
    plugin_file: PluginFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_plugin(
        plugin_file(HEAD + "@packet_function\ndef judge(frame, meta): return 0\n") + ":judge", []
    )
    seen = translated(monkeypatch)
    run = run_plugin(plugin_file(HEAD + INSIDE, "inside.py") + ":judge", [bytes(60)])
    assert [result.verdict for result in run.results] == [0]
    assert seen == ["run_batch"]


CALLED = """
@njit
def size(state, at):
    return state[at] + 1

@njit
def twice(numbers):
    return size(numbers, 0) * 2

def tick(worker, state):
    worker.gauge("size").set(int(size(state, 0)))
    worker.gauge("twice").set(int(twice(state)))

@packet_function(setup=lambda worker: worker.state("n", "i8", 1), tick=tick)
def judge(frame, meta, state):
    state[0] = len(frame)
    return size(state, 0) - len(frame) - 1
"""


def test_python_calls_a_helper_of_the_function(plugin_file: PluginFile) -> None:
    run = run_plugin(plugin_file(HEAD + CALLED) + ":judge", [bytes(60)])
    assert [result.verdict for result in run.results] == [0]
    assert (run.named["size"], run.named["twice"]) == (61, 122)


CACHED = """
@njit(cache=True, {wrapper})
def low(number):
    return number & 1

@njit(cache=True)
def lowest(number):
    return low(number)

def tick(worker, state):
    worker.gauge("low").set(int(lowest(7)))

@packet_function(setup=lambda worker: worker.state("n", "i8", 1), tick=tick)
def judge(frame, meta, state):
    return lowest(frame[0]) + low(frame[1]) + lowest(meta.length)
"""


@pytest.mark.parametrize("inside", [True, False])
def test_a_helper_may_have_a_cache_of_its_own(
    plugin_file: PluginFile, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, inside: bool
) -> None:
    """The second run finds the helpers in numba's cache, and compiles the loop."""
    source = HEAD + CACHED.format(wrapper=f"no_cpython_wrapper={inside}")
    path = plugin_file(source, f"cached{inside}.py")
    for number in range(2):
        monkeypatch.setenv("RINGLINE_CACHE", str(tmp_path / f"cache{number}"))
        run = run_plugin(f"{path}:judge", [b"\1" + bytes(59), bytes(60)], ports=2)
        assert [result.verdict for result in run.results] == [1, 0]
        assert run.named["low"] == 1


PRINTS = """
@njit(no_cpython_wrapper=True)
def say(number):
    print("the number", number)

@packet_function
def judge(frame, meta):
    say(meta.length)
    return 0
"""


def test_a_function_may_print(plugin_file: PluginFile, capfd: pytest.CaptureFixture[str]) -> None:
    run = run_plugin(plugin_file(HEAD + PRINTS) + ":judge", [bytes(60)])
    assert [result.verdict for result in run.results] == [0]
    assert "the number 60" in capfd.readouterr().out


RAISES = """
from numba.extending import register_jitable

@register_jitable
def check(number):
    if number > 60:
        raise ValueError("too long")
    return number

@packet_function
def judge(frame, meta):
    return check(meta.length) - meta.length
"""


def test_an_exception_in_a_piece_is_an_error(plugin_file: PluginFile) -> None:
    run = run_plugin(plugin_file(HEAD + RAISES) + ":judge", [bytes(60), bytes(61)])
    assert [result.verdict for result in run.results] == [0, ERROR]
    assert run.results[1].error is not None
    assert "too long" in run.results[1].error


def test_python_calls_the_helpers_of_the_bundled_plugins() -> None:
    """As ringline does it to explain an exception; the hash is that of the compiled code."""
    from ringline.workers.plugins.helper import mix
    from ringline.workers.plugins.routing.neighbours import check_of, hash_of

    first = mix(0, -1)
    assert first != mix(0, -2)
    assert hash_of(3, -1, 1 << 40) == mix(mix(3, -1), 1 << 40)
    assert 0 <= check_of(3, -1, 1 << 40) < 1 << 16
