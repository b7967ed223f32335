"""The checksum of a card's EEPROM, over registers that answer from a list of words."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ringline.pipeline.configuration.config import PortConfig
from ringline.pipeline.ports.descriptor_rings import eeprom
from ringline.pipeline.ports.e1000e import card as e1000e
from ringline.pipeline.ports.e1000e import initialisation as of_e1000e
from ringline.pipeline.ports.ixgbe import card as ixgbe
from ringline.pipeline.ports.ixgbe import initialisation as of_ixgbe
from ringline.shm.errors import HardwareError

from .fake_card import FakeRegisters

PRESENT, START, DONE = 1 << 8, 1, 2
Kind = tuple[type[ixgbe.Card], Callable[..., None], int, int]
KINDS: dict[str, Kind] = {
    "ixgbe": (ixgbe.Card, of_ixgbe.check_eeprom, 0x10010, 0x10014),
    "e1000e": (e1000e.Card, of_e1000e.check_eeprom, 0x10, 0x14),
}


def right(words: dict[int, int] | None = None, *counted: int) -> list[int]:
    """The words of an EEPROM with a right checksum; those of a section are in `counted`."""
    made = [0] * eeprom.WORDS_MAX
    for address, value in (words or {}).items():
        made[address] = value
    made[0x3F] = (eeprom.SUM - sum(made[:0x3F]) - sum(counted)) & 0xFFFF
    return made


class Registers(FakeRegisters):
    """Registers with an EEPROM behind them. `mute`: a read of it never ends."""

    def __init__(self, words: list[int], status: int, read: int) -> None:
        super().__init__()
        self.eeprom, self.read, self.reads, self.mute = words, read, 0, False
        self.words[status // 4] = PRESENT

    def write32(self, address: int, value: int) -> None:
        if address == self.read and value & START and not self.mute:
            self.reads += 1
            value = value & 0xFFFC | DONE | self.eeprom[value >> 2 & 0x3FFF] << 16
        super().write32(address, value)


def checked(name: str, words: list[int], *, mute: bool = False, real: bool = True) -> int:
    """How many words the driver of the card read."""
    card_class, check, status, read = KINDS[name]
    access = Registers(words, status, read)
    access.mute = mute
    card = card_class(access, PortConfig("wan", "pci:0000:03:00.0"), lambda on: None, 0.02)
    card.real = real
    if not real:
        access.words[status // 4] = 0
    check(card)
    return access.reads


@pytest.mark.parametrize("name", KINDS)
def test_a_right_checksum_is_accepted(name: str) -> None:
    assert checked(name, right({0: 0x1234, 0x3E: 0xFFFF})) == 64


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("address", [0, 0x1F, 0x3F])
def test_a_wrong_word_is_refused(name: str, address: int) -> None:
    words = right({0: 0x1234, 0x10: 0x10})
    words[address] ^= 1
    with pytest.raises(HardwareError) as caught:
        checked(name, words)
    said = str(caught.value)
    assert said.startswith(
        "port wan (pci:0000:03:00.0): the checksum of the card's EEPROM is wrong (it adds up to "
    )
    assert "instead of 0xbaba" in said
    assert said.endswith("with the tool of the card's maker, or use another card")


def test_the_sections_of_the_82599_count_too() -> None:
    """Words 3 to 0xE lead to sections, and word 0xF to that of the firmware, which does not
    count. The section at 0x90 has no words, and the pointer 0xFFFF leads nowhere."""
    pointers = {3: 0x80, 4: 0x90, 5: 0xFFFF, 0xE: 0xA0, 0xF: 0xB0}
    sections = {0x80: 2, 0x81: 0x1111, 0x82: 0x2222, 0xA0: 1, 0xA1: 0x3333, 0xB0: 1, 0xB1: 0x4444}
    words = right(pointers | sections, 0x1111, 0x2222, 0x3333)
    assert checked("ixgbe", words) == 64 + 3 + 3
    words[0xB1] ^= 1
    checked("ixgbe", words)
    words[0xA1] ^= 1
    with pytest.raises(HardwareError, match="the checksum of the card's EEPROM is wrong"):
        checked("ixgbe", words)


def test_a_checksum_that_linux_mends_is_said_to_be_so() -> None:
    """Bit 4 of word 0x10 is 0 when the firmware is done, bit 15 of word 0x23 is 1 when Linux has
    mended the checksum."""
    words = right()
    words[0x3F] ^= 1
    with pytest.raises(HardwareError, match="First let the kernel's driver e1000e have"):
        checked("e1000e", words)
    words[0x23] = 0x8000
    with pytest.raises(HardwareError, match=r"as well\. Write the EEPROM again"):
        checked("e1000e", words)


@pytest.mark.parametrize("device_id", [0x10FB, 0x10F8, 0x10F9, 0x10FC, 0x1507, 0x154A, 0x1528])
def test_of_the_relatives_of_the_82599_only_an_x540_is_not_checked(device_id: int) -> None:
    """Its words add up in another way. `unproved` changes nothing of it."""
    access = Registers([0] * eeprom.WORDS_MAX, 0x10010, 0x10014)
    config = PortConfig("wan", "pci:0000:03:00.0", unproved=True)
    card = ixgbe.Card(access, config, lambda on: None, 0.02)
    card.device_id = device_id
    if device_id == ixgbe.X540:
        of_ixgbe.check_eeprom(card)
        assert access.reads == 0
    else:
        with pytest.raises(HardwareError, match="the checksum of the card's EEPROM is wrong"):
            of_ixgbe.check_eeprom(card)


@pytest.mark.parametrize(("device_id", "takes"), [(0x10F9, ["MAC"]), (ixgbe.X540, [])])
def test_of_the_relatives_of_the_82599_only_an_x540_has_another_semaphore(
    device_id: int, takes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []
    released: list[str] = []
    monkeypatch.setattr(ixgbe.Card, "take_part", lambda _, part: taken.append(part))
    monkeypatch.setattr(ixgbe.Card, "release_part", lambda _, part: released.append(part))
    config = PortConfig("wan", "pci:0000:03:00.0", unproved=True)
    card = ixgbe.Card(FakeRegisters(), config, lambda on: None, 0.02)
    card.device_id = device_id
    of_ixgbe.start_link(card)
    assert (taken, released) == (takes, takes)


@pytest.mark.parametrize("at", [0x80, 0x3FF0, 0x3FFF])
def test_sections_that_cannot_be_are_refused_soon(at: int) -> None:
    """Twelve times a section of 6,000 words is more than the EEPROM has."""
    words = right(dict.fromkeys(range(3, 0xF), at) | {at: 6000})
    with pytest.raises(HardwareError, match="a section of it is longer than it can be"):
        checked("ixgbe", words)


def test_a_pointer_beyond_the_end_leads_nowhere() -> None:
    assert checked("ixgbe", right({3: 0x4000, 4: 0xFFFE})) == 64


@pytest.mark.parametrize("name", KINDS)
def test_a_card_that_gives_no_word_is_refused_by_the_register(name: str) -> None:
    with pytest.raises(HardwareError, match=r"waited 0\.02 s for EERD\.DONE to become 1; it is 0"):
        checked(name, right(), mute=True)


@pytest.mark.parametrize("name", KINDS)
def test_a_model_without_an_eeprom_is_accepted(name: str) -> None:
    assert checked(name, [], real=False) == 0
