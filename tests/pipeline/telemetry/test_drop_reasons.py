"""Drop reasons that a plugin names, in metrics, report, summary and live table."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from ringline.pipeline.telemetry.flaws import flaws
from ringline.pipeline.telemetry.observe import note_reasons
from ringline.pipeline.telemetry.report import lay_out
from ringline.pipeline.terminal import table
from ringline.shm import slots
from ringline.shm._shm import ffi
from ringline.shm.drop_reasons import BUILT_IN

from ..idle_instance import Idle, exposition, idle_instance


@pytest.fixture
def idle(instance: Callable[[], str]) -> Iterator[Idle]:
    with idle_instance(instance(), ports=2) as made:
        yield made


def name_and_drop(idle: Idle) -> None:
    """Worker 0 names acl and ttl, worker 1 only ttl, whose number is another one."""
    assert [idle.plugin(0).drop_reason(name) for name in ("acl", "ttl")] == [128, 129]
    assert idle.plugin(1).drop_reason("ttl") == 128
    first, second = idle.books.queues[0], idle.books.queues[1]
    first.drop_named[0], first.drop_named[1], first.drop_plugin = 3, 4, 5
    second.drop_named[0] = 10


def drops(idle: Idle) -> dict[tuple[str, str, str, str], float]:
    (family,) = (
        family
        for family in text_string_to_metric_families(exposition(idle))
        if family.name == "ringline_port_dropped_packets"
    )
    names = ("port", "worker", "reason", "by")
    return {tuple(s.labels[name] for name in names): s.value for s in family.samples}  # type: ignore[misc]


def test_metrics_count_by_name(idle: Idle) -> None:
    name_and_drop(idle)
    found = drops(idle)
    assert found["wan", "0", "acl", "plugin"] == 3
    assert found["wan", "0", "ttl", "plugin"] == 4
    assert found["wan", "0", "plugin", "plugin"] == 5
    assert found["wan", "1", "ttl", "plugin"] == 10
    assert ("wan", "1", "acl", "plugin") not in found
    assert found["lan", "0", "acl", "plugin"] == 0, "a series is there before its first packet"
    by = {reason: by for _, _, reason, by in found}
    assert by["worker_lost"] == by["plugin_error"] == by["driver_lost"] == "ringline"
    assert by["missed"] == by["no_descriptor"] == "card"


def test_report_and_tables_show_them_and_the_sums_agree(idle: Idle) -> None:
    before = idle.take()
    name_and_drop(idle)
    idle.books.queues[0].rx_packets, idle.books.queues[1].rx_packets = 12, 10
    snapshot = idle.take()
    told = lay_out(snapshot)
    port = told["ports"]["wan"]
    assert {name: n for name, n in port["drops"].items() if n} == {"acl": 3, "ttl": 14, "plugin": 5}
    assert port["received"]["packets"] == sum(port["drops"].values()) == 22
    assert told["drops"]["ttl"] == 14
    assert [worker["drop_reasons"] for worker in told["workers"]] == [["acl", "ttl"], ["ttl"]]
    assert "drop_named" not in port["queues"][0]
    json.dumps(told, allow_nan=False)
    for shown in (table.summary(snapshot), table.text(table.board(before, snapshot))):
        assert "acl 3" in shown
        assert "ttl 14" in shown
    assert "ttl 14" in table.line(before, snapshot)


def test_a_drop_by_verdict_is_no_flaw(idle: Idle) -> None:
    name_and_drop(idle)
    assert flaws(idle.take()) == []
    idle.books.queues[0].drop_worker_lost = 2
    assert flaws(idle.take()) == ["2 packets lost"]


def test_the_first_name_of_a_number_stays(idle: Idle) -> None:
    """A worker whose slot was cleared, or that lies, cannot give old packets another name."""
    name_and_drop(idle)
    idle.take()
    slot = idle.instance.slots[0]
    slot.segment.memory[4096:] = bytes(len(slot.segment.memory) - 4096)
    assert idle.plugin(0).drop_reason("other") == 128
    assert drops(idle)["wan", "0", "acl", "plugin"] == 3
    assert note_reasons(idle.sources.workers[0]) == ["acl", "ttl"]


def test_packets_of_a_number_without_name_are_drops_without_name(idle: Idle) -> None:
    """Only a hostile worker can return such a verdict, and the books must balance."""
    idle.books.queues[0].drop_named[31], idle.books.queues[0].drop_plugin = 2, 1
    assert idle.take().ports[0].drops["plugin"] == 3


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.data())
def test_a_hostile_directory_names_nothing_impossible(idle: Idle, data: st.DataObject) -> None:
    slot = idle.instance.slots[0]
    source = idle.sources.workers[0]
    source.reasons.clear()
    name = st.sampled_from([b"acl", b"ttl", b"plugin", b"missed", b"a b", b"\xff", b"n" * 47])
    for index in range(data.draw(st.integers(0, 6))):
        entry = slot._entries[0][index]
        entry.name = data.draw(name)
        entry.type = b""
        entry.kind = slots.REASON
        entry.columns = data.draw(st.sampled_from([0, 1, 2, 32, 33, 2**32 - 1]))
        entry.offset = ffi.offsetof("struct rl_slot_segment", "area")
        entry.bytes = data.draw(st.sampled_from([0, 8, 64]))
    snapshot = idle.take()
    assert len(source.reasons) <= 32
    for number, known in source.reasons.items():
        assert 0 <= number < 32
        assert slots.is_name(known)
        assert known not in BUILT_IN
    assert len(set(source.reasons.values())) == len(source.reasons)
    assert snapshot.workers[0].metrics == snapshot.workers[0].tables == ()
    exposition(idle)
