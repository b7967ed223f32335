"""The causes of a refused reference: the numbers, names and words of C and Python agree."""

from __future__ import annotations

import pytest

from ringline.shm._shm import lib
from ringline.shm.frames import data_kib, frame_max, units_for
from ringline.shm.refusals import CAUSES, cause_of, words


def test_every_cause_has_a_number_and_words() -> None:
    for number, cause in enumerate(CAUSES):
        assert getattr(lib, f"RL_REFUSED_{cause.upper()}") == number
        assert "card" in words(cause) or cause not in ("too_long", "too_short")
    assert "longer than 1518 bytes" in words("too_long")
    assert "longer than 9018 bytes" in words("too_long", 9018)


@pytest.mark.parametrize(
    ("offset", "length", "flags", "cause"),
    [
        (192, 17, 0, None),
        (192, 16, 0, "too_short"),
        (192, 16, lib.RL_FLAG_VLAN, "too_short"),
        (192, 1518, 0, None),
        (192, 1514, lib.RL_FLAG_VLAN, None),
        (192, 1515, lib.RL_FLAG_VLAN, "too_long"),
        (192, 1519, 0, "too_long"),
        (2240 - 60, 60, 0, None),
        (2240 - 59, 60, 0, "outside_buffer"),
    ],
)
def test_the_cause_of_a_frame(offset: int, length: int, flags: int, cause: str | None) -> None:
    assert cause_of(offset, length, flags) == cause


@pytest.mark.parametrize(
    ("offset", "length", "flags", "cause"),
    [
        (192, 9018, 0, None),
        (192, 9019, 0, "too_long"),
        (192, 9014, lib.RL_FLAG_VLAN, None),
        (192, 9015, lib.RL_FLAG_VLAN, "too_long"),
        (5 * 2240 - 9018, 9018, 0, None),
        (5 * 2240 - 9017, 9018, 0, "outside_buffer"),
    ],
)
def test_the_cause_of_a_jumbo_frame(
    offset: int, length: int, flags: int, cause: str | None
) -> None:
    assert cause_of(offset, length, flags, frame_max(9000)) == cause


@pytest.mark.parametrize(
    ("mtu", "longest", "kib", "units"),
    [
        (1500, 1518, 2, 1),
        (2026, 2044, 2, 1),
        (2027, 2045, 3, 2),
        (4074, 4092, 4, 2),
        (4075, 4093, 5, 3),
        (9000, 9018, 9, 5),
        (9216, 9234, 10, 5),
    ],
)
def test_a_buffer_has_room_for_the_frame_its_crc_and_whole_kib(
    mtu: int, longest: int, kib: int, units: int
) -> None:
    assert (frame_max(mtu), data_kib(longest), units_for(longest)) == (longest, kib, units)
    assert lib.RL_BUFFER_HEADROOM + 1024 * kib <= units * lib.RL_BUFFER_STRIDE
