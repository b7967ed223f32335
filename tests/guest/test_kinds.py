"""End-to-end tests that need what the kernel of this machine may lack: netem, VLANs and bonds."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from .booted import booted
from .machine import Guest

PROOF = os.environ.get("RINGLINE_PROOF") == "1"
MODULES = ["sch_netem", "8021q", "bonding", "bridge"]

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not PROOF, reason="needs RINGLINE_PROOF=1: it takes minutes"),
]


@pytest.fixture(scope="module")
def guest() -> Iterator[Guest]:
    with booted(lambda: Guest(modules=MODULES)) as made:
        made.checked("ip link set lo up")
        yield made


def passed(guest: Guest, arguments: str) -> str:
    """What pytest says in the guest; no test may fail."""
    return guest.checked(f"python -m pytest -q -rs -p no:cacheprovider {arguments}", deadline=1500)


def test_a_wire_loses_delays_and_slows_down(guest: Guest) -> None:
    said = passed(guest, "tests/e2e/test_lab_wire.py")
    assert "3 passed, 1 skipped" in said, said
    assert "needs a kernel without netem" in said, said


def test_bonds_bridges_and_vlans(guest: Guest) -> None:
    said = passed(guest, "tests/e2e/test_neighbours.py")
    assert "skipped" not in said, said


def test_what_xdp_refuses(guest: Guest) -> None:
    case = "tests/e2e/test_xdp_refused.py::test_bad_input_gets_one_sentence_and_leaves_nothing"
    said = passed(guest, f"{case} -k 'bond or vlan'")
    assert "6 passed" in said, said
    assert "skipped" not in said, said
