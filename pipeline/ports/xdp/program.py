"""The XDP program of a port, as instructions for bpf(2).

A frame that the port takes goes to the socket of its queue; every other frame stays with the
kernel (XDP_PASS), and so do all while the map of sockets is empty. The kernel's
Documentation/bpf/standardization/instruction-set.rst describes the instructions.

Without matches the program has six instructions. With matches it first reads the frame's
headers onto its stack, then compares them with one match after the other. A frame is taken when
all that one match names agrees. At most two VLAN tags are skipped. What a frame does not have
(the ports of a fragment, for example) agrees with nothing.

Guarantees (tests in tests/pipeline/ports/test_xdp_program.py):
 - the program takes exactly the frames that a match describes
   (test_a_frame_is_taken_when_one_match_agrees)
 - no frame, however short, makes it read outside the frame: the kernel's verifier accepts it
   (test_every_frame_of_every_length_has_an_answer)
"""

from __future__ import annotations

import ipaddress
import struct
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ringline.pipeline.configuration.config import Match

XDP_PASS = 2
_XDP_MD_QUEUE = 16  # offsets in struct xdp_md: rx_queue_index,
_XDP_MD_DATA, _XDP_MD_DATA_END = 0, 4
_REDIRECT_MAP = 51  # BPF_FUNC_redirect_map
_PSEUDO_MAP_FD = 1

_R0, _R1, _R2, _R3, _R4 = range(5)
_CONTEXT, _AT, _END, _STACK = 6, 7, 8, 10  # registers

# Operations: class, source and code of the opcode.
_LOAD = {1: 0x71, 2: 0x69, 4: 0x61}  # BPF_LDX | BPF_MEM
_STORE = {4: 0x63}  # BPF_STX | BPF_MEM | BPF_W
_STORE_CONSTANT = 0x62  # BPF_ST | BPF_MEM | BPF_W
_MOVE, _MOVE_CONSTANT = 0xBF, 0xB7
_ADD, _ADD_CONSTANT = 0x0F, 0x07
_AND32, _LEFT_CONSTANT, _TO_BIG = 0x54, 0x67, 0xDC
_JUMP, _CALL, _EXIT = 0x05, 0x85, 0x95
_JUMP_MORE = 0x2D  # unsigned, two registers
_JUMP_EQUAL32, _JUMP_OTHER32, _JUMP_LESS32 = 0x16, 0x56, 0xA6  # with a constant
_LOAD_CONSTANT64 = 0x18

# The headers on the stack: words of 4 bytes at these offsets from _STACK.
_TYPE, _PROTOCOL, _SOURCE_PORT, _TARGET_PORT = -4, -8, -12, -16
_SOURCE, _TARGET = -32, -48  # up to 16 bytes, in the order of the frame
_NOTHING = 0x7FFFFFFF  # no field has this value

_IPV4, _IPV6 = 0x0800, 0x86DD
_TAGS = (0x8100, 0x88A8)
_TCP, _UDP = 6, 17
_ETHERNET_BYTES = 14


@dataclass
class _Instruction:
    code: int
    to: int = 0
    source: int = 0
    offset: int = 0
    constant: int = 0
    target: str = ""  # of a jump


class Assembler:
    """Instructions with names for the targets of jumps."""

    def __init__(self) -> None:
        self._instructions: list[_Instruction] = []
        self._labels: dict[str, int] = {}
        self._names = 0

    def put(
        self, code: int, to: int = 0, source: int = 0, offset: int = 0, constant: int = 0
    ) -> None:
        """Add an instruction."""
        self._instructions.append(_Instruction(code, to, source, offset, constant))

    def jump(self, target: str, code: int = _JUMP, to: int = 0, *, other: int = 0) -> None:
        """Add a jump; `other` is a register for _JUMP_MORE, else a constant."""
        source, constant = (other, 0) if code == _JUMP_MORE else (0, other)
        self._instructions.append(_Instruction(code, to, source, 0, constant, target))

    def label(self, name: str) -> None:
        """The next instruction has this name."""
        self._labels[name] = len(self._instructions)

    def name(self) -> str:
        """A name that no other label has."""
        self._names += 1
        return f"at{self._names}"

    def code(self) -> bytes:
        """The instructions as the kernel reads them, 8 bytes each."""
        out = b""
        for at, each in enumerate(self._instructions):
            offset = self._labels[each.target] - at - 1 if each.target else each.offset
            constant = each.constant & 0xFFFFFFFF
            registers = each.to | each.source << 4
            if sys.byteorder == "big":
                registers = each.source | each.to << 4
            out += struct.pack("=BBhI", each.code, registers, offset, constant)
        return out


