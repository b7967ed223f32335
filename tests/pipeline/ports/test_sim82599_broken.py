"""A simulated 82599 with a defect, and what the port says of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ringline.pipeline.ports.port import Link
from ringline.pipeline.ports.sim82599.model import Sim82599
from ringline.shm.errors import HardwareError

from .model_card import ModelCard, ModelPort
from .port_harness import RIGHT

FRAME = bytes.fromhex("02000000000102000000000288b5") + bytes(60)


def broken(part: str, instance: str) -> ModelCard:
    class Broken(ModelCard):
        port_class = type("BrokenPort", (ModelPort,), {"broken": (part,)})

    return Broken(instance)


def test_a_wrong_checksum_is_refused(instance: Callable[[], str]) -> None:
    with broken("eeprom", instance()) as card:
        with pytest.raises(HardwareError, match="adds up to 0xbabb instead of 0xbaba"):
            card.start()
        card.port.stop()
        assert card.residuals() == RIGHT


def test_a_link_that_never_comes_up_is_waited_for(instance: Callable[[], str]) -> None:
    with broken("link", instance()) as card:
        card.start()
        assert card.port.link() == Link(False, 0)
        assert card.carry([FRAME]) == []
        card.port.stop()
        assert (card.port.trouble(), card.residuals()) == (None, RIGHT)


def test_a_queue_that_does_not_stop_is_named_and_a_reset_stops_it(
    instance: Callable[[], str],
) -> None:
    with broken("stop", instance()) as card:
        card.start()
        assert [each.frame for each in card.carry([FRAME])] == [FRAME]
        card.port.stop()
        said = card.port.trouble() or ""
        assert "while the port was being stopped: waited " in said
        assert "for RXDCTL[0].ENABLE to become 0; it is 1 (receive descriptor control, " in said
        assert card.residuals() == RIGHT
        card.port.start()
        assert [each.frame for each in card.carry([FRAME])] == [FRAME]


def test_a_card_without_a_defect_has_none() -> None:
    with Sim82599() as sim:
        sim.write32(0x10014, 0x3F << 2 | 1)
        assert sim.read32(0x10014) == 0xBABA << 16 | 0x3F << 2 | 2
