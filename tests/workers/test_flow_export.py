"""`flow_stats` with the option `export`: which records leave, when, and what a crash changes."""

from __future__ import annotations

import contextlib
import random
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ringline.shm.errors import PluginError
from ringline.workers.ipfix import exporter
from ringline.workers.plugins.flows import sweep as flow_sweep
from ringline.workers.process.engine import Engine
from ringline.workers.testing import Frame, run_plugin
from ringline.workers.tiers import loading
from ringline.workers.tiers.tier import Context
from ringline.workers.trials.harness import BATCH, Harness, named_values
from ringline.workers.worker import Worker

from .ipfix.decoding import Record, Stream, messages_of

pytestmark = pytest.mark.slow  # it compiles

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
IDLE, ACTIVE, FORCED, NO_ROOM = 1, 2, 4, 5  # flowEndReason of RFC 5102


def udp(number: int, size: int = 60) -> bytes:
    """A packet of the flow `number`, with two bytes of padding behind the IP packet."""
    source = (0x0A000000 + number).to_bytes(4, "big")
    head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, size - 16, 1, 0, 9, 17, 0, source, bytes(4))
    return (bytes(12) + b"\x08\x00" + head + struct.pack(">HHHH", 1000, 53, 8, 0)).ljust(
        size, b"\0"
    )


def read(path: Path) -> list[Record]:
    """The flow records of all streams in a file, in their order."""
    streams: dict[int, Stream] = {}
    found = []
    for message in messages_of(path.read_bytes()):
        stream = streams.setdefault(int.from_bytes(message[12:16], "big"), Stream())
        found += [record for record in stream.read(message) if record.template < 258]
    return found


def totals(records: list[Record]) -> Counter[tuple[int, str]]:
    """Packets and octets by number of the flow."""
    found: Counter[tuple[int, str]] = Counter()
    for record in records:
        number = record.fields[8] - 0x0A000000
        found[number, "packets"] += record.fields[2]
        found[number, "octets"] += record.fields[1]
    return found


def expected(frames: list[Frame]) -> Counter[tuple[int, str]]:
    found: Counter[tuple[int, str]] = Counter()
    for frame in frames:
        number = int.from_bytes(frame.data[26:30], "big") - 0x0A000000
        found[number, "packets"] += 1
        found[number, "octets"] += int.from_bytes(frame.data[16:18], "big")
    return found


