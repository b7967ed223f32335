"""Looks at a card: its rings as they are when it works, waits and has stopped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ringline.pipeline._pipeline import ffi
from ringline.pipeline.ports.descriptor_rings.watch import LOOKS, Watch

from .bare_82599 import table
from .model_card import ModelCard
from .port_harness import FRAME, RIGHT
from .test_ixgbe_failed import FakeTaken


@pytest.fixture
def c() -> Any:
    """Two queues with rings of 64 descriptors."""
    made = ffi.new("struct rl_card *")
    for ring in (*made.rx, *made.tx):
        ring.mask = 63
    descriptors = ffi.new("struct rl_descriptor[64]")
    for queue in range(2):
        made.rx[queue].descriptors = descriptors
    yield made
    del descriptors


@pytest.fixture
def card(instance: Callable[[], str]) -> ModelCard:
    made = ModelCard(instance())
    made.port._taken = FakeTaken()
    return made


def test_a_card_that_sends_nothing_has_stopped(c: Any) -> None:
    watch = Watch(c, 2)
    c.tx[1].next = 5
    said = [watch.look(0, up=True) for _ in range(LOOKS + 1)]
    assert said == [""] * LOOKS + ["it sends nothing of what transmit queue 1 has"]


def test_a_card_that_receives_nothing_has_stopped(c: Any) -> None:
    watch = Watch(c, 2)
    said = [watch.look(accepted, up=True) for accepted in range(LOOKS + 1)]
    assert said == [""] * LOOKS + ["frames arrive, and it writes none of them to memory"]


def test_a_card_that_used_up_its_descriptors_has_stopped(card: ModelCard) -> None:
    """In the first look already, so all frames of the later ones are dropped. The driver looks at
    descriptors that the card does not write."""
    with card.start():
        elsewhere = ffi.new("struct rl_descriptor[64]")
        card.port._c.rx[0].descriptors = elsewhere
        accepted, said = [], ""
        for _ in range(LOOKS + 1):
            card.sim.load(table([FRAME] * 100), rate_mpps=1000.0)
            while not card.sim.finished:
                card.sim.step()
            seen = card.port.statistics()
            accepted.append(seen["rx_good_packets"] - seen["rx_queue0_dropped"])
            assert said == ""
            said = card.port.examine()
        assert accepted == [63] * (LOOKS + 1)
        assert said == "frames arrive, and it writes none of them to memory; look at the log"
        assert card.residuals() == RIGHT


@pytest.mark.parametrize("case", ["link", "progress", "quiet", "ours"])
def test_a_card_that_waits_has_not_stopped(c: Any, case: str) -> None:
    """Its link is down, it sends one packet in each second, no frame comes, and we take none."""
    watch = Watch(c, 2)
    c.tx[0].next = 60
    for look in range(3 * LOOKS):
        if case == "progress":
            c.tx[0].clean = look
        elif case != "link":
            c.tx[0].clean = 60
        if case == "ours":
            c.rx[1].descriptors[0].upper = 1
        accepted = look if case == "ours" else 7
        assert watch.look(accepted, up=case != "link") == ""


def test_a_frame_in_between_begins_anew(c: Any) -> None:
    watch = Watch(c, 2)
    for look in range(3 * LOOKS):
        c.rx[0].next = look // (LOOKS - 1)
        assert watch.look(look, up=True) == ""
