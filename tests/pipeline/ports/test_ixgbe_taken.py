"""When the port of a real card writes to it: never before its start, and noted before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ringline.pipeline.configuration.config import PortConfig
from ringline.pipeline.configuration.deadlines import PortLimits
from ringline.pipeline.ports.ixgbe.card import Card
from ringline.pipeline.ports.ixgbe.port import IxgbePort
from ringline.pipeline.ports.pci.sysfs import PciDevice
from ringline.shm.errors import ConfigurationError, EnvironmentLacks

from .fake_card import SECRXSTAT
from .port_harness import PortHarness

ADDRESS = "0000:03:00.0"
COMMAND = 0x0100  # of a card that no driver has used: memory space and bus mastering are off
MEMORY_SPACE, BUS_MASTER = 2, 4


class PciPort(IxgbePort):
    """The port of the card in the folder `sysfs`, without the steps of its initialisation."""

    sysfs: Path
    steps = (lambda card: card.bus_mastering(True),)
    limits = PortLimits(register=0.05, link=0.0, sent=0.05)

    def __init__(self, config: PortConfig, index: int, sysfs: Path) -> None:
        super().__init__(replace(config, device=f"pci:{ADDRESS}"), index, self.sysfs)


class PciCard(PortHarness):
    port_class = PciPort

    @property
    def noted(self) -> list[str]:
        """The cards that the header of `.descriptors` names."""
        return self.descriptors.segment.pci


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a card whose registers are plain memory."""
    folder = tmp_path / "bus" / "pci" / "devices" / ADDRESS
    folder.mkdir(parents=True)
    (folder / "config").write_bytes(bytes(4) + COMMAND.to_bytes(2, "little") + bytes(250))
    registers = bytearray(128 << 10)
    registers[SECRXSTAT] = 1
    (folder / "resource0").write_bytes(registers)
    monkeypatch.setattr(PciPort, "sysfs", tmp_path, raising=False)
    return folder


def command(device: Path) -> int:
    return int.from_bytes((device / "config").read_bytes()[4:6], "little")


def test_a_card_is_noted_while_it_may_do_dma(
    device: Path, instance: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with PciCard(instance()) as card:
        assert (command(device), card.noted) == (COMMAND, [])
        write = PciDevice._command
        seen = []

        def noted(self: PciDevice, bits: int, *, on: bool) -> None:
            seen.append(card.noted)
            write(self, bits, on=on)

        monkeypatch.setattr(PciDevice, "_command", noted)
        card.start()
        assert (command(device), card.noted) == (COMMAND | MEMORY_SPACE | BUS_MASTER, [ADDRESS])
        card.port.stop()
        assert (command(device), card.noted) == (COMMAND | MEMORY_SPACE, [])
        assert seen == [[ADDRESS]] * 3, "noted before the first write and after the last"
        assert card.port.faults() == []


def test_a_card_without_buffers_is_not_written_to(
    device: Path, instance: Callable[[], str]
) -> None:
    before = (device / "config").read_bytes(), (device / "resource0").read_bytes()
    with PciCard(instance(), buffers=10) as card:
        with pytest.raises(ConfigurationError, match=r"memory\.buffers: port wan needs"):
            card.start()
        card.port.close()
        assert card.noted == []
    assert ((device / "config").read_bytes(), (device / "resource0").read_bytes()) == before


def test_a_card_whose_first_write_fails_is_not_noted(
    device: Path, instance: Callable[[], str]
) -> None:
    with PciCard(instance()) as card:
        (device / "config").unlink()
        with pytest.raises(EnvironmentLacks, match="config: No such file"):
            card.start()
        assert card.noted == []


def test_a_card_that_is_gone_when_it_is_stopped(device: Path, instance: Callable[[], str]) -> None:
    """Its buffers come back all the same."""
    with PciCard(instance()) as card:
        card.start()
        (device / "config").unlink()
        card.port.stop()
        trouble = card.port.trouble()
        assert trouble is not None
        assert "config: No such file" in trouble
        assert card.port.posted() == (0, 0)
        assert set(card.residuals().values()) == {0}


def test_the_limit_of_a_call_bounds_all_its_waits(
    device: Path, instance: Callable[[], str]
) -> None:
    with PciCard(instance()) as card:
        registers: Card = card.port._card
        registers.begin_call(9.0)
        assert registers.wait_seconds == PciPort.limits.register
        registers.begin_call(0.0)
        assert registers.wait_seconds == 0.0