def test_a_record_leaves_after_a_pause_after_a_time_and_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "flows.ipfix"
    frames = [Frame(udp(1), time=START + n * SECOND) for n in range(12)]  # all the time
    frames += [Frame(udp(2), time=START), Frame(udp(2), time=START + 9 * SECOND)]  # with a pause
    frames.sort(key=lambda frame: frame.time or 0)
    options = {"export": f"file://{path}", "idle": 3, "active": 5, "action": "drop"}
    run = run_plugin("flow_stats", frames, options=options)
    records = read(path)
    assert totals(records) == expected(frames)
    found = [
        (
            it.fields[8] & 0xFF,
            it.fields[136],
            *(it.fields[at] - START // 10**6 for at in (152, 153)),
        )
        for it in records
    ]
    assert found[:2] == [(2, IDLE, 0, 0), (1, ACTIVE, 0, 5000)]
    assert sorted(found[2:]) == [(1, FORCED, 6000, 11000), (2, FORCED, 9000, 9000)]
    assert run.named["flows_exported"] == len(records)
    assert run.named["flows_not_exported"] == run.named["flows_in_table"] == 0


def tcp(flags: int) -> bytes:
    """A packet of one connection of TCP."""
    ends = (0x0A000001).to_bytes(4, "big") + (0x0A000002).to_bytes(4, "big")
    head = struct.pack(">BBHHHBBH8s", 0x45, 0, 40, 1, 0, 9, 6, 0, ends)
    return (
        bytes(12) + b"\x08\x00" + head + struct.pack(">HHIIBBHI", 1000, 80, 0, 0, 80, flags, 0, 0)
    )


def test_a_record_has_the_flags_of_its_own_packets(tmp_path: Path) -> None:
    syn, ack, fin = 2, 16, 1
    path = tmp_path / "flows.ipfix"
    flags = [syn, *[ack] * 10, fin | ack]
    frames = [Frame(tcp(it), time=START + n * SECOND) for n, it in enumerate(flags)]
    run_plugin("flow_stats", frames, options={"export": f"file://{path}", "active": 5})
    assert [it.fields[6] for it in read(path)] == [syn | ack, fin | ack]


def test_flows_that_need_room_push_others_out(tmp_path: Path) -> None:
    path = tmp_path / "flows.ipfix"
    rng = random.Random(3)
    frames = [
        Frame(udp(rng.randrange(300), rng.randrange(60, 200)), time=START + n * 1000)
        for n in range(2000)
    ]
    run = run_plugin(
        "flow_stats", frames, options={"export": f"file://{path}", "slots": 16, "action": "drop"}
    )
    records = read(path)
    assert totals(records) == expected(frames)
    assert {record.fields[136] for record in records} == {NO_ROOM, FORCED}
    assert run.named["flows_without_place"] == 0


def test_what_finds_no_room_is_counted(tmp_path: Path) -> None:
    """The queue fills up between two ticks."""
    path = tmp_path / "flows.ipfix"
    count = 8 * flow_sweep.QUEUE
    frames = [Frame(udp(n), time=START) for n in range(count)]
    run = run_plugin(
        "flow_stats", frames, options={"export": f"file://{path}", "slots": 16, "action": "drop"}
    )
    packets = sum(record.fields[2] for record in read(path))
    assert run.named["flows_without_place"] > 0
    assert packets + run.named["flows_without_place"] == count
    last = [it for it in _all(path) if it.template == 258][-1]
    assert last.fields[164] == run.named["flows_without_place"]
    assert last.fields[42] == packets


def _all(path: Path) -> Iterator[Record]:
    stream = Stream()
    for message in messages_of(path.read_bytes()):
        yield from stream.read(message)


class Lives:
    """The plugin on one worker slot, which its next lives take over."""

    def __init__(self, **options: Any) -> None:
        self.tier = loading.load("flow_stats")
        self.tier.accept(options | {"action": "drop"})
        self.tier.prepare(Context(ports=["a"]))
        self.harness = Harness(self.tier, Context(ports=["a"]))
        self.engine: Engine = self.harness.engine

    def run(self, frames: list[Frame]) -> None:
        for start in range(0, len(frames), BATCH):
            some = frames[start : start + BATCH]
            self.harness.run([(it.data, 0, 0, 0, 0, it.time or 0) for it in some])

    def begin_again(self) -> None:
        """The next life: a new Worker on the same slot, and setup."""
        engine = self.engine
        worker = Worker(self.harness.slot, queue=0, ports=["a"], options=self.tier.options)
        worker._clock = engine.time
        self.tier.setup(worker)
        engine._worker, engine._tick = worker, self.tier.ticks
        engine.loop.batch.state = self._pointer()

    def _pointer(self) -> Any:
        from ringline.workers._workers import ffi

        return ffi.cast("void *", self.tier.state)

    def end(self) -> dict[str, Any]:
        self.engine.tick_whole(30.0, ending=True)
        assert self.engine.raised is None, self.engine.raised
        return named_values(self.harness.slot)


class Killed(BaseException):
    """In place of SIGKILL: nothing catches it but the test."""


@pytest.mark.parametrize("seed", range(6))
def test_a_worker_that_is_killed_in_a_tick_repeats_no_record(tmp_path: Path, seed: int) -> None:
    """Killed before a random line of its tick, again and again."""
    rng = random.Random(seed)
    path = tmp_path / "flows.ipfix"
    lives = Lives(export=f"file://{path}", slots=1024, idle=1, active=2)
    frames = [
        Frame(udp(rng.randrange(60), rng.randrange(60, 200)), time=START + n * SECOND // 100)
        for n in range(4000)
    ]
    kills = 0
    for start in range(0, len(frames), 100):
        lives.run(frames[start : start + 100])
        with dying(rng.randrange(160)):
            try:
                lives.engine.tick_whole(30.0)
            except Killed:
                kills += 1
        if lives.engine.raised is not None:
            assert isinstance(lives.engine.raised, Killed), lives.engine.raised
            lives.engine.raised = None
            kills += 1
            lives.begin_again()
    named = lives.end()
    assert kills > 5
    sent, wanted = totals(records := _arrived(path)), expected(frames)
    lost = Counter(wanted)
    lost.subtract(sent)
    assert min(lost.values()) >= 0, "packets were exported twice"
    missing = sum(number for (_, what), number in lost.items() if what == "packets")
    assert named["flows_exported"] + named["flows_not_exported"] >= len(records)
    assert (missing > 0) <= (named["flows_not_exported"] > 0), "records were lost uncounted"


def _arrived(path: Path) -> list[Record]:
    """The flow records in a file; numbers of the sequence may be left out, and none comes twice."""
    stream, found = Stream(), []
    for message in messages_of(path.read_bytes()):
        sequence = int.from_bytes(message[8:12], "big")
        assert sequence >= stream.sequence
        stream.sequence = sequence
        found += [record for record in stream.read(message) if record.template < 258]
    return found


@contextlib.contextmanager
def dying(steps: int) -> Iterator[None]:
    """The lines of sweep.py and exporter.py run; before line `steps` of them, they die."""
    import sys

    files = (flow_sweep.__file__, exporter.__file__)
    left = steps

    def trace(frame: Any, event: str, _: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in files:
            return None
        if event == "line":
            left -= 1
            if left == 0:
                raise Killed
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def test_the_next_life_goes_on_with_the_flows(tmp_path: Path) -> None:
    path = tmp_path / "flows.ipfix"
    lives = Lives(export=f"file://{path}", slots=64)
    frames = [Frame(udp(n % 20), time=START + n) for n in range(200)]
    lives.run(frames[:100])
    lives.begin_again()
    lives.run(frames[100:])
    named = lives.end()
    assert named["flows_exported"] == named["flows_seen"] == 20
    assert totals(read(path)) == expected(frames)


def test_a_tick_does_a_bounded_part(tmp_path: Path) -> None:
    lives = Lives(export=f"file://{tmp_path / 'flows.ipfix'}", slots=65536)
    lives.run([Frame(udp(n), time=START) for n in range(5000)])
    lives.engine._worker.ending = True
    calls = 1
    while lives.engine.tick():
        exported = named_values(lives.harness.slot)["flows_exported"]
        assert exported <= calls * flow_sweep.MOST
        calls += 1
    assert calls >= 65536 / flow_sweep.CHUNK
    assert named_values(lives.harness.slot)["flows_exported"] == 5000


def test_a_table_that_is_used_for_long_keeps_finding_its_flows(tmp_path: Path) -> None:
    """Lines whose flow left do not hide others behind them, and become empty again."""
    path = tmp_path / "flows.ipfix"
    lives = Lives(export=f"file://{path}", slots=256, idle=1)
    rng = random.Random(9)
    frames: list[Frame] = []
    for round_ in range(30):
        begin = START + round_ * 3 * SECOND
        some = [Frame(udp(rng.randrange(10_000)), time=begin + n) for n in range(100)]
        frames += some + some  # each twice: the second one must find the line
        lives.run(frames[-200:])
        lives.run([Frame(udp(1 << 20), time=begin + 2 * SECOND)])
        frames.append(Frame(udp(1 << 20), time=begin + 2 * SECOND))
        lives.engine.tick_whole(30.0)
    named = lives.end()
    assert totals(read(path)) == expected(frames)
    flows = {
        (round_, it.data[26:30]) for round_ in range(30) for it in frames[round_ * 201 :][:201]
    }
    assert named["flows_seen"] <= len(flows)
    state = Worker(lives.harness.slot, queue=0, ports=["a"], options={}).state(
        "flows", np.int64, (256, flow_sweep.WORDS)
    )
    assert np.count_nonzero(state[:, flow_sweep.CHECK]) < 256


def test_a_wrong_collector_is_refused_at_the_start() -> None:
    with pytest.raises(PluginError, match=r"the option export must be such as .* not 'tcp://x'"):
        run_plugin("flow_stats", [udp(1)], options={"export": "tcp://x"})
    with pytest.raises(PluginError, match=r"nobody\.invalid has no address"):
        run_plugin("flow_stats", [udp(1)], options={"export": "udp://nobody.invalid"})
