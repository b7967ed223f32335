"""Where a virtio device on PCI has its structures: capabilities of configuration space (Virtio 1.2,
section 4.1.4). A legacy device has none."""

from __future__ import annotations

from dataclasses import dataclass

from ringline.pipeline.ports.pci import capabilities as pci
from ringline.pipeline.ports.pci.sysfs import ReadConfig
from ringline.pipeline.ports.virtio import registers as r
from ringline.shm.errors import EnvironmentLacks


@dataclass(frozen=True)
class Structure:
    """`length` bytes at `offset` of a BAR; `multiplier` is that of doorbells."""

    bar: int
    offset: int
    length: int
    multiplier: int


def structures(read: ReadConfig) -> dict[int, Structure]:
    """The first structure of each type that lies in memory, by type."""
    found: dict[int, Structure] = {}
    for at in pci.capabilities(read, pci.VENDOR):
        if pci.is_memory(read, bar := read(at + 4, 1)):
            numbers = (read(at + 8, 4), read(at + 12, 4), read(at + 16, 4))
            found.setdefault(read(at + 3, 1), Structure(bar, *numbers))
    return found


def the_bar(found: dict[int, Structure], card: str) -> tuple[int, int]:
    """The number of the BAR that has the structures, and the size that it must have. Raises
    EnvironmentLacks for a device without them; `card` is its name."""
    needed = [found.get(kind) for kind in (r.COMMON_CFG, r.NOTIFY_CFG, r.DEVICE_CFG)]
    present = [each for each in needed if each is not None]
    if len(present) < len(needed):
        raise EnvironmentLacks(
            f"{card}: the device has no structures of Virtio 1.0 or later in memory (it is a "
            "legacy device); give it to the guest as a modern one (QEMU: disable-legacy=on,"
            "disable-modern=off)"
        )
    sizes = [max(each.end for each in table.values()) for table in (r.COMMON, r.NETWORK)]
    common, notify, network = present
    bars = {each.bar for each in present}
    if len(bars) > 1:
        raise EnvironmentLacks(
            f"{card}: the structures of the device lie in several BARs ({sorted(bars)}), and the "
            "driver maps one; use the kernel's driver of the card, with xdp:"
        )
    ends = (common.offset + sizes[0], network.offset + sizes[1], notify.offset + notify.length)
    return common.bar, max(ends)
