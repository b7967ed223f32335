"""What the model tells drivers of ringline alone changes nothing else.

Each driver runs on two cards. One names all that a driver of ringline should not do, the other one
(`foreign`) only what it refuses. Both must do the same otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ringline.pipeline.ports.ixgbe.initialisation import STEPS
from ringline.pipeline.ports.registers import RegisterAccess

from .bare_82599 import Bare82599, table
from .frames import BROADCAST, ethernet
from .model_card import ModelCard, ModelPort

FRAMES = [ethernet(bytes([n]) * (40 + n), destination=BROADCAST) for n in range(40)]
BAR_BYTES = 0x20000
Accesses = list[tuple[str, int, int]]


class Traced:
    """The registers of a model, and a list of all that was read and written."""

    def __init__(self, registers: Any) -> None:
        self._registers = registers
        self.accesses: Accesses = []

    def read32(self, address: int) -> int:
        value = int(self._registers.read32(address))
        self.accesses.append(("read", address, value))
        return value

    def write32(self, address: int, value: int) -> None:
        self.accesses.append(("write", address, value))
        self._registers.write32(address, value)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._registers, name)


def rest_of(sim: Any) -> tuple[dict[str, int], list[int]]:
    """The counters of the wire, and all registers."""
    return sim.wire(), [sim.read32(at) for at in range(0, BAR_BYTES, 4)]


def bare(skip: str, *, foreign: bool) -> tuple[Any, dict[str, int]]:
    """What the driver from the datasheet sees without some of its steps, and the faults."""
    with Bare82599(foreign=foreign) as driver:
        traced: Any = Traced(driver.sim)
        driver.sim = traced
        driver.bring_up(skip=skip)
        traced.load(table(FRAMES))
        received = []
        for _ in range(60):
            traced.step()
            for one in driver.receive():
                received.append(one)
                driver.send(one.data)
        faults = traced.fault_counts()
        return (traced.accesses, received, rest_of(traced)), faults


# Left out steps, and whether they are something that the card does not mind.
@pytest.mark.parametrize(
    ("skip", "told"),
    [
        ("", False),
        ("mask", True),
        ("mask_again", True),
        ("master", True),
        ("reset", True),
        ("rdrxctl", True),
        ("rdrxctl_strip", True),
        ("no_snoop", True),
        ("dca", True),
        ("rx_wait", True),
        ("security", True),
        ("arbiter", True),
        ("dtxmxszrq", True),
        ("tx_wait", False),
        ("eeprom", False),
        ("te", False),
    ],
)
def test_a_driver_from_the_datasheet_sees_the_same(skip: str, told: bool) -> None:
    seen, faults = bare(skip, foreign=False)
    again, refused = bare(skip, foreign=True)
    assert again == seen
    assert (faults != refused) == told
    assert set(refused) <= set(faults)


class TracedPort(ModelPort):
    def _map_registers(self) -> RegisterAccess:
        self.traced = Traced(super()._map_registers())
        return self.traced


def own(instance: str, left_out: str, *, foreign: bool) -> tuple[Any, dict[str, int]]:
    """The same of the driver of ringline."""

    class Port(TracedPort):
        steps = tuple(step for step in STEPS if step.__name__ != left_out)

    Port.foreign = foreign

    class Card(ModelCard):
        port_class = Port

    with Card(instance).start() as card:
        received = card.carry(FRAMES)
        assert isinstance(card.port, Port)
        statistics, faults = card.port.statistics(), card.sim.fault_counts()
        return (card.port.traced.accesses, received, statistics, rest_of(card.sim)), faults


@pytest.mark.parametrize(
    ("left_out", "told"),
    [("", set()), ("forbid_no_snoop", {"receive"}), ("set_receive_dma", {"receive"})],
)
def test_the_driver_of_ringline_sees_the_same(
    instance: Callable[[], str], left_out: str, told: set[str]
) -> None:
    seen, faults = own(instance(), left_out, foreign=False)
    again, refused = own(instance(), left_out, foreign=True)
    assert again == seen
    assert len(seen[1]) == len(FRAMES)
    assert (set(faults), refused) == (told, {})
