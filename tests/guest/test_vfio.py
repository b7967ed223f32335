"""Cards that a guest gives to ringline through VFIO, behind the IOMMU that QEMU emulates."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .cards import card
from .kernel import Missing
from .machine import Guest

ADDRESS = "0000:00:10.0"

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def guest() -> Iterator[Guest]:
    try:
        made = Guest([card("e1000e")], iommu=True, hugepages=32)
    except Missing as error:
        pytest.skip(str(error))
    with made:
        yield made


def test_a_card_of_a_guest_has_an_iommu_group_of_its_own(guest: Guest) -> None:
    group = f"/sys/bus/pci/devices/{ADDRESS}/iommu_group"
    assert guest.checked(f"ls {group}/devices").split() == [ADDRESS]
    assert guest.checked(f"cat {group}/type") in ("DMA\n", "DMA-FQ\n")
    assert "direct" not in guest.checked(f"cat {group}/reserved_regions")
    assert guest.checked("ls /dev/vfio/vfio").strip() == "/dev/vfio/vfio"
