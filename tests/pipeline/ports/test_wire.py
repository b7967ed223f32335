"""What a simulated wire sends: replays padded as by a sending card, flows with correct headers."""

from __future__ import annotations

import random
import runpy
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from ringline.pipeline.configuration.config import FlowsConfig, WireConfig
from ringline.pipeline.ports.sim82599.replay import frame_table, from_replay
from ringline.pipeline.ports.sim82599.wire import (
    LINE_BYTES,
    FrameTable,
    from_flows,
)
from ringline.workers.captures import headers
from ringline.workers.captures.captures import CaptureError, read_capture, write_capture

from ... import packet_headers

DATA = Path(__file__).parents[2] / "data"
make: Any = type("Make", (), runpy.run_path(str(DATA / "make.py")))
SAMPLES = sorted(DATA.glob("*.pcap*"))
CARD = bytes.fromhex("020000000007")
IMIX = ((60, 7), (590, 4), (1514, 1))


def table(wire: WireConfig) -> FrameTable:
    made = frame_table(wire)
    assert made is not None
    return made


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_a_replay_is_the_capture_padded_to_60(path: Path) -> None:
    made = table(WireConfig(replay=str(path)))
    frames = [bytes(frame) for frame in read_capture(path).frames]
    assert list(made.sent()) == [frame.ljust(60, b"\0") for frame in frames]
    assert made.padded == sum(len(frame) < 60 for frame in frames)


def test_frames_begin_at_cache_lines_with_zeros_between() -> None:
    made = from_replay(WireConfig(replay=str(DATA / "mixed.pcap")))
    assert not any(offset % LINE_BYTES for offset in made.offsets)
    end = 0
    for offset, length in zip(made.offsets, made.lengths, strict=True):
        assert not any(made.data[end:offset])
        end = offset + length


def test_oversize_frames_stay_and_are_counted() -> None:
    made = from_replay(WireConfig(replay=str(DATA / "oversize.pcap")))
    assert len(made.lengths) == 7
    assert made.oversize == 5  # of 7: one untagged frame of 1514 and one tagged of 1518 bytes fit
    assert max(made.lengths) == 8042


def test_repeats_and_their_total() -> None:
    path = str(DATA / "big_endian.pcap")
    once = table(WireConfig(replay=path))
    assert once.total == 40
    thrice = table(WireConfig(replay=path, repeat=3))
    assert list(thrice.sent()) == 3 * list(once.sent())
    forever = table(WireConfig(replay=path, repeat=0))
    assert forever.total == 0
    assert len(list(islice(forever.sent(), 1000))) == 1000


def test_nothing_arrives_without_a_source() -> None:
    assert frame_table(WireConfig()) is None


def test_a_capture_that_cannot_be_replayed_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="there is no such capture"):
        from_replay(WireConfig(replay=str(tmp_path / "none.pcap")))
    write_capture(tmp_path / "none.pcap", [])
    with pytest.raises(CaptureError, match=r"none\.pcap: holds no packet"):
        from_replay(WireConfig(replay=str(tmp_path / "none.pcap")))


def test_cut_frames_are_replayed_with_a_remark(tmp_path: Path) -> None:
    path = tmp_path / "cut.pcapng"
    path.write_bytes(make.section() + make.interface() + make.enhanced(b"x" * 96, 0, original=500))
    made = from_replay(WireConfig(replay=str(path)))
    assert list(made.lengths) == [96]
    assert made.remark is not None
    assert "1 of 1 frames were cut" in made.remark


