"""Checksums: judged by a sum word by word, by tcpdump, and the same in every tier."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numba import njit

from ringline.workers.api import (
    ICMP,
    ICMPV6,
    L3_OK,
    L4_OK,
    TCP,
    UDP,
    Meta,
    checksum,
    fix_checksums,
    headers,
    update_checksum,
)
from ringline.workers.captures.captures import read_capture
from ringline.workers.captures.pcap import file_header, packet_header
from ringline.workers.testing import run_plugin
from ringline.workers.tiers import jit_checksums  # noqa: F401  # registers them with numba

from .packets import Made, frames, packets, routing, summed, tcp, udp

DATA = Path(__file__).parents[2] / "data"
CAPTURES = sorted(DATA.glob("*.pcap*"))

FUNCTIONS = """
from ringline.workers.api import checksum, fix_checksums, packet_function, set_field
from ringline.workers.api import update_checksum


@packet_function
def fix(frame, meta):
    frame[0] = fix_checksums(frame)
    set_field(frame, 1, 2, checksum(frame, 14))
    set_field(frame, 3, 2, checksum(frame, 14, 34, 7))
    update_checksum(frame, 24, frame[22], frame[23])
    return meta.port
"""
IN_C = """
#include "plugin.h"

static inline int64_t fix(uint8_t *frame, struct rl_reference *meta, struct rl_batch *batch)
{
    uint32_t length = meta->length;
    (void)batch;
    frame[0] = rl_fix_checksums(frame, length);
    rl_put_be16(frame + 1, rl_checksum(frame + 14, length - 14, 0));
    rl_put_be16(frame + 3, rl_checksum(frame + 14, 20, 7));
    return rl_update_checksum(frame, length, 24, frame[22], frame[23]) &&
                   !rl_update_checksum(frame, length, length - 1, 1, 2)
               ? meta->port
               : RL_VERDICT_DROP;
}
RL_PLUGIN(fix_plugin, fix)
"""


def fix_plainly(frame: Any, meta: Any) -> int:
    """What the two functions above do."""
    frame[0] = fix_checksums(frame)
    frame[1:3] = struct.pack("!H", checksum(frame, 14))
    frame[3:5] = struct.pack("!H", checksum(frame, 14, 34, 7))
    update_checksum(frame, 24, frame[22], frame[23])
    return 0


@njit
def compiled_fix(frame: Any) -> Any:
    return fix_checksums(frame)


@njit
def compiled_checksum(frame: Any, start: Any, end: Any, initial: Any) -> Any:
    return checksum(frame, start, end, initial)


@njit
def compiled_update(frame: Any, offset: Any, old: Any, new: Any) -> None:
    update_checksum(frame, offset, old, new)


def array(frame: bytes | bytearray) -> Any:
    return np.frombuffer(bytearray(frame), np.uint8)


def ipv4_header(made: Made, frame: bytes) -> bytes:
    return frame[made.l3 : made.l3 + 20 + len(made.options)]


# ---- fix_checksums ----


@given(packets())
def test_a_fixed_checksum_is_right_and_the_flags_say_which(made: Made) -> None:
    before = made.frame()
    frame = bytearray(before)
    flags = fix_checksums(frame)
    assert bool(flags & L3_OK) == (made.version == 4)
    if made.version == 4:
        assert summed(ipv4_header(made, frame)) == 0xFFFF
    covered = made.covered(frame)
    at = made.checksum_at
    if covered is not None and made.protocol == UDP and made.version == 4:
        covered = covered if before[at : at + 2] != b"\0\0" else None
    assert bool(flags & L4_OK) == (covered is not None)
    changed = {index for index, byte in enumerate(frame) if byte != before[index]}
    allowed = {made.l3 + 10, made.l3 + 11} if made.version == 4 else set()
    if covered is not None:
        assert summed(covered) == 0xFFFF
        assert not (made.protocol == UDP and frame[at : at + 2] == b"\0\0")
        allowed |= {at, at + 1}
    assert changed <= allowed


@given(frames())
def test_compiled_and_plain_write_the_same(frame: bytes) -> None:
    plain, compiled = bytearray(frame), array(frame)
    assert fix_checksums(plain) == compiled_fix(compiled)
    assert bytes(compiled) == plain


@pytest.mark.parametrize("path", CAPTURES, ids=[path.name for path in CAPTURES])
def test_both_write_the_same_in_captures(path: Path) -> None:
    for frame in read_capture(path).frames:
        plain, compiled = bytearray(frame), array(frame)
        assert fix_checksums(plain) == compiled_fix(compiled)
        assert bytes(compiled) == plain


def test_a_packet_function_of_each_tier_writes_the_same(
    tmp_path: Path, compile_c: Callable[[Path], str]
) -> None:
    (tmp_path / "fix.py").write_text(FUNCTIONS)
    (tmp_path / "fix.c").write_text(IN_C)
    samples = [bytes(frame) for frame in read_capture(DATA / "mixed.pcap").frames]
    for plugin in (f"{tmp_path}/fix.py:fix", f"{compile_c(tmp_path / 'fix.c')}:fix_plugin"):
        for frame, result in zip(samples, run_plugin(plugin, samples), strict=True):
            plain = bytearray(frame)
            assert (result.verdict, result.frame) == (fix_plainly(plain, None), bytes(plain))


def test_a_batch_class_and_a_plain_packet_function_write_into_their_frame() -> None:
    class Fixes:
        def process(self, batch: Any) -> None:
            for packet in batch:
                assert fix_checksums(packet.data) == L3_OK | L4_OK
                packet.verdict = packet.port

    frame = Made(segment=udp((1, 2), b"data")).frame()
    [result] = run_plugin(Fixes, [frame])
    meta = Meta(frame)
    fix_checksums(meta.frame)
    whole = bytearray(frame)
    fix_checksums(whole)
    assert result.frame == bytes(meta.frame) == whole != frame


@given(packets(), st.data())
def test_a_transport_checksum_of_a_packet_that_is_cut_off_stays(
    made: Made, data: st.DataObject
) -> None:
    assume(made.segment)
    frame = bytearray(made.frame()[: data.draw(st.integers(made.l4, made.end - 1))])
    before = bytes(frame)
    assert fix_checksums(frame) == (L3_OK if made.version == 4 else 0)
    assert frame[made.l4 :] == before[made.l4 :]


def test_udp_without_a_checksum_stays_so_over_ipv4_only() -> None:
    segment = udp((1, 2), b"data", checksum=0)
    made = Made(segment=segment)
    frame = bytearray(made.frame())
    assert fix_checksums(frame) == L3_OK
    assert frame[made.l4 :] == segment
    made = Made(version=6, source=bytes(15) + b"\1", destination=bytes(15) + b"\2", segment=segment)
    frame = bytearray(made.frame())
    assert fix_checksums(frame) == L4_OK
    assert frame[made.checksum_at : made.checksum_at + 2] != b"\0\0"


def test_a_udp_checksum_that_is_0_is_written_as_ffff() -> None:
    made = Made(segment=udp((0, 0), b"\0\0", checksum=1))
    made.final = made.destination
    total = summed(made.covered(made.frame()) or b"") - 1
    made.segment = udp((0, 0), struct.pack("!H", 0xFFFF - total), checksum=1)
    frame = bytearray(made.frame())
    assert fix_checksums(frame) == L3_OK | L4_OK
    assert frame[made.checksum_at : made.checksum_at + 2] == b"\xff\xff"


# ---- tcpdump ----


def judged(made: list[Made], tmp_path: Path) -> list[str]:
    """What tcpdump says of each packet, after fix_checksums."""
    path = tmp_path / "fixed.pcap"
    pieces = [file_header()]
    for packet in made:
        frame = bytearray(packet.frame())
        fix_checksums(frame)
        pieces += [packet_header(len(frame), 0), bytes(frame)]
    path.write_bytes(b"".join(pieces))
    done = subprocess.run(
        ["tcpdump", "-vv", "-n", "-t", "-r", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return re.split(r"\n(?=\S)", done.stdout.strip())


V6 = bytes.fromhex("20010db8000000000000000000000001"), bytes.fromhex("fe80" + "00" * 13 + "02")
WAY = bytes.fromhex("20010db80000000000000000000000aa")
SEGMENTS = {
    UDP: udp((1000, 2000), b"odd"),
    TCP: tcp((1000, 80), b"data", bytes([1, 1, 1, 0])),
    ICMP: bytes([8, 0, 0, 0, 0, 1, 0, 2]) + b"ping",
    ICMPV6: bytes([128, 0, 0, 0, 0, 1, 0, 2]) + b"ping",
}
# Not here: a fragment header, whose packets tcpdump does not judge, and a routing header without
# segments left, of which tcpdump takes the last address although the packet is at its destination.
EXTENSIONS: list[list[tuple[int, bytes]]] = [
    [],
    [(0, bytes([0, 0, 1, 4, 0, 0, 0, 0]))],
    [(60, bytes([0, 1, 1, 12]) + bytes(12))],
    [(43, routing(0, 1, [WAY, V6[0]]))],
    [(43, routing(4, 1, [V6[0], WAY]))],
    [(51, bytes([0, 4]) + bytes(22))],
]
JUDGED = [
    *(
        Made(tags=tags, options=options, protocol=protocol, segment=SEGMENTS[protocol])
        for protocol in (UDP, TCP, ICMP)
        for tags in ([], [5], [6, 7])
        for options in (b"", b"\x94\4\0\0")
    ),
    *(
        Made([], 6, *V6, extensions=chain, protocol=protocol, segment=SEGMENTS[protocol], padding=3)
        for protocol in (UDP, TCP, ICMPV6)
        for chain in EXTENSIONS
    ),
]
GOOD = re.compile(r"udp sum ok|\(correct\)|icmp6 sum ok|ICMP echo request")
BAD = re.compile(r"bad|incorrect|wrong")


@pytest.mark.skipif(not shutil.which("tcpdump"), reason="tcpdump is missing")
def test_tcpdump_accepts_every_checksum(tmp_path: Path) -> None:
    said = judged(JUDGED, tmp_path)
    assert len(said) == len(JUDGED)
    for packet, words in zip(JUDGED, said, strict=True):
        assert GOOD.search(words), (packet, words)
        assert not BAD.search(words), (packet, words)


@pytest.mark.skipif(not shutil.which("tcpdump"), reason="tcpdump is missing")
def test_tcpdump_refuses_what_is_not_fixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "fix_checksums", lambda frame: 0)
    assert all(BAD.search(words) for words in judged(JUDGED, tmp_path))


# ---- checksum ----


@given(st.binary(max_size=120), st.data(), st.integers(0, 2**64 - 1))
def test_a_checksum_is_the_complement_of_the_sum(
    raw: bytes, data: st.DataObject, initial: int
) -> None:
    start = data.draw(st.integers(0, len(raw)))
    end = data.draw(st.integers(start, len(raw)))
    words = struct.pack("!Q", initial) + raw[start:end]
    assert checksum(raw, start, end, initial) == 0xFFFF - summed(words)
    signed = initial - (1 << 64) if initial >> 63 else initial
    assert compiled_checksum(array(raw), start, end, signed) == 0xFFFF - summed(words)
    assert checksum(raw, start) == 0xFFFF - summed(raw[start:])
    assert checksum(raw) == 0xFFFF - summed(raw)


def test_the_example_of_rfc_1071() -> None:
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF - 0xDDF2


@pytest.mark.parametrize(("start", "end"), [(-1, 4), (0, 9), (5, 4), (9, None), (0, -1)])
def test_a_range_outside_the_frame_is_an_index_error(start: int, end: int | None) -> None:
    for function, frame in ((checksum, bytes(8)), (compiled_checksum, array(bytes(8)))):
        with pytest.raises(IndexError, match="the range is not within the frame"):
            function(frame, start, end, 0)


# ---- update_checksum ----


@given(packets(), st.data())
def test_an_update_equals_a_new_computation(made: Made, data: st.DataObject) -> None:
    """Change fields of every width that the checksum covers, and update."""
    frame = bytearray(made.frame())
    assume(fix_checksums(frame) & L4_OK)
    at, end = made.checksum_at, made.end
    if made.protocol == UDP:
        end = made.l4 + int.from_bytes(frame[made.l4 + 4 : made.l4 + 6], "big")
    width = data.draw(st.sampled_from([2, 4, 6, 8]))
    offsets = [
        offset
        for offset in range(made.l4, end - width + 1, 2)
        if (offset + width <= at or offset >= at + 2)
        and not (made.protocol == UDP and offset < at)
        and not (made.protocol == TCP and offset < made.l4 + 14 and offset + width > made.l4 + 12)
    ]
    assume(offsets)
    offset = data.draw(st.sampled_from(offsets))
    new = data.draw(st.binary(min_size=width, max_size=width))
    numbers = [int.from_bytes(each, "big") for each in (frame[offset : offset + width], new)]
    frame[offset : offset + width] = new
    compiled = array(frame)
    update_checksum(frame, at, *numbers)
    signed = [n - (1 << 64) if n >> 63 else n for n in numbers]
    compiled_update(compiled, at, *signed)
    assert bytes(compiled) == frame
    again = bytearray(frame)
    fix_checksums(again)
    assert again == frame


@given(st.binary(min_size=34, max_size=34), st.integers(0, 2**32 - 1))
def test_the_update_of_an_address_keeps_both_checksums_right(raw: bytes, address: int) -> None:
    made = Made(source=raw[:4], destination=raw[4:8], segment=udp((1, 2), raw[8:]))
    made.final = made.destination
    frame = bytearray(made.frame())
    fix_checksums(frame)
    found = headers(frame)
    frame[26:30] = address.to_bytes(4, "big")
    update_checksum(frame, found.l3 + 10, found.src, address)
    update_checksum(frame, found.checksum_at, found.src, address)
    made.source = address.to_bytes(4, "big")
    assert summed(ipv4_header(made, frame)) == 0xFFFF
    assert summed(made.covered(frame) or b"") == 0xFFFF


def test_the_example_of_rfc_1624() -> None:
    frame = bytearray.fromhex("dd2f")
    update_checksum(frame, 0, 0x5555, 0x3285)
    assert frame.hex() == "0000"


@pytest.mark.parametrize("way", ["plain", "compiled"])
@pytest.mark.parametrize("tags", [[], [5]])
def test_a_udp_checksum_of_0_stays_0_and_none_becomes_0(way: str, tags: list[int]) -> None:
    made = Made(tags=tags, segment=udp((7, 2), b"data", checksum=0))
    for stored, old, new, result in (
        (0x0000, 7, 9, 0x0000),
        (0xDD2F, 0x5555, 0x3285, 0xFFFF),
        (0xDD2F, 0x5555, 0x3286, 0xFFFE),
    ):
        frame = bytearray(made.frame())
        struct.pack_into("!H", frame, made.checksum_at, stored)
        for offset, there in ((made.checksum_at, result), (made.l3 + 10, None)):
            before = bytes(frame)
            if way == "plain":
                update_checksum(frame, offset, old, new)
            else:
                changed = array(frame)
                compiled_update(changed, offset, old, new)
                frame[:] = bytes(changed)
            if there is None:  # the checksum of the IPv4 header, which is 0 here: no exception
                assert frame[offset : offset + 2] != before[offset : offset + 2]
            else:
                assert struct.unpack_from("!H", frame, offset) == (there,)


@pytest.mark.parametrize("offset", [-1, 7, 8, 1 << 40])
def test_a_checksum_outside_the_frame_is_an_index_error(offset: int) -> None:
    for function, frame in (
        (update_checksum, bytearray(8)),
        (compiled_update, array(bytes(8))),
        (update_checksum, bytearray(1)),
        (compiled_update, array(bytes(1))),
    ):
        with pytest.raises(IndexError, match="the checksum is not within the frame"):
            function(frame, offset, 1, 2)


def test_a_frame_that_cannot_be_written_is_refused_in_one_sentence() -> None:
    for call in (lambda: fix_checksums(bytes(60)), lambda: update_checksum(bytes(60), 24, 1, 2)):
        with pytest.raises(TypeError, match="the frame must be writable, such as"):
            call()
