"""What VFIO needs, in a guest: cards behind the IOMMU that QEMU emulates."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .booted import booted
from .cards import card
from .machine import Guest

ADDRESS = "0000:00:10.0"

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def guest() -> Iterator[Guest]:
    with booted(lambda: Guest([card("e1000e")], iommu=True)) as made:
        yield made


def test_a_card_of_a_guest_has_an_iommu_group_of_its_own(guest: Guest) -> None:
    group = f"/sys/bus/pci/devices/{ADDRESS}/iommu_group"
    assert guest.checked(f"ls {group}/devices").split() == [ADDRESS]
    assert guest.checked(f"cat {group}/type") in ("DMA\n", "DMA-FQ\n")
    # Only the addresses of interrupts are reserved: a card may use all others.
    regions = guest.checked(f"cat {group}/reserved_regions").splitlines()
    assert [line.split()[2] for line in regions] == ["msi"]
    assert guest.checked("ls /dev/vfio/vfio").strip() == "/dev/vfio/vfio"
