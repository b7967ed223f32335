"""Receive-side scaling of the simulated 82599: the published vectors, and the queue from RETA."""

from __future__ import annotations

import ipaddress
import struct

import pytest

from ringline.pipeline.ports.sim82599.model import toeplitz

from .bare_82599 import KEY, Bare82599, table
from .frames import ethernet, ipv4, ipv6, packet, segment

# Microsoft's "Verifying the RSS Hash Calculation": source, destination, hash of the addresses,
# hash of addresses and ports.
VECTORS = [
    (("66.9.149.187", 2794), ("161.142.100.80", 1766), 0x323E8FC2, 0x51CCC178),
    (("199.92.111.2", 14230), ("65.69.140.83", 4739), 0xD718262A, 0xC626B0EA),
    (("24.19.198.95", 12898), ("12.22.207.184", 38024), 0xD2D0A5DE, 0x5C2B394A),
    (("38.27.205.30", 48228), ("209.142.163.6", 2217), 0x82989176, 0xAFC7327F),
    (("153.39.163.191", 44251), ("202.188.127.2", 1303), 0x5D1809C5, 0x10E828A2),
    (("3ffe:2501:200:1fff::7", 2794), ("3ffe:2501:200:3::1", 1766), 0x2CC18CD5, 0x40207D3D),
    (("3ffe:501:8::260:97ff:fe40:efab", 14230), ("ff02::1", 4739), 0x0F0C461C, 0xDDE51BBF),
    (
        ("3ffe:1900:4545:3:200:f8ff:fe21:67cf", 44251),
        ("fe80::200:f8ff:fe21:67cf", 38024),
        0x4B61E985,
        0x02D1FEEF,
    ),
]
TCP, UDP, ICMP = 6, 17, 1


def received(frame: bytes, *, queues: int = 4, fields: int | None = None) -> tuple[int, int, int]:
    """Queue, hash and RSS type of `frame` as received."""
    with Bare82599() as driver:
        driver.bring_up(queues)
        if fields is not None:
            driver.set_rss(queues, fields=fields)
        driver.sim.load(table([frame]))
        driver.sim.step()
        assert driver.sim.faults() == []
        found = [(q, r.hash, r.rss_type) for q in range(queues) for r in driver.receive(q)]
    (only,) = found
    return only


@pytest.mark.parametrize(("source", "destination", "by_addresses", "by_ports"), VECTORS)
def test_toeplitz_equals_the_published_vectors(
    source: tuple[str, int], destination: tuple[str, int], by_addresses: int, by_ports: int
) -> None:
    addresses = b"".join(ipaddress.ip_address(end[0]).packed for end in (source, destination))
    ports = struct.pack("!HH", source[1], destination[1])
    assert toeplitz(KEY, addresses) == by_addresses
    assert toeplitz(KEY, addresses + ports) == by_ports


@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize(("source", "destination", "by_addresses", "by_ports"), VECTORS)
def test_descriptor_and_queue_follow_the_vectors(
    source: tuple[str, int],
    destination: tuple[str, int],
    by_addresses: int,
    by_ports: int,
    protocol: int,
) -> None:
    version6 = ":" in source[0]
    with_ports = {(TCP, False): 1, (UDP, False): 7, (TCP, True): 3, (UDP, True): 8}
    frame = packet(source[0], destination[0], protocol, (source[1], destination[1]))
    kind = with_ports[protocol, version6]
    assert received(frame) == (by_ports % 128 % 4, by_ports, kind)

    bare = packet(source[0], destination[0], ICMP)
    kind = 5 if version6 else 2
    assert received(bare) == (by_addresses % 128 % 4, by_addresses, kind)


def test_fragments_and_extension_headers_hash_by_addresses_alone() -> None:
    (source, sport), (destination, dport), by_addresses, _ = VECTORS[0]
    ends = [ipaddress.ip_address(end).packed for end in (source, destination)]
    body = segment(ends[0], ends[1], UDP, (sport, dport), b"x" * 32)
    for fragment in (0x2000, 0x0003):
        frame = ethernet(ipv4(source, destination, UDP, body, fragment=fragment), 0x0800)
        assert received(frame) == (by_addresses % 4, by_addresses, 2)

    (source, sport), (destination, dport), by_addresses, _ = VECTORS[5]
    ends = [ipaddress.ip_address(end).packed for end in (source, destination)]
    body = segment(ends[0], ends[1], UDP, (sport, dport), b"x" * 32)
    for following, extension in ((44, b"\x11\0\0\x01\0\0\0\1"), (0, b"\x11\0\1\4\0\0\0\0")):
        frame = ethernet(ipv6(source, destination, following, extension + body), 0x86DD)
        assert received(frame) == (by_addresses % 4, by_addresses, 5)


def test_ports_are_found_behind_options_and_a_tag() -> None:
    (source, sport), (destination, dport), _, by_ports = VECTORS[1]
    ends = [ipaddress.ip_address(end).packed for end in (source, destination)]
    body = segment(ends[0], ends[1], TCP, (sport, dport), b"")
    for vlan in (None, 5):
        for options in (b"", b"\1" * 8):
            whole = ipv4(source, destination, TCP, body, options=options)
            frame = ethernet(whole, 0x0800, vlan=vlan)
            assert received(frame) == (by_ports % 4, by_ports, 1)


@pytest.mark.parametrize(
    "frame",
    [
        ethernet(b"", 0x0806),
        ethernet(b"\x45" + bytes(10), 0x88B5),
        ethernet(b"\x65" + bytes(40), 0x0800),
        ethernet(b"\x43" + bytes(40), 0x0800),
    ],
    ids=["ARP", "not IP", "version 6 as IPv4", "header too short"],
)
def test_frames_other_than_ip_go_to_queue_0_without_a_hash(frame: bytes) -> None:
    assert received(frame) == (0, 0, 0)


def test_with_fields_disabled_the_hash_is_of_addresses_or_absent() -> None:
    (source, sport), (destination, dport), by_addresses, _ = VECTORS[2]
    frame = packet(source, destination, UDP, (sport, dport))
    assert received(frame, fields=1 << 17) == (by_addresses % 4, by_addresses, 2)
    assert received(frame, fields=1 << 16) == (0, 0, 0)


def test_a_new_reta_and_key_hold_from_the_next_frame_on() -> None:
    (source, sport), (destination, dport), _, by_ports = VECTORS[3]
    frame = packet(source, destination, UDP, (sport, dport))
    with Bare82599() as driver:
        driver.bring_up(4)
        driver.sim.load(table([frame], repeat=0))
        entry = by_ports % 128
        for queue in (3, 1, 2, 0):
            driver.change(0x5C00 + entry // 4 * 4, 0xF << entry % 4 * 8, queue << entry % 4 * 8)
            for q in range(4):
                driver.receive(q)
            driver.sim.step()
            assert [q for q in range(4) if driver.receive(q)] == [queue]
        driver.set_rss(4, key=bytes(40))
        for q in range(4):
            driver.receive(q)
        driver.sim.step()
        assert {r.hash for q in range(4) for r in driver.receive(q)} == {0}


def test_without_rss_everything_goes_to_queue_0() -> None:
    (source, sport), (destination, dport), *_ = VECTORS[0]
    with Bare82599() as driver:
        driver.bring_up(4)
        driver.write(0x5818, 0)
        driver.sim.load(table([packet(source, destination, UDP, (sport, dport))]))
        driver.sim.step()
        (only,) = driver.receive(0)
    assert (only.rss_type, only.hash) == (0, 0)
