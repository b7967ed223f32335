"""The steps of each family: every function of a file is one, and each step that is left out shows.

Those of the 82599 are left out on the device model, in test_ixgbe_start.py.
"""

from __future__ import annotations

import inspect
import os
from collections import Counter
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from ringline.pipeline._pipeline import ffi
from ringline.pipeline.ports.descriptor_rings import steps as shared
from ringline.pipeline.ports.descriptor_rings.card import RingCard
from ringline.pipeline.ports.e1000e import initialisation as e1000e
from ringline.pipeline.ports.igb import initialisation as igb
from ringline.pipeline.ports.ixgbe import initialisation as ixgbe
from ringline.pipeline.ports.virtio import initialisation as virtio
from ringline.pipeline.ports.virtio.port import VirtioPort
from ringline.shm.errors import ConfigurationError, EnvironmentLacks, HardwareError

from . import test_e1000e_port, test_igb_port
from .fake_card import FakeRegisters
from .fake_virtio import (
    CONTROL,
    HASH_REPORT,
    MAC_ADDR,
    MQ,
    PLAIN,
    RSS,
    RX_EXTRA,
    RX_MODE,
    STATUS,
    VLAN,
    FakeDevice,
    FakeVirtio,
)

Step = Callable[[Any], None]
MODULES = {"ixgbe": ixgbe, "e1000e": e1000e, "igb": igb, "virtio": virtio}


# Steps of other files that the module takes by the name of the file: those that it must take all,
# and those of which it takes what fits its card.
SHARED: dict[str, tuple[list[ModuleType], list[ModuleType]]] = {
    "ixgbe": ([shared], []),
    "e1000e": ([shared], []),
    "igb": ([shared], [e1000e]),
    "virtio": ([], []),
}


def functions_of(module: ModuleType) -> list[Step]:
    """The functions that have the form of a step, written there or imported by name."""
    return [
        each
        for each in vars(module).values()
        if inspect.isfunction(each) and list(inspect.signature(each).parameters) == ["card"]
    ]


@pytest.mark.parametrize("family", MODULES)
def test_every_function_of_the_file_is_one_step(family: str) -> None:
    """A step that is written, imported or shared, and then forgotten in `STEPS` would never run."""
    module, (all_of, some_of) = MODULES[family], SHARED[family]
    functions = functions_of(module)
    written = [each for each in functions if each.__module__ == module.__name__]
    assert written == [each for each in module.STEPS if each.__module__ == module.__name__]
    for other in all_of:
        functions += functions_of(other)
    borrowed = [each for other in some_of for each in other.STEPS if each not in functions]
    functions += [each for each in borrowed if each in module.STEPS]
    assert Counter(functions) == Counter(module.STEPS)


@pytest.mark.parametrize("family", MODULES)
def test_the_steps_of_another_file_are_those_that_the_module_names(family: str) -> None:
    """The list above is that of the module itself."""
    expected = {each for part in SHARED[family] for each in part}
    found = {each for each in vars(MODULES[family]).values() if inspect.ismodule(each)}
    assert {each for each in found if functions_of(each)} == expected


# -- the 82574L and the 82576 ----------------------------------------------------------------------

CTRL, EECD, EERD, RA = 0, 0x10, 0x14, 0x5400
RESET, MASTER_DISABLE, EE_PRES, AUTO_RD, DONE = 1 << 26, 1 << 2, 1 << 8, 1 << 9, 2
CONFIG: dict[str, Any] = {"queues": 2, "promiscuous": False, "mac": "02:00:00:00:00:77"}
# They show who has the PHY, and what it and the EEPROM answer: a driver leaves them free.
FREE = {"EXTCNF_CTRL", "SWSM", "SW_FW_SYNC", "MDIC", "EERD"}


