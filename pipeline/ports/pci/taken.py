"""A card that the driver process has taken: through VFIO, or through sysfs.

The choice follows the driver that is bound to the card, and `dma` of the port:

 - vfio-pci: the IOMMU lets the card reach the two DMA segments and nothing else. When the process
   ends, however that happens, the kernel stops the card before it frees memory.
 - uio_pci_generic, or none: sysfs, with physical addresses. The card can then write to all memory
   of the machine, so the port must have `dma = "physical"`. With uio_pci_generic, the kernel stops
   the card when the process ends.
 - a model below RINGLINE_SYSFS: its files, with either kind of address

Guarantees (tests in tests/guest/test_vfio.py):
 - frames pass whole and in order, through VFIO and with physical addresses
   (tests/guest/test_vfio_ixgbe.py: test_frames_pass_both_ways_over_vfio,
   test_frames_pass_both_ways_with_physical_addresses)
 - physical addresses are never used unless the port asks for them, and never behind an IOMMU that
   stops them (test_what_vfio_lacks_is_named)
 - a card that is removed while it is used fails by name, through VFIO and through sysfs, and the
   other ports go on
   (tests/guest/test_pulled.py: test_a_card_that_is_unplugged_fails_by_name_and_the_rest_runs)
 - when the driver is killed, alone or with its supervisor, no card writes to memory that is free
   then (tests/guest/test_killed.py: test_a_killed_driver_leaves_no_dma_into_freed_memory,
   test_a_killed_run_leaves_no_dma_into_freed_memory)
"""

from __future__ import annotations

import os

from ringline.pipeline.configuration.config import PortConfig
from ringline.pipeline.ports.pci import groups, uio
from ringline.pipeline.ports.pci.sysfs import FindBar, MappedBar, PciDevice, how_to_bind
from ringline.pipeline.ports.pci.vfio import Container, VfioDevice
from ringline.pipeline.ports.registers import RegisterAccess
from ringline.shm.errors import EnvironmentLacks
from ringline.shm.segments import Segment


def check_access(device: PciDevice, config: PortConfig) -> None:
    """Raise EnvironmentLacks when the card is in use, or cannot be reached in the way that the
    port asks for. Nothing is opened."""
    device.check_unused()
    if not device.real:
        return
    where = f"port.{config.name}: PCI device {device.address}"
    if config.dma_mode == "physical":
        if groups.translates(device):
            raise EnvironmentLacks(
                f"{where} is behind an IOMMU, which stops physical addresses: remove "
                f'dma = "physical", and use VFIO ({how_to_bind(device.address)})'
            )
        if device.driver == "vfio-pci":
            raise EnvironmentLacks(
                f"{where} is bound to vfio-pci, which gives no way to physical addresses: remove "
                f'dma = "physical", or give the card back (ringline unbind {device.address})'
            )
        return
    if device.driver != "vfio-pci":
        has = f"has the driver {device.driver}" if device.driver else "has no driver"
        raise EnvironmentLacks(
            f"{where} {has}, so nothing would keep it from the memory of other programs: "
            + groups.remedy(device)
        )
    groups.check_viable(device)


class TakenCard:
    """A card that this process has taken. Before `take`, and for a simulated card, there is none,
    and nothing is written."""

    def __init__(self) -> None:
        self._device: PciDevice | VfioDevice | None = None
        self._note: Segment | None = None
        self._bar: MappedBar | None = None  # of a card that is reached through sysfs

    def take(
        self,
        device: PciDevice,
        min_bytes: int,
        config: PortConfig,
        container: Container | None = None,
        find_bar: FindBar | None = None,
    ) -> RegisterAccess:
        """Take the card for this process alone, and map BAR 0, of at least `min_bytes` bytes, or
        what `find_bar` says. Nothing is written to it. `container` has the memory that it may reach
        through VFIO.

        Raises EnvironmentLacks when the card is in use or cannot be used.
        """
        check_access(device, config)
        if device.real and device.driver == "vfio-pci":
            assert container is not None
            opened = VfioDevice(device, container, min_bytes, find_bar)
            self._device = opened
            return opened.bar
        bar: MappedBar = device.take(min_bytes, find_bar)
        if device.real and device.driver == uio.DRIVER:
            try:
                held = uio.hold(device)
            except EnvironmentLacks:
                bar.close()
                raise
            bar.release_too(lambda: os.close(held))
        self._device, self._bar = device, bar
        return bar

    def write_first(self, note: Segment) -> None:
        """Note in the header of the segment `note` that the card is taken, then write to the card
        for the first time.

        Whatever becomes of this process, the note makes somebody switch off the card's DMA. With
        VFIO the kernel does that itself.
        """
        if isinstance(self._device, VfioDevice):
            self._device.enable_memory()
        if not isinstance(self._device, PciDevice):
            return
        note.note_pci(self._device.address)
        try:
            self._device.enable_memory()
        except EnvironmentLacks:
            note.forget_pci(self._device.address)
            raise
        self._note = note

    def mask_interrupt_line(self) -> None:
        """Keep the card from the interrupt line that it may share."""
        if self._device is not None:
            self._device.mask_interrupt_line()

    @property
    def translated(self) -> bool:
        """Whether the addresses that the card uses are those of an IOMMU."""
        return isinstance(self._device, VfioDevice)

    @property
    def real(self) -> bool:
        """Whether it is a card, and not a model."""
        return isinstance(self._device, VfioDevice) or (
            self._device is not None and self._device.real
        )

    def wanted_back(self) -> str:
        """Why the kernel asks for the card, or has taken it away, or "". Only VFIO asks first."""
        if isinstance(self._device, VfioDevice) and self._device.wanted_back():
            return "the kernel takes it back: it is being removed, or unbound from vfio-pci"
        if self._bar is not None and self._bar.gone():
            return "the machine does not have the card any more: it was removed"
        return ""

    def event(self) -> int:
        """The eventfd that the first MSI-X vector of the card counts up; -1: there is none. Only
        VFIO gives one."""
        return self._device.event() if isinstance(self._device, VfioDevice) else -1

    def who_stops_it(self) -> str:
        """What may keep a card from its memory, and where to look."""
        assert self._device is not None
        if isinstance(self._device, VfioDevice):
            return (
                "the IOMMU may have stopped it at a wrong address; then the kernel's log (dmesg) "
                f"has a line with DMAR or AMD-Vi and {self._device.address[5:]}"
            )
        return "the log of the kernel may say more (dmesg)"

    def set_bus_mastering(self, on: bool) -> None:
        """Allow or forbid DMA. A card without DMA need not be stopped: its note is removed."""
        if isinstance(self._device, VfioDevice):
            self._device.set_bus_mastering(on)
        elif self._device is not None and self._note is not None:
            self._device.set_bus_mastering(on)
            if not on:
                self._note.forget_pci(self._device.address)
