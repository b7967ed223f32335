"""A card that fails while it runs: its buffers are free again, and the lane goes on."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from ringline.pipeline.ports.descriptor_rings.watch import LOOKS
from ringline.pipeline.ports.pci.taken import TakenCard

from .model_card import ModelCard
from .port_harness import FRAME, RIGHT

STATUS = 0x0008


class FakeTaken(TakenCard):
    """A card on PCI; `wanted` is what the kernel says."""

    real = True
    wanted = ""

    def wanted_back(self) -> str:
        return self.wanted

    def who_stops_it(self) -> str:
        return "look at the log"


@pytest.fixture
def card(instance: Callable[[], str]) -> ModelCard:
    made = ModelCard(instance())
    made.port._taken = FakeTaken()
    return made


def test_buffers_are_free_after_the_kernel_took_the_card_back(card: ModelCard) -> None:
    with card.start():
        assert len(card.carry([FRAME] * 10)) == 10
        assert card.tx_burst([card.packet(FRAME)]) == 1  # the card does not send it any more
        before = card.port.statistics()
        assert card.port.examine() == ""
        card.port._taken.wanted = "the kernel takes it back"
        free = card.memory.free_count
        assert card.port.examine() == "the kernel takes it back"
        assert card.memory.free_count == free + 64 + 1
        assert card.rx_burst() == []
        assert card.reclaim() == 0
        assert card.residuals() == RIGHT
        assert card.port.posted() == (0, 0)
        assert not card.port.link().up
        assert card.port.statistics() == before
        assert card.port.faults() == ["the port has failed: the kernel takes it back"]
        assert card.port.trouble() is None
        card.port.stop_receiving()
        card.port.stop()
        assert card.residuals() == RIGHT


def test_a_card_that_reads_as_ones_is_gone(
    card: ModelCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    with card.start():
        read = card.port.registers.read32
        monkeypatch.setattr(
            card.port.registers,
            "read32",
            lambda address: 0xFFFFFFFF if address == STATUS else read(address),
            raising=False,
        )
        assert card.port.examine() == "it does not answer any more; was it removed?"
        assert card.residuals() == RIGHT


def test_a_card_that_sends_nothing_fails(card: ModelCard) -> None:
    with card.start():
        assert card.port.link().up
        assert card.tx_burst([card.packet(os.urandom(60))]) == 1
        for _ in range(LOOKS + 1):  # and the model takes no step
            card.port.statistics()
            said = card.port.examine()
        assert said == "it sends nothing of what transmit queue 0 has; look at the log"
        assert card.residuals() == RIGHT
