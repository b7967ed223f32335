"""The header view: of packets whose headers the test put there, and the same in every tier."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from numba import njit

from ringline.workers.api import ICMP, ICMPV6, TCP, UDP, Headers, Meta, headers
from ringline.workers.captures.captures import read_capture
from ringline.workers.headers.headers import ffi, lib
from ringline.workers.testing import run_plugin
from ringline.workers.tiers import jit_headers  # noqa: F401  # registers `headers` with numba

from ... import packet_headers
from .packets import SCTP, Made, frames, packets, tcp, udp

DATA = Path(__file__).parents[2] / "data"
CAPTURES = sorted(DATA.glob("*.pcap*"))
NUMBERS = struct.Struct(f">{len(Headers._fields)}q")

# Writes the fields of the view behind the frame, 8 bytes each.
FUNCTION = """
from ringline.workers.api import headers, packet_function, resize, set_field


@packet_function
def view(frame, meta):
    h = headers(frame)
    at = meta.length
    frame = resize(meta, 0, {size})
{stores}
    return meta.port
""".format(
    size=NUMBERS.size,
    stores="\n".join(
        f"    set_field(frame, at + {8 * number}, 8, h.{name})"
        for number, name in enumerate(Headers._fields)
    ),
)
IN_C = """
#include "plugin.h"

