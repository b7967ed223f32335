"""The stop of a card that does not answer: it ends in time, and says which register was awaited."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest

from ringline.pipeline.configuration.deadlines import PortLimits

from .fake_card import SECRXSTAT, FakeCard, FakePort, FakeRegisters

RXDCTL, TXDCTL = 0x1028, 0x6028
LONG = 9.0  # seconds, for one register: longer than each limit of a call


class FrozenRegisters(FakeRegisters):
    """Registers that ignore writes to the address `frozen`."""

    frozen: int | None = None

    def write32(self, address: int, value: int) -> None:
        if address != self.frozen:
            super().write32(address, value)

    def relax(self) -> None:
        time.sleep(0.001)


class FrozenPort(FakePort):
    limits = PortLimits(register=LONG, link=0.0, stop_receiving=0.3, stop=0.2, abandon=0.1)
    access: FrozenRegisters

    def _map_registers(self) -> FrozenRegisters:
        self.access = FrozenRegisters()
        self.bus_mastering = False
        return self.access


class FrozenCard(FakeCard):
    port_class = FrozenPort
    port: FrozenPort


def said(trouble: str | None) -> tuple[str, float, str]:
    """What stands before the wait, its seconds (what was left of the limit), and what follows."""
    found = re.fullmatch(r"(.*)waited ([0-9.]+) s for (.*)", trouble or "")
    assert found is not None, trouble
    return found[1], float(found[2]), found[3]


@pytest.mark.parametrize(("name", "register"), [("RXDCTL", RXDCTL), ("TXDCTL", TXDCTL)])
@pytest.mark.parametrize(("end", "seconds"), [("stop", 0.2), ("close", 0.1)])
def test_queues_that_do_not_stop_cost_no_more_than_the_limit_of_the_call(
    instance: Callable[[], str], name: str, register: int, end: str, seconds: float
) -> None:
    with FrozenCard(instance(), queues=16, buffers=2048) as card:
        card.start()
        port = card.port
        port.access.frozen = register
        begin = time.monotonic()
        getattr(port, end)()
        assert time.monotonic() - begin < LONG
        trouble = port.trouble()
        text, waited, end = said(trouble)
        assert text == "while the port was being stopped: "
        assert waited <= seconds
        assert end.startswith(f"{name}[0].ENABLE to become 0; it is 1 (")
        assert port.faults() == [trouble]
        assert not port.bus_mastering
        assert port.posted() == (0, 0)


def test_a_receiver_that_does_not_stop_is_said_and_the_port_goes_on_to_its_stop(
    instance: Callable[[], str],
) -> None:
    with FrozenCard(instance()) as card:
        port = card.start().port
        port.access.words[SECRXSTAT // 4] = 0
        begin = time.monotonic()
        port.stop_receiving()
        assert port.bus_mastering, "posted packets are still sent"
        first = port.trouble()
        _, waited, end = said(first)
        assert waited <= FrozenPort.limits.stop_receiving
        assert end.startswith("SECRXSTAT.SECRX_RDY to become 1; it is 0 (")
        port.access.frozen = RXDCTL
        port.stop()
        assert time.monotonic() - begin < LONG
        assert port.trouble() == first
        assert len(port.faults()) == 2
        assert not port.bus_mastering
        port.access.frozen = None
        port.access.words[SECRXSTAT // 4] = 1
        port.start()
        assert port.trouble() is None, "the card works again"


def test_an_orderly_stop_has_no_trouble(instance: Callable[[], str]) -> None:
    with FrozenCard(instance()) as card:
        port = card.start().port
        port.stop_receiving()
        port.stop()
        assert (port.trouble(), port.faults()) == (None, [])
