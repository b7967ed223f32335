"""Packet memory and descriptor memory: buffers, device addresses, allocations."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ringline.shm import dma
from ringline.shm._shm import lib
from ringline.shm.errors import Bug, EnvironmentLacks, UsageError
from ringline.shm.packets import DescriptorMemory, PacketMemory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROOF = os.environ.get("RINGLINE_PROOF") == "1"
HEADER = lib.RL_HEADER_BYTES
STRIDE = lib.RL_BUFFER_STRIDE
LINE = 64  # bytes of a cache line


def test_buffers_lie_side_by_side_and_inside(instance: Callable[[], str]) -> None:
    with PacketMemory.create(instance(), 1000, hugepages="off") as memory:
        assert memory.buffers == 1000
        assert memory.stride == STRIDE == 2240
        assert memory.first_offset == HEADER == 4096
        assert memory.headroom + lib.RL_BUFFER_DATA == memory.stride
        assert memory.segment.size >= HEADER + 1000 * STRIDE
        assert (memory.page_size, memory.hugepages) == (4096, False)
        other = PacketMemory.attach(memory.segment.share(), 1000)
        assert other.buffers == 1000
        other.segment.memory[HEADER + 999 * STRIDE + STRIDE - 1] = 9
        assert memory.segment.memory[HEADER + 1000 * STRIDE - 1] == 9
        other.close()
        with pytest.raises(Bug):
            DescriptorMemory.attach(memory.segment.share())


def test_offset_addresses_are_a_base_and_the_offset(instance: Callable[[], str]) -> None:
    with (
        PacketMemory.create(instance(), 100, hugepages="off") as packets,
        DescriptorMemory.create(instance(), 10_000, hugepages="off") as descriptors,
    ):
        there = packets.device_addresses("offset")
        assert (there.page_shift, there.page_bus, there.unusable) == (63, [0x1_0000_0000], [])
        assert there.of(HEADER + 7 * STRIDE) == 0x1_0000_0000 + HEADER + 7 * STRIDE
        assert packets.device_addresses("offset", base=1 << 38).of(5) == (1 << 38) + 5
        assert descriptors.device_addresses("offset").of(HEADER) == 0x1000_0000 + HEADER
        in_pieces = packets.device_addresses("pieces")
        assert in_pieces.of(5) == there.of(5)
        assert (there.unusable, in_pieces.unusable) == ([], packets._straddlers())
        assert descriptors.device_addresses("pieces").of(HEADER) == 0x1000_0000 + HEADER
        for memory in (packets, descriptors):
            with pytest.raises(UsageError, match="must be 'offset' or 'physical'"):
                memory.device_addresses("iova")


def write_pagemap(path: Path, frames: dict[int, int], first: int) -> None:
    """Write a pagemap. `frames`: page index, counted from page `first` -> frame number."""
    with path.open("wb") as file:
        for page, frame in frames.items():
            file.seek((first + page) * 8)
            file.write((1 << 63 | frame).to_bytes(8, "little"))


def test_physical_addresses_follow_the_page_map(
    instance: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with PacketMemory.create(instance(), 100, hugepages="off") as memory:
        pages = memory.segment.size // 4096
        frames = {page: 1000 - 3 * page for page in range(pages)}
        write_pagemap(tmp_path / "pagemap", frames, memory.segment.address // 4096)
        monkeypatch.setattr(dma, "PAGEMAP", str(tmp_path / "pagemap"))
        there = memory.device_addresses("physical")
        assert there.page_shift == 12
        assert there.page_bus == [4096 * frames[page] for page in range(pages)]
        assert there.of(3 * 4096 + 17) == 4096 * (1000 - 9) + 17
        usable = set(range(100)) - set(there.unusable)
        assert usable
        for buffer in range(100):
            first = HEADER + buffer * STRIDE
            in_one_page = (first - LINE) // 4096 == (first + STRIDE - 1) // 4096
            assert in_one_page == (buffer in usable)


@given(
    buffers=st.integers(1, 5000),
    shift=st.sampled_from([12, 14, 16, 21, 30]),
    units=st.integers(1, 5),
)
@settings(max_examples=200 if PROOF else 25)
def test_straddlers_are_exactly_the_buffers_that_cross_a_page(
    buffers: int, shift: int, units: int
) -> None:
    memory = object.__new__(PacketMemory)
    memory.page_size, memory.stride, memory.first_offset = 1 << shift, STRIDE, HEADER
    memory.units, memory.room = units, units * STRIDE
    memory.buffers = buffers * units

    class Used:
        used = HEADER + buffers * units * STRIDE

    memory.segment = Used  # type: ignore[assignment]  # the only attribute that is used
    assert memory._straddlers() == [
        buffer
        for buffer in range(0, buffers * units, units)
        if (HEADER + buffer * STRIDE - LINE) >> shift
        != (HEADER + (buffer + units) * STRIDE - 1) >> shift
    ]


def test_a_frame_number_of_zero_is_an_error_and_not_an_address(
    instance: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with PacketMemory.create(instance(), 10, hugepages="off") as memory:
        pages = memory.segment.size // 4096
        frames = dict.fromkeys(range(pages), 5) | {2: 0}
        write_pagemap(tmp_path / "pagemap", frames, memory.segment.address // 4096)
        monkeypatch.setattr(dma, "PAGEMAP", str(tmp_path / "pagemap"))
        with pytest.raises(EnvironmentLacks, match=r"must run as root \(CAP_SYS_ADMIN\)"):
            memory.device_addresses("physical")


def test_physical_addresses_need_root(
    instance: Callable[[], str],
) -> None:
    with PacketMemory.create(instance(), 10, hugepages="off") as memory:
        if os.geteuid() == 0:
            there = memory.device_addresses("physical")
            assert all(there.page_bus)
            assert len(set(there.page_bus)) == memory.segment.size // 4096
        else:
            with pytest.raises(EnvironmentLacks, match="CAP_SYS_ADMIN"):
                memory.device_addresses("physical")


def test_allocations_are_aligned_zeroed_and_apart(instance: Callable[[], str]) -> None:
    name = instance()
    with DescriptorMemory.create(name, 20_000, hugepages="off") as memory:
        first, offset = memory.allocate(8192)
        assert offset == HEADER
        assert first == memory.segment.address + offset
        memory.segment.memory[offset : offset + 8192] = b"\xff" * 8192
        assert memory.allocate(100)[1] == HEADER + 8192
        assert memory.allocate(100)[1] == HEADER + 8192 + 128
        assert memory.allocate(16, align=4096)[1] == 4 * 4096
        with pytest.raises(Bug, match="descriptor memory are needed"):
            memory.allocate(20_000)
        # The next driver starts at the beginning; its memory is zeroed.
        successor = DescriptorMemory.attach(memory.segment.share())
        assert successor.allocate(8192)[1] == HEADER
        assert not any(successor.segment.memory[HEADER : HEADER + 8192])
        successor.close()


def test_a_ring_larger_than_a_page_needs_hugepages(instance: Callable[[], str]) -> None:
    with DescriptorMemory.create(instance(), 20_000, hugepages="off") as memory:
        memory._whole_pages = True  # as after device_addresses("physical"), which needs root
        assert memory.allocate(4096)[1] == HEADER
        with pytest.raises(EnvironmentLacks, match=r"4 KiB: reserve hugepages and set hugepages"):
            memory.allocate(4097)


class AnyAllocations(RuleBasedStateMachine):
    """Allocations of any size and alignment, in offset and physical mode."""

    names: ClassVar[Iterator[str]]

    @initialize(physical=st.booleans())
    def begin(self, physical: bool) -> None:
        self.memory = DescriptorMemory.create(next(self.names), 300_000, hugepages="off")
        self.physical = physical
        self.memory._whole_pages = physical
        self.given: list[tuple[int, int]] = []

    @rule(size=st.integers(1, 20_000), align=st.sampled_from([1, 16, 128, 4096]))
    def allocate(self, size: int, align: int) -> None:
        try:
            address, offset = self.memory.allocate(size, align)
        except Bug:
            end = max((start + length for start, length in self.given), default=HEADER)
            assert end + size + max(align, 4096) > self.memory.segment.size
            return
        except EnvironmentLacks:
            assert self.physical
            assert size > 4096
            return
        assert offset % align == 0
        assert address == self.memory.segment.address + offset
        if self.physical:
            assert offset // 4096 == (offset + size - 1) // 4096
        self.given.append((offset, size))

    @invariant()
    def none_overlap_and_all_are_inside(self) -> None:
        end = HEADER
        for offset, size in self.given:
            assert offset >= end
            end = offset + size
        assert end <= self.memory.segment.size

    def teardown(self) -> None:
        self.memory.__exit__()


def test_any_allocations(instance: Callable[[], str]) -> None:
    AnyAllocations.names = iter(instance, "")
    AnyAllocations.TestCase.settings = settings(
        max_examples=300 if PROOF else 20, stateful_step_count=30, deadline=None
    )
    AnyAllocations.TestCase("runTest").runTest()
