"""The generated XDP program: the kernel runs it on frames, and tells what it would do."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from ringline.pipeline.configuration.config import Match
from ringline.pipeline.ports.xdp import bpf
from ringline.pipeline.ports.xdp.program import XDP_PASS, assemble

REDIRECT = 4  # XDP_REDIRECT
ARP = Match(ethertype=0x0806)
VXLAN = Match(protocol=17, port=4789)
DNS = Match(port=53)
NET4 = Match(prefix="10.1.0.0/16")
NET6 = Match(prefix="2001:db8::/33")
TCP6 = Match(ethertype=0x86DD, protocol=6)


@pytest.fixture
def socket_map() -> Iterator[int]:
    """A map with a socket on queue 0, where the kernel pretends that test frames arrive."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to load an XDP program")
    try:
        made = bpf.create_socket_map(1)
    except OSError as error:
        pytest.skip(f"needs a kernel with AF_XDP: {error}")
    yield made
    os.close(made)


def frame(
    *,
    ethertype: int = 0x0800,
    tags: str = "",
    protocol: int = 17,
    ports: tuple[int, int] = (1000, 2000),
    addresses: tuple[str, str] = ("0a010001", "c0000201"),
    options: int = 0,
    fragment: int = 0,
) -> bytes:
    """A frame of IPv4 (addresses of 4 bytes in hexadecimal) or IPv6 (16 bytes)."""
    pair = b"".join(number.to_bytes(2, "big") for number in ports) + bytes(8)
    both = bytes.fromhex("".join(addresses))
    head = bytes(12) + bytes.fromhex(tags) + ethertype.to_bytes(2, "big")
    if ethertype == 0x0800:
        first = bytes([0x45 + options, 0]) + bytes(4) + fragment.to_bytes(2, "big")
        return head + first + bytes([64, protocol, 0, 0]) + both + bytes(4 * options) + pair
    if ethertype == 0x86DD:
        return head + b"\x60" + bytes(5) + bytes([protocol, 64]) + both + pair
    return head + both + pair


V6 = ("20010db8000000000000000000000001", "fd000000000000000000000000000001")
CASES = [
    (ARP, frame(ethertype=0x0806), True),
    (ARP, frame(ethertype=0x0806, tags="81000005"), True),
    (ARP, frame(ethertype=0x0806, tags="88a8000181000005"), True),
    (ARP, frame(ethertype=0x0806, tags="88a800018100000581000006"), False),
    (ARP, frame(), False),
    (VXLAN, frame(ports=(1, 4789)), True),
    (VXLAN, frame(ports=(4789, 1)), True),
    (VXLAN, frame(ports=(4789, 1), tags="81000005"), True),
    (VXLAN, frame(ports=(1, 4789), options=10), True),
    (VXLAN, frame(ports=(1, 4789), protocol=6), False),
    (VXLAN, frame(ports=(1, 4789), fragment=0x2000), True),  # the first fragment has the ports
    (VXLAN, frame(ports=(1, 4789), fragment=0x0001), False),
    (VXLAN, frame(ports=(1, 4788)), False),
    (VXLAN, frame(ethertype=0x86DD, addresses=V6, ports=(1, 4789)), True),
    (DNS, frame(protocol=6, ports=(53, 1)), True),
    (DNS, frame(protocol=1, ports=(53, 53)), False),
    (NET4, frame(), True),
    (NET4, frame(addresses=("c0000201", "0a01ffff")), True),
    (NET4, frame(addresses=("0a020001", "c0000201")), False),
    (NET4, frame(ethertype=0x86DD, addresses=("0a010001" * 4, "0a010001" * 4)), False),
    (NET6, frame(ethertype=0x86DD, addresses=V6), True),
    (NET6, frame(ethertype=0x86DD, addresses=V6[::-1]), True),
    (NET6, frame(ethertype=0x86DD, addresses=("20010db88" + "0" * 23, V6[1])), False),
    (TCP6, frame(ethertype=0x86DD, addresses=V6, protocol=6), True),
    (TCP6, frame(protocol=6), False),
    (Match(prefix="0.0.0.0/0"), frame(), True),
    (Match(prefix="10.1.0.1/32"), frame(), True),
]


@pytest.mark.parametrize("number", range(len(CASES)))
def test_a_frame_is_taken_when_one_match_agrees(socket_map: int, number: int) -> None:
    match, data, taken = CASES[number]
    assert answer([match], data) == (REDIRECT if taken else XDP_PASS)
    never = Match(ethertype=0x9999)
    assert answer([never, match], data) == (REDIRECT if taken else XDP_PASS)
    assert answer([never], data) == XDP_PASS


def test_every_frame_of_every_length_has_an_answer(socket_map: int) -> None:
    every = [ARP, VXLAN, DNS, NET4, NET6, TCP6]
    program = bpf.load_program(with_answer(every))
    try:
        for whole in (frame(options=5), frame(ethertype=0x86DD, addresses=V6)):
            for length in range(14, len(whole)):
                assert bpf.run_once(program, whole[:length]) in (XDP_PASS, REDIRECT)
    finally:
        os.close(program)


def test_all_is_taken_without_a_match(socket_map: int) -> None:
    assert len(assemble(socket_map, [])) == 6 * 8
    # No socket is in the map, so all frames stay with the kernel.
    program = bpf.load_program(assemble(socket_map, []))
    assert bpf.run_once(program, frame()) == XDP_PASS
    os.close(program)


def test_sixty_four_matches_fit(socket_map: int) -> None:
    matches = [Match(protocol=17, port=port, prefix="2001:db8::/128") for port in range(1, 65)]
    os.close(bpf.load_program(assemble(socket_map, matches)))


def test_a_program_that_the_kernel_refuses_is_an_error_with_its_reason(socket_map: int) -> None:
    with pytest.raises(OSError, match="R0"):
        bpf.load_program(bytes([0x95]) + bytes(7))  # exits without a result


def answer(take: list[Match], data: bytes) -> int:
    program = bpf.load_program(with_answer(take))
    try:
        return bpf.run_once(program, data)
    finally:
        os.close(program)


def with_answer(take: list[Match]) -> bytes:
    """The program, with REDIRECT as its answer in place of the look into the map: in a test run
    there is no socket."""
    code = assemble(0, take)
    assert code[-8] == 0x95
    # The last six instructions look into the map.
    return code[: -6 * 8] + bytes([0xB7, 0, 0, 0, REDIRECT, 0, 0, 0]) + bytes([0x95]) + bytes(7)
