"""The guard of a worker slot: what it takes for damage, and what it clears."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ringline.shm._shm import ffi, lib
from ringline.shm.slot_guard import SlotGuard
from ringline.shm.slots import COUNTER, STATE, WorkerSlot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STATE_BYTES = 3 << 20
COUNTERS = ffi.offsetof("struct rl_slot_segment", "counters")
ENTRIES = ffi.offsetof("struct rl_slot_segment", "entries")
AREA = ffi.offsetof("struct rl_slot_segment", "area")


@pytest.fixture
def slot(instance: Callable[[], str]) -> Iterator[WorkerSlot]:
    with WorkerSlot.create(instance(), 0, STATE_BYTES) as made:
        made.lookup_or_add("seen", COUNTER)
        made.lookup_or_add("flows", STATE, "u8", 1, 8000)
        yield made


@pytest.fixture
def guard(slot: WorkerSlot) -> SlotGuard:
    made = SlotGuard(slot)
    made.note()
    return made


@pytest.mark.parametrize("byte", [0x00, 0xFF, 0x41])
@pytest.mark.parametrize("start", [0, 130])
def test_a_wild_write_over_the_directory_is_seen(
    slot: WorkerSlot, guard: SlotGuard, start: int, byte: int
) -> None:
    assert not guard.damaged()
    slot.segment.memory[ENTRIES + start : AREA] = bytes([byte]) * (AREA - ENTRIES - start)
    assert guard.damaged()
    guard.note()
    assert guard.damaged(), "damage is not believed"


def test_any_change_of_a_known_entry_is_seen(slot: WorkerSlot, guard: SlotGuard) -> None:
    for at in range(ENTRIES, ENTRIES + 2 * ffi.sizeof("struct rl_slot_entry")):
        slot.segment.memory[at] ^= 1
        assert guard.damaged(), at
        slot.segment.memory[at] ^= 1
    assert not guard.damaged()


def test_an_entry_that_is_half_written_is_no_damage(slot: WorkerSlot, guard: SlotGuard) -> None:
    """Its kind is written last; the worker may add names after it was noted."""
    entry = slot.segment.at("struct rl_slot_segment *").entries[2]
    entry.name, entry.offset, entry.bytes = b"late", 1, 1 << 60
    assert not guard.damaged()
    guard.note()
    slot.lookup_or_add("late", COUNTER)
    assert not guard.damaged()


def test_memory_that_overlaps_or_a_name_twice_is_damage(slot: WorkerSlot, guard: SlotGuard) -> None:
    slot.lookup_or_add("more", COUNTER)
    entries = slot.segment.at("struct rl_slot_segment *").entries
    for field, value in (("name", b"seen"), ("offset", entries[1].offset)):
        before = getattr(entries[2], field)
        setattr(entries[2], field, value)
        assert guard.damaged(), field
        setattr(entries[2], field, before if field == "offset" else b"more")
    assert not guard.damaged()


@pytest.mark.parametrize(
    "field", ["packets", "batches", "forwarded", "bytes", "busy_ticks", "idle_ticks"]
)
def test_impossible_counters_are_seen(slot: WorkerSlot, guard: SlotGuard, field: str) -> None:
    slot.counters.packets = slot.counters.forwarded = 1_000_000
    slot.counters.bytes = 1_000_000 * 1500
    slot.counters.busy_ticks = lib.rl_now() // 2
    assert not guard.impossible_counters(1_000_000)
    setattr(slot.counters, field, 0xFFFFFFFFFFFFFFFF)
    assert guard.impossible_counters(1_000_000)


def test_a_restored_directory_names_the_same_memory(slot: WorkerSlot, guard: SlotGuard) -> None:
    before = slot.lookup_or_add("seen", COUNTER), slot.lookup_or_add("flows", STATE, "u8", 1, 8000)
    slot.segment.memory[ENTRIES:AREA] = b"\xff" * (AREA - ENTRIES)
    guard.restore()
    assert not guard.damaged()
    after = slot.lookup_or_add("seen", COUNTER), slot.lookup_or_add("flows", STATE, "u8", 1, 8000)
    assert after == before
    slot.lookup_or_add("more", COUNTER)


def test_after_a_reset_the_slot_is_as_new(slot: WorkerSlot, guard: SlotGuard) -> None:
    slot.segment.memory[COUNTERS : slot.segment.used] = b"\xff" * (slot.segment.used - COUNTERS)
    guard.reset()
    guard.reset_counters()
    assert not any(slot.segment.memory[COUNTERS : slot.segment.used])
    assert not guard.damaged()
    slot.lookup_or_add("other", COUNTER)
    assert [entry.name for entry in slot.entries()] == ["other"]
