"""The worker object that setup receives: counters, gauges, histograms, tables, named state."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringline.shm import slots
from ringline.shm.errors import PluginError
from ringline.workers import tables
from ringline.workers.trials.harness import named_values
from ringline.workers.worker import Worker, private_slot

if TYPE_CHECKING:
    from ringline.shm.slots import WorkerSlot

BYTES = 1 << 20


def successor(slot: WorkerSlot) -> Worker:
    """The next worker on this slot."""
    return Worker(slot, queue=3, ports=["wan", "lan"], options={"x": 1})


def test_it_knows_its_queue_its_ports_and_its_options() -> None:
    worker = successor(private_slot(0))
    assert (worker.queue, worker.ports, worker.options) == (3, {"wan": 0, "lan": 1}, {"x": 1})
    assert not worker.rehearsal


def test_names_keep_their_memory_in_a_successor() -> None:
    slot = private_slot(BYTES)
    for number in (1, 2):
        worker = successor(slot)
        worker.counter("packets_seen").add(5)
        worker.histogram("sizes").observe(100)
        worker.state("cells", "i4", (2, 2))[1, 1] += 1
        worker.gauge("level").set(number)
    values = named_values(slot)
    assert values["packets_seen"] == 10
    assert values["level"] == 2
    assert values["sizes"][0] == 200
    assert "cells" not in values
    assert successor(slot).state("cells", "i4", (2, 2)).tolist() == [[0, 0], [0, 2]]
    assert successor(slot).counter("packets_seen").value == 10
    assert successor(slot).gauge("level").value == 2


def test_arrays_share_their_memory() -> None:
    slot = private_slot(BYTES)
    counter = successor(slot).counter("seen")
    counter.array[0] += 7
    assert counter.value == 7
    assert counter.array.dtype == np.uint64
    address = successor(slot).memory("for_c", 64)
    assert address % 64 == 0
    assert successor(slot).memory("for_c", 64) == address


@given(st.lists(st.integers(0, 2**40), max_size=30), st.integers(2, 64))
def test_a_histogram_counts_by_powers_of_two(values: list[int], buckets: int) -> None:
    slot = private_slot(BYTES)
    histogram = successor(slot).histogram("h", buckets)
    for value in values:
        histogram.observe(value)
    total, counts = named_values(slot)["h"]
    assert total == sum(values)
    assert len(counts) == buckets
    wanted = [0] * buckets
    for value in values:
        fits = [b for b in range(buckets) if value < 2**b]
        wanted[fits[0] if fits else buckets - 1] += 1
    assert counts == wanted


def test_a_histogram_takes_numbers_of_numpy_and_none_below_zero() -> None:
    slot = private_slot(BYTES)
    histogram = successor(slot).histogram("h", 4)
    histogram.observe(np.int64(5))  # type: ignore[arg-type]  # as a column gives it
    with pytest.raises(ValueError, match="at least 0, not -5"):
        histogram.observe(-5)
    assert named_values(slot)["h"] == (5, [0, 0, 0, 1])


def test_a_table_holds_the_rows_of_the_last_write() -> None:
    slot = private_slot(BYTES)
    table = successor(slot).table("top", "flow", ["packets", "bytes"], 3)
    table.write([("a > b", (1, 2)), ("c > d", [3, 4])])
    assert named_values(slot)["top"] == [("a > b", [1, 2]), ("c > d", [3, 4])]
    table.write((str(i), (i, i)) for i in range(5))
    assert named_values(slot)["top"] == [(str(i), [i, i]) for i in range(3)]
    table.write([])
    assert named_values(slot)["top"] == []
    with pytest.raises(ValueError, match="must have 2 values, not 1"):
        table.write([("a", (1,))])


@given(st.text())
def test_a_label_is_cut_between_characters(label: str) -> None:
    data = tables.pack_label(label)
    assert len(data) == tables.LABEL_BYTES
    text = data.rstrip(b"\0").decode()
    wanted = label.encode("utf-8", "replace").decode().rstrip("\0")
    assert wanted.startswith(text) or text == wanted
    assert len(text.encode()) > tables.LABEL_BYTES - 4 or text == wanted


def test_a_table_that_is_being_written_is_not_read() -> None:
    """The writer may have been killed in the middle; its successor repairs the table."""
    slot = private_slot(BYTES)
    table = successor(slot).table("top", "flow", ["packets"], 3)
    table.write([("a", (1,))])
    table._words[0] += 1  # as in the middle of a write
    assert named_values(slot)["top"] is None
    successor(slot).table("top", "flow", ["packets"], 3).write([("c", (1,))])
    assert named_values(slot)["top"] == [("c", [1])]


@pytest.mark.parametrize("value", [-1, 1 << 64, 0.5, "7"])
def test_a_write_that_fails_leaves_the_last_good_table(value: object) -> None:
    slot = private_slot(BYTES)
    table = successor(slot).table("top", "flow", ["packets"], 3)
    table.write([("a", (1,)), ("b", (2**64 - 1,))])
    with pytest.raises(ValueError, match=r"must be an integer, 0 to 2\^64 - 1, not"):
        table.write([("c", (3,)), ("d", (value,))])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="a label of a table must be a string, not int"):
        table.write([(5, (3,))])  # type: ignore[list-item]
    assert named_values(slot)["top"] == [("a", [1]), ("b", [2**64 - 1])]


@pytest.mark.parametrize("value", [3, -1, 0.5, 1e300, np.float32(0.25), np.int64(-7)])
def test_a_gauge_is_any_number(value: float) -> None:
    slot = private_slot(BYTES)  # the memory of the gauge
    gauge = successor(slot).gauge("g")
    assert gauge.value == 0
    gauge.set(value)
    assert gauge.value == value
    assert named_values(slot)["g"] == value
    assert isinstance(named_values(slot)["g"], int) == (value in (3, -1, -7))
    assert gauge.array.dtype == np.float64
    gauge.array[0] += 1
    assert gauge.value == value + 1


def test_a_gauge_can_be_infinite_or_no_number_but_no_text() -> None:
    slot = private_slot(BYTES)
    gauge = successor(slot).gauge("g")
    for value in (math.inf, -math.inf, math.nan):
        gauge.set(value)
        assert str(named_values(slot)["g"]) == str(value)
    with pytest.raises(TypeError, match="must be real number, not str"):
        gauge.set("3")  # type: ignore[arg-type]


def test_a_counter_with_a_label_is_one_for_each_value() -> None:
    slot = private_slot(BYTES)
    for number in (1, 2):
        worker = successor(slot)
        seen = worker.counter("seen", label="proto", values=("tcp", "udp", "ü x"))
        seen["udp"].add(number)
        seen.array[2] += 10
        assert worker.counter("seen", label="proto", values=("tcp", "udp", "ü x")) is seen
    assert named_values(slot)["seen"] == {"tcp": 0, "udp": 3, "ü x": 20}
    assert (seen.values, list(seen), len(seen)) == (("tcp", "udp", "ü x"), list(seen.values), 3)
    assert seen.array.dtype == np.uint64
    assert seen["udp"].value == 3
    with pytest.raises(KeyError, match="has no value 'icmp'; its values are 'tcp', 'udp'"):
        seen["icmp"]


def test_the_values_of_a_label_survive_a_wild_write() -> None:
    slot = private_slot(BYTES)
    seen = successor(slot).counter("seen", label="proto", values=("tcp", "udp"))
    seen._words[2] = 0x2020  # in the middle of the values
    assert named_values(slot)["seen"] != {"tcp": 0, "udp": 0}
    successor(slot).counter("seen", label="proto", values=("tcp", "udp"))
    assert named_values(slot)["seen"] == {"tcp": 0, "udp": 0}


@given(st.lists(st.integers(0, 2**64 - 1), max_size=60))
def test_reading_counters_ends_whatever_is_in_them(words: list[int]) -> None:
    found = tables.read_counters(words)
    assert len({value for value, _ in found}) == len(found) <= len(words) // 7


@pytest.mark.parametrize(("values", "most"), [(1, 272), (2, 255), (3, 239)])
def test_a_table_that_would_be_exported_in_part_is_refused(values: int, most: int) -> None:
    names = [f"v{number}" for number in range(values)]
    worker = successor(private_slot(BYTES))
    with pytest.raises(PluginError, match=f"has {most + 1} rows .* at most {most} such rows"):
        worker.table("big", "row", names, most + 1)
    worker.table("big", "row", names, most)


def test_all_tables_together_are_exported_whole_or_refused() -> None:
    slot = private_slot(BYTES)
    worker = successor(slot)
    worker.counter("seen")
    for number in range(4):
        worker.table(f"t{number}", "row", ["value"], 271)
    with pytest.raises(PluginError, match="beside the other tables of this plugin at most"):
        worker.table("t4", "row", ["value"], 100)
    successor(slot).table("t3", "row", ["value"], 271)  # it is there already


@given(
    st.text(alphabet="ab ", max_size=8),
    st.integers(1, 20),
    st.lists(st.integers(0, 2**64 - 1), max_size=60),
)
def test_reading_a_table_ends_whatever_is_in_it(type_: str, columns: int, words: list[int]) -> None:
    rows = tables.read_table(type_, columns, words)
    assert rows is None or len(rows) <= len(words)


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda worker: worker.counter("a-b"), "cannot name a counter"),
        (lambda worker: worker.counter(7), "^7 cannot name a counter"),
        (lambda worker: worker.gauge(b"a"), "^b'a' cannot name a gauge"),
        (lambda worker: worker.table("t", 7, ["x"], 3), "needs a label"),
        (lambda worker: worker.counter("c", label=7, values=["x"]), "label must be an iden"),
        (lambda worker: worker.counter("c", label="a", values=7), "a list of 1 to 64 strings"),
        (
            lambda worker: worker.counter("c", label="a b", values=["x"]),
            "label must be an iden",
        ),
        (lambda worker: worker.counter("c", values=["x"]), "its label must be an identifier"),
        (lambda worker: worker.counter("c", label="a"), "a list of 1 to 64 strings"),
        (lambda worker: worker.counter("c", label="a", values="tcp"), "a list of 1 to 64 strings"),
        (lambda worker: worker.counter("c", label="a", values=["x"] * 65), "a list of 1 to 64"),
        (lambda worker: worker.counter("c", label="a", values=["x", "x"]), "has a value twice"),
        (lambda worker: worker.counter("c", label="a", values=["x", 3]), "1 to 48 printable bytes"),
        (lambda worker: worker.counter("c", label="a", values=["a\n"]), "1 to 48 printable bytes"),
        (lambda worker: worker.counter("c", label="a", values=["ü" * 25]), "1 to 48 printable"),
        (
            lambda worker: [worker.counter("c", label="a", values=[v]) for v in ("x", "y")],
            "counter 'c' already has other values: x$",
        ),
        (
            lambda worker: (worker.counter("c"), worker.counter("c", label="a", values=["x"])),
            "needs another name",
        ),
        (lambda worker: worker.state("s", object), "cannot hold Python objects"),
        (lambda worker: worker.state("s", "u1", BYTES + 1), "left in its slot"),
        (lambda worker: worker.histogram("h", 1), "must have 2 to 64 buckets"),
        (lambda worker: worker.table("t", "flow", [], 3), "needs a label"),
        (lambda worker: worker.table("t", "a flow", ["x"], 3), "needs a label"),
        (lambda worker: worker.table("t", "flow", ["x"], 0), "needs a label"),
        (lambda worker: [worker.gauge(f"g{i}") for i in range(200)], "names more than 128"),
        (lambda worker: (worker.state("s", "u1"), worker.state("s", "u2")), "needs another name"),
        (lambda worker: (worker.state("s", "u1", 8), worker.counter("s")), "needs another name"),
    ],
)
def test_impossible_requests_are_reported(ask: Any, words: str) -> None:
    with pytest.raises(PluginError, match=words):
        ask(successor(private_slot(BYTES)))


def test_the_values_of_a_label_can_come_from_a_generator() -> None:
    worker = successor(private_slot(BYTES))
    seen: Any = worker.counter("seen", label="n", values=(str(n) for n in range(3)))  # type: ignore[arg-type]
    assert seen.values == ("0", "1", "2")


def test_a_counter_never_decreases() -> None:
    counter = successor(private_slot(BYTES)).counter("c")
    with pytest.raises(ValueError, match="only grows"):
        counter.add(-1)


def test_structured_state_keeps_its_type() -> None:
    slot = private_slot(BYTES)
    long = [(f"a_rather_long_field_name_{i}", "f8") for i in range(20)]
    cells = successor(slot).state("cells", long, 4)
    cells[3]["a_rather_long_field_name_7"] = 1.5
    assert successor(slot).state("cells", long, 4)[3]["a_rather_long_field_name_7"] == 1.5
    with pytest.raises(PluginError, match="needs another name"):
        successor(slot).state("cells", [*long[:-1], ("other", "f8")], 4)


def test_kinds_of_entries_are_those_of_the_slot() -> None:
    slot = private_slot(BYTES)
    worker = successor(slot)
    worker.counter("a"), worker.gauge("b"), worker.histogram("c")
    worker.table("d", "l", ["v"], 1), worker.state("e", "u1")
    worker.drop_reason("f"), worker.counter("g", label="h", values=["i"])
    kinds = [(entry.name, slots.KINDS[entry.kind]) for entry in slot.entries()]
    assert kinds == [
        ("a", "counter"),
        ("b", "gauge"),
        ("c", "histogram"),
        ("d", "table"),
        ("e", "state"),
        ("f", "drop reason"),
        ("g", "counter with the label"),
    ]
