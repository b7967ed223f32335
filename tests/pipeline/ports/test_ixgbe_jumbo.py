"""Jumbo frames through the port and the device model: one buffer and one reference for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ringline.pipeline._pipeline import ffi, lib
from ringline.pipeline.configuration.config import PortConfig
from ringline.pipeline.ports.e1000e.port import E1000ePort
from ringline.pipeline.ports.ixgbe.port import IxgbePort
from ringline.shm.errors import ConfigurationError

from .fake_card import EOP, FakeCard
from .model_card import ModelCard

MTU = 9000
LENGTHS = (60, 1514, 1518, 1519, 2047, 2048, 2049, 4096, 8191, 8192, 8999, 9000, 9014, 9018)
TAG = b"\x81\x00\x00\x07"
CONFIG: dict[str, Any] = {"mtu": MTU, "buffers": 256, "rx_descriptors": 64}


def frame(length: int, tag: bytes = b"") -> bytes:
    """Every frame of a length differs from those of other lengths in all of its bytes."""
    head = b"\x02\0\0\0\0\1\x02\0\0\0\0\2" + tag + b"\x88\xb5"
    return head + bytes((length + at) % 251 for at in range(length - len(head)))


@pytest.fixture
def card(instance: Callable[[], str]) -> Iterator[ModelCard]:
    with ModelCard(instance(), **CONFIG) as card:
        yield card.start()


def test_frames_of_every_length_come_and_go_whole(card: ModelCard) -> None:
    sent = [frame(length) for length in LENGTHS if length <= MTU + 14]
    tagged = [frame(length, TAG) for length in LENGTHS]
    received = card.carry([*sent, *tagged], steps=80)
    assert [one.frame for one in received] == [*sent, *tagged]
    assert card.sim.wire()["transmitted"] == len(received)
    assert card.port.faults() == []
    assert set(card.residuals().values()) == {0}


@pytest.mark.parametrize(("length", "tag"), [(9015, b""), (9019, TAG), (16000, b"")])
def test_a_longer_frame_is_dropped_by_the_card(card: ModelCard, length: int, tag: bytes) -> None:
    received = card.carry([frame(length, tag), frame(60)])
    assert [len(one.frame) for one in received] == [60]
    assert card.port.statistics()["rx_oversize"] == 1


def test_no_byte_is_written_outside_the_buffers(card: ModelCard) -> None:
    """Longest frames, many times more than there are buffers."""
    longest = frame(9018, TAG)
    for _ in range(5):
        assert len(card.carry([longest] * 100, steps=300)) == 100
    memory = card.memory
    assert memory.room == 5 * 2240
    for buffer in range(0, memory.buffers, 5):
        start = memory.base + buffer * memory.stride
        assert not any(bytes(ffi.buffer(start, memory.headroom))), buffer
        behind = ffi.buffer(start + memory.headroom + 9018, memory.room - memory.headroom - 9018)
        assert not any(bytes(behind)), buffer


@pytest.mark.parametrize("length", [2048, 9000, 9018])
@pytest.mark.parametrize("udp", [False, True])
def test_flags_of_a_long_frame_are_those_of_a_short_one(
    instance: Callable[[], str], length: int, udp: bool
) -> None:
    """Frames of 2048 bytes and more take another way through the burst."""
    status = EOP | 1 << 5 | 1 << 6  # L4I, IPCS
    with FakeCard(instance(), **CONFIG).start() as card:
        for number in (60, length):
            card.receive(bytes(60), status=status, length=number, low=0x200 if udp else 0x100)
        short, long = map(card.held, card.rx_burst())
        assert (short.length, long.length) == (60, length)
        assert short.flags == long.flags == lib.RL_FLAG_L3_OK | lib.RL_FLAG_L4_OK


@pytest.mark.parametrize("length", [9019, 11008, 65535])
def test_a_length_that_no_buffer_has_is_an_error(instance: Callable[[], str], length: int) -> None:
    with FakeCard(instance(), **CONFIG).start() as card:
        card.receive(bytes(60), status=EOP, length=length)
        card.receive(bytes(60), status=EOP, length=9018)
        assert [ref.length for ref in card.rx_burst()] == [9018]
        assert card.counters(0).drop_rx_error == 1


@pytest.mark.parametrize(
    ("mtu", "jumbo", "longest", "kib"),
    [(1500, 0, 1518, 2), (1501, 1, 1519, 2), (9000, 1, 9018, 9), (9216, 1, 9234, 10)],
)
def test_the_registers_say_the_mtu(
    instance: Callable[[], str], mtu: int, jumbo: int, longest: int, kib: int
) -> None:
    with FakeCard(instance(), mtu=mtu).start() as card:
        chip = card.port._card
        assert chip.HLREG0.field("JUMBOEN") == jumbo
        assert chip.MAXFRS.field("MFS") == longest
        assert chip.SRRCTL[0].field("BSIZEPACKET") == kib


@pytest.mark.parametrize(
    ("kind", "most", "said"),
    [
        (IxgbePort, 9216, "at most 9216"),
        (E1000ePort, 1500, "at most 1500"),
    ],
    ids=["82599", "82574L"],
)
def test_a_longer_mtu_than_the_card_has_is_refused(
    kind: Any, most: int, said: str, tmp_path: Path
) -> None:
    kind(PortConfig("wan", "pci:0000:03:00.0", mtu=most), 0, tmp_path)
    with pytest.raises(ConfigurationError, match=rf"port\.wan\.mtu: must be {said} bytes"):
        kind(PortConfig("wan", "pci:0000:03:00.0", mtu=most + 1), 0, tmp_path)
