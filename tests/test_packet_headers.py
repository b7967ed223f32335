"""The parser that other tests compare with: `packet_headers.parse` and `rss_input`."""

from __future__ import annotations

import runpy
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from . import packet_headers

make: Any = type("Make", (), runpy.run_path(str(Path(__file__).parent / "data" / "make.py")))

V4 = bytes([192, 0, 2, 1]), bytes([198, 51, 100, 1])
V6 = bytes.fromhex("20010db8" + "0" * 23 + "1"), bytes.fromhex("20010db8" + "0" * 20 + "ffff")
PORTS = struct.pack("!HH", 5000, 9)
DATAGRAM = make.udp(5000, 100, 1)


def test_ipv4_and_its_ports() -> None:
    layers = packet_headers.parse(make.ethernet(0x0800, make.ipv4(17, DATAGRAM)))
    assert layers == packet_headers.Layers(None, 0x0800, 14, 4, *V4, 17, 34, False, PORTS)


def test_ipv6_behind_a_vlan_tag() -> None:
    layers = packet_headers.parse(
        memoryview(make.ethernet(0x86DD, make.ipv6(17, DATAGRAM), vlan=100))
    )
    assert layers == packet_headers.Layers(100, 0x86DD, 18, 6, *V6, 17, 58, False, PORTS)


def test_ports_lie_behind_options_and_extension_headers() -> None:
    packet = bytearray(make.ipv4(17, bytes(8) + DATAGRAM))
    packet[0] = 0x47
    layers = packet_headers.parse(make.ethernet(0x0800, bytes(packet)))
    assert layers is not None
    assert (layers.transport, layers.ports) == (42, PORTS)
    extensions = b"\x2b\0" + bytes(6) + b"\x11\1" + bytes(14) + DATAGRAM  # hop by hop, routing
    layers = packet_headers.parse(make.ethernet(0x86DD, make.ipv6(0, extensions)))
    assert layers is not None
    assert (layers.protocol, layers.transport, layers.ports) == (17, 78, PORTS)


@pytest.mark.parametrize("fragment", [0x2000, 0x2005, 0x0005])
def test_fragments_have_no_ports(fragment: int) -> None:
    layers = packet_headers.parse(make.ethernet(0x0800, make.ipv4(17, DATAGRAM, fragment=fragment)))
    assert layers is not None
    assert layers.fragment
    assert layers.ports == b""
    extension = struct.pack("!BBHI", 17, 0, fragment >> 13 & 1 | (fragment & 0x1FFF) << 3, 1)
    layers = packet_headers.parse(make.ethernet(0x86DD, make.ipv6(44, extension + DATAGRAM)))
    assert layers is not None
    assert layers.fragment
    assert layers.ports == b""


def test_do_not_fragment_is_no_fragment() -> None:
    layers = packet_headers.parse(make.ethernet(0x0800, make.ipv4(17, DATAGRAM, fragment=0x4000)))
    assert layers is not None
    assert not layers.fragment


@pytest.mark.parametrize(
    "frame",
    [
        make.ethernet(0x0806, bytes(28)),
        make.ethernet(0x0800, bytes(46)),  # version 0
        make.ethernet(0x0800, make.ipv4(17, b"")[:19]),
        make.ethernet(0x0800, b"\x44" + make.ipv4(17, DATAGRAM)[1:]),  # header of 16 bytes
        make.ethernet(0x86DD, make.ipv6(17, b"")[:39]),
    ],
)
def test_what_is_not_ip_is_not_guessed(frame: bytes) -> None:
    layers = packet_headers.parse(frame)
    assert layers is not None
    assert (layers.version, layers.protocol, layers.ports) == (None, None, b"")
    assert packet_headers.rss_input(frame) == b""


def test_rss_input_by_kind_of_packet() -> None:
    """Ports where the card hashes them, addresses alone where it does not, nothing otherwise."""
    tcp = PORTS + bytes(16)
    hop_by_hop = b"\x11\0" + bytes(6) + DATAGRAM
    expected = {
        make.ethernet(0x0800, make.ipv4(17, DATAGRAM)): b"".join(V4) + PORTS,
        make.ethernet(0x0800, make.ipv4(17, DATAGRAM), vlan=9): b"".join(V4) + PORTS,
        make.ethernet(0x0800, make.ipv4(6, tcp)): b"".join(V4) + PORTS,
        make.ethernet(0x0800, make.ipv4(132, tcp)): b"".join(V4),
        make.ethernet(0x0800, make.ipv4(6, tcp, fragment=0x2000)): b"".join(V4),
        make.ethernet(0x86DD, make.ipv6(6, tcp)): b"".join(V6) + PORTS,
        make.ethernet(0x86DD, make.ipv6(58, tcp)): b"".join(V6),
        make.ethernet(0x86DD, make.ipv6(0, hop_by_hop)): b"".join(V6),
        make.ethernet(0x88CC, DATAGRAM): b"",
        b"short": b"",
    }
    assert {frame: packet_headers.rss_input(frame) for frame in expected} == expected


@given(st.binary(max_size=120), st.sampled_from([b"", b"\x08\0\x45", b"\x86\xdd\x60", b"\x81\0"]))
def test_no_frame_raises(rest: bytes, start: bytes) -> None:
    frame = bytes(12) + start + rest
    layers = packet_headers.parse(frame)
    assert (layers is None) == (len(frame) < 14)
    assert layers is None or layers.network <= len(frame)
    assert len(packet_headers.rss_input(frame)) in (0, 8, 12, 32, 36)
    assert packet_headers.parse(frame[:13]) is None
