"""A host whose frames all have a VLAN tag, on a kernel without VLAN interfaces.

Two programs are on the interface of the host (TCX, Linux 6.6): one puts the tag into every frame
that the host sends, the other drops each frame without this tag and takes it out of the others.
So the host itself sees no tag, and it hears nothing when ringline loses or changes one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterator

import pytest

from ringline.pipeline._pipeline import ffi, lib

from .veth_harness import entered

# linux/bpf.h: bpf_cmd, bpf_prog_type, bpf_attach_type, helpers, struct __sk_buff, return values
_PROG_LOAD, _LINK_CREATE = 5, 28
_SCHED_CLS = 3
_INGRESS, _EGRESS = 46, 47  # BPF_TCX_INGRESS, BPF_TCX_EGRESS
_VLAN_PUSH, _VLAN_POP = 18, 19
_VLAN_TCI = 24  # offset in bytes
_NEXT, _DROP = -1, 2
# Codes of instructions: Documentation/bpf/standardization/instruction-set.rst
_MOVE, _AND, _CALL, _EXIT, _LOAD, _UNEQUAL = 0xB7, 0x57, 0x85, 0x95, 0x61, 0x55
_TPID = int.from_bytes(b"\x81\x00", "little")  # in the order of the frame; x86 and ARM


def _instruction(
    code: int, to: int = 0, source: int = 0, offset: int = 0, constant: int = 0
) -> bytes:
    return struct.pack("=BBhi", code, to | source << 4, offset, constant)


def _end(answer: int) -> bytes:
    return _instruction(_MOVE, 0, constant=answer) + _instruction(_EXIT)


def _pushes(vlan: int) -> bytes:
    return (
        _instruction(_MOVE, 2, constant=_TPID)
        + _instruction(_MOVE, 3, constant=vlan)
        + _instruction(_CALL, constant=_VLAN_PUSH)
        + _end(_NEXT)
    )


def _pops(vlan: int) -> bytes:
    return (
        _instruction(_LOAD, 2, 1, _VLAN_TCI)
        + _instruction(_AND, 2, constant=0xFFF)
        + _instruction(_UNEQUAL, 2, offset=3, constant=vlan)
        + _instruction(_CALL, constant=_VLAN_POP)
        + _end(_NEXT)
        + _end(_DROP)
    )


def _bpf(command: int, attributes: bytes) -> int:
    result: int = lib.rl_xdp_bpf(command, ffi.new("char[]", attributes), len(attributes))
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


def _attached(code: bytes, interface: int, place: int) -> int:
    """The descriptor of a link; closing it takes the program away."""
    held, licence = ffi.from_buffer(code), ffi.new("char[]", b"BSD")
    pointers = [int(ffi.cast("uintptr_t", each)) for each in (held, licence)]
    load = struct.pack("=IIQQ24x16s", _SCHED_CLS, len(code) // 8, *pointers, b"tagging")
    program = _bpf(_PROG_LOAD, load)
    try:
        return _bpf(_LINK_CREATE, struct.pack("=4I", program, interface, place, 0))
    finally:
        os.close(program)


@contextlib.contextmanager
def tagged(namespace: str, name: str, vlan: int) -> Iterator[None]:
    """Until the end of the block, all frames of the interface have the tag."""
    with contextlib.ExitStack() as links, entered(namespace):
        interface = socket.if_nametoindex(name)
        for code, place in ((_pops(vlan), _INGRESS), (_pushes(vlan), _EGRESS)):
            try:
                links.callback(os.close, _attached(code, interface, place))
            except OSError as error:
                if error.errno == errno.EINVAL and place == _INGRESS:
                    pytest.skip("needs a kernel with TCX")
                raise
        kept = links.pop_all()
    with kept:
        yield
