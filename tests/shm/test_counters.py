"""Counter blocks are read by the names that C declares."""

from __future__ import annotations

import pytest

from ringline.shm import counters
from ringline.shm._shm import ffi

BLOCKS = ["rl_worker_counters", "rl_queue_counters", "rl_slot_counters", "rl_lane_counters"]


@pytest.mark.parametrize("struct", BLOCKS)
def test_every_field_is_read_under_its_name(struct: str) -> None:
    block = ffi.new(f"struct {struct} *")
    raw = ffi.cast("uint64_t *", block)
    for index in range(ffi.sizeof(block[0]) // 8):
        raw[index] = 2**63 + index
    values = counters.read(block)
    assert list(values) == counters.field_names(f"struct {struct}")
    flat = []
    for value in values.values():
        each = list(value.values()) if isinstance(value, dict) else value
        flat += each if isinstance(each, list) else [each]
    assert flat == [2**63 + index for index in range(len(flat))], "every field exactly once"
    assert counters.read(block[0]) == values


def test_nested_structs_and_arrays_are_read() -> None:
    lane = ffi.new("struct rl_lane_segment *")
    lane.slots[3].latency[31] = 9
    lane.queues[17].drop_plugin = 4
    lane.balance.packets_residual[2] = -5
    values = counters.read(lane)
    assert values["slots"][3]["latency"] == [0] * 31 + [9]
    assert values["queues"][17]["drop_plugin"] == 4
    assert values["balance"]["packets_residual"][2] == -5
