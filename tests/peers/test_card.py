"""The foreign card with a small driver: it carries numbered frames, and it detects frames that a
driver or pipeline loses, duplicates, damages or reorders."""

from __future__ import annotations

import ipaddress
import mmap
import os
import re
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

RINGS_BYTES = 64 << 10
BUFFERS = 256
STRIDE = 2048
ENTRIES = 64
KEY = bytes.fromhex(
    "6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa"
)


class SmallDriver:
    """A driver with two queues; it sends each packet from the buffer that received it."""

    def __init__(self, card: Any, spaces: SimpleNamespace) -> None:
        self.spaces = spaces
        self.files = [
            Path(f"/dev/shm/ringline.{card.instance}.{w}") for w in ("descriptors", "packets")
        ]
        self.rings = self.segment(self.files[0], RINGS_BYTES)
        self.packets = self.segment(self.files[1], BUFFERS * STRIDE)
        with open(card.folder / "resource0", "r+b") as file:
            self.bar = memoryview(mmap.mmap(file.fileno(), 512 << 10)).cast("I")
        with open(card.folder / "config", "r+b", buffering=0) as file:
            os.pwrite(file.fileno(), b"\x06", 4)
        self.rx_head = [0, 0]
        self.tx_tail = [0, 0]
        self.posted: list[list[int]] = [[], []]
        self.sending: list[list[int]] = [[], []]
        self.free = list(range(BUFFERS))

    @staticmethod
    def segment(path: Path, size: int) -> mmap.mmap:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        os.ftruncate(fd, size)
        memory = mmap.mmap(fd, size)
        os.close(fd)
        return memory

    def close(self) -> None:
        for path in self.files:
            path.unlink()

    def write(self, address: int, value: int) -> None:
        self.bar[address // 4] = value

    def change(self, address: int, value: int) -> None:
        self.bar[address // 4] |= value

    def wait(self, address: int, mask: int, value: int) -> None:
        deadline = time.monotonic() + 60
        while self.bar[address // 4] & mask != value:
            assert time.monotonic() < deadline, f"register 0x{address:05x}"
            time.sleep(0.001)

    def ring(self, kind: int, queue: int) -> int:
        """Offset of a ring in the descriptor segment; `kind` is 0 for RX, 1 for TX."""
        return (2 * kind + queue) * 16 * ENTRIES

    def start(self) -> None:
        self.change(0x00000, 1 << 2)
        self.wait(0x00008, 1 << 19, 0)
        self.change(0x00000, 1 << 26)
        self.wait(0x00000, 1 << 26, 0)
        self.wait(0x10010, 1 << 9, 1 << 9)
        self.wait(0x02F00, 1 << 3, 1 << 3)
        self.write(0x042A0, 3 << 13)
        self.wait(0x042A4, 1 << 30, 1 << 30)
        self.change(0x04240, 1 << 1)
        self.change(0x02F00, 1 << 1)
        self.write(0x05000, 1 << 13)
        for word in range(10):
            self.write(0x05C80 + 4 * word, *struct.unpack_from("<I", KEY, 4 * word))
        for word in range(32):
            self.write(0x05C00 + 4 * word, 0x01000100)
        self.write(0x05818, 1 | 0x33 << 16 | 3 << 22)
        self.write(0x04A80, 1)
        for queue in range(2):
            self.write(0x02100 + 4 * queue, 2 | 1 << 25 | 1 << 28)
            for kind, base in ((0, 0x01000), (1, 0x06000)):
                at = base + 0x40 * queue
                self.write(at, self.spaces.descriptors + self.ring(kind, queue))
                self.write(at + 4, 0)
                self.write(at + 8, 16 * ENTRIES)
                self.change(at + 0x28, 1 << 25)
        self.write(0x03000, 1)
        for queue in range(2):
            self.post(queue)

    def post(self, queue: int) -> None:
        while len(self.posted[queue]) < ENTRIES - 1 and self.free:
            buffer = self.free.pop()
            at = (self.rx_head[queue] + len(self.posted[queue])) % ENTRIES
            address = self.spaces.packets + buffer * STRIDE
            struct.pack_into("<QQ", self.rings, self.ring(0, queue) + 16 * at, address, 0)
            self.posted[queue].append(buffer)
        tail = (self.rx_head[queue] + len(self.posted[queue])) % ENTRIES
        self.write(0x01018 + 0x40 * queue, tail)

    def receive(self) -> Iterator[tuple[int, int, int, tuple[int, ...]]]:
        """Queue, buffer, length and descriptor of each frame that has arrived."""
        for queue in range(2):
            while self.posted[queue]:
                at = self.ring(0, queue) + 16 * self.rx_head[queue]
                words = struct.unpack_from("<IIIHH", self.rings, at)
                if not words[2] & 1:
                    break
                self.rx_head[queue] = (self.rx_head[queue] + 1) % ENTRIES
                yield queue, self.posted[queue].pop(0), words[3], words
            self.post(queue)

    def send(self, queue: int, buffer: int, length: int) -> None:
        self.reclaim(queue, room_for_one=True)
        at = self.ring(1, queue) + 16 * self.tx_tail[queue]
        command = length | 3 << 20 | 1 << 24 | 1 << 25 | 1 << 27 | 1 << 29
        address = self.spaces.packets + buffer * STRIDE
        struct.pack_into("<QII", self.rings, at, address, command, length << 14)
        self.sending[queue].append(buffer)
        self.tx_tail[queue] = (self.tx_tail[queue] + 1) % ENTRIES
        self.write(0x06018 + 0x40 * queue, self.tx_tail[queue])

    def reclaim(self, queue: int, room_for_one: bool = False) -> None:
        deadline = time.monotonic() + 60
        while self.sending[queue]:
            at = (self.tx_tail[queue] - len(self.sending[queue])) % ENTRIES
            (status,) = struct.unpack_from("<I", self.rings, self.ring(1, queue) + 16 * at + 12)
            if status & 1:
                self.free.append(self.sending[queue].pop(0))
            elif not room_for_one or len(self.sending[queue]) < ENTRIES - 1:
                return
            assert time.monotonic() < deadline, "a transmit descriptor is never completed"


@pytest.fixture
def drive(
    make_card: Callable[..., Any], spaces: SimpleNamespace
) -> Iterator[Callable[..., dict[str, Any]]]:
    """Run a card with the small driver: drive(frames, send) -> counts.

    `send(driver, number, queue, buffer, length)` sends packet `number`, or misbehaves.
    """
    drivers: list[SmallDriver] = []

    def run(
        frames: int,
        send: Callable[..., None] = lambda driver, _, *packet: driver.send(*packet),
        expect: int | None = None,
        seconds: int = 60,
    ) -> dict[str, Any]:
        card = make_card(frames, seconds)
        driver = SmallDriver(card, spaces)
        drivers.append(driver)
        driver.start()
        number, deadline = 0, time.monotonic() + seconds
        while number < (frames if expect is None else expect) and time.monotonic() < deadline:
            for queue, buffer, length, _ in driver.receive():
                send(driver, number, queue, buffer, length)
                number += 1
            for queue in range(2):
                driver.reclaim(queue)
        counts: dict[str, Any] = card.counts(seconds + 10)
        return counts

    yield run
    for driver in drivers:
        driver.close()


def test_every_frame_comes_back_once_and_in_order(drive: Callable[..., dict[str, Any]]) -> None:
    counts = drive(5000)
    assert counts["complete"]
    assert counts["fault"] is None
    assert counts["returned"] == counts["sent"] == 5000
    assert counts["duplicates"] == counts["damaged"] == counts["out_of_order"] == 0
    assert counts["resets"] == 1
    assert sum(counts["received"]) == sum(counts["transmitted"]) == 5000
    assert len(counts["received"]) == 2
    assert min(counts["received"]) > 1000


@pytest.mark.slow
def test_a_damaged_byte_is_detected(drive: Callable[..., dict[str, Any]]) -> None:
    def damage(driver: SmallDriver, number: int, queue: int, buffer: int, length: int) -> None:
        if number == 10:
            driver.packets[buffer * STRIDE + length - 1] ^= 1
        driver.send(queue, buffer, length)

    counts = drive(100, damage, seconds=2)
    assert (counts["complete"], counts["returned"], counts["damaged"]) == (False, 99, 1)


@pytest.mark.slow
def test_a_lost_frame_is_detected(drive: Callable[..., dict[str, Any]]) -> None:
    def lose(driver: SmallDriver, number: int, queue: int, buffer: int, length: int) -> None:
        if number != 10:
            driver.send(queue, buffer, length)

    counts = drive(100, lose, seconds=2)
    assert (counts["complete"], counts["returned"], counts["sent"]) == (False, 99, 100)


def test_a_frame_sent_twice_is_detected(drive: Callable[..., dict[str, Any]]) -> None:
    def twice(driver: SmallDriver, number: int, queue: int, buffer: int, length: int) -> None:
        if number == 10:
            other = driver.free.pop()
            content = driver.packets[buffer * STRIDE : buffer * STRIDE + length]
            driver.packets[other * STRIDE : other * STRIDE + length] = content
            driver.send(queue, other, length)
        driver.send(queue, buffer, length)

    counts = drive(100, twice)
    assert (counts["complete"], counts["returned"], counts["duplicates"]) == (True, 100, 1)


def test_wrong_order_is_detected(drive: Callable[..., dict[str, Any]]) -> None:
    held: list[tuple[int, int, int]] = []

    def reverse(driver: SmallDriver, number: int, *packet: int) -> None:
        held.append((packet[0], packet[1], packet[2]))
        if len(held) == 25:
            while held:
                driver.send(*held.pop())

    counts = drive(1000, reverse)
    assert (counts["complete"], counts["returned"]) == (True, 1000)
    assert counts["out_of_order"] > 0


@pytest.mark.parametrize(
    ("length", "address", "sentence"),
    [
        (100, 1 << 40, "outside the packets"),
        (0, None, "transmit queue . does not describe a frame"),
        (1519, None, "transmit queue . does not describe a frame"),
    ],
)
def test_invalid_descriptors_are_faults(
    drive: Callable[..., dict[str, Any]], length: int, address: int | None, sentence: str
) -> None:
    def demand(driver: SmallDriver, number: int, queue: int, buffer: int, _: int) -> None:
        if address is not None:
            driver.spaces = SimpleNamespace(packets=address)
        driver.send(queue, buffer, length)

    counts = drive(100, demand, expect=1)
    assert not counts["complete"]
    assert sentence.replace(" .", "") in re.sub(r" \d, descriptor.*0x\S+", "", counts["fault"])


def test_dma_without_bus_mastering_is_a_fault(make_card: Callable[..., Any], spaces: Any) -> None:
    card = make_card(10, 5)
    driver = SmallDriver(card, spaces)
    try:
        with open(card.folder / "config", "r+b", buffering=0) as file:
            os.pwrite(file.fileno(), b"\x02", 4)
        driver.start()
        assert card.counts(20)["fault"] == "DMA with bus mastering off"
    finally:
        driver.close()


# From Microsoft's "Verifying the RSS Hash Calculation": source, destination, hash of the
# addresses, hash with the ports.
@pytest.mark.parametrize(
    ("source", "destination", "without", "with_ports"),
    [
        ("66.9.149.187 2794", "161.142.100.80 1766", 0x323E8FC2, 0x51CCC178),
        ("199.92.111.2 14230", "65.69.140.83 4739", 0xD718262A, 0xC626B0EA),
        ("24.19.198.95 12898", "12.22.207.184 38024", 0xD2D0A5DE, 0x5C2B394A),
        ("38.27.205.30 48228", "209.142.163.6 2217", 0x82989176, 0xAFC7327F),
        ("153.39.163.191 44251", "202.188.127.2 1303", 0x5D1809C5, 0x10E828A2),
        ("3ffe:2501:200:1fff::7 2794", "3ffe:2501:200:3::1 1766", 0x2CC18CD5, 0x40207D3D),
        ("3ffe:501:8::260:97ff:fe40:efab 14230", "ff02::1 4739", 0x0F0C461C, 0xDDE51BBF),
        (
            "3ffe:1900:4545:3:200:f8ff:fe21:67cf 44251",
            "fe80::200:f8ff:fe21:67cf 38024",
            0x4B61E985,
            0x02D1FEEF,
        ),
    ],
)
def test_hashes_are_the_published_ones(
    hash_of: Callable[[bytes, bytes], int],
    source: str,
    destination: str,
    without: int,
    with_ports: int,
) -> None:
    ends = [end.split() for end in (source, destination)]
    addresses = b"".join(ipaddress.ip_address(address).packed for address, _ in ends)
    ports = b"".join(int(port).to_bytes(2, "big") for _, port in ends)
    assert hash_of(KEY, addresses) == without
    assert hash_of(KEY, addresses + ports) == with_ports
