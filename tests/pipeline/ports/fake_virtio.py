"""A fake virtio-net device: its structures in plain memory, and the device's end of its virtqueues.

The test decides what the device does, element by element. The port is the real one, with its
initialisation. Numbers are those of Virtio 1.2, written here once more.
"""

from __future__ import annotations

import struct
from typing import Any

from ringline.pipeline._pipeline import ffi
from ringline.pipeline.configuration.deadlines import PortLimits
from ringline.pipeline.ports.virtio.capabilities import Structure
from ringline.pipeline.ports.virtio.port import VirtioPort

from .port_harness import PortHarness

COMMON, NOTIFY, DEVICE = 0x000, 0x100, 0x200
STATUS, SELECT, SIZE, ENABLE, NOTIFY_OFF, DESC = 0x14, 0x16, 0x18, 0x1C, 0x1E, 0x20
VERSION_1, EVENT_IDX, CSUM, MAC, LINK = 1 << 32, 1 << 29, 1 << 1, 1 << 5, 1 << 16
CONTROL, RX_MODE, VLAN, RX_EXTRA, MQ = 1 << 17, 1 << 18, 1 << 19, 1 << 20, 1 << 22
MAC_ADDR = 1 << 23
HASH_REPORT, RSS, SPEED = 1 << 57, 1 << 60, 1 << 63
PLAIN = VERSION_1 | CSUM | MAC | LINK | CONTROL | RX_MODE | MAC_ADDR | SPEED
WRITE, NEXT, FEATURES_OK = 2, 1, 8
ADDRESS = bytes.fromhex("525400000001")
UNTOUCHED = 0xDEAD  # in a doorbell: it stays when nobody rings


class FakeDevice:
    """The BAR. Each of `queues` queues has at most `size` descriptors."""

    read_clears = False

    def __init__(self, offered: int = PLAIN, pairs: int = 1, size: int = 64) -> None:
        self.offered, self.accepted, self.agrees = offered, 0, True
        self.control = 2 * (pairs if offered & (MQ | RSS) else 1)
        self.size = [size] * (self.control + bool(offered & CONTROL))
        self.words = ffi.new("uint8_t[]", 0x400)
        self.queue = [bytearray(64) for _ in self.size]  # the registers of each
        self.doorbells: dict[int, int] = {}  # QUEUE_NOTIFY_OFF of a queue, if not its number
        self.resets = 0
        self.commands: list[bytes] = []
        self.answer: int | None = 0  # None: a command never comes back
        self.answered = 1 << 30  # how many commands get an answer; others come back without
        self.bus = 0  # device address of the descriptor segment
        self.memory = 0  # its address here
        self.heads: dict[int, int] = {}
        self.reset_queues()
        network = struct.pack("<6sHHHIBBHI", ADDRESS, 1, pairs, 1500, 10000, 1, 40, 128, 0x1FF)
        ffi.memmove(self.words + DEVICE, network, len(network))
        for number in range(len(self.size)):
            self.ring_seen(number)

    def reset_queues(self) -> None:
        for number, registers in enumerate(self.queue):
            registers[:] = bytes(64)
            place = self.doorbells.get(number, number)
            struct.pack_into("<HHHH", registers, SIZE, self.size[number], 0, 0, place)
        self.heads = {}

    def _bytes(self, address: int) -> tuple[Any, int]:
        if SELECT < address < 0x40:
            number = self.words[SELECT] | self.words[SELECT + 1] << 8
            return self.queue[number] if number < len(self.queue) else bytearray(64), address
        return self.words, address

    def read(self, address: int, size: int) -> int:
        if address == 0x04:
            return self.offered >> 32 * self.words[0] & 0xFFFFFFFF
        memory, at = self._bytes(address)
        return int.from_bytes(bytes(memory[at : at + size]), "little")

    def write(self, address: int, size: int, value: int) -> None:
        if address == STATUS and value == 0:
            self.resets += 1
            self.reset_queues()
        if address == STATUS and not self.agrees:
            value &= ~FEATURES_OK
        if address == 0x0C:
            shift = 32 * self.words[8]
            self.accepted = self.accepted & ~(0xFFFFFFFF << shift) | value << shift
            return
        memory, at = self._bytes(address)
        memory[at : at + size] = list(value.to_bytes(size, "little"))

    def read32(self, address: int) -> int:
        return self.read(address, 4)

    def write32(self, address: int, value: int) -> None:
        self.write(address, 4, value)

    def pointer(self, address: int) -> Any:
        return ffi.cast("uint32_t *", self.words + address)

    def doorbell(self, number: int) -> Any:
        return ffi.cast("uint16_t *", self.words + NOTIFY + 4 * number)

    def ring_seen(self, number: int) -> None:
        self.doorbell(number)[0] = UNTOUCHED

    def relax(self) -> None:
        """The device works while the driver waits: it answers commands."""
        if self.answer is None or self.control >= len(self.size):
            return
        while (chain := self.take(self.control)) is not None:
            head, (text, answer) = chain
            self.commands.append(bytes(ffi.buffer(self.at(text[0]), text[1])))
            if len(self.commands) <= self.answered:
                self.at(answer[0])[0] = self.answer
            self.use(self.control, head, 1)

    def close(self) -> None:
        pass

    # -- the device's end of a queue ---------------------------------------------------------

    def at(self, bus: int) -> Any:
        return ffi.cast("uint8_t *", self.memory + bus - self.bus)

    def parts(self, number: int) -> tuple[Any, Any, Any, int]:
        """The descriptors, the available ring and the used ring, and the size of a queue."""
        registers = self.queue[number]
        (size,) = struct.unpack_from("<H", registers, SIZE)
        places = struct.unpack_from("<QQQ", registers, DESC)
        kinds = ("descriptor", "available", "used")
        made = [
            ffi.cast(f"struct rl_virtq_{kind} *", self.at(place))
            for kind, place in zip(kinds, places, strict=True)
        ]
        return made[0], made[1], made[2], size

    def take(self, number: int) -> tuple[int, list[tuple[int, int, int]]] | None:
        """The next available chain: its head, and (address, length, flags) of each descriptor."""
        descriptors, available, _, size = self.parts(number)
        if not size or (seen := self.heads.get(number, 0)) == available.index:
            return None
        self.heads[number] = (seen + 1) & 0xFFFF
        head = at = available.ring[seen % size]
        chain = []
        while True:
            one = descriptors[at]
            chain.append((one.address, one.length, one.flags))
            if not one.flags & NEXT:
                return head, chain
            at = one.next

    def use(self, number: int, head: int, length: int) -> None:
        _, _, used, size = self.parts(number)
        used.ring[used.index % size] = (head, length)
        used.index = (used.index + 1) & 0xFFFF

    def wants(self, number: int, event: int) -> None:
        """With VIRTIO_F_EVENT_IDX: a notification when entry `event` is available."""
        _, _, used, size = self.parts(number)
        ffi.cast("uint16_t *", ffi.addressof(used.ring, size))[0] = event