static inline int64_t view(uint8_t *frame, struct rl_reference *meta, struct rl_batch *batch)
{{
    struct rl_headers found = rl_headers(frame, meta->length);
    (void)batch;
    int64_t fields[] = {{{fields}}};
    for (unsigned i = 0; i < sizeof fields / sizeof *fields; i++) {{
        uint64_t value = __builtin_bswap64((uint64_t)fields[i]);
        memcpy(frame + meta->length + 8 * i, &value, 8);
    }}
    meta->length += sizeof fields;
    return meta->port;
}}
RL_PLUGIN(view_plugin, view)
""".format(fields=", ".join(f"found.{name}" for name in Headers._fields))


@njit
def compiled(frame: Any) -> Any:
    return headers(frame)


def in_numba(frame: bytes) -> Headers:
    found = compiled(np.frombuffer(bytearray(frame), np.uint8))
    return Headers._make(map(int, found))


def number(address: bytes) -> int:
    return int.from_bytes(address, "big", signed=len(address) == 8)


def expected(made: Made) -> Headers:
    whole = len(made.segment)
    here = bool(whole) and not made.later
    ports = (0, 0)
    if here and made.protocol in (TCP, UDP, SCTP) and whole >= 4:
        ports = struct.unpack_from("!HH", made.segment)
    payload = 0
    if here and made.protocol == UDP and whole >= 8:
        payload = made.l4 + 8
    if here and made.protocol == TCP and whole >= 20 and 4 * (made.segment[12] >> 4) <= whole:
        payload = made.l4 + 4 * (made.segment[12] >> 4)
    low = slice(None) if made.version == 4 else slice(8, 16)
    high = slice(0, 0) if made.version == 4 else slice(0, 8)
    return Headers(
        ethertype=0x0800 if made.version == 4 else 0x86DD,
        vlan=made.tags[0] & 0xFFF if made.tags else -1,
        version=made.version,
        l3=made.l3,
        l4=made.l4 if here else 0,
        payload=payload,
        end=made.end,
        checksum_at=made.checksum_at,
        protocol=made.protocol,
        fragment=int(made.first or made.later),
        src=number(made.source[low]),
        dst=number(made.destination[low]),
        src_high=number(made.source[high]),
        dst_high=number(made.destination[high]),
        sport=ports[0],
        dport=ports[1],
    )


@given(packets())
def test_every_field_is_what_was_put_there(made: Made) -> None:
    assert headers(made.frame()) == expected(made)


@given(frames())
def test_compiled_and_plain_find_the_same(frame: bytes) -> None:
    assert in_numba(frame) == headers(frame)


@pytest.mark.parametrize("path", CAPTURES, ids=[path.name for path in CAPTURES])
def test_both_find_the_same_in_captures_and_so_does_another_parser(path: Path) -> None:
    for frame in map(bytes, read_capture(path).frames):
        found = headers(frame)
        assert in_numba(frame) == found
        other = packet_headers.parse(frame)
        if other is None or other.version is None:
            assert found.version == 0
            continue
        assert (found.version, found.l3) == (other.version, other.network)
        assert found.vlan == (-1 if other.vlan is None else other.vlan & 0xFFF)
        assert found.fragment == other.fragment
        if not other.fragment:
            assert (found.protocol, found.l4) == (other.protocol, other.transport)
            assert struct.pack("!HH", found.sport, found.dport) == (other.ports or bytes(4))


def test_a_packet_function_of_each_tier_finds_the_same(
    tmp_path: Path, compile_c: Callable[[Path], str]
) -> None:
    (tmp_path / "view.py").write_text(FUNCTION)
    (tmp_path / "view.c").write_text(IN_C)
    samples = [bytes(frame) for frame in read_capture(DATA / "mixed.pcap").frames][:60]
    samples = [frame for frame in samples if len(frame) < 1300]
    for plugin in (f"{tmp_path}/view.py:view", f"{compile_c(tmp_path / 'view.c')}:view_plugin"):
        for frame, result in zip(samples, run_plugin(plugin, samples), strict=True):
            assert result.error is None
            assert Headers._make(NUMBERS.unpack_from(result.frame, len(frame))) == headers(frame)


@given(frames())
def test_a_frame_that_ends_early_is_not_read_beyond(frame: bytes) -> None:
    """What follows a frame in its buffer has no influence."""
    memory = bytearray(frame + bytes(200))
    before = headers(memoryview(memory)[: len(frame)])
    memory[len(frame) :] = b"\xff" * 200
    assert headers(memoryview(memory)[: len(frame)]) == before
    array = np.frombuffer(memory, np.uint8)
    assert Headers._make(map(int, compiled(array[: len(frame)]))) == before


def test_it_takes_every_kind_of_frame() -> None:
    frame = Made(segment=udp((53, 1024), b"data")).frame()
    found = headers(frame)
    assert (found.sport, found.dport, found.protocol) == (53, 1024, UDP)
    for same in (bytearray(frame), memoryview(frame), Meta(frame).frame):
        assert headers(same) == found
    assert frame[found.payload : found.end] == b"data"
    with pytest.raises(TypeError):
        headers("no bytes")


@pytest.mark.parametrize(
    ("frame", "differs"),
    [
        (b"", {"ethertype": 0, "l3": 0}),
        (bytes(13), {"ethertype": 0, "l3": 0}),
        (bytes(12) + b"\x08\x06" + bytes(28), {"ethertype": 0x0806}),
        (bytes(12) + b"\x00\x2e" + bytes(46), {"ethertype": 46}),
        (bytes(12) + b"\x81\x00", {"ethertype": 0x8100}),
        (bytes(12) + b"\x81\x00\xa0\x07\x08\x06", {"ethertype": 0x0806, "vlan": 7, "l3": 18}),
        (bytes(12) + b"\x08\x00\x45" + bytes(18), {"ethertype": 0x0800}),
        (bytes(12) + b"\x86\xdd\x60" + bytes(38), {"ethertype": 0x86DD}),
        (bytes(12) + b"\x08\x00\x65" + bytes(40), {"ethertype": 0x0800}),
        (bytes(12) + b"\x08\x00\x44" + bytes(40), {"ethertype": 0x0800}),
    ],
)
def test_what_is_missing_is_missing_in_the_result(frame: bytes, differs: dict[str, int]) -> None:
    nothing = Headers(*(0 for _ in Headers._fields))._replace(vlan=-1, l3=14)
    assert headers(frame) == in_numba(frame) == nothing._replace(**differs)


def test_the_struct_has_the_fields_in_the_same_order() -> None:
    fields = [name for name, _ in ffi.typeof("struct rl_headers").fields]
    assert fields == list(Headers._fields)
    assert (ICMP, TCP, UDP, ICMPV6, lib.RL_SCTP) == (1, 6, 17, 58, 132)


def test_a_tcp_header_with_options_is_passed_over() -> None:
    frame = Made(protocol=TCP, segment=tcp((1, 2), b"x", bytes(12))).frame()
    assert frame[headers(frame).payload :] == b"x"
