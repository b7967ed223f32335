"""Packets without an Ethernet header: which get one, what it says, and who is left out.

tcpdump is the judge: it prints of the frame with the made-up header what it prints of the packet
as it was captured.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ringline.workers.captures.captures import (
    CaptureError,
    CaptureReader,
    Tally,
    read_capture,
    write_capture,
)
from ringline.workers.captures.link_layers import BROADCAST, RECEIVER, SENDER

from ...data import make

V4 = make.ipv4(17, make.udp(5000, 100, 1))
V6 = make.ipv6(17, make.udp(5000, 100, 2))
ARP = bytes.fromhex("00010800060400010200000000aac0000201000000000000c6336401")
PEER = bytes.fromhex("0200000000aa")
KNOWN = PEER + bytes(2)

Order = str
Wrap = Callable[[bytes, Order], bytes]


def is_v6(packet: bytes) -> bool:
    return packet[0] >> 4 == 6


def ethertype(packet: bytes) -> int:
    return 0x86DD if is_v6(packet) else 0x0800


def cooked_v1(packet: bytes, order: Order = "<", kind: int = 0, device: int = 1) -> bytes:
    return struct.pack("!HHH8sH", kind, device, 6, KNOWN, ethertype(packet)) + packet


def cooked_v2(packet: bytes, order: Order = "<", kind: int = 0, device: int = 1) -> bytes:
    start = struct.pack("!HHIHBB8s", ethertype(packet), 0, 1, device, kind, 6, KNOWN)
    return start + packet


def netfilter(packet: bytes, order: Order) -> bytes:
    def attribute(kind: int, value: bytes) -> bytes:
        padding = bytes(-len(value) % 4)
        return struct.pack(order + "HH", 4 + len(value), kind) + value + padding

    start = struct.pack("!BBH", 10 if is_v6(packet) else 2, 0, 5)
    hardware = attribute(8, struct.pack("!HH8s", 6, 0, KNOWN))
    return start + attribute(10, b"prefix\0") + hardware + attribute(9, packet)


def loopback(packet: bytes, order: Order) -> bytes:
    return struct.pack(order + "I", 30 if is_v6(packet) else 2) + packet


def foreign_loopback(packet: bytes, order: Order) -> bytes:
    """The family in the other byte order than the file, as after a conversion of the file."""
    return loopback(packet, "<" if order == ">" else ">")


def as_it_is(packet: bytes, order: Order) -> bytes:
    return packet


# Link type, how a packet is wrapped, and the source address that the frame gets.
LAYERS: dict[str, tuple[int, Wrap, bytes]] = {
    "BSD loopback": (0, loopback, SENDER),
    "BSD loopback of another machine": (0, foreign_loopback, SENDER),
    "raw IP, DLT": (12, as_it_is, SENDER),
    "raw IP": (101, as_it_is, SENDER),
    "OpenBSD loopback": (108, lambda packet, _: loopback(packet, ">"), SENDER),
    "Linux cooked v1": (113, cooked_v1, PEER),
    "Linux cooked v2": (276, cooked_v2, PEER),
    "netfilter log": (239, netfilter, PEER),
}


def pcap(link: int, packets: list[bytes], order: Order = "<") -> bytes:
    content = make.pcap(make.timed(packets), order)
    return content[:20] + struct.pack(order + "I", link) + content[24:]


def read(path: Path) -> tuple[list[bytes], Tally]:
    tally = Tally(str(path))
    with CaptureReader(tally, any_link=True) as reader:
        return [bytes(frame.data) for frame in reader], tally


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[bytes], Path]:
    def save(content: bytes) -> Path:
        path = tmp_path / "in.pcap"
        path.write_bytes(content)
        return path

    return save


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("layer", LAYERS)
def test_a_packet_gets_a_header_and_is_counted(
    saved: Callable[[bytes], Path], layer: str, order: Order
) -> None:
    link, wrap, source = LAYERS[layer]
    path = saved(pcap(link, [wrap(V4, order), wrap(V6, order)], order))
    frames, tally = read(path)
    start = RECEIVER + source
    assert frames == [start + b"\x08\x00" + V4, start + b"\x86\xdd" + V6]
    [remark] = tally.remarks()
    assert "2 of 2 packets have no Ethernet header, so ringline made one up: 2 of link" in remark
    assert f"type {link} (" in remark


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("layer", LAYERS)
def test_pcapng_is_read_in_the_same_way(
    saved: Callable[[bytes], Path], layer: str, order: Order
) -> None:
    link, wrap, _ = LAYERS[layer]
    content = make.section(order) + make.interface(order, link=link)
    content += make.enhanced(wrap(V4, order), 0, order) + make.enhanced(wrap(V6, order), 0, order)
    ng, _ = read(saved(content))
    assert ng == read(saved(pcap(link, [wrap(V4, order), wrap(V6, order)], order)))[0]


@pytest.mark.parametrize(("link", "packet"), [(228, V4), (229, V6)])
def test_raw_ip_of_one_version(saved: Callable[[bytes], Path], link: int, packet: bytes) -> None:
    frames, _ = read(saved(pcap(link, [packet])))
    assert frames == [RECEIVER + SENDER + struct.pack("!H", ethertype(packet)) + packet]


@pytest.mark.skipif(not shutil.which("tcpdump"), reason="tcpdump is missing")
@pytest.mark.parametrize("layer", [*LAYERS, "raw IPv4", "raw IPv6"])
def test_tcpdump_prints_the_same_of_both(
    saved: Callable[[bytes], Path], tmp_path: Path, layer: str
) -> None:
    others: dict[str, tuple[int, Wrap, bytes]] = {
        "raw IPv4": (228, as_it_is, SENDER),
        "raw IPv6": (229, as_it_is, SENDER),
    }
    link, wrap, _ = (LAYERS | others)[layer]
    packets = [make.ipv4(17, make.udp(5000 + n, 9 * n, n), host=n) for n in range(9)]
    packets += [make.ipv6(17, make.udp(5000 + n, 9 * n, n), host=n) for n in range(9)]
    packets = [p for p in packets if is_v6(p) == (link == 229)] if link in (228, 229) else packets
    path = saved(pcap(link, [wrap(packet, "<") for packet in packets]))
    made = tmp_path / "made.pcap"
    write_capture(made, read(path)[0])
    assert told(made) == told(path)
    assert len(told(made)) == len(packets)


def told(path: Path) -> list[str]:
    """What tcpdump prints of the IP packets, without times and interfaces."""
    done = subprocess.run(
        ["tcpdump", "-n", "-t", "-vv", "-r", str(path)],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    text = done.stdout.replace("\n    ", " ")
    return [re.sub(r"^.*?(?=\bIP6? )", "", line) for line in text.splitlines()]


def test_the_address_says_who_gets_a_packet(saved: Callable[[bytes], Path]) -> None:
    to_all = V4[:16] + b"\xff" * 4 + V4[20:]
    group = V4[:16] + bytes([239, 129, 2, 3]) + V4[20:]
    group6 = V6[:24] + bytes.fromhex("ff0200000000000000000000000000fb") + V6[40:]
    raw, _ = read(saved(pcap(101, [V4, V6, to_all, group, group6, V4[:17]])))
    assert [frame[:6].hex() for frame in raw] == [
        RECEIVER.hex(),
        RECEIVER.hex(),
        "ffffffffffff",
        "01005e010203",
        "3333000000fb",
        RECEIVER.hex(),
    ]
    for wrap, link in ((cooked_v1, 113), (cooked_v2, 276)):
        kinds = [wrap(V4, kind=1), wrap(group, kind=2), wrap(group, kind=3), wrap(V4, kind=4)]
        cooked, _ = read(saved(pcap(link, kinds)))
        assert [frame[:6] for frame in cooked] == [
            BROADCAST,
            bytes.fromhex("01005e010203"),
            RECEIVER,
            RECEIVER,
        ]


def test_cooked_packets_keep_their_protocol_and_tag(saved: Callable[[bytes], Path]) -> None:
    def cooked(protocol: int, payload: bytes, device: int = 1, length: int = 6) -> bytes:
        return struct.pack("!HHH8sH", 0, device, length, KNOWN, protocol) + payload

    tagged = struct.pack("!HH", 5, 0x0800) + V4
    packets = [cooked(0x0806, ARP), cooked(0x8100, tagged), cooked(4, b"\xaa\xaa\3data")]
    packets += [cooked(0x0800, V4, length=0), cooked(0x0800, V4, length=8)]
    frames, _ = read(saved(pcap(113, packets)))
    assert frames[0][6:] == PEER + b"\x08\x06" + ARP
    assert frames[1][6:] == PEER + b"\x81\x00" + tagged
    assert frames[2][6:] == PEER + b"\x00\x07" + b"\xaa\xaa\3data"  # IEEE 802.3: a length
    assert [frame[6:12] for frame in frames[3:]] == [SENDER, SENDER]


def test_what_cannot_be_ethernet_is_left_out_and_counted(saved: Callable[[bytes], Path]) -> None:
    can = struct.pack("!HHH8sH", 0, 280, 0, bytes(8), 0x000C) + bytes(16)
    netlink = struct.pack("!HHIHBB8s", 0, 0, 1, 824, 4, 0, bytes(8)) + bytes(16)
    bridge = struct.pack("!BBH", 7, 0, 5) + struct.pack("<HH", 24, 9) + bytes(20)
    no_packet = struct.pack("!BBH", 2, 0, 5) + struct.pack("<HH", 8, 10) + bytes(4)
    no_length = struct.pack("!BBH", 2, 0, 5) + bytes(8)
    for link, odd, good in (
        (113, [can, cooked_v1(V4)[:15], b""], cooked_v1(V4)),
        (276, [netlink, cooked_v2(V4)[:19]], cooked_v2(V4)),
        (101, [b"\x00" * 20, b"\xf0" * 20, b""], V4),
        (0, [struct.pack("<I", 7) + V4, b"\2\0\0"], loopback(V4, "<")),
        (108, [struct.pack(">I", 7) + V4, b"\0\0\0"], loopback(V4, ">")),
        (239, [bridge, no_packet, no_length, b"\2\0\0"], netfilter(V4, "<")),
    ):
        frames, tally = read(saved(pcap(link, [*odd, good])))
        assert len(frames) == 1
        assert tally.left_out == {link: len(odd)}
        assert tally.made_up == {link: 1}
        assert len(tally.remarks()) == 2
        path = saved(pcap(link, odd))
        with pytest.raises(CaptureError, match="and no Ethernet frame can be made of it"):
            read(path)


def test_several_link_types_in_a_file(saved: Callable[[bytes], Path]) -> None:
    """What can be played is played, the rest is counted and named."""
    content = make.section() + b"".join(make.interface(link=link) for link in (1, 113, 127, 101))
    for number, packet in ((0, b"e" * 60), (1, cooked_v1(V4)), (2, b"w" * 60), (3, V6)):
        content += make.enhanced(packet, number, number=number)
    path = saved(content)
    tally = Tally(str(path))
    with CaptureReader(tally, any_link=True) as reader:
        assert [frame.number for frame in reader] == [1, 2, 4]
    made, left = tally.remarks()
    assert (
        "2 of 4 packets have no Ethernet header, so ringline made one up: 1 of link type 101"
        in (made)
    )
    assert "1 of link type 113 (Linux cooked capture v1)" in made
    assert "1 of 4 packets are not Ethernet frames and are left out: 1 of link type 127" in left
    wire = read_capture(path)  # a wire plays Ethernet only
    assert list(wire.frames) == [b"e" * 60]
    assert wire.left_out == {101: 1, 113: 1, 127: 1}


def test_a_link_type_that_nobody_can_use_is_refused(saved: Callable[[bytes], Path]) -> None:
    path = saved(pcap(127, [b"w" * 60]))
    with pytest.raises(CaptureError) as raised:
        read(path)
    assert str(raised.value) == (
        f"{path}: has link type 127 (IEEE 802.11 with radiotap header), and no Ethernet frame can "
        f"be made of it; capture on an Ethernet interface"
    )
    path = saved(pcap(113, [cooked_v1(V4)]))
    with pytest.raises(CaptureError) as raised:
        read_capture(path)
    assert str(raised.value) == (
        f"{path}: has link type 113 (Linux cooked capture v1), and only Ethernet (1) can be "
        f"replayed to a network card; capture on an Ethernet interface, or use ringline try, which "
        f"makes up an Ethernet header"
    )


@pytest.mark.parametrize("order", "<>")
def test_a_netfilter_packet_ends_with_its_attribute(
    saved: Callable[[bytes], Path], order: Order
) -> None:
    """The kernel pads it to a multiple of 4 bytes, and another attribute may follow."""
    packet = V4[:41]
    start = struct.pack("!BBH", 2, 0, 5)
    payload = struct.pack(order + "HH", 4 + len(packet), 9) + packet
    more = struct.pack(order + "HHI", 8, 3, 7)
    wrapped = [start + payload + rest for rest in (b"", bytes(3), bytes(3) + more)]
    wrapped.append(start + struct.pack(order + "HH", 0xFFFF, 9) + packet)
    tally = Tally(str(saved(pcap(239, wrapped, order))))
    with CaptureReader(tally, any_link=True) as reader:
        found = list(reader)
    assert {bytes(frame.data) for frame in found} == {RECEIVER + SENDER + b"\x08\x00" + packet}
    assert [frame.original for frame in found] == [14 + len(packet)] * 4


def test_lengths_are_those_of_the_frame(saved: Callable[[bytes], Path]) -> None:
    content = make.section() + make.interface(link=113)
    content += make.enhanced(cooked_v1(V4)[:60], 0, original=len(cooked_v1(V4)))
    content += make.enhanced(cooked_v1(V4), 0, original=50)
    tally = Tally(str(saved(content)))
    with CaptureReader(tally, any_link=True) as reader:
        cut, overlong = list(reader)
    assert (len(cut.data), cut.original) == (14 + 44, 14 + len(V4))
    assert (len(overlong.data), overlong.original) == (14 + 34, 14 + 34)
    assert (tally.cut, tally.overlong) == (1, 1)
