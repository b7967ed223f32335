"""A fake 82599: registers that keep what is written, descriptors that the test fills.

The test decides what the card does, descriptor by descriptor. The port is the real one, with its
initialisation; the fake uses only its registers and descriptor rings.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from ringline.pipeline._pipeline import ffi
from ringline.pipeline.configuration.deadlines import PortLimits
from ringline.pipeline.ports.ixgbe.port import IxgbePort

from .port_harness import PortHarness

DD, EOP, VP, L4I, IPCS = 1 << 0, 1 << 1, 1 << 3, 1 << 5, 1 << 6
RXE, L4E, IPE = 1 << 29, 1 << 30, 1 << 31
RS, VLE, TX_DD = 1 << 27, 1 << 30, 1 << 32
RDBAL, RDT, TDBAL, TDT = 0x1000, 0x1018, 0x6000, 0x6018
UNTOUCHED = 0xDEAD  # written to a tail; it stays when no doorbell is rung

CTRL, STATUS, EEC, RDRXCTL, LINKS, SECRXSTAT = 0, 8, 0x10010, 0x2F00, 0x42A4, 0x8D04


class FakeRegisters:
    """The BAR. Resets end at once, and every bit that the driver waits for is set."""

    read_clears = False

    def __init__(self) -> None:
        self.words = ffi.new("uint32_t[]", 0x20000 // 4)
        for address, value in (
            (EEC, 1 << 9),
            (RDRXCTL, 1 << 3),
            (LINKS, 1 << 30 | 3 << 28),
            (SECRXSTAT, 1),
        ):
            self.words[address // 4] = value

    def read32(self, address: int) -> int:
        return int(self.words[address // 4])

    def write32(self, address: int, value: int) -> None:
        self.words[address // 4] = value & ~(1 << 26 | 1 << 3) if address == CTRL else value

    def pointer(self, address: int) -> Any:
        return self.words + address // 4

    def relax(self) -> None:
        pass

    def close(self) -> None:
        pass


class FakePort(IxgbePort):
    """The real port over `FakeRegisters`."""

    limits = PortLimits(register=0.05, link=0.05, sent=0.05)

    def _map_registers(self) -> FakeRegisters:
        self.access = FakeRegisters()
        self.bus_mastering = False
        return self.access

    def _set_bus_mastering(self, on: bool) -> None:
        self.bus_mastering = on


@dataclass(frozen=True)
class Sent:
    """A frame that the card took from a TX descriptor; `tag` is the VLAN tag to insert."""

    frame: bytes
    tag: int | None


class FakeCard(PortHarness):
    """The card's end of the descriptor rings."""

    port_class = FakePort
    port: FakePort

    def start(self) -> FakeCard:
        self.rx_head = [0] * 16
        self.tx_head = [0] * 16
        self.context: list[int | None] = [None] * 16
        return super().start()

    def words(self, queue: int, index: int, base: int = RDBAL) -> Any:
        """Both words of a descriptor, as cdata."""
        low, high = (self.port.access.read32(base + queue * 0x40 + 4 * i) for i in (0, 1))
        offset = (high << 32 | low) - self.rings_bus
        address = self.descriptors.segment.address + offset + 16 * index
        return ffi.cast("uint64_t *", address)

    def tail(self, queue: int = 0, base: int = RDT) -> int:
        return self.port.access.read32(base + queue * 0x40)

    def offset(self, bus: int) -> int:
        """Offset in packet memory of a device address."""
        shift = self.addresses.page_shift
        for page, start in enumerate(self.addresses.page_bus):
            if 0 <= bus - start < 1 << shift:
                return (page << shift) + bus - start
        raise AssertionError(f"descriptor with address {bus:#x}, which is not packet memory")

    def reach(self, bus: int, length: int) -> memoryview:
        """The bytes that DMA to `bus` accesses; they must lie in one page."""
        begin, end = self.offset(bus), self.offset(bus + length - 1) + 1
        assert end - begin == length, f"DMA of {length} bytes at {bus:#x} leaves its page"
        return self.packets.segment.memory[begin:end]

    def receive(
        self,
        frame: bytes,
        queue: int = 0,
        *,
        status: int = EOP,
        length: int | None = None,
        low: int = 0,
        tag: int = 0,
    ) -> bool:
        """Write a frame to the next descriptor; False when the driver has offered none."""
        index = self.rx_head[queue]
        if index == self.tail(queue):
            return False
        words = self.words(queue, index)
        assert words[1] == 0, "the second word of the descriptor is not 0"
        self.reach(words[0], len(frame))[:] = frame
        words[0] = low
        length = len(frame) if length is None else length
        words[1] = DD | status | length << 32 | tag << 48
        self.rx_head[queue] = (index + 1) % self.config.rx_descriptors
        return True

    def transmit(self, queue: int = 0, limit: int = 1 << 30) -> list[Sent]:
        """Send at most `limit` descriptors; complete those with RS."""
        sent = []
        while self.tx_head[queue] != self.tail(queue, TDT) and limit > 0:
            limit -= 1
            words = self.words(queue, self.tx_head[queue], TDBAL)
            low, high = words[0], words[1]
            assert high & 1 << 29, "DEXT is clear"
            if high >> 20 & 0xF == 2:
                self.context[queue] = low >> 16 & 0xFFFF
            else:
                assert high >> 20 & 0xF == 3
                assert high & 0x3 << 24 == 0x3 << 24, "EOP and IFCS"
                assert high & 0xFFFF == high >> 46, "DTALEN and PAYLEN differ"
                tag = self.context[queue] if high & VLE else None
                sent.append(Sent(bytes(self.reach(low, high & 0xFFFF)), tag))
            if high & RS:
                words[1] = TX_DD
            self.tx_head[queue] = (self.tx_head[queue] + 1) % self.config.tx_descriptors
        return sent


def number(n: int, length: int = 60) -> bytes:
    """Frame number `n`: its number, repeated."""
    return struct.pack("!I", n) * (length // 4) + bytes(length % 4)