def assemble(map_fd: int, take: Sequence[Match]) -> bytes:
    """The program for the map of sockets `map_fd`. No match at all: every frame is taken."""
    program = Assembler()
    if take:
        program.put(_MOVE, _CONTEXT, _R1)
        _read_headers(program)
        for match in take:
            _compare(program, match)
        program.label("pass")
        program.put(_MOVE_CONSTANT, _R0, constant=XDP_PASS)
        program.put(_EXIT)
        program.label("take")
        program.put(_MOVE, _R1, _CONTEXT)
    program.put(_LOAD[4], _R2, _R1, _XDP_MD_QUEUE)
    program.put(_LOAD_CONSTANT64, _R1, _PSEUDO_MAP_FD, constant=map_fd)
    program.put(0)  # the upper half of the constant
    program.put(_MOVE_CONSTANT, _R3, constant=XDP_PASS)  # if the map has no socket
    program.put(_CALL, constant=_REDIRECT_MAP)
    program.put(_EXIT)
    return program.code()


def _need(program: Assembler, size: int, otherwise: str) -> None:
    """Jump to `otherwise` when fewer than `size` bytes follow _AT."""
    program.put(_MOVE, _R2, _AT)
    program.put(_ADD_CONSTANT, _R2, constant=size)
    program.jump(otherwise, _JUMP_MORE, _R2, other=_END)


def _field(program: Assembler, offset: int, to: int) -> None:
    """Put 2 bytes at _AT + `offset`, a number in network order, onto the stack."""
    program.put(_LOAD[2], _R1, _AT, offset)
    program.put(_TO_BIG, _R1, constant=16)
    program.put(_STORE[4], _STACK, _R1, to)


def _read_headers(program: Assembler) -> None:
    program.put(_LOAD[4], _AT, _CONTEXT, _XDP_MD_DATA)
    program.put(_LOAD[4], _END, _CONTEXT, _XDP_MD_DATA_END)
    for to in (_TYPE, _PROTOCOL, _SOURCE_PORT, _TARGET_PORT):
        program.put(_STORE_CONSTANT, _STACK, offset=to, constant=_NOTHING)
    for word in range(0, 16, 4):
        program.put(_STORE_CONSTANT, _STACK, offset=_SOURCE + word)
        program.put(_STORE_CONSTANT, _STACK, offset=_TARGET + word)
    _need(program, _ETHERNET_BYTES, "pass")
    program.put(_ADD_CONSTANT, _AT, constant=_ETHERNET_BYTES)
    _field(program, -2, _TYPE)
    for _ in range(2):
        tagged, after = program.name(), program.name()
        for tag in _TAGS:
            program.jump(tagged, _JUMP_EQUAL32, _R1, other=tag)
        program.jump(after)
        program.label(tagged)
        _need(program, 4, "compare")
        program.put(_ADD_CONSTANT, _AT, constant=4)
        _field(program, -2, _TYPE)
        program.label(after)
    program.jump("ipv4", _JUMP_EQUAL32, _R1, other=_IPV4)
    program.jump("ipv6", _JUMP_EQUAL32, _R1, other=_IPV6)
    program.jump("compare")

    program.label("ipv4")
    _need(program, 20, "compare")
    _addresses(program, 12, 4)
    program.put(_LOAD[1], _R3, _AT, 9)
    program.put(_STORE[4], _STACK, _R3, _PROTOCOL)
    program.put(_LOAD[2], _R1, _AT, 6)  # fragment offset: a later fragment has no ports
    program.put(_TO_BIG, _R1, constant=16)
    program.put(_AND32, _R1, constant=0x1FFF)
    program.jump("compare", _JUMP_OTHER32, _R1, other=0)
    program.put(_LOAD[1], _R4, _AT, 0)
    program.put(_AND32, _R4, constant=0x0F)
    program.jump("compare", _JUMP_LESS32, _R4, other=5)
    program.put(_LEFT_CONSTANT, _R4, constant=2)
    program.put(_ADD, _AT, _R4)
    program.jump("ports")

    program.label("ipv6")
    _need(program, 40, "compare")
    _addresses(program, 8, 16)
    program.put(_LOAD[1], _R3, _AT, 6)
    program.put(_STORE[4], _STACK, _R3, _PROTOCOL)
    program.put(_ADD_CONSTANT, _AT, constant=40)

    program.label("ports")
    with_ports = program.name()
    program.jump(with_ports, _JUMP_EQUAL32, _R3, other=_TCP)
    program.jump("compare", _JUMP_OTHER32, _R3, other=_UDP)
    program.label(with_ports)
    _need(program, 4, "compare")
    _field(program, 0, _SOURCE_PORT)
    _field(program, 2, _TARGET_PORT)
    program.label("compare")


