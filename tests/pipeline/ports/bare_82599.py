"""A minimal driver for tests of the device model alone.

It is written from the datasheet and shares no code with the driver of ringline, so that model and
driver are tested independently. Any step of the initialisation can be left out.
"""

from __future__ import annotations

import mmap
import struct
from array import array
from dataclasses import dataclass

from ringline.pipeline._pipeline import ffi
from ringline.pipeline.ports.sim82599.model import Sim82599

DESCRIPTORS_BUS = 0x1000_0000
PACKETS_BUS = 0x1_0000_0000
BUFFER = 4096  # bytes of packet memory per descriptor
RING = 64  # descriptors per ring
POLLS = 20  # polls; more than any handshake takes
MAC = bytes.fromhex("020000000001")
KEY = bytes.fromhex(
    "6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa"
)
ALL_FIELDS = 0x00F3_0000  # MRQC: IPv4, IPv6, TCP and UDP over both

EOP, IFCS, RS, DEXT, VLE = 1 << 24, 1 << 25, 1 << 27, 1 << 29, 1 << 30
DATA, CONTEXT = 3 << 20, 2 << 20


@dataclass(frozen=True)
class Table:
    """The fields of a `FrameTable` that the model reads."""

    data: bytes
    offsets: array[int]
    lengths: array[int]
    order: array[int]
    total: int


def table(frames: list[bytes], order: list[int] | None = None, repeat: int = 1) -> Table:
    """`frames` in `order`, `repeat` times; 0: without end. Nothing is padded."""
    offsets, at = array("Q"), 0
    for frame in frames:
        offsets.append(at)
        at += len(frame)
    indices = array("I", range(len(frames)) if order is None else order)
    lengths = array("I", map(len, frames))
    return Table(b"".join(frames), offsets, lengths, indices, len(indices) * repeat)


@dataclass(frozen=True)
class Received:
    """A descriptor that the card has written back, and the data of its buffer."""

    data: bytes
    rss_type: int
    packet_type: int
    hash: int
    status: int
    vlan: int

    @property
    def last(self) -> bool:
        return bool(self.status & 2)


