"""A batch in Python: packets and columns share their memory."""

from __future__ import annotations

import gc
import mmap
import struct
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ringline.shm._shm import lib
from ringline.workers import batch as batches
from ringline.workers._workers import ffi
from ringline.workers.api import HASH, VLAN, Batch
from ringline.workers.testing import DROP, ERROR, Frame, PluginError, Run, run_plugin

STRIDE: int = lib.RL_BUFFER_STRIDE


def process(judge: Any, frames: list[Any], **how: Any) -> Run:
    """Run the function `judge` as a class's process."""
    return run_plugin(type("Judge", (), {"process": staticmethod(judge)}), frames, **how)


def checked(judge: Any, frames: list[Any], **how: Any) -> Run:
    """Like `process`, and no packet may be an error."""
    run = process(judge, frames, **how)
    assert [result.error for result in run] == [None] * len(run)
    return run


FRAMES = [bytes([n]) * (60 + n) for n in range(10)]
TOLD = [
    Frame(frame, port=n % 3, rss_hash=0xFFFFFFF0 + n, vlan_tci=n, flags=4)
    for n, frame in enumerate(FRAMES)
]


def test_a_packet_without_verdict_is_dropped() -> None:
    def judge(batch: Batch) -> None:
        batch[1].verdict = 0

    assert [result.verdict for result in checked(judge, FRAMES[:3])] == [DROP, 0, DROP]


def test_packets_and_columns_have_the_same_values() -> None:
    def judge(batch: Batch) -> None:
        assert len(batch) == len(FRAMES)
        packets = list(batch)
        assert [p.length for p in packets] == batch.lengths.tolist() == list(range(60, 70))
        assert [p.port for p in packets] == batch.ports.tolist() == [f.port for f in TOLD]
        assert [p.rss_hash for p in packets] == batch.hashes.tolist()
        assert [p.flags for p in packets] == batch.flags.tolist() == [HASH | VLAN | 4] * 10
        assert [p.vlan_tci for p in packets] == batch.vlan_tcis.tolist() == list(range(10))
        assert [bytes(p.data) for p in packets] == FRAMES
        assert [bytes(batch[n].data) for n in range(10)] == FRAMES
        assert bytes(batch[-1].data) == FRAMES[-1]
        packets[3].verdict = 2
        assert batch.verdicts[3] == 2
        batch.verdicts[4] = 1
        assert packets[4].verdict == 1
        with pytest.raises(IndexError):
            batch[10]

    run = checked(judge, TOLD, ports=3)
    assert [result.verdict for result in run] == [DROP] * 3 + [2, 1] + [DROP] * 5


def test_data_is_exactly_the_packet() -> None:
    def judge(batch: Batch) -> None:
        for packet in batch:
            packet.data[0:2] = b"xy"
            with pytest.raises(IndexError):
                packet.data[packet.length] = 1
            packet.verdict = 0

    run = checked(judge, FRAMES)
    assert [result.frame for result in run] == [b"xy" + frame[2:] for frame in FRAMES]


@pytest.mark.parametrize("value", [0.7, [0.2, 1.0], None, "1", 2**64, np.float64("nan")], ids=repr)
def test_a_verdict_must_be_an_integer(value: Any) -> None:
    """NumPy would round 0.7 down to 0, which is a port."""

    def column(batch: Batch) -> None:
        batch.verdicts[:] = value

    def part(batch: Batch) -> None:
        batch.verdicts[batch.lengths > 0] = value

    def filled(batch: Batch) -> None:
        batch.verdicts.fill(value)

    for judge in (column, part, filled):
        run = process(judge, FRAMES[:2])
        assert [result.verdict for result in run] == [ERROR, ERROR]


def test_fields_are_gathered_and_scattered() -> None:
    def judge(batch: Batch) -> None:
        first = batch.gather(0, ">u2")
        assert first.tolist() == [n << 8 | n for n in range(10)]
        assert batch.gather(4, ("u1", 6)).shape == (10, 6)
        batch.scatter(2, (first + 1).astype(">u2"))
        batch.scatter(10, np.arange(60, dtype="u1").reshape(10, 6))
        batch.scatter(20, np.full(10, 0x0102, dtype="<u2"))
        batch.verdicts[:] = 0

    for n, result in enumerate(checked(judge, FRAMES)):
        wanted = bytearray(FRAMES[n])
        wanted[2:4] = struct.pack(">H", (n << 8 | n) + 1)
        wanted[10:16] = bytes(range(6 * n, 6 * n + 6))
        wanted[20:22] = b"\x02\x01"
        assert result.frame == wanted


