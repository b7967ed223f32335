"""Prefix tables and maps give the same answers in compiled Python, plain Python and C."""

from __future__ import annotations

import ctypes
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ringline.shm.errors import PluginError
from ringline.workers.api import Meta, native_plugin
from ringline.workers.testing import ERROR, run_plugin
from ringline.workers.worker import Worker, private_slot

PLUGINS = Path(__file__).parents[1] / "plugins"
TIERS = ["plain", "compiled", "Packets", "Helper", "C"]
PluginFile = Callable[..., str]


def frame_of(todo: int, key: int, address: int, seconds: int) -> bytes:
    return bytes([todo, key, *address.to_bytes(4, "big"), seconds]).ljust(60, b"\0")


def frames() -> list[bytes]:
    """Of each action many, on few keys and addresses; the same frames for each tier."""
    chance = random.Random(5)
    addresses = [0x0A000001, 0x0A010001, 0x0B000001, 0x20010DB8, 0xFFFFFFFF, 0]
    return [
        frame_of(chance.choice([0, 1, 2, 2, 2, 3, 4, 5, 6, 7, 8]), key, address, number // 20)
        for number in range(1000)
        for key, address in [(chance.randrange(4), chance.choice(addresses))]
    ]


@pytest.fixture(scope="module")
def module() -> Any:
    """The plugin's module, as a plugin file is imported."""
    from ringline.workers.tiers import loading

    loading.load(f"{PLUGINS}/lookup.py:compiled")
    return sys.modules["lookup"]


def native(module: Any, compile_c: Callable[[Path], str]) -> Any:
    library = ctypes.CDLL(compile_c(PLUGINS / "lookup.c"))
    plugin = ctypes.addressof(ctypes.c_char.in_dll(library, "lookup"))
    return native_plugin(plugin, setup=lambda worker: tuple(module.setup(worker)))


def uncompiled(module: Any) -> list[int]:
    """The answers of the function when it is called as plain Python."""
    worker = Worker(private_slot(1 << 22), queue=0, ports=["port"], options={})
    state = module.setup(worker)
    answers = []
    for data in frames():
        meta = Meta(data)
        module.plain(meta.frame, meta, state)
        answers.append(int(meta.frame[50]))
    return answers


@pytest.mark.parametrize("tier", TIERS)
def test_every_tier_gives_the_same_answers(
    module: Any, compile_c: Callable[[Path], str], tier: str
) -> None:
    wanted = uncompiled(module)
    assert len(set(wanted)) > 15
    if tier == "plain":
        return
    plugin = native(module, compile_c) if tier == "C" else f"{PLUGINS}/lookup.py:{tier}"
    run = run_plugin(plugin, frames())
    assert [result.error for result in run if result.error] == []
    assert [result.frame[50] for result in run] == wanted
    assert run.named["flows_refused"] > 0
    assert run.remarks == []


HEAD = """
from ringline.workers.api import *

def setup(worker):
    return worker.prefixes("rules", ipv4=1), worker.map("flows", 5, key=2, value=1)

@packet_function(setup=setup)
def judge(frame, meta, state):
    rules, flows = state
"""


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("flows.find(1)", "the key of this map has 2 words, not 1"),
        ("flows.find((1, 2, 3))", "the key of this map has 2 words, not 3"),
        ("flows.insert((1, 2))", "the value of this map has 1 word, not 0"),
        ("flows.insert((1, 2), (1, 2))", "the value of this map has 1 word, not 2"),
        ("flows.delete((1, 0.5))", "the words of the key of this map must be integers"),
        ("flows.get((1, 2))", "Unknown attribute 'get'"),
    ],
)
def test_a_wrong_call_is_one_sentence_with_its_line(
    plugin_file: PluginFile, line: str, words: str
) -> None:
    path = plugin_file(f"{HEAD}    return {line}\n")
    with pytest.raises(PluginError) as caught:
        run_plugin(f"{path}:judge", [bytes(60)])
    message = str(caught.value)
    assert words in message
    assert message.endswith(f"({path}, line 10)")
    assert "\n" not in message


def test_a_map_without_values_is_a_set(plugin_file: PluginFile) -> None:
    source = """
from ringline.workers.api import *

@packet_function(setup=lambda worker: worker.map("seen", 2, value=0))
def judge(frame, meta, state):
    known = state.find(frame[0]) >= 0
    return 1 if known else DROP if state.insert(frame[0]) < 0 else 0
"""
    path = plugin_file(source)
    run = run_plugin(f"{path}:judge", [bytes([n]) * 60 for n in (1, 2, 1, 3)], ports=2)
    assert [result.verdict for result in run] == [0, 0, 1, 255]
    assert run.named == {"seen_refused": 1}


def test_an_index_outside_the_values_is_an_error_in_debug(plugin_file: PluginFile) -> None:
    source = """
from ringline.workers.api import *

@packet_function(setup=lambda worker: worker.map("seen", 2))
def judge(frame, meta, state):
    return state.values[frame[0], 0]
"""
    path = plugin_file(source)
    [fine, wrong] = run_plugin(f"{path}:judge", [bytes(60), b"\x40" * 60])
    assert (fine.verdict, wrong.verdict) == (0, ERROR)
    assert "IndexError" in (wrong.error or "")


def test_a_state_in_c_must_be_what_has_an_address(
    module: Any, compile_c: Callable[[Path], str]
) -> None:
    plugin = native(module, compile_c)
    plugin.setup = lambda worker: (1, 0.5)
    with pytest.raises(PluginError, match="a map, a counter, a gauge, a tuple of these or None"):
        run_plugin(plugin, [bytes(60)])


def test_a_worker_that_is_killed_finds_its_entries_again(worker: Any) -> None:
    """In a real worker process: named state in the slot."""
    plugin = f"{PLUGINS}/lookup.py:compiled"
    worker.serve(plugin)
    worker.put([frame_of(2, 1, 0x0A000001, 0)] * 3)
    assert [worker.frame(reference)[50] for reference in worker.take(3)] == [9, 10, 11]
    worker.kill()
    worker.serve(plugin)
    worker.put([frame_of(2, 1, 0x0A000001, 0), frame_of(3, 2, 0x0A000001, 0)])
    assert [worker.frame(reference)[50] for reference in worker.take(2)] == [12, 0]
    worker.stop()
