"""IOMMU groups: the IOMMU cannot tell their devices apart, so one process gets all of them.

What is in /sys/bus/pci/devices/ADDRESS/iommu_group is described in the kernel's
Documentation/ABI/testing/sysfs-kernel-iommu_groups and driver-api/vfio.rst.
"""

from __future__ import annotations

from ringline.pipeline.ports.pci.sysfs import HANDING_OVER, PciDevice, how_to_bind
from ringline.shm.errors import EnvironmentLacks

# Drivers of other devices in a group that vfio.rst allows: they do no DMA of their own.
_HARMLESS = ("vfio-pci", "pci-stub", "pcieport")


def group_of(device: PciDevice) -> str:
    """The number of its group; "" without an IOMMU."""
    link = device.folder / "iommu_group"
    return link.resolve().name if link.exists() else ""


def translates(device: PciDevice) -> bool:
    """Whether an IOMMU translates the addresses of the device. With `iommu=pt`, a group has the
    type identity, and addresses are physical."""
    if not group_of(device):
        return False
    try:
        kind = (device.folder / "iommu_group" / "type").read_text().strip()
    except OSError:  # Linux before 5.11
        return True
    return kind != "identity"


def others(device: PciDevice) -> list[PciDevice]:
    """The other devices of its group."""
    folder = device.folder / "iommu_group" / "devices"
    addresses = sorted(path.name for path in folder.glob("*"))
    return [PciDevice(name, device.root) for name in addresses if name != device.address]


def check_viable(device: PciDevice) -> None:
    """Raise EnvironmentLacks unless the group is free for one process: no kernel driver uses
    another device in it."""
    group = group_of(device)
    if not group:
        raise EnvironmentLacks(f"PCI device {device.address} has no IOMMU group: {remedy(device)}")
    for other in others(device):
        if other.driver and other.driver not in _HARMLESS:
            names = ", ".join(each.name for each in other.interfaces)
            raise EnvironmentLacks(
                f"PCI device {device.address} shares the IOMMU group {group} with {other.address}, "
                f"which the kernel driver {other.driver} uses{f' ({names})' if names else ''}: one "
                f"program must have both; give that to VFIO too ({how_to_bind(other.address)}), "
                "or put the card into another slot"
            )


def remedy(device: PciDevice) -> str:
    """What to do so that ringline can use the device safely."""
    physical = 'or set dma = "physical"'
    if group_of(device):
        return f"bind it to VFIO ({how_to_bind(device.address)}), {physical}"
    if device.driver not in HANDING_OVER:
        command = how_to_bind(device.address, "uio_pci_generic")
        physical += f" and give the card to uio_pci_generic ({command})"
    return (
        "switch on the IOMMU in the firmware (VT-d or AMD-Vi) and with intel_iommu=on in the "
        f"kernel's command line, {physical}"
    )
