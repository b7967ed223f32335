"""The rehearsal of plugins whose helpers numba compiles at their first call."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from ringline.shm._shm import lib
from ringline.workers.tiers import loading, rehearsal
from ringline.workers.tiers.rehearsal import SAMPLES
from ringline.workers.tiers.tier import Context

numba = pytest.importorskip("numba", reason="numba is missing")

PLUGIN = """
import numba
from ringline.workers.api import packet_function
objects = []
@numba.njit
def helper(number): return number + 1
class Batch:
    def __init__(self): objects.append(self)
    def setup(self, worker): self.rehearsal = worker.rehearsal
    def process(self, batch):
        for packet in batch: packet.verdict = helper(packet.length) - packet.length - 1
    def tick(self, worker): helper(1.5)
class Fails(Batch):
    def process(self, batch):
        helper(1)
        raise SystemExit("sample packets are not mine")
def set_up(worker): return worker.counter("seen").array
def tick(worker, state): helper(2)
@packet_function(setup=set_up, tick=tick)
def compiled(frame, meta, state): return 0
"""


def module(**values: object) -> dict[str, object]:
    made = ModuleType("made")
    vars(made).update(values)
    return vars(made)


def test_only_what_is_not_compiled_yet_needs_a_rehearsal() -> None:
    lazy = numba.njit(lambda number: number)
    eager = numba.njit("int64(int64)")(lambda number: number)
    assert rehearsal.is_needed(module(helper=lazy))
    inner = ModuleType("helpers")
    inner.helper = lazy  # type: ignore[attr-defined]
    assert rehearsal.is_needed(module(helpers=inner))
    assert not rehearsal.is_needed(module(helper=eager, numba=numba, sys=sys, number=7))
    lazy(1)
    assert not rehearsal.is_needed(module(helper=lazy))


def test_the_samples_are_a_batch_of_frames_that_a_card_may_receive() -> None:
    batch = rehearsal.sample_batch(3, 2)
    assert [bytes(packet.data) for packet in batch] == list(SAMPLES)
    assert {packet.verdict for packet in batch} == {lib.RL_VERDICT_DROP}
    assert list(batch.lengths) == [len(frame) for frame in SAMPLES]
    assert sorted({bytes(row) for row in batch.gather(12, ("u1", 2))}) == [
        b"\x08\x00",
        b"\x08\x06",
        b"\x86\xdd",
    ]
    assert all(60 <= len(frame) <= lib.RL_FRAME_MAX for frame in SAMPLES)
    assert not batch.create(bytes(60), 0), "there are no blanks"


@pytest.mark.parametrize(("name", "versions"), [("Batch", 2), ("Fails", 1), ("compiled", 1)])
def test_prepare_compiles_the_helpers_with_an_object_of_its_own(
    tmp_path: Path, name: str, versions: int
) -> None:
    (tmp_path / "plugin.py").write_text(PLUGIN)
    spec = f"./plugin.py:{name}"
    tier = loading.load(spec, str(tmp_path))
    tier.accept({})
    tier.prepare(Context())
    found = loading.find(spec, str(tmp_path))
    space = getattr(found, "function", getattr(found, "process", None)).__globals__
    assert len(space["helper"].signatures) == versions
    if name == "Batch":
        mine, rehearsed = space["objects"]
        assert rehearsed.rehearsal
        assert not hasattr(mine, "rehearsal")