@pytest.mark.parametrize("ip", ["ipv4", "ipv6", "mixed"])
@pytest.mark.parametrize("protocol", ["udp", "tcp", "mixed"])
def test_flows_have_correct_headers(ip: str, protocol: str) -> None:
    flows = FlowsConfig(count=40, sizes=(*IMIX, (61, 1)), ip=ip, protocol=protocol)
    kinds = set()
    for frame in from_flows(flows, CARD).sent(2000):
        layers = packet_headers.parse(frame)
        assert layers is not None
        assert frame[:6] == CARD
        assert layers.protocol is not None
        kinds.add((layers.version, layers.protocol))
        segment = frame[layers.transport :]
        if layers.version == 4:
            assert headers.checksum(frame[14:34]) == 0
            assert int.from_bytes(frame[16:18], "big") == len(frame) - 14
        else:
            assert int.from_bytes(frame[18:20], "big") == len(frame) - 54
        if layers.protocol == headers.PROTOCOL_UDP:
            assert int.from_bytes(segment[4:6], "big") == len(segment)
            assert any(segment[6:8])
        ends = layers.source, layers.destination
        start = packet_headers.pseudo_header_sum(*ends, layers.protocol, len(segment))
        assert headers.checksum(segment, start) == 0
    versions = {"ipv4": {4}, "ipv6": {6}, "mixed": {4, 6}}[ip]
    protocols = {"udp": {17}, "tcp": {6}, "mixed": {6, 17}}[protocol]
    assert kinds == {(version, number) for version in versions for number in protocols}


def test_a_size_too_small_for_the_headers_is_raised() -> None:
    lengths = {
        (ip, protocol): set(from_flows(FlowsConfig(4, ((60, 1),), ip, protocol), CARD).lengths)
        for ip in ("ipv4", "ipv6")
        for protocol in ("udp", "tcp")
    }
    assert lengths == {
        ("ipv4", "udp"): {60},
        ("ipv4", "tcp"): {60},
        ("ipv6", "udp"): {62},
        ("ipv6", "tcp"): {74},
    }


@pytest.mark.parametrize("count", [1, 2, 12, 100, pytest.param(30_000, marks=pytest.mark.slow)])
def test_every_flow_is_sent_and_the_mix_is_exact(count: int) -> None:
    made = from_flows(FlowsConfig(count=count, sizes=IMIX), CARD)
    inputs = Counter(packet_headers.rss_input(made.frame(index)) for index in made.order)
    assert len(inputs) == count
    assert len(set(inputs.values())) == 1
    sent = Counter(made.lengths[index] for index in made.order)
    shares = {size: sent[size] * 12 / len(made.order) for size, _ in IMIX}
    assert shares == pytest.approx(dict(IMIX), abs=0.01)


class ConstantRandom(random.Random):
    """A generator that always returns 0."""

    def getrandbits(self, bits: int) -> int:
        return 0


@pytest.mark.slow
def test_flows_are_distinct_for_any_random_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "Random", ConstantRandom)
    made = from_flows(FlowsConfig(count=70_000), CARD)
    assert len({packet_headers.rss_input(made.frame(index)) for index in made.order}) == 70_000


@pytest.mark.slow
def test_no_udp_checksum_is_zero() -> None:
    """Zero means that there is none: such a sum, one in 65536, is written as all ones."""
    made = from_flows(FlowsConfig(count=200_000), CARD)
    checksums = [made.data[offset + 40 : offset + 42] for offset in made.offsets]
    assert b"\xff\xff" in checksums
    assert b"\0\0" not in checksums


def test_the_same_configuration_makes_the_same_frames() -> None:
    flows = FlowsConfig(count=50, sizes=IMIX, ip="mixed", protocol="mixed", packets=123)
    assert from_flows(flows, CARD) == from_flows(flows, CARD)
    assert from_flows(flows, CARD) != from_flows(replace(flows, count=51), CARD)
    assert len(list(from_flows(flows, CARD).sent())) == 123


def test_flows_spread_over_queues() -> None:
    """Every queue of 16 gets some of 256 flows, with a Toeplitz hash like that of the card."""
    made = from_flows(FlowsConfig(count=256), CARD)
    queues = Counter(
        toeplitz(packet_headers.rss_input(made.frame(index))) % 16 for index in made.order
    )
    assert set(queues) == set(range(16))
    assert max(queues.values()) < 48


def toeplitz(data: bytes) -> int:
    """The Toeplitz hash with a key that the card does not use."""
    key = int.from_bytes(bytes((17 * number + 109) % 256 for number in range(40)), "big")
    bits = int.from_bytes(data, "big")
    size = 8 * len(data)
    result = 0
    for at in range(size):
        if bits >> (size - 1 - at) & 1:
            result ^= key >> (320 - 32 - at) & 0xFFFFFFFF
    return result
