"""Checksums and TCP segmentation of the simulated 82599, checked by code of the tests."""

from __future__ import annotations

import socket
import struct

import pytest

from .bare_82599 import Bare82599
from .frames import ethernet, pseudo, summed

EOP, IFCS, RS, DEXT, TSE = 1 << 24, 1 << 25, 1 << 27, 1 << 29, 1 << 31
DATA, CONTEXT = 3 << 20, 2 << 20
IXSM, TXSM, CC = 1 << 40, 1 << 41, 1 << 39
USUAL = EOP | IFCS | RS | DEXT | DATA | CC
ONE, OTHER = socket.inet_aton("10.0.0.1"), socket.inet_aton("10.0.0.2")
ONE6, OTHER6 = (socket.inet_pton(socket.AF_INET6, f"fd00::{n}") for n in (1, 2))
TCP, UDP, SCTP = 6, 17, 132
L4T = {UDP: 0, TCP: 1, SCTP: 2}


def partial(source: bytes, destination: bytes, protocol: int, length: int) -> int:
    """The sum of the pseudo header, not inverted: what software leaves in the checksum field."""
    return 0xFFFF - summed(pseudo(source, destination, protocol, length))


def ipv4(protocol: int, body: bytes) -> bytes:
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 7, 0x4000, 64, protocol, 0) + (
        ONE + OTHER + body
    )


def tcp_header(checksum: int, flags: int = 0x19) -> bytes:
    return struct.pack("!HHIIBBHHH", 1, 2, 0xFFFFFF00, 9, 0x50, flags, 100, checksum, 0)