class Bare82599:
    """The driver, with a model and memory for its DMA. A context manager."""

    def __init__(self, *, left_running: bool = True, foreign: bool = False) -> None:
        self.sim = Sim82599(MAC, left_running=left_running, foreign=foreign)
        self.descriptors = mmap.mmap(-1, 1 << 20)
        self.packets = mmap.mmap(-1, 4 << 20)
        for bus, memory in ((DESCRIPTORS_BUS, self.descriptors), (PACKETS_BUS, self.packets)):
            with ffi.from_buffer(memory) as start:
                self.sim.map_window(bus, int(ffi.cast("uintptr_t", start)), len(memory))
        self.next = [0] * 128  # per receive queue: index of the next descriptor to read
        self.tail = [0] * 128  # per transmit queue
        self.skip: set[str] = set()

    def __enter__(self) -> Bare82599:
        return self

    def __exit__(self, *_: object) -> None:
        self.sim.close()

    def read(self, register: int) -> int:
        return self.sim.read32(register)

    def write(self, register: int, value: int) -> None:
        self.sim.write32(register, value)

    def change(self, register: int, clear: int = 0, set_: int = 0) -> None:
        self.write(register, self.read(register) & ~clear | set_)

    def wait(self, register: int, bit: int, wanted: bool = True) -> bool:
        return any(bool(self.read(register) >> bit & 1) == wanted for _ in range(POLLS))

    # -- bring-up ---------------------------------------------------------------------

    def bring_up(
        self, queues: int = 1, *, skip: str = "", promiscuous: bool = True, **options: int
    ) -> None:
        """Run all steps except those named in `skip`, separated by spaces."""
        self.skip = set(skip.split())
        steps = (
            self.mask,
            self.master,
            self.reset,
            self.mask_again,
            self.eeprom,
            self.dma,
            self.link,
            self.statistics,
        )
        for step in steps:
            if step.__name__ not in self.skip:
                step()
        self.set_receive(promiscuous, **options)
        self.set_rss(queues)
        for queue in range(queues):
            self.rx_queue(queue, **options)
        self.set_transmit()
        for queue in range(queues):
            self.tx_queue(queue, options.get("wthresh", 0))
        self.receiver(True)
        if "relax" not in self.skip:
            self.wait(0x42A4, 30)

    def mask(self) -> None:
        self.write(0x0888, 0xFFFFFFFF)
        self.read(0x0800)

    def mask_again(self) -> None:
        self.mask()

    def master(self) -> None:
        self.change(0x0000, set_=1 << 2)
        self.wait(0x0008, 19, False)

    def reset(self) -> None:
        self.write(0x0000, 1 << 26 | 1 << 3)
        if "reset_wait" not in self.skip:
            self.wait(0x0000, 26, False)

    def eeprom(self) -> None:
        self.wait(0x10010, 9)

    def dma(self) -> None:
        self.wait(0x2F00, 3)

    def link(self) -> None:
        if "laser" not in self.skip:
            self.change(0x0020, 1 << 3)
        if "sfi" not in self.skip:
            self.change(0x42A8, 3 << 16, 2 << 16)
        self.change(0x42A0, 7 << 13, 3 << 13)
        if "restart" not in self.skip:
            self.change(0x42A0, set_=1 << 12)

    def statistics(self) -> None:
        for register in (0x4074, 0x4080, 0x4088, 0x408C, 0x4090, 0x4094, 0x40A4, 0x40AC, 0x3FA0):
            self.read(register)
        for queue in range(16):
            for base in (0x1030, 0x1430, 0x6030):
                self.read(base + 0x40 * queue)
        for n in range(4):
            for base in (0x2300, 0x8600):
                self.write(base + 4 * n, sum((4 * n + i) << 8 * i for i in range(4)))

    def set_receive(self, promiscuous: bool, **options: int) -> None:
        self.change(0x4240, set_=2)
        if "rdrxctl_strip" not in self.skip:
            self.change(0x2F00, set_=2)
        if "rdrxctl" not in self.skip:
            self.change(0x2F00, 0x1F << 17, 3 << 25)
        self.change(0x5080, 7 << 8, (1 << 10) | (3 << 8 if promiscuous else 0))
        self.write(0x5000, options.get("rxcsum", 1 << 13))
        if "no_snoop" not in self.skip:
            self.change(0x0018, set_=1 << 16)

    def set_rss(self, queues: int, key: bytes = KEY, fields: int = ALL_FIELDS) -> None:
        for n, (word,) in enumerate(struct.iter_unpack("<I", key)):
            self.write(0x5C80 + 4 * n, word)
        for n in range(32):
            self.write(0x5C00 + 4 * n, sum((4 * n + i) % queues << 8 * i for i in range(4)))
        self.write(0x5818, fields | 1)

    def rx_queue(self, queue: int, **options: int) -> None:
        bank = self.rx_bank(queue)
        self.write(bank + 0x00, DESCRIPTORS_BUS + 2 * queue * RING * 16)
        self.write(bank + 0x04, 0)
        self.write(bank + 0x08, options.get("rdlen", RING * 16))
        self.write(bank + 0x14, options.get("srrctl", 2 | 1 << 25 | 1 << 28))
        if "dca" not in self.skip:
            self.change(bank + 0x0C, 1 << 12)
        for n in range(RING):
            self.post(queue, n)
        self.write(bank + 0x28, 1 << 25 | options.get("strip", 0) << 30)
        if "rx_wait" not in self.skip:
            self.wait(bank + 0x28, 25)
        self.write(bank + 0x18, options.get("rdt", RING - 1))

    def set_transmit(self) -> None:
        if "arbiter" not in self.skip:
            self.change(0x4900, set_=1 << 6)
        if "dtxmxszrq" not in self.skip:
            self.write(0x8100, 0xFFF)
        self.write(0xCC00, 160 << 10)
        self.write(0x8120, 0)
        if "arbiter_again" not in self.skip:
            self.change(0x4900, 1 << 6)
        if "te" not in self.skip:
            self.change(0x4A80, set_=1)

    def tx_queue(self, queue: int, wthresh: int = 0) -> None:
        bank = 0x6000 + 0x40 * queue
        self.write(bank + 0x00, DESCRIPTORS_BUS + (2 * queue + 1) * RING * 16)
        self.write(bank + 0x04, 0)
        self.write(bank + 0x08, RING * 16)
        self.write(bank + 0x28, 1 << 25 | wthresh << 16 | 8 << 8 | 36)
        if "tx_wait" not in self.skip:
            self.wait(bank + 0x28, 25)

    def receiver(self, on: bool) -> None:
        if "security" not in self.skip:
            self.change(0x8D00, set_=2)
            self.wait(0x8D04, 0)
        if "rxen" not in self.skip:
            self.change(0x3000, 1, int(on))
        self.change(0x8D00, 2)

    # -- descriptors ------------------------------------------------------------------

    @staticmethod
    def rx_bank(queue: int) -> int:
        return 0x1000 + 0x40 * queue if queue < 64 else 0xD000 + 0x40 * (queue - 64)

    def rx_at(self, queue: int, n: int) -> int:
        return (2 * queue * RING + n) * 16

    def tx_at(self, queue: int, n: int) -> int:
        return ((2 * queue + 1) * RING + n) * 16

    def buffer(self, queue: int, n: int, *, tx: bool = False) -> int:
        """Offset in packet memory."""
        return ((2 * queue + tx) * RING + n) * BUFFER

    def post(self, queue: int, n: int, address: int | None = None) -> None:
        bus = PACKETS_BUS + self.buffer(queue, n) if address is None else address
        struct.pack_into("<QQ", self.descriptors, self.rx_at(queue, n), bus, 0)

    def give(self, queue: int, tail: int) -> None:
        self.sim.pointer(self.rx_bank(queue) + 0x18)[0] = tail

    def receive(self, queue: int = 0) -> list[Received]:
        """Take every completed descriptor, and post it again."""
        taken = []
        while True:
            n = self.next[queue]
            at = self.rx_at(queue, n)
            word, rss, status, length, vlan = struct.unpack_from("<IIIHH", self.descriptors, at)
            if not status & 1:
                return taken
            start = self.buffer(queue, n)
            data = self.packets[start : start + length]
            taken.append(Received(data, word & 15, word >> 4 & 0x1FFF, rss, status, vlan))
            self.post(queue, n)
            self.give(queue, n)
            self.next[queue] = (n + 1) % RING

    def send_raw(self, queue: int, low: int, high: int) -> int:
        """Put one descriptor on the ring and move the tail; returns its number."""
        n = self.tail[queue]
        struct.pack_into("<QQ", self.descriptors, self.tx_at(queue, n), low, high)
        self.tail[queue] = (n + 1) % RING
        self.sim.pointer(0x6018 + 0x40 * queue)[0] = self.tail[queue]
        return n

    def send(
        self,
        data: bytes,
        queue: int = 0,
        *,
        command: int = EOP | IFCS | RS | DEXT | DATA,
        paylen: int | None = None,
        address: int | None = None,
    ) -> int:
        start = self.buffer(queue, self.tail[queue], tx=True)
        self.packets[start : start + len(data)] = data
        bus = PACKETS_BUS + start if address is None else address
        length = len(data) if paylen is None else paylen
        return self.send_raw(queue, bus, command | len(data) | length << 46)

    def sent(self, n: int, queue: int = 0) -> bool:
        """Whether transmit descriptor `n` has been written back."""
        (status,) = struct.unpack_from("<I", self.descriptors, self.tx_at(queue, n) + 12)
        return bool(status & 1)
