"""The causes of a refused reference: the numbers, names and words of C and Python agree."""

from __future__ import annotations

import pytest

from ringline.shm._shm import lib
from ringline.shm.refusals import CAUSES, WORDS, cause_of


def test_every_cause_has_a_number_and_words() -> None:
    assert set(WORDS) == set(CAUSES)
    for number, cause in enumerate(CAUSES):
        assert getattr(lib, f"RL_REFUSED_{cause.upper()}") == number


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
