"""The port of a virtio-net device: found on PCI, initialised step by step, driven by C bursts.

Guarantees (tests in tests/pipeline/ports/test_virtio_port.py):
 - a descriptor that the device returns is used only if the device has it; one that it has not fails
   the port by name (test_a_device_that_returns_what_it_does_not_have_fails,
   test_a_device_that_returns_a_buffer_twice_in_one_burst_fails,
   test_a_used_index_that_jumps_fails_the_port); from that moment on its packets are dropped, so
   they hold up no others
 - a burst writes to the doorbell at most once, and only when the device wants that; an idle queue
   never does (test_a_burst_rings_once_and_only_when_the_device_wants_that,
   tests/guest/test_virtio.py: test_a_burst_notifies_the_device_once_and_idle_queues_never)
 - frames pass whole and in order, through VFIO
   (tests/guest/test_virtio.py: test_frames_pass_both_ways_over_vfio)
 - with RSS, queues and hashes are those that software computes
   (tests/guest/test_virtio_queues.py: test_hashes_and_queues_are_those_of_the_software)
 - what a worker writes asks the device for nothing: the header of a sent frame is not in packet
   memory (test_a_worker_cannot_write_the_header_of_a_frame_that_is_sent)
 - a doorbell lies among those of the device
   (tests/pipeline/ports/test_virtio_start.py:
   test_a_doorbell_outside_of_its_structure_or_at_an_odd_offset_is_refused)
 - a device that cannot be used is refused with the remedy
   (test_what_the_device_lacks_is_a_sentence,
   tests/guest/test_virtio.py:
   test_a_device_that_cannot_be_used_is_refused_with_the_remedy)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ringline.pipeline._pipeline import ffi, lib
from ringline.pipeline.configuration.config import PortConfig
from ringline.pipeline.ports.pci.card_port import CardPort
from ringline.pipeline.ports.pci.sysfs import PciDevice, ReadConfig
from ringline.pipeline.ports.registers import RegisterAccess
from ringline.pipeline.ports.virtio.capabilities import Structure, structures, the_bar
from ringline.pipeline.ports.virtio.card import Card, Memory
from ringline.pipeline.ports.virtio.initialisation import HEADER_WITH_HASH, STEPS
from ringline.pipeline.ports.virtqueue import requests
from ringline.shm.errors import ConfigurationError

if TYPE_CHECKING:
    from ringline.shm.packets import DescriptorMemory, DeviceAddresses

MACS_MAX = 127  # as many as an 82599 has room for
GONE = 0xFF  # what a read of 8 bits gives that no device answers


class VirtioPort(CardPort):
    """One virtio-net device; see `CardPort`. The device string names a PCI address below `sysfs`.

    A queue has as many descriptors as the configuration says, or
    as the device has when these are fewer; a packet to send takes two.
    """

    steps = STEPS
    bursts = ("rl_virtio_rx_burst", "rl_virtio_tx_burst", "rl_virtio_reclaim")
    struct, scan_rings = "struct rl_virtio", lib.rl_virtio_scan
    return_all = lib.rl_virtio_return_all

    def __init__(self, config: PortConfig, index: int, sysfs: Path) -> None:
        if len(config.more_macs) > MACS_MAX:
            raise ConfigurationError(
                f"port.{config.name}.more_macs: {len(config.more_macs)} addresses, and the driver "
                f"of virtio-net gives a device at most {MACS_MAX}"
            )
        super().__init__(config, index, sysfs)
        self._c.strip = config.vlan_strip
        for queue in self._queues():
            queue.broken = 1  # it cannot be used before `start`
            ffi.buffer(queue.buffers)[:] = b"\xff" * ffi.sizeof(queue.buffers)

    def _queues(self) -> list[Any]:
        pairs = range(self._config.queues)
        return [queues[q] for queues in self._rings for q in pairs]

    def _map_registers(self) -> tuple[RegisterAccess, dict[int, Structure]]:
        """Take the device for this process alone, and map its registers."""
        device = PciDevice(self._config.device.removeprefix("pci:"), self._sysfs)
        found: dict[int, Structure] = {}

        def find_bar(read: ReadConfig) -> tuple[int, int]:
            found.update(structures(read))
            return the_bar(found, f"port {self.name} ({self._config.device})")

        return self._taken.take(device, 0, self._config, self.container, find_bar), found

    # -- life cycle ------------------------------------------------------------------------

    def open(self, memory: Any, descriptors: DescriptorMemory, addresses: DeviceAddresses) -> None:
        self.c_port.memory = memory
        self._access, found = self._map_registers()
        card = Card(self._access, found, self._config, self._c, self.limits.register)

        def place(count: int, size: int) -> Memory:
            address, offset = descriptors.allocate(size)
            return Memory(address, addresses.of(offset), count)

        def queue(count: int) -> Memory:
            return place(count, lib.rl_virtq_bytes(count))

        pairs = range(self._config.queues)
        card.rx = [queue(self._config.rx_descriptors) for _ in pairs]
        card.tx = [queue(self._config.tx_descriptors) for _ in pairs]
        self._c.no_offload = place(0, HEADER_WITH_HASH).bus
        card.command_memory = queue(requests.DESCRIPTORS), place(0, requests.PLACE_BYTES)
        card.bus_mastering = self._set_bus_mastering
        card.translated = self._taken.translated
        self._card, self._note = card, descriptors.segment

    def _prepare(self) -> None:
        self._taken.mask_interrupt_line()

    def stop_receiving(self) -> None:
        """The device gets no more buffers: it can still receive as many frames as it has some."""
        self._c.draining = 1

    def _stop_taking(self) -> None:
        self.stop_receiving()

    def _stop_card(self) -> None:
        self._card.reset()

    def _why_it_fails(self) -> str:
        why, status = self._taken.wanted_back(), self._card.DEVICE_STATUS
        if not why and status.read() == GONE:
            why = "it does not answer any more; was it removed?"
        if not why and status.field("NEEDS_RESET"):
            why = "it says that something is wrong with it (DEVICE_NEEDS_RESET)"
            why += f"; {self._taken.who_stops_it()}" if self._taken.real else ""
        for queue in self._queues():
            if not why and queue.broken:
                why = f"it has returned on queue {queue.number} what it did not have"
        return why

    def _use_no_more(self) -> None:
        for queue in self._queues():
            queue.broken = 1

    # -- state and counters ------------------------------------------------------------------

    def statistics(self) -> dict[str, int]:
        pairs = range(self._config.queues)
        return {
            "rx_checksums_completed": sum(self._c.rx[q].completed for q in pairs),
            **{f"rx_queue{q}_doorbells": self._c.rx[q].doorbells for q in pairs},
            **{f"tx_queue{q}_doorbells": self._c.tx[q].doorbells for q in pairs},
        }


def create(config: PortConfig, index: int, sysfs: Path) -> VirtioPort:
    """The port for a device on PCI."""
    return VirtioPort(config, index, sysfs)