class FakePort(VirtioPort):
    """The real port over `FakeDevice`."""

    limits = PortLimits(register=0.05, link=0.05, sent=0.05)
    device: FakeDevice

    def _map_registers(self) -> tuple[FakeDevice, dict[int, Structure]]:
        self.bus_mastering = False
        places = {1: COMMON, 2: NOTIFY, 4: DEVICE}
        return self.device, {kind: Structure(4, at, 256, 4) for kind, at in places.items()}

    def _set_bus_mastering(self, on: bool) -> None:
        self.bus_mastering = on


class FakeVirtio(PortHarness):
    """The device's end. `device` is made before; other arguments are those of `PortHarness`."""

    port: FakePort

    def __init__(self, instance: str, device: FakeDevice, **config: Any) -> None:
        self.device = device
        self.port_class = type("Port", (FakePort,), {"device": device})
        super().__init__(instance, **config)
        device.bus, device.memory = self.rings_bus, self.descriptors.segment.address

    def packet_at(self, bus: int) -> Any:
        return self.packets.segment.memory[bus - self.addresses.page_bus[0] :]

    def read(self, bus: int, length: int) -> bytes:
        """What the device reads there: in packet memory, or in descriptor memory."""
        rings = range(self.rings_bus, self.rings_bus + self.descriptors.segment.size)
        begin = self.device.at(bus) if bus in rings else ffi.from_buffer(self.packet_at(bus))
        return bytes(ffi.buffer(begin, length))

    def receive(
        self, frame: bytes, queue: int = 0, *, header: bytes = b"", written: int = 0
    ) -> bool:
        """Write a frame to the next buffer; False when the driver has offered none."""
        found = self.device.take(2 * queue)
        if found is None:
            return False
        head, [(bus, room, flags)] = found
        assert flags == WRITE
        text = header.ljust(self.port._c.header, b"\0") + frame
        assert len(text) <= room
        self.packet_at(bus)[: len(text)] = text
        self.device.use(2 * queue, head, written or len(text))
        return True

    def transmit(self, queue: int = 0, limit: int = 1 << 30) -> list[tuple[bytes, bytes]]:
        """Send what the driver has posted: (header, frame) of each."""
        sent = []
        while limit > 0 and (found := self.device.take(2 * queue + 1)) is not None:
            head, chain = found
            assert not any(flags & WRITE for _, _, flags in chain)
            text = b"".join(self.read(bus, length) for bus, length, _ in chain)
            sent.append((text[: self.port._c.header], text[self.port._c.header :]))
            self.device.use(2 * queue + 1, head, 0)
            limit -= 1
        return sent
