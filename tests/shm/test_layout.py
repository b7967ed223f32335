"""The layout of the shared structs, and the hash that identifies it."""

from __future__ import annotations

import pytest

from ringline.shm import layout
from ringline.shm._shm import ffi, lib

SHARED = [
    "rl_reference",
    "rl_segment_header",
    "rl_ring",
    "rl_rings_segment",
    "rl_worker_counters",
    "rl_slot_entry",
    "rl_slot_segment",
    "rl_lane_segment",
    "rl_intent",
    "rl_balance",
]
LINE = 64


@pytest.mark.parametrize("name", SHARED)
def test_nothing_is_padded_by_the_compiler(name: str) -> None:
    # Padding is explicit: two compilers may place an implicit hole differently.
    struct = ffi.typeof(f"struct {name}")
    end = 0
    for field, it in struct.fields:
        assert it.offset == end, f"there is a hole before {name}.{field}"
        end = it.offset + (ffi.sizeof(it.type) if it.type.cname != "uint8_t[]" else 0)
    assert ffi.sizeof(struct) == end


def test_fields_written_by_different_processes_are_on_separate_cache_lines() -> None:
    offsets = {name: it.offset for name, it in ffi.typeof("struct rl_ring").fields}
    for name in ("producer", "consumer", "sleeping", "entries", "guard_line"):
        assert offsets[name] % LINE == 0
    rings = {name: it.offset for name, it in ffi.typeof("struct rl_rings_segment").fields}
    assert rings["in"] % LINE == rings["out"] % LINE == 0
    assert ffi.sizeof("struct rl_reference") == 16
    assert len(ffi.new("struct rl_ring *").entries) == lib.RL_RING_CAPACITY


@pytest.mark.parametrize(
    ("struct", "fields"),
    [
        ("rl_lane_segment", ["lane", "intent", "ledger_offset"]),
        ("rl_slot_segment", ["counters", "entries", "area"]),
    ],
)
def test_parts_of_a_segment_start_on_a_cache_line(struct: str, fields: list[str]) -> None:
    offsets = {name: it.offset for name, it in ffi.typeof(f"struct {struct}").fields}
    assert offsets["header"] == 0
    for field in fields:
        assert offsets[field] % LINE == 0


def test_the_drop_counters_stand_together() -> None:
    """balance.h sums the fields from drop_plugin up to tx_waits as the packets that were lost."""
    names = [name for name, _ in ffi.typeof("struct rl_queue_counters").fields]
    summed = names[names.index("drop_plugin") : names.index("tx_waits")]
    assert summed == [name for name in names if name.startswith("drop_")]


def test_the_hash_covers_every_field_and_constant() -> None:
    text = layout.layout_text()
    for name in SHARED:
        assert f"struct {name} {ffi.sizeof('struct ' + name)}\n" in text
        for field, it in ffi.typeof(f"struct {name}").fields:
            assert f"\n{field} {it.offset} {it.type.cname}" in text
    for constant in ("RL_BUFFER_STRIDE 2240", "RL_RING_CAPACITY 1024", "RL_HOLDER_WORKER 4"):
        assert f"{constant}\n" in text


def test_the_hash_differs_for_different_texts() -> None:
    text = layout.layout_text().encode()
    assert lib.rl_hash(text, len(text)) == layout.layout_hash() != 0
    for at in range(0, len(text), 97):
        other = text[:at] + bytes([text[at] ^ 1]) + text[at + 1 :]
        assert lib.rl_hash(other, len(other)) != layout.layout_hash()
    # Published test values of FNV-1a, 64 bits.
    assert lib.rl_hash(b"", 0) == 0xCBF29CE484222325
    assert lib.rl_hash(b"a", 1) == 0xAF63DC4C8601EC8C
    assert lib.rl_hash(b"foobar", 6) == 0x85944171F73967E8
