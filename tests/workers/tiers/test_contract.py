"""One contract for all tiers: equal frames give equal verdicts and counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ringline.workers.testing import DROP, ERROR, Frame, Run, run_plugin

PLUGINS = Path(__file__).parents[1] / "plugins"
TIERS = ["C", "compiled", "packets", "columns"]
CAN_RAISE = ["compiled", "packets", "columns"]
CAN_EDIT = ["C", "compiled", "packets"]
NO_PORT = (4, 5, 6, 7, 12)

RunTier = Callable[..., Run]


@pytest.fixture
def run(request: pytest.FixtureRequest, compile_c: Callable[[Path], str]) -> RunTier:
    """Runs a tier's plugin on frames; the first byte of a frame selects the action."""

    def run_tier(tier: str, *todo: int, port: int = 0, **how: object) -> Run:
        spec = {
            "C": lambda: f"{compile_c(PLUGINS / 'contract.c')}:contract",
            "compiled": lambda: f"{PLUGINS}/contract.py:compiled",
            "packets": lambda: f"{PLUGINS}/contract.py:Packets",
            "columns": lambda: f"{PLUGINS}/contract.py:Columns",
        }[tier]()
        frames = [Frame(bytes([what]) + bytes(range(1, 60)), port) for what in todo]
        return run_plugin(spec, frames, ports=2, **how)

    return run_tier


@pytest.mark.parametrize("tier", TIERS)
def test_a_verdict_is_a_port_or_a_drop(run: RunTier, tier: str) -> None:
    results = run(tier, 0, 1, 2, port=1)
    assert [result.verdict for result in results] == [1, DROP, 1]
    assert results.counters["forwarded"] == 2
    assert results.counters["dropped"] == 1
    assert results.counters["packets"] == 3
    assert results.counters["bytes"] == 180


@pytest.mark.parametrize("tier", TIERS)
def test_every_tier_keeps_the_contract(run: RunTier, tier: str) -> None:
    """A verdict that is no port of the instance is an error of that packet, never a port."""
    results = run(tier, 0, *NO_PORT, 2)
    assert [result.verdict for result in results] == [0, *[ERROR] * len(NO_PORT), 1]
    assert results.counters["verdict_errors"] == len(NO_PORT)
    assert results.counters["plugin_errors"] == 0
    for result in results[1:-1]:
        assert result.error is not None
        assert (
            "neither the number of a port (ports: 0 to 1), DROP nor a drop reason" in result.error
        )


def test_a_function_that_ends_early_leaves_no_verdicts(compile_c: Callable[[Path], str]) -> None:
    """The field `port` holds the input port before; it must not count as the verdict."""
    results = run_plugin(f"{compile_c(PLUGINS / 'early.c')}:early", [bytes(60)] * 3)
    assert [result.verdict for result in results] == [ERROR] * 3
    assert results.counters["plugin_errors"] == 3


@pytest.mark.parametrize("tier", CAN_RAISE)
def test_an_exception_is_counted_and_reported(run: RunTier, tier: str) -> None:
    results = run(tier, 0, 3, 2, batch=1)
    assert [result.verdict for result in results] == [0, ERROR, 1]
    assert results.counters["plugin_errors"] == 1
    assert results.counters["verdict_errors"] == 0
    assert "ValueError: three is refused" in (results[1].error or "")
    assert "contract.py, line" in (results[1].error or "")


def test_an_exception_in_a_compiled_function_costs_that_packet_only(run: RunTier) -> None:
    results = run("compiled", 0, 3, 2, 3, 1)
    assert [result.verdict for result in results] == [0, ERROR, 1, ERROR, DROP]


def test_an_exception_in_process_costs_the_batch(run: RunTier) -> None:
    results = run("packets", 0, 3, 2, batch=64)
    assert [result.verdict for result in results] == [ERROR] * 3
    assert results.counters["plugin_errors"] == 3


@pytest.mark.parametrize("tier", CAN_EDIT)
def test_frames_are_changed_in_place(run: RunTier, tier: str) -> None:
    [result] = run(tier, 8)
    assert result.frame == bytes([8, *range(1, 59), 0xAA])


@pytest.mark.parametrize("tier", CAN_EDIT)
def test_frames_grow_at_the_front(run: RunTier, tier: str) -> None:
    [result] = run(tier, 9)
    assert result.frame == bytes([9, *range(1, 12)]) + bytes([8 + i for i in range(4)]) + bytes(
        range(12, 60)
    )


@pytest.mark.parametrize("tier", CAN_EDIT)
def test_packets_are_made_from_blanks_only(run: RunTier, tier: str) -> None:
    results = run(tier, 10, 10, 10, blanks=2)
    assert [result.verdict for result in results] == [0, 0, DROP]
    assert [(made.verdict, made.frame) for made in results.created] == [(1, b"\x55" * 60)] * 2
    assert results.counters["created"] == 2


@pytest.mark.parametrize("tier", CAN_EDIT)
def test_a_vlan_tag_can_be_set(run: RunTier, tier: str) -> None:
    [tagged, plain] = run(tier, 11, 0)
    assert tagged.vlan_tci == 7
    assert plain.vlan_tci is None


@pytest.mark.parametrize("tier", TIERS)
def test_any_number_of_frames_comes_back(run: RunTier, tier: str) -> None:
    for n in (0, 1, 63, 64, 65, 300):
        results = run(tier, *([0, 1, 2] * 100)[:n])
        assert len(results) == n
        assert [result.verdict for result in results] == ([0, DROP, 1] * 100)[:n]


def test_a_test_fails_when_tick_raises() -> None:
    class Judge:
        def process(self, batch: object) -> None: ...

        def tick(self, worker: object) -> None:
            raise RuntimeError("tick broke")

    with pytest.raises(RuntimeError, match="tick broke"):
        run_plugin(Judge, [bytes(60)])
