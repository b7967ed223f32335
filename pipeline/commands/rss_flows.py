"""The flows of `ringline rss`: read from a frame or from text, written as text, made into a frame.

A flow as text is "10.0.0.1:1234 > 10.0.0.2:80/tcp", "[2001:db8::1]:1234 > [2001:db8::2]:80/udp", or
"10.0.0.1 > 10.0.0.2" without ports.
"""

from __future__ import annotations

import re
import struct
from ipaddress import ip_address
from typing import NamedTuple

from ringline.shm.errors import UsageError
from ringline.workers.captures import headers as sizes
from ringline.workers.headers.headers import ICMP, ICMPV6, TCP, UDP, headers

SCTP = 132
NAMES = {ICMP: "icmp", TCP: "tcp", UDP: "udp", 47: "gre", 50: "esp", ICMPV6: "icmp6", SCTP: "sctp"}
WITH_PORTS = {"tcp": TCP, "udp": UDP}
UNUSED_PROTOCOL = 253  # for experiments (RFC 3692)
FORMS = '"10.0.0.1:1234 > 10.0.0.2:80/tcp" or "10.0.0.1 > 10.0.0.2"'

_END = re.compile(r"(?:\[(?P<inside>[^\]]*)\]|(?P<plain>[^\[\]:]*))(?::(?P<port>.*))?", re.DOTALL)


class Flow(NamedTuple):
    """One direction of a connection. The addresses have 4 or 16 bytes.

    protocol: a number of IANA; None: RSS looks at the addresses only. The ports are None where
    the protocol has none, and in fragments.
    """

    source: bytes
    destination: bytes
    protocol: int | None
    ports: tuple[int, int] | None
    fragment: bool = False

    def reversed(self) -> Flow:
        """The other direction."""
        ports = None if self.ports is None else (self.ports[1], self.ports[0])
        return self._replace(source=self.destination, destination=self.source, ports=ports)

    def ends(self) -> tuple[str, str]:
        """Source and destination as text. The protocol follows the destination."""
        ports = self.ports or (None, None)
        source, target = (
            _end(address, port)
            for address, port in zip((self.source, self.destination), ports, strict=True)
        )
        if self.protocol is not None:
            target += f"/{NAMES.get(self.protocol, self.protocol)}"
        return source, target + (" fragments" if self.fragment else "")

    def text(self) -> str:
        """The flow in one line."""
        return " > ".join(self.ends())

    def frame(self) -> bytes:
        """A frame of this flow, without payload."""
        body = b""
        if self.ports is not None:
            body = struct.pack("!HH", *self.ports) + bytes(sizes.TCP_BYTES - 4)
        protocol = UNUSED_PROTOCOL if self.protocol is None else self.protocol
        addresses = self.source + self.destination
        if len(self.source) == 4:
            total = sizes.IPV4_BYTES + len(body)
            header = struct.pack("!BBHHHBBH", 0x45, 0, total, 0, 0, 64, protocol, 0) + addresses
            kind = 0x0800
        else:
            header = struct.pack("!IHBB", 6 << 28, len(body), protocol, 64) + addresses
            kind = 0x86DD
        return b"\xff" * 6 + bytes(6) + struct.pack("!H", kind) + header + body


def flow_of(frame: bytes) -> Flow | None:
    """The flow of a frame; None when it is not IP."""
    found = headers(frame)
    if not found.version:
        return None
    at, size = (found.l3 + 12, 4) if found.version == 4 else (found.l3 + 8, 16)
    source, destination = frame[at : at + size], frame[at + size : at + 2 * size]
    ports = None
    if found.l4 and not found.fragment and found.protocol in (TCP, UDP, SCTP):
        ports = found.sport, found.dport
    return Flow(source, destination, found.protocol, ports, bool(found.fragment))


def parse(text: str) -> Flow:
    """The flow that `text` names. Raises UsageError."""
    ends, slash, protocol = text.partition("/")
    source_text, arrow, target_text = ends.partition(">")
    if not arrow:
        raise UsageError(f"--tuple: must be {FORMS}, not {text!r}")
    if slash and protocol.strip().lower() not in WITH_PORTS:
        raise UsageError(
            f"--tuple: the protocol must be tcp or udp, not {protocol.strip()!r}; for others give "
            "the addresses alone, because RSS looks at nothing else"
        )
    (source, sport), (target, dport) = _parse_end(source_text), _parse_end(target_text)
    if len(source) != len(target):
        raise UsageError(f"--tuple: both addresses must be IPv4, or both IPv6, not {text!r}")
    if slash and (sport is None or dport is None):
        raise UsageError(f"--tuple: {protocol.strip()} needs two ports, as in {FORMS}")
    if not slash:
        if sport is not None or dport is not None:
            raise UsageError(f"--tuple: after ports, /tcp or /udp is missing in {text!r}")
        return Flow(source, target, None, None)
    assert sport is not None
    assert dport is not None
    return Flow(source, target, WITH_PORTS[protocol.strip().lower()], (sport, dport))


def _parse_end(text: str) -> tuple[bytes, int | None]:
    """The address and the port of "10.0.0.1:80", "[::1]:80", "10.0.0.1" or "::1"."""
    text = text.strip()
    match = _END.fullmatch(text)
    address, port = text, None
    if (match and text.count(":") <= 1) or (text.startswith("[") and match):
        address = match["plain"] if match["inside"] is None else match["inside"]
        port = match["port"]
    try:
        packed = ip_address(address).packed
    except ValueError:
        raise UsageError(f"--tuple: {address!r} is not an IP address") from None
    if port is None:
        return packed, None
    number = int(port) if port.isascii() and port.isdecimal() and len(port) < 6 else 65536
    if number > 65535:
        raise UsageError(f"--tuple: a port must be 0 to 65535, not {port!r}")
    return packed, number


def _end(address: bytes, port: int | None) -> str:
    text = str(ip_address(address))
    if port is None:
        return text
    return f"[{text}]:{port}" if len(address) == 16 else f"{text}:{port}"
