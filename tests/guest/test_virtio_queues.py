"""ringline drives QEMU's virtio-net with several queues: RSS and hashes, whole flows, and checksums
that the sender has left to the card. The other end of each cable is a TAP interface."""

from __future__ import annotations

import shlex
import socket
import struct
from collections.abc import Iterator

import pytest

from .booted import PROOF, booted
from .cards import card
from .exchange import exchange
from .gigabit import toeplitz
from .machine import Guest
from .test_vfio_ixgbe import Bench, only_proof
from .traffic import flow, frames

DEVICES = ("0000:00:10.0", "0000:00:11.0")
QUEUES = 4
FRAMES = 20_000 if PROOF else 1000
FLOWS = 64
TCP, UDP = 6, 17
HASH = 0x02  # of the flags of a packet
HEADER = struct.Struct("<BBHHHH")  # struct virtio_net_hdr
NEEDS_CSUM = 1
# Sends every packet to the other port. Its last 6 bytes become flags, queue and hash.
PLUGIN = """
class Show:
    def setup(self, worker):
        self.queue = worker.queue

    def process(self, batch):
        for packet in batch:
            shown = bytes((packet.flags, self.queue)) + packet.rss_hash.to_bytes(4, "big")
            packet.data[-6:] = shown
            packet.verdict = packet.port ^ 1
"""

pytestmark = [pytest.mark.timeout(1800), only_proof]


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    cards = [card(f"virtio-net-rss:{QUEUES}")] * 2
    with booted(lambda: Guest(cards, iommu=True, hugepages=128)) as guest:
        made = Bench(guest, guest.cables, DEVICES)
        made.bind("vfio-pci", "DMA")
        guest.checked(f"echo {shlex.quote(PLUGIN)} > /tmp/show.py")
        yield made


def packet(number: int) -> tuple[bytes, bytes]:
    """A frame of a flow, and what is hashed of it: IPv4 and IPv6 in turn, each with TCP, with UDP
    and with another protocol."""
    protocol = (TCP, UDP, 47)[number // 2 % 3]
    ports = struct.pack(">HH", 5000 + number, 7)
    segment = (ports + bytes(8) + b"\x50").ljust(30, b"\0")
    if number % 2:
        hashed = socket.inet_pton(socket.AF_INET6, f"2001:db8::{number:x}")
        hashed += socket.inet_pton(socket.AF_INET6, "2001:db8::ffff")
        head = struct.pack(">IHBB", 6 << 28, len(segment), protocol, 64) + hashed
        kind = b"\x86\xdd"
    else:
        hashed = bytes((10, 78, 0, number, 10, 78, 1, 1))
        fields = (0x45, 0, 20 + len(segment), number, 0, 64, protocol, 0)
        head = struct.pack(">BBHHHBBH", *fields) + hashed
        kind = b"\x08\x00"
    frame = bytes.fromhex("020000000077 020000000078") + kind + head + segment
    return frame, hashed + (ports if protocol in (TCP, UDP) else b"")


@pytest.mark.parametrize("queues", [2, QUEUES])
def test_hashes_and_queues_are_those_of_the_software(bench: Bench, queues: int) -> None:
    plugins = "".join(f'[worker.{q}]\nplugin = "/tmp/show.py:Show"\n' for q in range(queues))
    bench.start(f"queues = {queues}", more=plugins)
    one, other = bench.cards
    made = [packet(number) for number in range(FLOWS)]
    expected = []
    for frame, hashed in made:
        value = toeplitz(hashed)
        queue = (value & 127) % queues
        expected.append(frame[:-6] + bytes((HASH, queue)) + value.to_bytes(4, "big"))
    [found] = exchange((one, other, [frame for frame, _ in made]))
    report = bench.stop()
    assert sorted(found) == sorted(expected)
    counts = [each["rx_packets"] for each in report["ports"]["wan"]["queues"]]
    assert counts == [[frame[-5] for frame in expected].count(queue) for queue in range(queues)]
    assert all(counts)


def elsewhere(frame: bytes) -> bytes:
    """The frame in another flow. A TAP interface sends the frames of a flow on the queue on which
    the guest sent the flow last (tun_automq_select_queue in drivers/net/tun.c): if both directions
    had the same flows, their queue could change meanwhile, and with it the order."""
    (port,) = struct.unpack_from(">H", frame, 34)
    return frame[:34] + struct.pack(">H", port + 1000) + frame[36:]


def test_flows_pass_whole_and_in_order(bench: Bench) -> None:
    bench.start(f"queues = {QUEUES}")
    one, other = bench.cards
    ways = list(frames(FRAMES)), list(map(elsewhere, frames(FRAMES)))[::-1]
    found = exchange((one, other, ways[0]), (other, one, ways[1]))
    report = bench.stop()
    for came, sent in zip(found, ways, strict=True):
        assert sorted(came, key=flow) == sorted(sent, key=flow)
    for port in report["ports"].values():
        assert port["forwarded"] == FRAMES
        assert all(queue["rx_packets"] for queue in port["queues"])


def test_a_checksum_that_was_left_to_the_card_is_completed(bench: Bench) -> None:
    """The sender gives the sum of the pseudo header, as Linux does for a neighbour on this host."""
    bench.start("queues = 2")
    one, other = bench.cards
    whole, partial = [], []
    for frame in frames(64):
        udp = frame[34:40] + b"\0\0" + frame[42:]
        pseudo = sum(struct.unpack(">4H", frame[26:34])) + UDP + len(udp)
        pseudo = (pseudo & 0xFFFF) + (pseudo >> 16)
        total = pseudo + sum(struct.unpack(f">{len(udp) // 2}H", udp[: len(udp) // 2 * 2]))
        total += udp[-1] << 8 if len(udp) % 2 else 0
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        checksum = (0xFFFF - total) or 0xFFFF
        whole.append(frame[:40] + checksum.to_bytes(2, "big") + frame[42:])
        partial.append(
            HEADER.pack(NEEDS_CSUM, 0, 0, 0, 34, 6)
            + frame[:40]
            + pseudo.to_bytes(2, "big")
            + frame[42:]
        )
    one.use_headers(True)
    try:
        [found] = exchange((one, other, partial))
    finally:
        one.use_headers(False)
    report = bench.stop()
    assert sorted(found) == sorted(whole)
    assert report["ports"]["wan"]["card"]["rx_checksums_completed"] == len(whole)