def test_nothing_beyond_a_frame_is_read_or_written() -> None:
    def judge(batch: Batch) -> None:
        assert batch.gather(62, ("u1", 4)).tolist() == [
            [n if 62 + i < 60 + n else 0 for i in range(4)] for n in range(10)
        ]
        assert batch.gather(4000, "u1").tolist() == [0] * 10
        batch.scatter(62, np.full((10, 4), 0xEE, dtype="u1"))
        batch.scatter(4000, np.zeros(10))
        for packet in batch:
            packet.resize(0, 8)
            packet.verdict = 0

    for n, result in enumerate(checked(judge, FRAMES)):
        assert result.frame[: min(62, 60 + n)] == FRAMES[n][:62]
        assert result.frame[62 : 60 + n] == b"\xee" * min(max(n - 2, 0), 4) + FRAMES[n][66:]
        assert b"\xee" not in result.frame[60 + n :]


def test_each_loop_over_a_batch_gives_new_memoryviews() -> None:
    def judge(batch: Batch) -> None:
        for packet in batch:
            with packet.data as data:
                assert data is packet.data
        for packet in batch:
            assert packet.data[0] == packet.port
        batch[2].data.release()
        assert batch[2].data[0] == 2

    checked(judge, [Frame(bytes([n]) * 60, port=n) for n in range(3)], ports=3)


def test_packets_and_their_memoryviews_are_freed_with_the_batch() -> None:
    memory = mmap.mmap(-1, 64 * STRIDE)
    view = memoryview(memory)
    before = sys.getrefcount(view)
    loop = ffi.new("struct rl_worker *")
    loop.batch.count = 2
    batch = batches.Batch(loop, view)
    batch._begin()
    kept = [packet.data for packet in batch]
    assert sys.getrefcount(view) > before
    del batch, kept
    gc.collect()
    assert sys.getrefcount(view) == before
    view.release()
    memory.close()  # fails while there is a memoryview


@pytest.mark.parametrize(
    "judge",
    [
        lambda batch: batch.gather(-1, "u1"),
        lambda batch: batch.scatter(-1, np.zeros(10)),
        lambda batch: batch.scatter(0, np.zeros(9)),
        lambda batch: batch.scatter(0, 3),
        lambda batch: batch[0].resize(193, 0),
        lambda batch: batch[0].resize(0, STRIDE),
        lambda batch: batch[0].resize(-61, 0),
        lambda batch: batch.create(b"x" * 60, 1),
        lambda batch: batch.create(b"x" * 16, 0),
        lambda batch: batch.create(b"x" * 1519, 0),
        lambda batch: batch.gather(0, object),
        lambda batch: batch.scatter(0, [None] * 10),
    ],
)
def test_invalid_sizes_offsets_and_ports_are_errors(judge: Any) -> None:
    run = process(judge, FRAMES)
    assert {result.verdict for result in run} == {ERROR}
    assert "ValueError" in (run[0].error or "")
    assert run.counters["plugin_errors"] == 10


def test_frames_grow_and_shrink() -> None:
    def judge(batch: Batch) -> None:
        packet = batch[0]
        data = packet.resize(4, -10)
        assert len(data) == len(packet.data) == packet.length == 54
        data[:4] = b"head"
        packet.verdict = 0

    [result] = checked(judge, [bytes(range(60))])
    assert result.frame == b"head" + bytes(range(50))


def test_the_next_iteration_sees_a_resized_frame() -> None:
    def judge(batch: Batch) -> None:
        for packet in batch:
            packet.resize(4, -packet.port)
        for packet in batch:
            assert packet.length == len(packet.data) == 64 - packet.port
            packet.data[:4] = b"head"
            packet.verdict = 0
        assert [bytes(batch[n].data[:4]) for n in range(3)] == [b"head"] * 3

    frames = [Frame(bytes(range(60)), port=n) for n in range(3)]
    for n, result in enumerate(checked(judge, frames, ports=3)):
        assert result.frame == b"head" + bytes(range(60 - n))


