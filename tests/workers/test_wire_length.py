"""`wire_length`: what a packet had on the wire, the same in every tier."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ringline.shm._shm import lib
from ringline.workers.packets import Meta
from ringline.workers.testing import Frame, run_plugin

COMPILED = """
from ringline.workers.api import packet_function

@packet_function(setup=lambda worker: worker.counter("bytes"))
def plugin(frame, meta, state):
    state[0] += meta.wire_length
    return 0
"""
BATCH = """
class plugin:
    def setup(self, worker):
        self.bytes = worker.counter("bytes")

    def process(self, batch):
        self.bytes.add(int(batch.wire_lengths.sum()))
        assert [packet.wire_length for packet in batch] == batch.wire_lengths.tolist()
        batch.verdicts[:] = 0
"""
C = """
#include "plugin.h"

static inline int64_t judge(uint8_t *frame, struct rl_reference *meta, struct rl_batch *batch)
{
    (void)frame;
    *(uint64_t *)batch->state += rl_wire_length(meta);
    return 0;
}
RL_PLUGIN_WITH_STATE(plugin, judge, 8)
"""
FRAMES = [
    Frame(bytes(60)),
    Frame(bytes(60), rss_hash=1500),
    Frame(bytes(60), rss_hash=1500, flags=lib.RL_FLAG_WIRE_LENGTH),
]


@pytest.mark.parametrize("source", [COMPILED, BATCH], ids=["compiled", "batch"])
def test_only_a_packet_of_an_analysis_has_another_one(tmp_path: Path, source: str) -> None:
    path = tmp_path / "plugin_of_lengths.py"
    path.write_text(source)
    run = run_plugin(f"{path}:plugin", FRAMES)
    assert [result.error for result in run] == [None, None, None]
    assert run.named["bytes"] == 60 + 60 + 1500


def test_in_c(tmp_path: Path, compile_c: Callable[[Path], str]) -> None:
    source = tmp_path / "plugin.c"
    source.write_text(C)
    run = run_plugin(f"{compile_c(source)}:plugin", FRAMES)
    assert [result.verdict for result in run] == [0, 0, 0]


def test_in_plain_python() -> None:
    assert Meta(bytes(60)).wire_length == 60
    assert Meta(bytes(60), wire_length=1500).wire_length == 1500
    with pytest.raises(AttributeError):
        Meta(bytes(60)).wire_length = 5  # type: ignore[misc]
