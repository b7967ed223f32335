"""ringline drives QEMU's 82574L over VFIO, in a guest with an IOMMU.

Both the card and Linux's driver of it were written by others.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from ringline.pipeline.ports.rss import rss_key

from .booted import booted
from .cards import card
from .exchange import exchange
from .machine import Guest
from .test_vfio_ixgbe import FRAMES, Bench, check, numbered, only_proof

DEVICES = ("0000:00:10.0", "0000:00:11.0")
OURS = bytes.fromhex("020000000077")
OTHER = bytes.fromhex("020000000078")
FLOWS = 64

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with booted(lambda: Guest([card("e1000e")] * 2, iommu=True, hugepages=64)) as guest:
        made = Bench(guest, guest.cables, DEVICES)
        made.bind("vfio-pci", "DMA")
        yield made


def tcp(flow: int, destination: bytes = OURS, tag: bytes = b"") -> bytes:
    """A TCP segment without options or checksums; the source port is that of the flow."""
    addresses = bytes((10, 78, 0, 1, 10, 78, 0, 2))
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 46, flow, 0, 64, 6, 0) + addresses
    segment = struct.pack(">HHIIBBHHH", 5000 + flow, 7, flow, 0, 0x50, 0, 0, 0, 0)
    return destination + OTHER + tag + b"\x08\x00" + ip + segment + bytes(6)


def queue_of(flow: int, queues: int = 2) -> int:
    """The queue of a flow: the Toeplitz hash of addresses and ports, as Microsoft defines it; RETA
    names the queues in turn."""
    data = bytes((10, 78, 0, 1, 10, 78, 0, 2)) + struct.pack(">HH", 5000 + flow, 7)
    key = int.from_bytes(rss_key("default"), "big")
    hashed = 0
    for bit in range(8 * len(data)):
        if data[bit // 8] >> 7 - bit % 8 & 1:
            hashed ^= key >> 320 - 32 - bit & 0xFFFFFFFF
    return (hashed & 127) % queues


def test_frames_pass_both_ways_over_vfio(bench: Bench) -> None:
    """All of them, once, in order, as they were: of 60 to 1514 bytes."""
    bench.start()
    one, other = bench.cards
    frames = list(numbered(FRAMES))
    ways = [frames, frames[::-1]]
    found = exchange((one, other, ways[0]), (other, one, ways[1]))
    report = bench.stop()
    assert [len(each) for each in found] == [len(frames)] * 2
    assert found == ways
    check(bench, len(frames), report)
    for port in report["ports"].values():
        assert port["card"]["rx_packets"] == port["card"]["tx_packets"] == len(frames)
    assert "DMAR: [DMA" not in bench.guest.checked("dmesg"), "the IOMMU has stopped the card"


@only_proof
def test_filters_queues_and_tags(bench: Bench) -> None:
    """Two queues get the flows that the hash says; frames for other addresses do not come; a tag
    that the card has stripped is in the frame again when it leaves."""
    bench.start('queues = 2\npromiscuous = false\nmac = "02:00:00:00:00:77"\nvlan_strip = true')
    one, other = bench.cards
    flows = [tcp(flow) for flow in range(FLOWS)]
    tagged = tcp(FLOWS, tag=bytes.fromhex("81006123"))
    passing = [*flows, tagged, tcp(FLOWS + 1, b"\xff" * 6)]
    before = len(other.frames())
    for frame in [tcp(0, OTHER), tcp(0, b"\x01" + OURS[1:]), *passing]:
        one.send(frame)
    other.wait_for(before + len(passing), 60.0)
    report = bench.stop()
    assert sorted(other.frames()[before:]) == sorted(passing)
    expected = [0, 0]
    for flow in range(FLOWS + 2):
        expected[queue_of(flow)] += 1
    assert [each["rx_packets"] for each in report["ports"]["wan"]["queues"]] == expected
    assert all(expected)


@only_proof
def test_a_card_starts_twenty_times(bench: Bench) -> None:
    one, other = bench.cards
    frames = list(numbered(100))
    for _ in range(20):
        bench.start()
        assert exchange((one, other, frames), (other, one, frames)) == [frames, frames]
        check(bench, len(frames), bench.stop())
