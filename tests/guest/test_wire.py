"""`ringline lab --loss --delay --rate` on a kernel that has netem, whatever this one has."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from .booted import booted
from .machine import Guest

PROOF = os.environ.get("RINGLINE_PROOF") == "1"
TESTS = "tests/e2e/test_lab_wire.py"

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not PROOF, reason="needs RINGLINE_PROOF=1: it takes minutes"),
]


@pytest.fixture(scope="module")
def guest() -> Iterator[Guest]:
    with booted(lambda: Guest(modules=["sch_netem"])) as made:
        yield made


def test_the_wire_loses_delays_and_slows_down(guest: Guest) -> None:
    """All these tests pass in a guest; that of a kernel without netem is skipped."""
    guest.checked("ip link set lo up")
    said = guest.checked(f"python -m pytest -q -rs -p no:cacheprovider {TESTS}", deadline=1500)
    assert "3 passed, 1 skipped" in said, said
    assert "needs a kernel without netem" in said, said
