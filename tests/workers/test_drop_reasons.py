"""Drop reasons that a plugin names: verdicts with a name, in every tier."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ringline.pipeline.telemetry.snapshot import CARD_DROPS, NO_DESCRIPTOR
from ringline.shm import drop_reasons, slots
from ringline.shm.errors import PluginError
from ringline.workers.testing import DROP, ERROR, Run, run_plugin
from ringline.workers.worker import Worker, private_slot

PLUGINS = Path(__file__).parent / "plugins"
TIERS = ["C", "compiled", "Packets", "Columns"]
ACL, TTL = 128, 129

RunTier = Callable[..., Run]


@pytest.fixture
def run(compile_c: Callable[[Path], str]) -> RunTier:
    """Runs a tier's plugin on frames; the first byte of a frame selects the verdict."""

    def run_tier(tier: str, *todo: int) -> Run:
        spec = f"{PLUGINS}/reasons.py:{tier}"
        if tier == "C":
            spec = f"{compile_c(PLUGINS / 'reasons.c')}:reasons"
        return run_plugin(spec, [bytes([what]) * 60 for what in todo], ports=1)

    return run_tier


def worker_on(slot: slots.WorkerSlot, **more: Any) -> Worker:
    return Worker(slot, queue=0, ports=["wan"], options={}, **more)


@pytest.mark.parametrize("tier", TIERS)
def test_a_reason_is_a_drop_with_a_name(run: RunTier, tier: str) -> None:
    results = run(tier, 0, 1, 2, 255, 1)
    assert [result.verdict for result in results] == [0, ACL, TTL, DROP, ACL]
    assert [result.reason for result in results] == [None, "acl", "ttl", None, "acl"]
    assert [result.error for result in results] == [None] * 5
    assert results.drops == {"acl": 2, "ttl": 1}
    assert (results.counters["dropped"], results.counters["forwarded"]) == (4, 1)
    assert results.counters["verdict_errors"] == results.counters["plugin_errors"] == 0


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("verdict", [130, 127, 159, 160, 200])
def test_a_number_that_was_not_named_is_an_error(run: RunTier, tier: str, verdict: int) -> None:
    results = run(tier, verdict, 1)
    assert [result.verdict for result in results] == [ERROR, ACL]
    assert (results.counters["verdict_errors"], results.counters["dropped"]) == (1, 1)


def test_all_numbers_can_be_named_and_no_more() -> None:
    worker = worker_on(private_slot(1 << 16))
    verdicts = [worker.drop_reason(f"r{number}") for number in range(32)]
    assert verdicts == list(range(128, 160))
    assert worker.drop_reason("r7") == 135
    with pytest.raises(PluginError, match="names more than 32 drop reasons: use fewer"):
        worker.drop_reason("one_more")
    assert worker_on(worker._slot).drop_reason("r31") == 159


def test_a_name_keeps_its_number_in_every_life() -> None:
    slot = private_slot(1 << 16)
    first = worker_on(slot)
    assert [first.drop_reason(name) for name in ("acl", "ttl")] == [ACL, TTL]
    second = worker_on(slot)
    assert [second.drop_reason(name) for name in ("ttl", "new", "acl")] == [TTL, 130, ACL]
    # The slot was cleared, and the supervisor knows the names by which it counted.
    third = worker_on(private_slot(1 << 16), reasons=["acl", "", "new"])
    assert [third.drop_reason(name) for name in ("new", "acl")] == [130, ACL]
    assert third.drop_reason("other") == 131


def test_a_reason_may_have_the_name_of_a_counter() -> None:
    slot = private_slot(1 << 16)
    worker = worker_on(slot)
    worker.counter("acl").add(3)
    assert worker.drop_reason("acl") == ACL
    assert worker_on(slot).counter("acl").value == 3
    assert worker_on(slot).drop_reason("acl") == ACL


@pytest.mark.parametrize(
    ("name", "words"),
    [
        *((name, "is one of ringline's own: choose another") for name in drop_reasons.BUILT_IN),
        ("a-b", "cannot name a drop reason: use a letter, then letters, digits and '_'"),
        ("", "cannot name a drop reason"),
        (7, "7 cannot name a drop reason"),
        ("x" * 48, "at most 47 characters"),
        ('a"} 1\n', "cannot name a drop reason"),
    ],
)
def test_an_impossible_name_is_refused(name: Any, words: str) -> None:
    with pytest.raises(PluginError, match=words):
        worker_on(private_slot(1 << 16)).drop_reason(name)


def test_ringline_knows_all_its_own_reasons() -> None:
    assert {NO_DESCRIPTOR, *CARD_DROPS} == set(drop_reasons.OF_THE_CARD)
    assert "plugin" in drop_reasons.OF_THE_LANE
    assert "named" not in drop_reasons.BUILT_IN


def test_a_reason_is_named_in_setup() -> None:
    results = run_plugin(f"{PLUGINS}/reasons.py:Late", [bytes(60)])
    assert results[0].verdict == ERROR
    assert "'late' must be named in setup: the worker has begun" in (results[0].error or "")


@pytest.mark.parametrize(
    ("symbol", "words"),
    [
        ("twice", "RL_PLUGIN_WITH_REASONS names 'acl' twice"),
        ("built_in", "'missed' is one of ringline's own"),
    ],
)
def test_wrong_names_in_c_are_refused(
    compile_c: Callable[[Path], str], symbol: str, words: str
) -> None:
    with pytest.raises(PluginError, match=words):
        run_plugin(f"{compile_c(PLUGINS / 'reasons.c')}:{symbol}", [])
