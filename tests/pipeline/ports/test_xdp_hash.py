"""The Toeplitz hash in software, with the published verification vectors."""

from __future__ import annotations

import ipaddress

import pytest

from ringline.pipeline._pipeline import ffi, lib
from ringline.pipeline.ports.rss import rss_key

# "Verifying the RSS hash calculation" of the NDIS documentation: destination, source, hash of the
# addresses with ports, hash of the addresses.
VECTORS = [
    ("161.142.100.80:1766", "66.9.149.187:2794", 0x51CCC178, 0x323E8FC2),
    ("65.69.140.83:4739", "199.92.111.2:14230", 0xC626B0EA, 0xD718262A),
    ("12.22.207.184:38024", "24.19.198.95:12898", 0x5C2B394A, 0xD2D0A5DE),
    ("209.142.163.6:2217", "38.27.205.30:48228", 0xAFC7327F, 0x82989176),
    ("202.188.127.2:1303", "153.39.163.191:44251", 0x10E828A2, 0x5D1809C5),
    ("[3ffe:2501:200:3::1]:1766", "[3ffe:2501:200:1fff::7]:2794", 0x40207D3D, 0x2CC18CD5),
    ("[ff02::1]:4739", "[3ffe:501:8::260:97ff:fe40:efab]:14230", 0xDDE51BBF, 0x0F0C461C),
    (
        "[fe80::200:f8ff:fe21:67cf]:38024",
        "[3ffe:1900:4545:3:200:f8ff:fe21:67cf]:44251",
        0x02D1FEEF,
        0x4B61E985,
    ),
]


def hash_of(data: bytes, key: str = "default") -> int | None:
    tables = ffi.new("uint32_t[]", 36 * 256)
    lib.rl_xdp_hash_tables(rss_key(key), tables)
    out = ffi.new("uint32_t *")
    frame = ffi.new("uint8_t[]", data)
    return out[0] if lib.rl_xdp_hash(tables, frame, len(data), out) else None


def frame(source: str, target: str, protocol: int, tags: bytes = b"", fragment: int = 0) -> bytes:
    pairs = [text.strip("[").replace("]", "").rpartition(":") for text in (source, target)]
    addresses = [ipaddress.ip_address(address) for address, _, _ in pairs]
    ports = b"".join(int(port).to_bytes(2, "big") for _, _, port in pairs)
    both = b"".join(address.packed for address in addresses)
    if addresses[0].version == 4:
        flags = fragment.to_bytes(2, "big")
        packet = b"\x45\0\0\x28\0\0" + flags + bytes([64, protocol, 0, 0]) + both + ports
        kind = b"\x08\x00"
    else:
        packet = b"\x60" + bytes(5) + bytes([protocol, 64]) + both + ports
        kind = b"\x86\xdd"
    return bytes(12) + tags + kind + packet


@pytest.mark.parametrize(("target", "source", "with_ports", "addresses"), VECTORS)
def test_the_published_vectors(target: str, source: str, with_ports: int, addresses: int) -> None:
    for protocol in (6, 17):
        assert hash_of(frame(source, target, protocol)) == with_ports
    assert hash_of(frame(source, target, 1)) == addresses


def test_tags_are_skipped() -> None:
    target, source, with_ports, _ = VECTORS[0]
    tag, service = bytes.fromhex("81000001"), bytes.fromhex("88a80002")
    assert hash_of(frame(source, target, 6, tag)) == with_ports
    assert hash_of(frame(source, target, 6, service + tag)) == with_ports
    assert hash_of(frame(source, target, 6, service + tag + tag)) is None


@pytest.mark.parametrize("fragment", [0x2000, 0x0001, 0x2001])
def test_all_fragments_of_a_packet_have_the_hash_of_its_addresses(fragment: int) -> None:
    target, source, _, addresses = VECTORS[0]
    assert hash_of(frame(source, target, 17, fragment=fragment)) == addresses


def test_both_directions_have_the_same_hash_with_the_symmetric_key() -> None:
    target, source, _, _ = VECTORS[1]
    one, other = frame(source, target, 6), frame(target, source, 6)
    assert hash_of(one, "symmetric") == hash_of(other, "symmetric")
    assert hash_of(one) != hash_of(other)


def test_other_and_short_frames_have_none_and_are_not_read_past_their_end() -> None:
    whole = frame(VECTORS[0][1], VECTORS[0][0], 6)
    for length in range(len(whole)):
        found = hash_of(whole[:length])
        assert (found is None) == (length < 34), length
    assert hash_of(bytes(12) + b"\x08\x06" + bytes(46)) is None
