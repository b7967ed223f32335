"""The bundled plugin `router`, frame by frame. tests/e2e/test_router.py lets real hosts use it."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from ringline.shm.errors import PluginError
from ringline.workers.api import checksum, fix_checksums
from ringline.workers.plugins.routing.interfaces import SPECIAL, SPECIAL6, is_special
from ringline.workers.plugins.routing.judgement import REASONS
from ringline.workers.testing import Frame, Result, Run, run_plugin

pytestmark = pytest.mark.timeout(600)  # the first test compiles the plugin
ROUTER = "ringline.workers.plugins.router:router"
SECOND = 1_000_000_000
PORTS = ("wan", "lan")
ADDRESSES = {
    "wan": ["192.0.2.1/24", "2001:db8:1::1/64"],
    "lan": ["198.51.100.1/24", "2001:db8:2::1/64"],
    "lan.5": ["203.0.113.1/24"],
}
MACS = {"wan": 0x0200C0000201, "lan": 0x0200C6336401}  # 02:00 and the IPv4 address
WAN, LAN = (MACS[name].to_bytes(6, "big") for name in PORTS)
HOST, OTHER = b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02"
BROADCAST = b"\xff" * 6
IPV4, ARP, IPV6 = b"\x08\x00", b"\x08\x06", b"\x86\xdd"
ICMP, UDP, ICMPV6 = 1, 17, 58


def packed(address: str) -> bytes:
    return ip_address(address).packed


def ip4(source: str, target: str, payload: bytes = b"", protocol: int = UDP, **keys: int) -> bytes:
    """An IPv4 packet with a right header checksum."""
    head = b"\x45\0" + (20 + len(payload)).to_bytes(2, "big") + b"\0\x07"
    head += keys.get("fragment", 0).to_bytes(2, "big") + bytes([keys.get("ttl", 64), protocol])
    rest = packed(source) + packed(target)
    return head + checksum(head + b"\0\0" + rest).to_bytes(2, "big") + rest + payload


def ip6(source: str, target: str, payload: bytes, protocol: int = UDP, hops: int = 64) -> bytes:
    head = b"\x60\0\0\0" + len(payload).to_bytes(2, "big") + bytes([protocol, hops])
    return head + packed(source) + packed(target) + payload


def with_length(packet: bytes, length: int) -> bytes:
    """The IPv4 packet with another total length, and a right header checksum."""
    head = packet[:2] + length.to_bytes(2, "big") + packet[4:10] + b"\0\0" + packet[12:20]
    return head[:10] + checksum(head).to_bytes(2, "big") + head[12:] + packet[20:]


def udp(length: int = 20) -> bytes:
    return b"\x10\0\x20\0" + (8 + length).to_bytes(2, "big") + b"\0\0" + bytes(length)


def frame(
    packet: bytes, port: int = 0, target: bytes = WAN, kind: bytes = IPV4, **keys: Any
) -> Frame:
    at = keys.pop("at", 0)
    data = bytearray(target + HOST + keys.pop("tag", b"") + kind + packet)
    if keys.pop("fix", kind == IPV6):
        fix_checksums(data)
    return Frame(bytes(data).ljust(60, b"\0"), port, time=int(at * SECOND), **keys)


def arp(
    sender: str, target: str, operation: int = 1, mac: bytes = HOST, port: int = 0, **keys: Any
) -> Frame:
    body = bytes.fromhex("00010800060400") + bytes([operation]) + mac + packed(sender)
    body += bytes(6) + packed(target)
    return frame(body, port, keys.pop("to", BROADCAST), ARP, **keys)


def solicitation(
    source: str, subject: str, port: int = 0, option: bool = True, **keys: Any
) -> Frame:
    message = bytes([keys.pop("kind", 135)]) + bytes(7) + packed(subject)
    message += (bytes([keys.pop("which", 1), 1]) + HOST) if option else b""
    group = b"\xff\x02" + bytes(9) + b"\x01\xff" + packed(subject)[13:]
    packet = ip6(source, str(ip_address(group)), message, ICMPV6, keys.pop("hops", 255))
    return frame(packet, port, b"\x33\x33\xff" + group[13:], IPV6, **keys)


def routed(*frames: Frame, blanks: int = 0, lines: str | None = None, **options: Any) -> Run:
    given = {"addresses": ADDRESSES, **options}
    return run_plugin(
        ROUTER, frames, ports=PORTS, options=given, blanks=blanks, batch=1, debug=False
    )


def reason(run: Run) -> str | None:
    last: Result = run[-1]
    return last.reason


# The host 198.51.100.9 at the port lan has the address OTHER.
KNOWN = arp("198.51.100.9", "198.51.100.1", 2, OTHER, 1, to=LAN)
KNOWN6 = solicitation("2001:db8:2::9", "2001:db8:2::1", 1)


def test_arp_for_an_own_address_is_answered() -> None:
    run = routed(arp("192.0.2.9", "192.0.2.1"))
    body = bytes.fromhex("0001080006040002") + WAN + packed("192.0.2.1") + HOST
    expected = (HOST + WAN + ARP + body + packed("192.0.2.9")).ljust(60, b"\0")
    assert (run[0].verdict, run[0].frame) == (0, expected)
    assert run.named["said"]["arp_reply"] == 1
    assert run.named["neighbours_heard"] == 1  # who asks is known


@pytest.mark.parametrize(
    "asked",
    [
        arp("192.0.2.9", "192.0.2.7"),  # for another host
        arp("192.0.2.9", "198.51.100.1"),  # for the address of another interface
        arp("192.0.2.9", "192.0.2.1", 2),  # a reply
    ],
)
def test_other_arp_is_consumed(asked: Frame) -> None:
    assert reason(routed(asked)) == "consumed"


def test_a_packet_is_forwarded() -> None:
    packet = ip4("192.0.2.9", "198.51.100.9", udp(50), ttl=9)
    run = routed(KNOWN, frame(packet))
    expected = ip4("192.0.2.9", "198.51.100.9", udp(50), ttl=8)
    assert (run[1].verdict, run[1].frame) == (1, OTHER + LAN + IPV4 + expected)


def test_an_ipv6_packet_is_forwarded() -> None:
    packet = ip6("2001:db8:1::9", "2001:db8:2::9", udp(50), hops=9)
    run = routed(KNOWN6, frame(packet, kind=IPV6, fix=False))
    expected = packet[:7] + b"\x08" + packet[8:]
    assert (run[1].verdict, run[1].frame) == (1, HOST + LAN + IPV6 + expected)


def test_the_first_packet_becomes_the_request() -> None:
    packet = ip4("192.0.2.9", "198.51.100.9", udp(100))
    run = routed(frame(packet), frame(packet, at=0.5), frame(packet, at=1.5), frame(packet, at=2.6),
                 frame(packet, at=3.7), frame(packet, at=9))  # fmt: skip
    body = bytes.fromhex("0001080006040001") + LAN + packed("198.51.100.1") + bytes(6)
    request = (BROADCAST + LAN + ARP + body + packed("198.51.100.9")).ljust(60, b"\0")
    assert [(r.verdict, r.frame) for r in (run[0], run[2], run[3], run[5])] == [(1, request)] * 4
    assert run[1].reason == "unresolved"
    # After three requests in vain the host is unreachable: type 3, code 1.
    assert (run[4].verdict, run[4].frame[34:36]) == (0, b"\x03\x01")


def test_the_first_ipv6_packet_becomes_the_solicitation() -> None:
    run = routed(frame(ip6("2001:db8:1::9", "2001:db8:2::1:2", udp(100)), kind=IPV6))
    sent = bytearray(run[0].frame)
    assert (run[0].verdict, sent[:14]) == (1, b"\x33\x33\xff\x01\0\x02" + LAN + IPV6)
    assert sent[38:54] == packed("ff02::1:ff01:2")
    assert sent[22:38] == packed("fe80::c6ff:fe33:6401")
    assert (
        sent[54:] == b"\x87\0" + sent[56:58] + bytes(4) + packed("2001:db8:2::1:2") + b"\1\1" + LAN
    )
    before = bytes(sent)
    fix_checksums(sent)
    assert (sent, sent[21]) == (before, 255)


def test_a_neighbour_is_asked_for_again_before_its_entry_ends() -> None:
    packet = frame(ip4("192.0.2.9", "198.51.100.9", udp()), at=40)
    run = routed(KNOWN, packet, packet, blanks=4)
    assert [r.verdict for r in run[1:]] == [1, 1]
    assert [(r.verdict, r.frame[:6]) for r in run.created] == [(1, BROADCAST)]
    assert routed(KNOWN, packet)[1].frame[:6] == OTHER  # without a blank it goes on
    late = frame(ip4("192.0.2.9", "198.51.100.9", udp()), at=61)
    assert routed(KNOWN, late)[1].frame[:6] == BROADCAST  # the entry has ended


@pytest.mark.parametrize(
    ("source", "to", "code"), [("2001:db8:1::9", HOST, 0xE0), ("::", b"\x33\x33\0\0\0\1", 0xA0)]
)
@pytest.mark.parametrize("subject", ["2001:db8:1::1", "fe80::c0ff:fe00:201"])
def test_a_solicitation_is_answered(source: str, to: bytes, code: int, subject: str) -> None:
    run = routed(solicitation(source, subject, option=source != "::"))
    sent = bytearray(run[0].frame)
    assert (run[0].verdict, sent[:14]) == (0, to + WAN + IPV6)
    assert sent[22:38] == packed(subject)
    assert sent[38:54] == packed("ff02::1" if source == "::" else source)
    assert (sent[54], sent[58]) == (136, code)
    assert sent[62:] == packed(subject) + b"\2\1" + WAN
    before = bytes(sent)
    fix_checksums(sent)
    assert (sent, sent[21]) == (before, 255)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (solicitation("2001:db8:1::9", "2001:db8:1::7"), "consumed"),
        (solicitation("2001:db8:1::9", "2001:db8:2::1"), "consumed"),
        (solicitation("2001:db8:1::9", "2001:db8:1::1", hops=64), "bad_header"),
        (solicitation("2001:db8:1::9", "2001:db8:1::1", fix=False), "bad_header"),
        (solicitation("fe80::9", "2001:db8:1::1", kind=133), "consumed"),
    ],
)
def test_other_discovery_is_not_answered(asked: Frame, why: str) -> None:
    assert reason(routed(asked)) == why


def test_echo_is_answered() -> None:
    echo = b"\x08\0\0\0\x12\x34\0\1" + b"data"
    request = frame(ip4("192.0.2.9", "198.51.100.1", echo, ICMP), fix=True)
    sent = bytearray(routed(request)[0].frame)
    assert sent[:14] == HOST + WAN + IPV4
    assert sent[26:34] == packed("198.51.100.1") + packed("192.0.2.9")
    assert sent[34:] == b"\0\0" + sent[36:38] + echo[4:] + bytes(len(sent) - 46)
    before = bytes(sent)
    fix_checksums(sent)
    assert sent == before
    echo = b"\x80\0\0\0\x12\x34\0\1" + b"data"
    sent = bytearray(
        routed(frame(ip6("2001:db8:1::9", "2001:db8:1::1", echo, ICMPV6), kind=IPV6))[0].frame
    )
    assert sent[22:54] == packed("2001:db8:1::1") + packed("2001:db8:1::9")
    assert sent[54] == 129
    before = bytes(sent)
    fix_checksums(sent)
    assert sent == before


def errors4() -> list[Any]:
    return [
        (ip4("192.0.2.9", "198.51.100.9", udp(), ttl=1), 0x0B00, 0),
        (ip4("192.0.2.9", "8.8.8.8", udp()), 0x0300, 0),
        (ip4("192.0.2.9", "192.0.2.1", udp()), 0x0303, 0),
        (ip4("192.0.2.9", "192.0.2.1", udp(), 50), 0x0302, 0),
        (ip4("192.0.2.9", "203.0.113.9", udp(1380)), 0x0304, 1400),
    ]


@pytest.mark.parametrize(("packet", "icmp", "extra"), errors4())
def test_icmp_errors(packet: bytes, icmp: int, extra: int) -> None:
    run = routed(frame(packet), mtus={"lan.5": 1400})
    sent = bytearray(run[0].frame)
    assert (run[0].verdict, sent[:14]) == (0, HOST + WAN + IPV4)
    assert sent[26:34] == packed("192.0.2.1") + packed("192.0.2.9")
    assert int.from_bytes(sent[34:36], "big") == icmp
    assert int.from_bytes(sent[38:42], "big") == extra
    assert sent[42:] == packet[:548]
    before = bytes(sent)
    fix_checksums(sent)
    assert sent == before
    assert run.named["said"]["icmp_error"] == 1


@pytest.mark.parametrize(
    ("target", "hops", "size", "icmp", "extra"),
    [
        ("2001:db8:2::9", 1, 20, 0x0300, 0),
        ("2001:db8:9::9", 64, 20, 0x0100, 0),
        ("2001:db8:1::1", 64, 20, 0x0104, 0),
        ("2001:db8:2::9", 64, 1400, 0x0200, 1400),
    ],
)
def test_icmpv6_errors(target: str, hops: int, size: int, icmp: int, extra: int) -> None:
    packet = ip6("2001:db8:1::9", target, udp(size), hops=hops)
    sent = bytearray(routed(frame(packet, kind=IPV6, fix=False), mtus={"lan": 1400})[0].frame)
    assert sent[:14] == HOST + WAN + IPV6
    assert sent[22:54] == packed("2001:db8:1::1") + packed("2001:db8:1::9")
    assert int.from_bytes(sent[54:56], "big") == icmp
    assert int.from_bytes(sent[58:62], "big") == extra
    assert sent[62:] == packet[:1232]
    before = bytes(sent)
    fix_checksums(sent)
    assert sent == before


def test_errors_are_limited() -> None:
    expired = frame(ip4("192.0.2.9", "198.51.100.9", udp(), ttl=1))
    later = frame(ip4("192.0.2.9", "198.51.100.9", udp(), ttl=1), at=1)
    run = routed(*[expired] * 12, later, icmp_rate=5)
    assert [r.reason for r in run] == [None] * 10 + ["ttl_expired"] * 2 + [None]
    assert reason(routed(expired, icmp_rate=0)) == "ttl_expired"


@pytest.mark.parametrize(
    ("packet", "why"),
    [
        (ip4("192.0.2.9", "8.8.8.8", b"\x0b" + bytes(30), ICMP), "no_route"),  # about an error
        (ip4("192.0.2.9", "8.8.8.8", udp(), fragment=5), "no_route"),  # a later fragment
        (ip4("127.0.0.1", "198.51.100.9", udp()), "martian"),
        (ip4("0.0.0.0", "198.51.100.9", udp()), "martian"),
        (ip4("224.0.0.1", "198.51.100.9", udp()), "martian"),
        (ip4("255.255.255.255", "198.51.100.9", udp()), "martian"),
        (ip4("192.0.2.9", "127.0.0.1", udp()), "martian"),
        (ip4("192.0.2.9", "240.0.0.1", udp()), "martian"),
        (ip4("169.254.1.1", "198.51.100.9", udp()), "link_local"),
        (ip4("192.0.2.9", "169.254.1.1", udp()), "link_local"),
        (ip4("192.0.2.9", "224.0.0.5", udp()), "multicast"),
        (ip4("192.0.2.9", "255.255.255.255", udp()), "broadcast"),
        (ip4("192.0.2.9", "198.51.100.255", udp()), "broadcast"),
        (ip4("192.0.2.9", "198.51.100.0", udp()), "broadcast"),
        (ip4("192.0.2.9", "198.51.100.9", udp())[:-4] + b"", "bad_header"),  # shorter than it says
        (b"\x45\0\0\x30" + bytes(44), "bad_header"),
        (with_length(ip4("192.0.2.9", "198.51.100.9", udp()), 0), "bad_header"),
        (with_length(ip4("192.0.2.9", "198.51.100.9", udp()), 19), "bad_header"),
    ],
)
def test_what_is_not_forwarded_is_dropped_by_name(packet: bytes, why: str) -> None:
    run = run_plugin(
        ROUTER, [Frame(WAN + HOST + IPV4 + packet)], ports=PORTS,
        options={"addresses": ADDRESSES}, debug=False,
    )  # fmt: skip
    assert run.drops == dict.fromkeys(REASONS, 0) | {why: 1}


@pytest.mark.parametrize(
    ("source", "target", "why"),
    [
        ("::1", "2001:db8:2::9", "martian"),
        ("::", "2001:db8:2::9", "martian"),
        ("ff02::1", "2001:db8:2::9", "martian"),
        ("2001:db8:1::9", "::1", "martian"),
        ("fe80::9", "2001:db8:2::9", "link_local"),
        ("2001:db8:1::9", "fe80::9", "link_local"),
        ("2001:db8:1::9", "ff0e::1", "multicast"),
    ],
)
def test_ipv6_that_is_not_forwarded(source: str, target: str, why: str) -> None:
    run = routed(frame(ip6(source, target, udp()), kind=IPV6))
    assert run.drops == dict.fromkeys(REASONS, 0) | {why: 1}


@pytest.mark.parametrize(
    ("data", "port", "why"),
    [
        (bytes(33), 0, "bad_frame"),
        (LAN + HOST + IPV4 + bytes(46), 0, "other_host"),
        (WAN + HOST + b"\x88\xb5" + bytes(46), 0, "not_ip"),
        (WAN + HOST + b"\x81\0\0\x07" + IPV4 + bytes(46), 0, "no_interface"),
        (BROADCAST + HOST + IPV4 + ip4("192.0.2.9", "198.51.100.9", udp()), 0, "broadcast"),
    ],
)
def test_frames_that_are_not_for_the_router(data: bytes, port: int, why: str) -> None:
    assert reason(routed(Frame(data, port))) == why


@pytest.mark.parametrize("stripped", [False, True])
def test_vlans_are_interfaces(stripped: bool) -> None:
    """A tag that the card took away, or in the frame; on the way in and on the way out."""
    tag: dict[str, Any] = {"vlan_tci": 0x6005} if stripped else {"tag": b"\x81\0\x60\x05"}
    asked = arp("203.0.113.9", "203.0.113.1", port=1, **tag)
    packet = ip4("203.0.113.9", "192.0.2.9", udp(50))
    out = arp("192.0.2.9", "192.0.2.1")
    back = frame(ip4("192.0.2.9", "203.0.113.9", udp(50), ttl=3))
    run = routed(
        asked,
        out,
        frame(packet, 1, LAN, **tag),
        back,
        frame(ip4("203.0.113.9", "203.0.113.1", udp()), 1, LAN, **tag),
    )
    assert run[0].vlan_tci == (0x6005 if stripped else None)
    assert run[2].frame == HOST + WAN + IPV4 + ip4("203.0.113.9", "192.0.2.9", udp(50), ttl=63)
    assert (run[3].verdict, run[3].vlan_tci) == (1, None)
    head = HOST + LAN + b"\x81\0\0\x05" + IPV4
    assert run[3].frame == head + ip4("192.0.2.9", "203.0.113.9", udp(50), ttl=2)
    assert run[4].frame[:18] == head  # an ICMP error


def test_routes_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "routes"
    path.write_text(
        "\ufeff0.0.0.0/0, lan, 198.51.100.9  # default; an editor wrote a mark before it\r\n"
        "# prefix, interface, next hop\n\n"
        "10.0.0.0/8, wan, direct\n"
        "10.1.0.0/16,lan,198.51.100.9\n"
        "::/0,lan,fe80::9\n"
    )
    for target, first in (("8.8.8.8", OTHER), ("10.1.2.3", OTHER), ("10.2.0.1", BROADCAST)):
        run = routed(KNOWN, frame(ip4("192.0.2.9", target, udp())), routes=str(path))
        assert run[1].frame[:6] == first
    run = routed(frame(ip6("2001:db8:1::9", "2001:db8:9::9", udp()), kind=IPV6), routes=str(path))
    assert run[0].frame[62:78] == packed("fe80::9")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("10.0.0.0/8", "must be a prefix, an interface and a next hop"),
        ("10.0.0.0/8,lan,1.2.3.4,5", "must be a prefix, an interface and a next hop"),
        ("10.0.0.0/40,lan,direct", "'10.0.0.0/40' is not an IPv4 or IPv6 prefix"),
        ("10.0.0.1/8,lan,direct", "has bits set after its length: write 10.0.0.0/8"),
        ("10.0.0.0/8,dmz,direct", "there is no interface 'dmz'; those with addresses are wan"),
        ("10.0.0.0/8,lan,gone", "the next hop must be an address or direct, not 'gone'"),
        ("10.0.0.0/8,lan,fe80::1", "the next hop fe80::1 is not of IPv4"),
        ("10.0.0.0/8,lan,192.0.2.9", "the next hop 192.0.2.9 is in no network of lan"),
        ("10.0.0.0/8,lan,198.51.100.1", "is the router's own address"),
        ("10.0.0.0/8,lan,198.51.100.255", "the next hop 198.51.100.255 is a broadcast address"),
        ("10.0.0.0/8,lan,198.51.100.0", "the next hop 198.51.100.0 is a broadcast address"),
        ("224.0.0.0/8,lan,direct", "224.0.0.0/8 is never forwarded"),
        ("fe80::/64,lan,direct", "fe80::/64 is never forwarded"),
        ("192.0.2.0/24,lan,direct", "192.0.2.0/24 is the network of wan"),
        ("192.0.2.1,lan,direct", "192.0.2.1/32 is an address of wan"),
        ("1.0.0.0/8,lan,direct\n1.0.0.0/8,wan,direct", "line 2: 1.0.0.0/8 has a route in line 1"),
    ],
)
def test_wrong_lines_are_named(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "routes"
    path.write_text(line)
    with pytest.raises(PluginError, match="line 1" if "\n" not in line else "line 2") as caught:
        routed(routes=str(path))
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_what_is_never_forwarded_is_found_by_its_first_bits() -> None:
    texts = [*SPECIAL, *SPECIAL6, "0.0.0.0/0", "::/0", "::/127", "126.0.0.0/7", "128.0.0.0/8"]
    texts += ["127.0.0.1/32", "255.255.255.255/32", "::1/128", "::2/128", "fe00::/8", "fe80::1/128"]
    special = [ip_network(each) for each in (*SPECIAL, *SPECIAL6)]
    for network in map(ip_network, texts):
        inside = [each for each in special if each.version == network.version]
        assert is_special(network) == any(network.subnet_of(each) for each in inside), network


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "routes"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(PluginError, match="is not text in UTF-8, because of the byte 0xff"):
        routed(routes=str(path))
    path.write_text("x\n" * 30)
    with pytest.raises(PluginError, match=r"line 20: .*; and 10 more"):
        routed(routes=str(path))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"addresses": {}}, "must have 1 to 256 interfaces, not 0"),
        ({"addresses": {"dmz": ["1.2.3.4/8"]}}, "names 'dmz', and there is no such port"),
        ({"addresses": {"wan.0": ["1.2.3.4/8"]}}, "a VLAN must be 1 to 4094, not 0"),
        ({"addresses": {"wan": "1.2.3.4/8"}}, "addresses.wan must be a list of addresses"),
        ({"addresses": {"wan": ["1.2.3.4"]}}, "has '1.2.3.4', which must be an address and the"),
        ({"addresses": {"wan": ["1.2.3.0/24"]}}, "is an address of the whole network 1.2.3.0/24"),
        ({"addresses": {"wan": ["127.0.0.1/8"]}}, "cannot be the address of a station"),
        ({"addresses": {"wan": ["1.2.3.4/8"], "lan": ["1.2.3.5/8"]}}, "puts the network 1.0.0.0/8"),
        ({"addresses": {"wan": ["1.2.3.4/8"], "lan": ["1.2.3.4/9"]}}, "gives 1.2.3.4 to wan and"),
        ({"macs": {"dmz": "02:00:00:00:00:01"}}, "macs names the port 'dmz'"),
        ({"macs": {"wan": "01:00:00:00:00:01"}}, "macs.wan must be the address of one station"),
        ({"macs": {"wan": 5}}, "macs.wan must be the address of one station"),
        ({"mtus": {"wan": 9300}}, "mtus.wan must be an integer, 1280 to 9216, not 9300"),
        ({"mtus": {"wan.9": 1400}}, "mtus names 'wan.9', which has no addresses"),
        ({"neighbours": 100}, "neighbours must be a power of two, such as 1024, not 100"),
        ({"icmp_rate": -1}, '"icmp_rate" must be at least 0'),
        ({"lifetime": 1}, '"lifetime" must be at least 2'),
        ({"routes": "/nowhere"}, "which does not exist"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(PluginError) as caught:
        routed(**options)
    assert words in str(caught.value)


def test_the_own_mac_address_can_be_given() -> None:
    run = routed(arp("192.0.2.9", "192.0.2.1"), macs={"wan": "02:00:00:00:00:77"})
    assert run[0].frame[6:12] == bytes.fromhex("020000000077")