class LeftRegisters(FakeRegisters):
    """What another driver has left: a reset changes nothing but what the EEPROM sets, and that is
    overwritten until the card has read it. `resets`: were the interrupts masked, and DMA off?"""

    def __init__(self) -> None:
        super().__init__()
        self.resets: list[tuple[bool, bool]] = []
        self.mask = 0
        self.polls = 0

    def write32(self, address: int, value: int) -> None:
        if address == EERD:
            value |= DONE | (0xBABA if value >> 2 == 0x3F else 0) << 16
        if address == CTRL and value & RESET:
            self.resets.append((self.words[self.mask // 4] != 0, bool(value & MASTER_DISABLE)))
            self.words[EECD // 4] = EE_PRES
            self.polls = 3
        if address in (RA, RA + 4) and not self.words[EECD // 4] & AUTO_RD:
            return
        super().write32(address, value)

    def relax(self) -> None:
        self.polls -= 1
        if self.polls == 0:
            self.words[EECD // 4] |= AUTO_RD


class LeftE1000e(LeftRegisters, test_e1000e_port.Registers):
    pass


class LeftIgb(LeftRegisters, test_igb_port.Registers):
    pass


class E1000ePort(test_e1000e_port.FakeE1000ePort):
    def _map_registers(self) -> FakeRegisters:
        self.access = LeftE1000e()
        self.bus_mastering = False
        return self.access


class IgbPort(test_igb_port.FakeIgbPort):
    def _map_registers(self) -> FakeRegisters:
        self.access = LeftIgb()
        self.bus_mastering = False
        return self.access


class E1000e(test_e1000e_port.FakeE1000e):
    port_class = E1000ePort


class Igb(test_igb_port.FakeIgb):
    port_class = IgbPort


FAMILIES: dict[str, tuple[type[E1000e | Igb], ModuleType]] = {
    "e1000e": (E1000e, e1000e),
    "igb": (Igb, igb),
}


def fill(registers: LeftRegisters, card: type[RingCard], word: int) -> None:
    """Write `word` to all registers that keep something."""
    registers.mask = card.definitions["IMC"].address
    for name, place in card.definitions.items():
        if name in FREE or place.mode in ("RO", "WO"):
            continue
        for n in range(max(place.count, 1)):
            for half in (0, 4) if place.mode in ("RW64", "RC64") else (0,):
                registers.words[(place.address + n * place.stride + half) // 4] = word
    registers.words[CTRL // 4] &= ~(RESET | MASTER_DISABLE)


def started(family: str, instance: str, steps: tuple[Step, ...]) -> list[dict[str, Any]]:
    """All that shows after a start with these steps, on a card whose registers were all 0, and on
    one where all bits were 1."""
    kind, _ = FAMILIES[family]
    return [
        started_over(kind, f"{instance}-{n}", steps, word) for n, word in enumerate((0, 0xFFFFFFFF))
    ]


def started_over(
    kind: type[E1000e | Igb], instance: str, steps: tuple[Step, ...], word: int
) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    with kind(instance, **CONFIG) as card:
        access: Any = card.port.access
        card.port.steps = steps
        fill(access, card.port.card_class, word)
        try:
            card.start()
        except HardwareError as error:
            seen["error"] = str(error)
        seen["words"] = bytes(ffi.buffer(access.words))
        seen["others"] = (card.port.bus_mastering, access.resets, access.phy)
        seen["statistics"] = card.port.statistics()
    return seen


@pytest.fixture(scope="module")
def expected() -> dict[str, list[dict[str, Any]]]:
    """The results of the complete initialisations."""
    return {
        family: started(family, f"t{os.getpid()}-steps-{family}", module.STEPS)
        for family, (_, module) in FAMILIES.items()
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_a_complete_start_resets_once_with_interrupts_masked_and_dma_off(
    instance: Callable[[], str], expected: dict[str, list[dict[str, Any]]], family: str
) -> None:
    """And the same shows each time, so a difference is that of a step."""
    assert started(family, instance(), FAMILIES[family][1].STEPS) == expected[family]
    for seen in expected[family]:
        assert "error" not in seen
        assert seen["others"][:2] == (True, [(True, True)])
        assert not any(seen["statistics"].values())


@pytest.mark.parametrize(
    ("family", "step"),
    [(family, step) for family, (_, module) in FAMILIES.items() for step in module.STEPS],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_a_missing_step_of_a_gigabit_card_is_detected(
    instance: Callable[[], str],
    expected: dict[str, list[dict[str, Any]]],
    family: str,
    step: Step,
) -> None:
    _, module = FAMILIES[family]
    steps = tuple(each for each in module.STEPS if each is not step)
    assert started(family, instance(), steps) != expected[family]


# -- virtio-net ------------------------------------------------------------------------------------

# What a device offers, its pairs of queues, and the configuration: two devices that can be used,
# and two that cannot.
DEVICES: tuple[tuple[int, int, dict[str, Any]], ...] = (
    (
        PLAIN | MQ | VLAN | RX_EXTRA,
        2,
        {"queues": 2, "vlan_filter": (7,), "mac": "02:00:00:00:00:77"},
    ),
    (PLAIN | RSS | HASH_REPORT, 2, {"queues": 2}),
    (PLAIN, 1, {"queues": 2}),
    (PLAIN & ~(CONTROL | RX_MODE | MAC_ADDR), 1, {"promiscuous": False}),
)


def brought_up(instance: str) -> list[dict[str, Any]]:
    """All that shows after the start of each device."""
    all_seen = []
    for n, (offered, pairs, config) in enumerate(DEVICES):
        device = FakeDevice(offered, pairs)
        seen: dict[str, Any] = {}
        with FakeVirtio(f"{instance}-{n}", device, **config) as card:
            try:
                card.start()
            except (
                AssertionError,
                ConfigurationError,
                EnvironmentLacks,
                HardwareError,
            ) as error:
                seen["error"] = str(error)
            seen["device"] = (device.accepted, device.words[STATUS], device.resets, device.commands)
            seen["queues"] = [bytes(each[:0x20]) for each in device.queue]
            seen["doorbells"] = [device.doorbell(q)[0] for q in range(2 * pairs)]
            seen["port"] = (card.port.bus_mastering, card.port.posted())
        all_seen.append(seen)
    return all_seen


@pytest.fixture(scope="module")
def usable() -> list[dict[str, Any]]:
    """The results of the complete initialisation."""
    return brought_up(f"t{os.getpid()}-steps-virtio")


def test_two_of_the_devices_start_and_two_are_refused(
    instance: Callable[[], str], usable: list[dict[str, Any]]
) -> None:
    """And the same shows each time, so a difference is that of a step."""
    assert brought_up(instance()) == usable
    assert ["error" in seen for seen in usable] == [False, False, True, True]


@pytest.mark.parametrize("step", virtio.STEPS, ids=lambda step: step.__name__)
def test_a_missing_step_of_virtio_is_detected(
    instance: Callable[[], str],
    usable: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    step: Step,
) -> None:
    missing = {step}
    if step is virtio.place_queues:
        missing.add(virtio.receive)  # it would write to queues that are nowhere
    steps = tuple(each for each in virtio.STEPS if each not in missing)
    monkeypatch.setattr(VirtioPort, "steps", steps)
    assert brought_up(instance()) != usable