def test_packets_are_made_until_the_blanks_are_used_up() -> None:
    def judge(batch: Batch) -> None:
        made = [batch.create(bytes([n]) * 60, n % 2) for n in range(5)]
        assert made == [True] * 3 + [False] * 2
        batch.verdicts[:] = 1

    def make_one(batch: Batch) -> None:
        batch.create(bytes(60), 0)

    with_many = process(make_one, FRAMES, blanks=5000)
    assert len(with_many.created) == 1
    run = checked(judge, FRAMES[:2], ports=2, blanks=3)
    assert [(made.verdict, made.frame[0]) for made in run.created] == [(0, 0), (1, 1), (0, 2)]
    assert run.counters["created"] == 3
    assert run.counters["forwarded"] == 2


@pytest.mark.parametrize("batch", [-1, 0, 65])
def test_a_test_is_told_of_a_batch_that_cannot_be(batch: int) -> None:
    with pytest.raises(ValueError, match="must have 1 to 64 frames"):
        run_plugin("drop", FRAMES, batch=batch)


@pytest.mark.parametrize("verdict", [1 << 63, "0", None, 0.5])
def test_a_verdict_that_is_no_number_is_an_error(verdict: Any) -> None:
    def judge(batch: Batch) -> None:
        for packet in batch:
            packet.verdict = verdict

    assert process(judge, FRAMES[:1])[0].verdict == ERROR


def test_prepare_setup_and_tick_are_called_with_their_arguments() -> None:
    calls: list[Any] = []

    class Probe:
        def prepare(self, options: Any) -> None:
            calls.append(("prepare", options))

        def setup(self, worker: Any) -> None:
            calls.append(("setup", worker.queue))

        def process(self, batch: Batch) -> None:
            calls.append(("process", len(batch)))

        def tick(self, worker: Any) -> None:
            calls.append(("tick", worker.queue))

    run_plugin(Probe, FRAMES, queue=2)
    assert calls == [("prepare", {}), ("setup", 2), ("process", 10), ("tick", 2)]


def begun_only(self: Any, batch: Batch) -> Any:
    yield batch


async def awaited(self: Any, batch: Batch) -> None:
    pass


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"process": lambda self: None}, "process must take (self, batch); it takes (self)"),
        (
            {"process": lambda self, batch: None, "tick": lambda self: None},
            "tick must take (self, worker); it takes (self)",
        ),
        ({"process": print, "options": 3}, "`options` must be a list of Option"),
        ({"process": begun_only}, "process must be a plain function"),
        ({"process": awaited}, "process must be a plain function"),
        (
            {"process": lambda self, batch: None, "__init__": lambda self, x: None},
            "Judge() failed: TypeError",
        ),
    ],
)
def test_a_class_that_cannot_be_used_is_refused(members: Any, words: str) -> None:
    with pytest.raises(Exception, match="plugin Judge") as caught:
        run_plugin(type("Judge", (), members), FRAMES)
    assert words in str(caught.value)


def test_without_numpy_the_message_says_what_to_install(
    plugin_file: Callable[[str], str], no_numpy: None
) -> None:
    def columns(batch: Batch) -> None:
        batch.verdicts[:] = batch.ports

    def setup(plugin: Any, worker: Any) -> None:
        worker.state("seen", "u8")

    def judge(plugin: Any, batch: Batch) -> None:
        pass

    for plugin in (
        type("Judge", (), {"process": columns}),
        type("Judge", (), {"setup": setup, "process": judge}),
        plugin_file("import numpy as np\n") + ":Judge",
    ):
        with pytest.raises(PluginError, match=r"'?numpy.*; pip install ringline\[compiled\]"):
            run_plugin(plugin, FRAMES)


def test_bytes_assigned_to_a_packet_are_written_into_its_frame() -> None:
    def judge(batch: Batch) -> None:
        for packet in batch:
            clean = bytearray(packet.data)
            clean[26:34] = bytes(8)
            packet.data = clean
            packet.verdict = packet.port

    frames = [bytes([7]) * 60] * 2
    assert [result.frame for result in checked(judge, frames)] == [
        bytes([7]) * 26 + bytes(8) + bytes([7]) * 26
    ] * 2


def test_an_array_is_written_with_all_its_bytes() -> None:
    words = np.arange(30, dtype=">u2")

    def judge(batch: Batch) -> None:
        batch[0].data = words
        batch[0].verdict = 0
        assert batch.create(words[::-1], 0)

    run = checked(judge, [bytes(60)], blanks=1)
    assert run[0].frame == words.tobytes()
    assert [created.frame for created in run.created] == [words[::-1].tobytes()]