def _addresses(program: Assembler, offset: int, size: int) -> None:
    for to, begin in ((_SOURCE, offset), (_TARGET, offset + size)):
        for word in range(0, size, 4):
            program.put(_LOAD[4], _R1, _AT, begin + word)
            program.put(_STORE[4], _STACK, _R1, to + word)


def _compare(program: Assembler, match: Match) -> None:
    """Jump to "take" when the headers agree with the match, else go on behind this code."""
    no = program.name()
    if match.ethertype is not None:
        _must_be(program, _TYPE, match.ethertype, no)
    if match.protocol is not None:
        _must_be(program, _PROTOCOL, match.protocol, no)
    if match.port is not None:
        _either(
            program,
            no,
            [[(place, 0xFFFFFFFF, match.port)] for place in (_SOURCE_PORT, _TARGET_PORT)],
        )
    if match.prefix is not None:
        network = ipaddress.ip_network(match.prefix)
        _must_be(program, _TYPE, _IPV4 if network.version == 4 else _IPV6, no)
        words = list(_words(network.netmask.packed, network.network_address.packed))
        _either(
            program,
            no,
            [
                [(place + at, mask, value) for at, mask, value in words]
                for place in (_SOURCE, _TARGET)
            ],
        )
    program.jump("take")
    program.label(no)


def _must_be(program: Assembler, place: int, value: int, otherwise: str) -> None:
    program.put(_LOAD[4], _R1, _STACK, place)
    program.jump(otherwise, _JUMP_OTHER32, _R1, other=value)


def _either(program: Assembler, no: str, choices: list[list[tuple[int, int, int]]]) -> None:
    """Go on when all words of one choice agree, each (place, mask, value); else jump to `no`."""
    if not all(choices):  # every frame agrees; the kernel refuses code that nothing reaches
        return
    yes = program.name()
    for choice in choices:
        next_choice = program.name()
        for place, mask, value in choice:
            program.put(_LOAD[4], _R1, _STACK, place)
            program.put(_AND32, _R1, constant=mask)
            program.jump(next_choice, _JUMP_OTHER32, _R1, other=value)
        program.jump(yes)
        program.label(next_choice)
    program.jump(no)
    program.label(yes)


def _words(netmask: bytes, address: bytes) -> Iterable[tuple[int, int, int]]:
    """(offset, mask, value) of each word that a prefix decides, as the program loads it."""
    for at in range(0, len(netmask), 4):
        mask = int.from_bytes(netmask[at : at + 4], sys.byteorder)
        if mask:
            yield at, mask, int.from_bytes(address[at : at + 4], sys.byteorder) & mask