def offload(
    driver: Bare82599, frame: bytes, high: int, *, ip: int, l4: int, protocol: int, mss: int = 0
) -> list[bytes]:
    """Send one packet with a context; the frames that leave."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with near, far:
        near.setblocking(False)
        far.settimeout(0)
        driver.sim.live(near.fileno())
        context = CONTEXT | DEXT | L4T[protocol] << 11 | (1 << 10 if ip == 20 else 0)
        context |= l4 << 40 | mss << 48
        driver.send_raw(0, ip | 14 << 9, context)
        head = 14 + ip + l4
        driver.send(frame, command=high, paylen=len(frame) - head if mss else None)
        frames = []
        for _ in range(50):
            driver.sim.step()
            try:
                while True:
                    frames.append(far.recv(1 << 16))
            except BlockingIOError:
                continue
        driver.sim.close()
        return frames


@pytest.mark.parametrize("size", [0, 1, 33, 1400])
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_checksums_are_inserted(size: int, protocol: int) -> None:
    payload = bytes(n % 251 for n in range(size))
    length = (20 if protocol == TCP else 8) + size
    sum_ = partial(ONE, OTHER, protocol, length)
    head = tcp_header(sum_) if protocol == TCP else struct.pack("!HHHH", 1, 2, length, sum_)
    with Bare82599() as driver:
        driver.bring_up()
        frame = ethernet(ipv4(protocol, head + payload), 0x0800)[: 34 + length]
        (sent,) = offload(driver, frame, USUAL | IXSM | TXSM, ip=20, l4=0, protocol=protocol)
    assert summed(sent[14:34]) == 0
    assert summed(pseudo(ONE, OTHER, protocol, length) + sent[34 : 34 + length]) == 0
    assert sent[34 + length - size : 34 + length] == payload


def test_the_old_checksum_of_an_ipv4_header_is_summed_too() -> None:
    """A driver that leaves it in the frame sends a wrong one."""
    body = struct.pack("!HHHH", 1, 2, 26, partial(ONE, OTHER, UDP, 26)) + bytes(18)
    packet = ipv4(UDP, body)
    right = summed(packet[:20])
    packet = packet[:10] + b"\x12\x34" + packet[12:]
    with Bare82599() as driver:
        driver.bring_up()
        frame = ethernet(packet, 0x0800)
        (sent,) = offload(driver, frame, USUAL | IXSM | TXSM, ip=20, l4=0, protocol=UDP)
    assert struct.unpack("!H", sent[24:26])[0] == (right - 0x1234) % 0xFFFF


def test_an_sctp_packet_gets_its_crc() -> None:
    """The check value of CRC-32C for "123456789" is 0xE3069283; here the field is in the middle."""
    with Bare82599() as driver:
        driver.bring_up()
        body = struct.pack("!HHII", 1, 2, 3, 0) + b"123456789"
        frame = ethernet(ipv4(SCTP, body), 0x0800)
        frame = frame[:14] + ipv4(SCTP, body).ljust(46, b"\0")
        (sent,) = offload(driver, frame, USUAL | TXSM, ip=20, l4=0, protocol=SCTP)
    crc = 0xFFFFFFFF
    for byte in sent[34:42] + bytes(4) + sent[46:]:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    assert struct.unpack("<I", sent[42:46])[0] == crc ^ 0xFFFFFFFF


@pytest.mark.parametrize("six", [False, True])
def test_a_tcp_packet_is_cut_into_segments(six: bool) -> None:
    payload = bytes(n % 241 for n in range(3500))
    source, destination = (ONE6, OTHER6) if six else (ONE, OTHER)
    tcp = tcp_header(partial(source, destination, TCP, 0), 0x99) + payload
    if six:
        packet = struct.pack("!IHBB", 6 << 28, 0, TCP, 64) + ONE6 + OTHER6 + tcp
    else:
        packet = struct.pack("!BBHHHBBH", 0x45, 0, 0, 7, 0x4000, 64, TCP, 0) + ONE + OTHER + tcp
    ip = 40 if six else 20
    with Bare82599() as driver:
        driver.bring_up()
        frame = ethernet(packet, 0x86DD if six else 0x0800)
        high = USUAL | TSE | TXSM | (0 if six else IXSM)
        sent = offload(driver, frame, high, ip=ip, l4=20, protocol=TCP, mss=1000)
    assert [len(each) - 14 - ip - 20 for each in sent] == [1000, 1000, 1000, 500]
    assert b"".join(each[14 + ip + 20 :] for each in sent) == payload
    for number, each in enumerate(sent):
        segment = each[14 + ip :]
        assert summed(pseudo(source, destination, TCP, len(segment)) + segment) == 0
        assert struct.unpack("!I", segment[4:8])[0] == (0xFFFFFF00 + 1000 * number) % (1 << 32)
        flags = 0x10 | (0x80 if number == 0 else 0) | (0x09 if number == 3 else 0)
        assert segment[13] == flags, "CWR is in the first segment, FIN and PSH are in the last one"
        if six:
            assert struct.unpack("!H", each[18:20])[0] == len(segment)
        else:
            assert summed(each[14:34]) == 0
            assert struct.unpack("!HH", each[16:20]) == (20 + len(segment), 7 + number)


@pytest.mark.parametrize(
    ("context", "says"),
    [
        ({"ip": 19}, "MACLEN or IPLEN"),
        ({"ip": 400}, "MACLEN or IPLEN"),
        ({"l4": 10}, "MSS or L4LEN"),
        ({"l4": 200}, "MSS or L4LEN"),
        ({"mss": 3000}, "longer than MAXFRS"),
        ({"protocol": UDP}, "segmentation of anything but TCP"),
    ],
)
def test_a_wrong_context_is_refused(context: dict[str, int], says: str) -> None:
    packet = ipv4(TCP, tcp_header(0) + bytes(100))
    plan = {"ip": 20, "l4": 20, "mss": 50, "protocol": TCP} | context
    with Bare82599() as driver:
        driver.bring_up()
        high = CONTEXT | DEXT | L4T[plan["protocol"]] << 11 | plan["l4"] << 40 | plan["mss"] << 48
        driver.send_raw(0, plan["ip"] | 14 << 9, high)
        driver.send(ethernet(packet, 0x0800), command=USUAL | TSE | TXSM, paylen=100)
        driver.sim.step()
        assert driver.sim.wire()["refused"] == 1
        assert any(says in fault for fault in driver.sim.faults()), driver.sim.faults()
