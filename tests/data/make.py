"""Make the captures in this folder: python tests/data/make.py

Every frame is generated here; none was captured. The builders of the two formats use no
code of `ringline.workers.captures.captures`, which they test. Addresses are from the
ranges for documentation.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

Packet = tuple[int, bytes]  # nanoseconds since 1970, frame

START = 1_700_000_000_000_000_000
MACS = bytes.fromhex("020000000001020000000002")


def pcap(packets: Iterable[Packet], order: str = "<", nanoseconds: bool = False) -> bytes:
    """A pcap file with complete frames."""
    magic = 0xA1B23C4D if nanoseconds else 0xA1B2C3D4
    unit = 1 if nanoseconds else 1000
    pieces = [struct.pack(order + "IHHIIII", magic, 2, 4, 0, 0, 65535, 1)]
    for time, frame in packets:
        seconds, rest = divmod(time, 1_000_000_000)
        pieces.append(struct.pack(order + "IIII", seconds, rest // unit, len(frame), len(frame)))
        pieces.append(frame)
    return b"".join(pieces)


def save(path: Path, firsts: bytes, begin: int = 0) -> str:
    """Write a pcap file with a packet of 70 bytes for each of these first bytes, one each µs from
    `begin` ns on; returns its path."""
    packets = [(START + begin + 1000 * n, bytes([it]) + bytes(69)) for n, it in enumerate(firsts)]
    path.write_bytes(pcap(packets))
    return str(path)


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    """A pcapng block."""
    body += bytes(-len(body) % 4)
    length = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + length + body + length


def section(order: str = "<") -> bytes:
    """A section header block of unknown length."""
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def option(code: int, value: bytes, order: str = "<") -> bytes:
    """An option of a pcapng block."""
    return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)


def interface(order: str = "<", link: int = 1, snap: int = 0, options: bytes = b"") -> bytes:
    """An interface description block."""
    return block(1, struct.pack(order + "HHI", link, 0, snap) + options, order)


def enhanced(
    frame: bytes, units: int, order: str = "<", number: int = 0, original: int | None = None
) -> bytes:
    """An enhanced packet block; `units` is the time in the units of the interface."""
    lengths = len(frame), len(frame) if original is None else original
    fields = struct.pack(order + "IIIII", number, units >> 32, units & 0xFFFFFFFF, *lengths)
    return block(6, fields + frame + bytes(-len(frame) % 4), order)


def simple(frame: bytes, original: int, order: str = "<") -> bytes:
    """A simple packet block."""
    return block(3, struct.pack(order + "I", original) + frame, order)


def folded(data: bytes) -> int:
    """The Internet checksum (RFC 1071), one 16-bit word at a time."""
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


def ipv4(protocol: int, payload: bytes, host: int = 1, fragment: int = 0) -> bytes:
    """An IPv4 packet from 192.0.2.`host` to 198.51.100.1."""
    ends = bytes([192, 0, 2, host, 198, 51, 100, 1])
    start = struct.pack("!BBHHHBB", 0x45, 0, 20 + len(payload), host, fragment, 64, protocol)
    return start + struct.pack("!H", folded(start + b"\0\0" + ends)) + ends + payload


def ipv6(protocol: int, payload: bytes, host: int = 1) -> bytes:
    """An IPv6 packet from 2001:db8::`host` to 2001:db8::ffff."""
    prefix = bytes.fromhex("20010db8") + bytes(10)
    ends = prefix + struct.pack("!H", host) + prefix + b"\xff\xff"
    return struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64) + ends + payload


def udp(port: int, size: int, number: int) -> bytes:
    """A UDP datagram without a checksum; its payload begins with `number`."""
    payload = struct.pack("!I", number) + bytes(max(size - 4, 0))
    return struct.pack("!HHHH", port, 9, 8 + len(payload), 0) + payload


def ethernet(ethertype: int, payload: bytes, vlan: int | None = None) -> bytes:
    """A frame without CRC and without padding."""
    tag = b"" if vlan is None else struct.pack("!HH", 0x8100, vlan)
    return MACS + tag + struct.pack("!H", ethertype) + payload


def mixed() -> list[bytes]:
    """Flows of several kinds, with shortest, longest and unusual frames."""
    frames = []
    for number in range(96):
        port = 5000 + number % 7
        size = (4, 18, 100, 700, 1472)[number % 5]
        host = number % 11
        frames.append(ethernet(0x0800, ipv4(17, udp(port, size, number), host)))
        if number % 3 == 0:
            size = min(size, 1452)
            frames.append(ethernet(0x86DD, ipv6(17, udp(port, size, number), host)))
        if number % 8 == 0:
            tcp = struct.pack("!HHIIHHHH", port, 80, number, 1, 0x5010, 65535, 0, 0)
            frames.append(ethernet(0x0800, ipv4(6, tcp, host)))
            frames.append(ethernet(0x86DD, ipv6(6, tcp + bytes(number), host)))
        if number % 16 == 0:
            datagram = udp(port, 60, number)
            frames.append(ethernet(0x0800, ipv4(17, datagram[:40], host, 0x2000)))
            frames.append(ethernet(0x0800, ipv4(17, datagram[40:], host, 5)))
            frames.append(ethernet(0x0800, ipv4(17, udp(port, 1472, number), host), vlan=number))
            frames.append(ethernet(0x0806, bytes.fromhex("0001080006040001") + bytes(20)))
            frames.append(ethernet(0x0800, ipv4(1, b"\x08\0" + number.to_bytes(6, "big"), host)))
            hop_by_hop = b"\x11\0" + bytes(6) + udp(port, 30, number)
            frames.append(ethernet(0x86DD, ipv6(0, hop_by_hop, host)))
            frames.append(ethernet(0x88CC, number.to_bytes(30, "big")))
    return frames


def timed(frames: Iterable[bytes]) -> list[Packet]:
    """The frames with timestamps 1001 ns apart."""
    return [(START + 1001 * number, frame) for number, frame in enumerate(frames)]


def sections() -> bytes:
    """A pcapng file: two sections of different byte order, with all common block types."""
    frames = mixed()[:60]
    ticks = option(9, b"\x09")
    pieces = [section("<"), interface("<"), interface("<", snap=65535, options=ticks)]
    pieces.append(block(4, bytes(4)))  # name resolution
    for number, frame in enumerate(frames[:30]):
        units = (START + number * 1000) // (1 if number % 2 else 1000)
        pieces.append(enhanced(frame, units, "<", number % 2))
    pieces.append(block(5, bytes(12)))  # interface statistics
    binary = option(9, b"\x8a", ">") + option(14, struct.pack(">q", 3600), ">")
    pieces += [section(">"), interface(">", options=binary), block(0x80000BAD, bytes(9), ">")]
    for number, frame in enumerate(frames[30:]):
        if number % 5:
            pieces.append(enhanced(frame, (START // 1_000_000_000 << 10) + number, ">"))
        else:
            pieces.append(simple(frame, len(frame), ">"))
    return b"".join(pieces)


def samples() -> dict[str, bytes]:
    """File name -> content."""
    longer = [
        ethernet(0x0800, ipv4(17, udp(5000, size, size))) for size in (1472, 1473, 1477, 8000)
    ]
    longer += [ethernet(0x0800, ipv4(17, udp(5000, s, s)), vlan=5) for s in (1472, 1473, 2000)]
    return {
        "mixed.pcap": pcap(timed(mixed())),
        "big_endian.pcap": pcap(timed(mixed()[:40]), ">", nanoseconds=True),
        "sections.pcapng": sections(),
        "oversize.pcap": pcap(timed(longer)),
    }


if __name__ == "__main__":
    for name, content in samples().items():
        (Path(__file__).parent / name).write_bytes(content)
