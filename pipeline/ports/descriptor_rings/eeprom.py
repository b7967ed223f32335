"""The EEPROM of Intel's cards, read word by word; a card whose checksum is wrong is refused.

The card sets itself up from its EEPROM: MAC address, PHY, PCI Express. Linux's drivers refuse a
card whose checksum is wrong (ixgbe_validate_eeprom_checksum_generic of ixgbe,
e1000e_validate_nvm_checksum_generic of e1000e), and so does this one.

Guarantees (tests in tests/pipeline/ports/test_eeprom.py):
 - a card is refused when its words do not add up (test_a_wrong_word_is_refused,
   test_the_sections_of_the_82599_count_too)
 - an EEPROM that leads anywhere is read to its end only
   (test_sections_that_cannot_be_are_refused_soon)
"""

from __future__ import annotations

from collections.abc import Callable

from ringline.pipeline.ports.descriptor_rings.card import RingCard
from ringline.pipeline.ports.registers import Register
from ringline.shm.errors import HardwareError

CHECKSUM = 0x3F  # the word that makes the sum right
SUM = 0xBABA  # of words 0 to CHECKSUM, modulo 65,536
WORDS_MAX = 1 << 14  # that EERD can address
_EMPTY = (0, 0xFFFF)  # a pointer or a length that names nothing


def check(
    card: RingCard,
    status: Register,
    *,
    sections: range = range(0),
    advice: Callable[[], str] = str,
) -> None:
    """Add the words up. `status` is EEC or EECD. Each word of `sections` points to the length of a
    section, whose words count too.

    A model of a card may have no EEPROM: then EE_PRES is 0. Raises HardwareError when
    the sum is wrong, with the `advice` for that, or when the card does not give a word.
    """
    if not card.real and not status.field("EE_PRES"):
        return
    words = [word(card, address) for address in range(CHECKSUM + 1)]
    found = sum(words)
    read = 0
    for pointer in (words[number] for number in sections):
        length = word(card, pointer) if pointer not in _EMPTY and pointer < WORDS_MAX else 0
        if length in _EMPTY:
            continue
        read += length
        if read > WORDS_MAX or pointer + length >= WORDS_MAX:
            raise _wrong(card, "a section of it is longer than it can be", advice())
        found += sum(word(card, pointer + each) for each in range(1, length + 1))
    if found & 0xFFFF != SUM:
        raise _wrong(card, f"it adds up to {found & 0xFFFF:#06x} instead of {SUM:#06x}", advice())


def word(card: RingCard, address: int) -> int:
    """A word of the EEPROM. Raises HardwareError when the card does not give it."""
    card.EERD.write(START=1, ADDRESS=address)
    card.EERD.wait("DONE", 1, card.wait_seconds)
    return card.EERD.field("DATA")


def _wrong(card: RingCard, why: str, advice: str) -> HardwareError:
    return HardwareError(
        f"{card.name}: the checksum of the card's EEPROM is wrong ({why}), so its MAC address and "
        "its settings may be wrong too; the kernel's driver refuses such a card as well. "
        f"{advice}Write the EEPROM again with the tool of the card's maker, or use another card"
    )
