"""The flows of `flow_stats` are those of tshark."""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from ringline.workers.captures.captures import CaptureReader, Tally
from ringline.workers.named.part import Part

from .conftest import analyze

DATA = Path(__file__).parents[2] / "data"
FOLDERS = [DATA, Path(os.environ.get("RINGLINE_CAPTURES", "/nonexistent"))]
TSHARK = shutil.which("tshark")
# Addresses and ports as on the wire, outermost first; no parts are put together.
FIELDS = ("frame.len", "ip.src", "ip.dst", "ipv6.src", "ipv6.dst", "tcp.srcport", "tcp.dstport")
FIELDS += ("udp.srcport", "udp.dstport", "tcp.flags", "frame.protocols")
FIELDS += ("vlan.id", "ip.len", "ipv6.plen")
FIELDS += ("ip.flags.mf", "ip.frag_offset", "ipv6.fraghdr.nxt")
OPTIONS = ("ip.defragment:FALSE", "ipv6.defragment:FALSE", "tcp.check_checksum:FALSE")

INNERMOST = re.compile(r"(?:(?!ip)[^:]*:)*(?:ip|ipv6)(?::ipv6\.[^:]*)*:(?:tcp|udp)(?::|$)")

Ends = tuple[tuple[bytes, int], tuple[bytes, int]]


def captures() -> list[Path]:
    """Captures of Ethernet frames, which tshark and ringline see alike."""
    found = []
    for path in sorted(it for folder in FOLDERS for it in folder.glob("*.pcap*")):
        with CaptureReader(tally := Tally(str(path)), any_link=True) as reader:
            for _ in reader:
                pass
        if not (tally.made_up or tally.left_out or tally.misdated):
            found.append(path)
    return found


def of_tshark(path: Path) -> Counter[tuple[Ends, str]]:
    """Packets, bytes, octets of IP, flags and 1 + VLAN in both directions, for TCP and UDP."""
    command = [str(TSHARK), "-r", str(path), "-n", "-T", "fields", "-E", "occurrence=f"]
    for name in FIELDS:
        command += ["-e", name]
    for option in OPTIONS:
        command += ["-o", option]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    found: Counter[tuple[Ends, str]] = Counter()
    for line in done.stdout.splitlines():
        words = line.split("\t")
        size, ip_a, ip_b, ip6_a, ip6_b, *ports, flags, protocols = words[:11]
        vlan, octets, payload, more, part, ip6_part = words[11:]
        # What is inside of ICMP or of another IP has ports of its own, and a fragment has none.
        if not INNERMOST.match(protocols) or more in ("1", "True") or int(part or 0) or ip6_part:
            continue
        ports = ports[:2] if ports[0] else ports[2:]
        packed = [ipaddress.ip_address(it).packed for it in ((ip_a or ip6_a), (ip_b or ip6_b))]
        ends = (packed[0], int(ports[0])), (packed[1], int(ports[1]))
        way, a, b = (0, *ends) if ends[0] <= ends[1] else (1, *ends[::-1])
        found[(a, b), f"packets{way}"] += 1
        found[(a, b), f"bytes{way}"] += int(size)
        found[(a, b), f"octets{way}"] += int(octets or int(payload) + 40)
        found[(a, b), f"flags{way}"] |= int(flags, 16) & 0xFF if flags else 0
        seen = found[(a, b), f"vlan{way}"]
        found[(a, b), f"vlan{way}"] = max(seen, 1 + int(vlan)) if vlan else seen
    return found


def of_ringline(paths: list[Path]) -> Counter[tuple[Ends, str]]:
    """The same, of the records of an analysis."""
    rows = Part.unpack(analyze("flow_stats", *paths, piece_bytes=1 << 20).state).state["flows"]
    found: Counter[tuple[Ends, str]] = Counter()
    for row in rows.tolist():
        numbers = [word & 0xFFFF_FFFF_FFFF_FFFF for word in row]
        rest = numbers[4]
        if not rest >> 16:
            continue
        size = 4 if rest & 0xFF == 4 else 16
        packed = [
            (numbers[at] << 64 | numbers[at + 1]).to_bytes(16, "big")[-size:] for at in (0, 2)
        ]
        ends = (packed[0], rest >> 32 & 0xFFFF), (packed[1], rest >> 16 & 0xFFFF)
        turn = ends[0] > ends[1]  # the halves of an address are signed in a record
        a, b = ends[::-1] if turn else ends
        for way in (0, 1):
            found[(a, b), f"packets{way ^ turn}"] = row[6 + way]
            found[(a, b), f"bytes{way ^ turn}"] = row[8 + way]
            found[(a, b), f"octets{way ^ turn}"] = row[10 + way]
            found[(a, b), f"flags{way ^ turn}"] = row[5] >> 32 * way & 0xFF
            found[(a, b), f"vlan{way ^ turn}"] = row[5] >> 32 * way + 16 & 0xFFFF
    return found


@pytest.mark.skipif(TSHARK is None, reason="tshark is missing")
def test_flows_are_those_of_tshark() -> None:
    paths = captures()
    expected: Counter[tuple[Ends, str]] = Counter()
    for path in paths:
        for (ends, name), number in of_tshark(path).items():
            if name.startswith("flags"):
                expected[ends, name] |= number
            elif name.startswith("vlan"):
                expected[ends, name] = max(expected[ends, name], number)
            else:
                expected[ends, name] += number
    assert any(name.startswith("vlan") and number for (_, name), number in expected.items())
    assert len(expected) > 20
    assert +of_ringline(paths) == +expected
