"""Worker slots: a directory that outlives its worker, with hostile contents."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringline.shm import counters, slots
from ringline.shm._shm import ffi, lib
from ringline.shm.errors import PluginError
from ringline.shm.slots import COUNTER, GAUGE, HISTOGRAM, STATE, TABLE, WorkerSlot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROOF = os.environ.get("RINGLINE_PROOF") == "1"
STATE_BYTES = 100_000
AREA = ffi.offsetof("struct rl_slot_segment", "area")


@pytest.fixture(scope="module")
def shared_slot() -> Iterator[WorkerSlot]:
    with WorkerSlot.create(f"t{os.getpid()}-slots", 0, STATE_BYTES) as slot:
        yield slot


@pytest.fixture
def slot(instance: Callable[[], str]) -> Iterator[WorkerSlot]:
    with WorkerSlot.create(instance(), 2, STATE_BYTES) as made:
        yield made


def numbers(address: int, count: int) -> Any:
    return ffi.cast(f"uint64_t(*)[{count}]", address)[0]


def entry_at(slot: WorkerSlot, index: int) -> Any:
    return slot.segment.at("struct rl_slot_segment *").entries[index]


def test_counters_start_at_zero_and_are_read_by_name(slot: WorkerSlot) -> None:
    assert slot.segment.name.endswith(".worker.2")
    slot.counters.packets = 7
    values = counters.read(slot.counters)
    assert values.pop("packets") == 7
    assert values
    assert not any(values.values())
    assert list(counters.read(slot.counters)) == counters.field_names("struct rl_worker_counters")


def test_names_outlive_their_worker(slot: WorkerSlot) -> None:
    hits = slot.lookup_or_add("hits", COUNTER)
    level = slot.lookup_or_add("level", GAUGE)
    sizes = slot.lookup_or_add("sizes", HISTOGRAM, columns=8, bytes_=64)
    flows = slot.lookup_or_add("flows", TABLE, columns=3, bytes_=3 * 8 * 10)
    state = slot.lookup_or_add("seen", STATE, "<f8 (100,)", bytes_=800)
    assert len({hits, level, sizes, flows, state}) == 5
    numbers(hits, 1)[0] = 5
    numbers(sizes, 8)[7] = 9
    numbers(state, 100)[99] = 11

    successor = WorkerSlot.attach(slot.segment.share(), STATE_BYTES)
    again = successor.lookup_or_add("hits", COUNTER)
    assert again - successor.segment.address == hits - slot.segment.address
    assert numbers(again, 1)[0] == 5
    entries = {entry.name: entry for entry in successor.entries()}
    assert list(entries) == ["hits", "level", "sizes", "flows", "seen"]
    assert successor.values(entries["sizes"]) == [0] * 7 + [9]
    assert len(successor.values(entries["flows"])) == 30
    assert entries["seen"].type == "<f8 (100,)"
    successor.close()
    successor.close()


def test_named_memory_is_zero_aligned_and_apart(slot: WorkerSlot) -> None:
    end = slot.segment.address + AREA
    for index, size in enumerate([8, 1, 1000, 64, 7]):
        address = slot.lookup_or_add(f"state{index}", STATE, bytes_=size)
        assert address % 64 == 0
        assert address >= end
        assert not any(bytes(ffi.buffer(ffi.cast("char *", address), size)))
        end = address + size


def test_clearing_state_keeps_counters(slot: WorkerSlot) -> None:
    hits = slot.lookup_or_add("hits", COUNTER)
    state = slot.lookup_or_add("seen", STATE, "u8", bytes_=16)
    numbers(hits, 1)[0] = numbers(state, 2)[0] = numbers(state, 2)[1] = 6
    slot.clear_state()
    assert numbers(hits, 1)[0] == 6
    assert list(numbers(state, 2)) == [0, 0]
    assert slot.lookup_or_add("seen", STATE, "u8", bytes_=16) == state


@pytest.mark.parametrize(
    "other",
    [
        {"kind": COUNTER},
        {"kind": STATE, "type_": "<f8", "bytes_": 16},
        {"kind": STATE, "type_": "u8", "bytes_": 24},
        {"kind": STATE, "type_": "u8", "bytes_": 16, "columns": 2},
    ],
)
def test_a_name_with_another_kind_or_size_is_refused(
    slot: WorkerSlot, other: dict[str, Any]
) -> None:
    slot.lookup_or_add("seen", STATE, "u8", bytes_=16)
    with pytest.raises(PluginError, match=r"'seen' already belongs to a .* needs another name"):
        slot.lookup_or_add("seen", **other)


@pytest.mark.parametrize("name", ["", "two words", "8bit", "é", "a.b", "a-b", "x" * 48, "n\0"])
def test_names_that_no_metric_can_have_are_refused(slot: WorkerSlot, name: str) -> None:
    with pytest.raises(PluginError, match="cannot name a counter"):
        slot.lookup_or_add(name, COUNTER)
    assert slot.entries() == []


def test_the_refusal_of_a_very_long_name_is_short(slot: WorkerSlot) -> None:
    """A worker sends it, and a message that is too long would be refused instead."""
    with pytest.raises(PluginError) as caught:
        slot.lookup_or_add("x" * 1_000_000, COUNTER)
    assert len(str(caught.value)) < 300


def test_a_type_that_does_not_fit_is_refused(slot: WorkerSlot) -> None:
    with pytest.raises(PluginError, match="is too long"):
        slot.lookup_or_add("seen", STATE, "f8" * 30)


def test_too_little_room_is_reported_with_numbers(slot: WorkerSlot) -> None:
    slot.lookup_or_add("most", STATE, bytes_=99_000)
    with pytest.raises(PluginError, match=r"asks for 2000 bytes as 'more', but 1000 are left"):
        slot.lookup_or_add("more", STATE, bytes_=2000)
    assert [entry.name for entry in slot.entries()] == ["most"]
    slot.lookup_or_add("less", STATE, bytes_=500)


def test_too_many_names_are_refused(slot: WorkerSlot) -> None:
    for index in range(lib.RL_SLOT_ENTRIES):
        slot.lookup_or_add(f"c{index}", COUNTER)
    with pytest.raises(PluginError, match="more than 128"):
        slot.lookup_or_add("one_more", COUNTER)
    assert slot.lookup_or_add("c127", COUNTER)


def test_half_written_entry_is_not_there(slot: WorkerSlot) -> None:
    # The worker died before it stored the kind, the last store of an entry.
    slot.lookup_or_add("hits", COUNTER)
    half = entry_at(slot, 1)
    half.name, half.offset, half.bytes, half.columns = b"half", AREA + 64, 8, 1
    assert [entry.name for entry in slot.entries()] == ["hits"]
    slot.lookup_or_add("whole", COUNTER)
    assert [entry.name for entry in slot.entries()] == ["hits", "whole"]


def test_an_entry_is_whole_when_its_kind_is_written(
    slot: WorkerSlot, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    class WatchedLib:
        def __getattr__(self, name: str) -> Any:
            return getattr(lib, name)

        def rl_publish32(self, address: int, value: int) -> None:
            assert slot.entries() == []
            lib.rl_publish32(address, value)
            seen.extend(slot.entries())

    monkeypatch.setattr(slots, "lib", WatchedLib())
    slot.lookup_or_add("sizes", HISTOGRAM, "log2", columns=4, bytes_=32)
    assert [(e.name, e.type, e.columns, e.bytes) for e in seen] == [("sizes", "log2", 4, 32)]


def test_a_gap_in_the_directory_does_not_make_entries_overlap(slot: WorkerSlot) -> None:
    slot.lookup_or_add("first", COUNTER)
    second = slot.lookup_or_add("second", COUNTER)
    entry_at(slot, 0).kind = 0
    third = slot.lookup_or_add("third", COUNTER)
    fourth = slot.lookup_or_add("fourth", COUNTER)
    assert second < third < fourth


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", 8),
        ("kind", 2**32 - 1),
        ("offset", 0),
        ("offset", AREA - 8),
        ("offset", AREA + 4),
        ("offset", 2**64 - 8),
        ("offset", AREA + STATE_BYTES),
        ("bytes", STATE_BYTES + 1),
        ("bytes", 2**64 - 8),
        ("bytes", 12),
        ("columns", 0),
        ("columns", 2),
        ("name", b""),
        ("name", b"x" * 48),
        ("name", b"\xff\xfe"),
        ("name", b"a{b}"),
        ("type", b"\n"),
    ],
)
def test_an_impossible_entry_is_left_out(slot: WorkerSlot, field: str, value: Any) -> None:
    slot.lookup_or_add("hits", COUNTER)
    slot.lookup_or_add("misses", COUNTER)
    setattr(entry_at(slot, 0), field, value)
    assert [entry.name for entry in slot.entries()] == ["misses"]
    # A worker that starts with such a directory still gets its memory.
    address = slot.lookup_or_add("hits", COUNTER)
    assert numbers(address, 1)[0] == 0
    assert [entry.name for entry in slot.entries()] == ["misses", "hits"]


def test_the_first_entry_of_a_name_counts(slot: WorkerSlot) -> None:
    slot.lookup_or_add("hits", COUNTER)
    slot.lookup_or_add("others", COUNTER)
    entry_at(slot, 1).name = b"hits"
    assert [(entry.name, entry.offset) for entry in slot.entries()] == [("hits", AREA)]


@given(data=st.data())
@settings(max_examples=2000 if PROOF else 60)
def test_hostile_directory(shared_slot: WorkerSlot, data: st.DataObject) -> None:
    # The directory has any bytes. Reading ends and stays inside the segment, whatever
    # size the header claims.
    slot = shared_slot
    header = slot.segment.at("struct rl_segment_header *")
    header.used = header.size = 2**64 - 1
    size = ffi.sizeof("struct rl_slot_entry")
    first = ffi.offsetof("struct rl_slot_segment", "entries")
    end = AREA + STATE_BYTES
    near = st.sampled_from([0, AREA, AREA + 8, end - 8, end, 1 << 30, 2**64 - 8])
    for index in data.draw(st.lists(st.integers(0, lib.RL_SLOT_ENTRIES - 1), max_size=20)):
        raw = data.draw(st.binary(min_size=size, max_size=size))
        slot.segment.memory[first + index * size : first + (index + 1) * size] = raw
        entry = entry_at(slot, index)
        if data.draw(st.booleans()):
            entry.name = b"n%d" % index
            entry.type = b""
            entry.kind = data.draw(st.integers(0, 6))
            entry.offset, entry.bytes = data.draw(near), data.draw(near)
            entry.columns = data.draw(st.integers(0, 3))
    for entry in slot.entries():
        assert AREA <= entry.offset <= entry.offset + entry.bytes <= end
        assert entry.name.isidentifier()
        assert len(slot.values(entry)) == entry.bytes // 8
    try:
        address = slot.lookup_or_add("mine", COUNTER)
    except PluginError:
        return
    assert AREA <= address - slot.segment.address <= end - 8
