"""Checksums and MAC addresses of `ringline.workers.captures.headers`."""

from __future__ import annotations

import runpy
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringline.workers.captures import headers

from ...packet_headers import pseudo_header_sum

make: Any = type("Make", (), runpy.run_path(str(Path(__file__).parents[2] / "data" / "make.py")))

V4 = bytes([192, 0, 2, 1]), bytes([198, 51, 100, 1])
DATAGRAM = make.udp(5000, 100, 1)


@given(st.binary(max_size=200), st.integers(0, 1 << 40))
def test_checksum_is_the_folded_sum_of_words(data: bytes, start: int) -> None:
    total = start
    padded = data + bytes(len(data) % 2)
    for at in range(0, len(padded), 2):
        total += int.from_bytes(padded[at : at + 2], "big")
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    assert headers.checksum(data, start) == 0xFFFF - total


def test_checksum_of_the_example_in_rfc_1071() -> None:
    assert headers.checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF - 0xDDF2


def test_data_with_its_own_checksum_sums_to_zero() -> None:
    packet = make.ipv4(17, DATAGRAM)
    assert headers.checksum(packet[:20]) == 0
    start = pseudo_header_sum(*V4, 17, len(DATAGRAM))
    summed = headers.checksum(DATAGRAM, start)
    whole = DATAGRAM[:6] + struct.pack("!H", summed) + DATAGRAM[8:]
    assert headers.checksum(whole, start) == 0


def test_mac_addresses() -> None:
    assert headers.parse_mac("02:00:00:aB:00:01") == bytes.fromhex("020000ab0001")
    assert headers.parse_mac("02-00-00-ab-00-01") == bytes.fromhex("020000ab0001")
    for wrong in (
        "",
        "02:00:00:00:00",
        "02:00:00:00:00:01:02",
        "02:00-00:00:00:01",
        "0x:00:00:00:00:01",
    ):
        with pytest.raises(ValueError, match="is not a MAC address"):
            headers.parse_mac(wrong)
