"""uio_pci_generic: the kernel hands a card to a process without an IOMMU.

Registers are mapped through sysfs, as without a driver, and addresses are physical. The driver adds
one thing (`release` in the kernel's drivers/uio/uio_pci_generic.c): when the last descriptor of its
device file is closed, also by the end of the process, it switches bus mastering off. It needs no
IOMMU, and keeps the card from nothing.

Guarantees (tests in tests/guest/test_uio.py):
 - bus mastering is off after the process was killed (test_a_killed_driver_leaves_no_dma)
 - frames pass whole and in order (test_frames_pass_both_ways_over_uio)
"""

from __future__ import annotations

import os
from pathlib import Path

from ringline.pipeline.ports.pci.sysfs import PciDevice, how_to_bind
from ringline.shm.errors import EnvironmentLacks, reason_of

DRIVER = "uio_pci_generic"
NODES = Path("/dev")


def hold(device: PciDevice) -> int:
    """The descriptor of the device file of a card that DRIVER has; the kernel stops the card when
    it is closed. Raises EnvironmentLacks."""
    names = sorted(path.name for path in (device.folder / "uio").glob("uio*"))
    if not names:
        raise EnvironmentLacks(
            f"{device.folder}/uio has no device: bind the card again "
            f"({how_to_bind(device.address, DRIVER)})"
        )
    path = NODES / names[0]
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        remedy = "; run as root" if isinstance(error, PermissionError) else ""
        raise EnvironmentLacks(f"cannot open {path}: {reason_of(error)}{remedy}") from None
