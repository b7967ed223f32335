"""A virtio-net device by its structures, with the operations that more than one place needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ringline.pipeline._pipeline import ffi, lib
from ringline.pipeline.configuration import deadlines
from ringline.pipeline.configuration.config import PortConfig
from ringline.pipeline.ports.port import Link
from ringline.pipeline.ports.registers import Definition, RegisterAccess, Registers
from ringline.pipeline.ports.virtio import registers as r
from ringline.pipeline.ports.virtio.capabilities import Structure
from ringline.pipeline.ports.virtqueue.requests import RequestQueue
from ringline.shm.errors import EnvironmentLacks, HardwareError

QUEUE_MIN = 64  # descriptors: a burst
SPEED_MAX = 0x7FFFFFFF


@dataclass(frozen=True)
class Memory:
    """Zeroed memory for one queue of at most `descriptors`, at `address` here and at `bus` for the
    device."""

    address: int
    bus: int
    descriptors: int


class Card(Registers):
    """The registers of one device. Its common configuration are the attributes, `network` has the
    registers of a network device. `queues` are the numbers, rings and places of all queues that the
    driver uses."""

    def __init__(
        self,
        access: RegisterAccess,
        found: Mapping[int, Structure],
        config: PortConfig,
        c: Any,
        register_seconds: float,
    ) -> None:
        name = f"port {config.name} ({config.device})"
        super().__init__(access, _at(r.COMMON, found[r.COMMON_CFG]), name, register_seconds)
        self.network = Registers(access, _at(r.NETWORK, found[r.DEVICE_CFG]), name)
        self.config, self.c = config, c
        self.features = 0
        self.control: RequestQueue | None = None
        self.rx: Sequence[Memory] = ()
        self.tx: Sequence[Memory] = ()
        self.command_memory: Sequence[Memory] = ()  # of the control queue, and of its commands
        self.bus_mastering: Callable[[bool], None]
        self.translated = False  # an IOMMU translates the addresses that the device uses
        self._access, self._notify = access, found[r.NOTIFY_CFG]

    def has(self, feature: str) -> bool:
        """Whether a feature is negotiated."""
        return bool(self.features >> r.FEATURES[feature] & 1)

    def has_several_queues(self) -> bool:
        """Whether the port may use several pairs of queues."""
        return self.has("MQ") or self.has("RSS")

    def place(self, number: int, ring: Any, memory: Memory, least: int = QUEUE_MIN) -> Any:
        """[4.1.5.1.3] Give the device a queue in `memory`, of at most as many descriptors as fit
        there. Returns its doorbell. Raises EnvironmentLacks for a queue with fewer than `least`,
        HardwareError for a doorbell that is not among those of the device [4.1.4.4]."""
        self.QUEUE_SELECT.write(number)
        most = self.QUEUE_SIZE.read()
        size = min(memory.descriptors, 1 << most.bit_length() >> 1)
        if size < least:
            raise EnvironmentLacks(
                f"{self.name}: queue {number} of the device has {most} descriptors, and the driver "
                f"needs {least}; give the device longer queues (QEMU: rx_queue_size, tx_queue_size)"
            )
        begin = ffi.cast("uint8_t *", memory.address)
        ffi.memmove(begin, bytes(lib.rl_virtq_bytes(size)), lib.rl_virtq_bytes(size))
        lib.rl_virtq_place(ring, begin, size, self.has("RING_EVENT_IDX"))
        self.QUEUE_SIZE.write(size)
        for register, part in (
            (self.QUEUE_DESC, ring.descriptors),
            (self.QUEUE_DRIVER, ring.available),
            (self.QUEUE_DEVICE, ring.used),
        ):
            register.write(memory.bus + int(ffi.cast("uintptr_t", part)) - memory.address)
        notify, at = self._notify, self.QUEUE_NOTIFY_OFF.read() * self._notify.multiplier
        doorbell = notify.offset + at
        if at + 2 > notify.length or doorbell % 2:
            raise HardwareError(
                f"{self.name}: the device says that the doorbell of queue {number} is at byte {at} "
                f"of its structure of doorbells, which has {notify.length} bytes at offset "
                f"{notify.offset}; a doorbell is 2 bytes at an even offset, so the device is broken"
            )
        self.QUEUE_ENABLE.write(1)
        return ffi.cast("volatile uint16_t *", self._access.pointer(doorbell))

    def command(self, command: tuple[int, int], data: bytes, what: str) -> None:
        """[5.1.6.5] Send a command on the control queue. `what` says in a few words what the device
        is to do. Raises HardwareError when it refuses that, or does not answer in time."""
        assert self.control is not None
        seconds = min(deadlines.CONTROL, self.wait_seconds)
        answer = self.control.ask(bytes(command) + data, seconds, self.relax)
        if answer != r.OK:
            silent = f"has not answered for {seconds:.2g} s"
            said = silent if answer is None else f"answers {answer}"
            raise HardwareError(
                f"{self.name}: the device is told to {what}, and {said} (command {command[0]}."
                f"{command[1]} of its control queue)"
            )

    def reset(self) -> None:
        """[2.4] Reset the device: it does no DMA when its status reads 0."""
        self.DEVICE_STATUS.write(0)
        self.DEVICE_STATUS.wait("ALL", 0, self.wait_seconds)

    def link(self) -> Link:
        """The state of the link now; without the feature it is always up."""
        up = not self.has("STATUS") or bool(self.network.STATUS.field("LINK_UP"))
        speed = self.network.SPEED.read() if up and self.has("SPEED_DUPLEX") else 0
        return Link(up, speed if speed <= SPEED_MAX else 0)

    @property
    def mac(self) -> str:
        """The MAC address that the device receives for, as `02:00:00:00:00:01`; "" for one without
        an address. One that it was told does not show in its registers [5.1.6.5.2]."""
        if self.config.mac or not self.has("MAC"):
            return self.config.mac or ""
        return bytes(each.read() for each in self.network.MAC).hex(":")


def _at(table: dict[str, Definition], place: Structure) -> dict[str, Definition]:
    """The registers of a table at their offsets in the BAR."""
    return {name: replace(it, address=it.address + place.offset) for name, it in table.items()}