def test_data_of_another_length_changes_the_length_of_the_frame() -> None:
    def judge(batch: Batch) -> None:
        short, long, part = batch
        short.data = b"ab" * 20
        long.data = bytes(range(100))
        part.data = part.data[4:]  # a part of its own memory
        assert [packet.length for packet in batch] == [40, 100, 56]
        for packet in batch:
            packet.verdict = 0

    frame = bytes(range(60))
    run = checked(judge, [frame] * 3)
    assert [result.frame for result in run] == [b"ab" * 20, bytes(range(100)), frame[4:]]


@pytest.mark.parametrize(
    ("assign", "words"),
    [
        (lambda batch: setattr(batch[0], "port", 1), "packet.port cannot be assigned"),
        (lambda batch: setattr(batch[0], "length", 60), "use packet.resize(front, back)"),
        (lambda batch: setattr(batch[0], "rss_hash", 1), "rss_hash"),
        (lambda batch: setattr(batch[0], "verdicts", 1), "no attribute 'verdicts'"),
        (lambda batch: setattr(batch, "verdict", 1), "no attribute 'verdict'"),
        (lambda batch: setattr(batch, "ports", batch.ports), "ports"),
        (lambda batch: setattr(batch, "lengths", 1), "lengths"),
        (lambda batch: setattr(batch, "flags", 1), "flags"),
        (lambda batch: setattr(batch[0], "data", 60), "packet.data must be bytes or an array of"),
        (lambda batch: setattr(batch[0], "data", "text"), "of bytes, not str"),
        (lambda batch: batch.create(60, 0), "a packet must be bytes or an array of bytes, not int"),
        (lambda batch: setattr(batch[0], "data", bytes(3000)), "does not fit into its buffer"),
        (lambda batch: list(batch.ports), "process returned list"),
        (lambda batch: batch.ports, "batch.verdicts[:]"),
        (lambda batch: True, "process returned bool"),
        (lambda batch: delattr(batch[0], "data"), "of a packet cannot be deleted"),
        (lambda batch: delattr(batch[0], "verdict"), "of a packet cannot be deleted"),
    ],
)
def test_what_would_have_no_effect_is_an_error(assign: Any, words: str) -> None:
    for result in process(assign, FRAMES[:2]):
        assert result.verdict == ERROR
        assert words in (result.error or "")


@pytest.mark.parametrize("name", ["ports", "lengths", "hashes", "flags", "vlan_tcis"])
def test_a_column_that_is_a_copy_cannot_be_written(name: str) -> None:
    def write(batch: Batch) -> None:
        getattr(batch, name)[:] = 1

    for result in process(write, FRAMES[:2]):
        assert result.verdict == ERROR
        assert "read-only" in (result.error or "")


def test_verdicts_can_be_assigned_as_a_whole() -> None:
    def judge(batch: Batch) -> None:
        batch.verdicts = batch.ports

    assert [result.verdict for result in checked(judge, TOLD, ports=3)] == [
        frame.port for frame in TOLD
    ]


@pytest.mark.parametrize(
    ("verdict", "told"),
    [
        ("lan", "not str: worker.ports['lan'] is the number of a port"),
        (None, "not NoneType"),
        (0.5, "not float"),
        (1 << 63, "not 9223372036854775808"),
        (-(1 << 63) - 1, "not -9223372036854775809"),
        ((1, 2), "not tuple"),
    ],
)
@pytest.mark.parametrize("columns", [False, True])
def test_a_verdict_that_is_no_number_has_a_sentence(verdict: Any, told: str, columns: bool) -> None:
    class Wrong:
        def process(self, batch: Batch) -> None:
            if columns:
                batch.verdicts[:] = batch.ports
            batch[0].verdict = verdict

    [result] = run_plugin(Wrong, [bytes(60)])
    assert result.error is not None
    assert f"a verdict must be the number of a port or DROP, {told}" in result.error


def test_a_verdict_can_be_any_kind_of_integer() -> None:
    class Failing:
        def __index__(self) -> int:
            raise LookupError("no verdict today")

    def judge(batch: Batch) -> None:
        for packet, verdict in zip(batch, (True, np.int64(1), np.uint8(1)), strict=True):
            packet.verdict = verdict
            assert packet.verdict == 1

    assert [result.verdict for result in checked(judge, FRAMES[:3], ports=2)] == [1, 1, 1]
    [result] = process(lambda batch: setattr(batch[0], "verdict", Failing()), FRAMES[:1])
    assert "LookupError: no verdict today" in (result.error or "")
