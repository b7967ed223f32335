"""Replays with the times of the capture, and replays that are longer than what is kept."""

from __future__ import annotations

import gzip
import time
from array import array
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest

from ringline.pipeline.configuration.config import WireConfig
from ringline.pipeline.ports.sim82599 import replay
from ringline.pipeline.ports.sim82599.replay import CHUNK, from_replay
from ringline.pipeline.ports.sim82599.wire import FrameTable, Timing, table_of
from ringline.workers.captures.captures import CaptureError, read_capture, write_capture

from .bare_82599 import RING, Bare82599
from .forwarding import card_harness

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
FRAMES = [n.to_bytes(4, "big") * 15 for n in range(3 * CHUNK + 7)]


@pytest.fixture
def capture(tmp_path: Path) -> Callable[..., str]:
    """Write a capture with a frame at each of `times`, in nanoseconds; its path."""

    def write(times: list[int]) -> str:
        path = tmp_path / "in.pcap"
        write_capture(path, FRAMES[: len(times)], times)
        return str(path)

    return write


@pytest.fixture
def keep_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every capture is read while it is sent."""
    monkeypatch.setattr(replay, "KEEP_BYTES", 0)


def captured(path: str, **more: object) -> WireConfig:
    return WireConfig(replay=path, pace="captured", **more)  # type: ignore[arg-type]


def timing_of(table: FrameTable) -> Timing:
    assert table.timing is not None
    return table.timing


def chunks(table: FrameTable) -> list[FrameTable]:
    found = [table]
    while table.more is not None and (following := table.more()) is not None:
        found.append(following)
    return found


def sent(tables: list[FrameTable]) -> list[bytes]:
    return [bytes(table.frame(index)) for table in tables for index in table.order]


def test_frames_are_due_as_in_the_capture(capture: Callable[..., str]) -> None:
    times = [START, START + 5, START + 5, START + 2 * SECOND]
    timing = timing_of(from_replay(captured(capture(times), speed=2.0)))
    assert list(timing.stamps) == times
    assert list(timing.due) == [0, 5, 5, 2 * SECOND]
    assert timing.pace == 2.0
    assert timing.period == 2 * SECOND + 2 * SECOND // 3


def test_without_the_pace_there_are_no_times(capture: Callable[..., str]) -> None:
    assert from_replay(WireConfig(replay=capture([START, START + 9]))).timing is None


def test_small_steps_back_do_not_shift_what_follows(capture: Callable[..., str]) -> None:
    times = [START + n for n in (0, 1000, 900, 2000, 1999, 3000)]
    timing = timing_of(from_replay(captured(capture(times))))
    assert list(timing.due) == [0, 1000, 1000, 2000, 2000, 3000]
    assert list(timing.stamps) == times


def test_after_a_clock_was_set_back_the_gaps_go_on(capture: Callable[..., str]) -> None:
    hour = 3600 * SECOND
    times = [START, START + 7, START + 8 - hour, START + 20 - hour, START + 20]
    timing = timing_of(from_replay(captured(capture(times))))
    assert list(timing.due) == [0, 7, 7, 19, 19 + hour]


def test_frames_without_a_time_follow_at_once(capture: Callable[..., str]) -> None:
    timing = timing_of(from_replay(captured(capture([0, START, 0, START + 9]))))
    assert list(timing.due) == [0, 0, 0, 9]
    timing = timing_of(from_replay(captured(capture([0, 0]))))
    assert list(timing.due) == [0, 0]
    assert timing.period == SECOND


@pytest.mark.parametrize("repeat", [1, 3])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_a_long_capture_is_sent_like_a_short_one(
    capture: Callable[..., str], monkeypatch: pytest.MonkeyPatch, repeat: int, packed: bool
) -> None:
    path = capture([START + 1000 * n + n % 7 for n in range(len(FRAMES))])
    if packed:
        Path(path).write_bytes(gzip.compress(Path(path).read_bytes()))
    wire = captured(path, repeat=repeat)
    kept = from_replay(wire)
    monkeypatch.setattr(replay, "KEEP_BYTES", 0)
    tables = chunks(from_replay(wire))
    assert len(tables) > 3
    assert all(len(table.order) <= CHUNK for table in tables)
    assert sent(tables) == [bytes(frame) for frame in kept.sent()]
    timing, period = timing_of(kept), timing_of(kept).period
    laps = [lap * period for lap in range(repeat)]
    due = [at for table in tables for at in timing_of(table).due]
    assert due == [lap + at for lap in laps for at in timing.due]
    stamps = [at for table in tables for at in timing_of(table).stamps]
    assert stamps == [lap + at for lap in laps for at in timing.stamps]


@pytest.mark.usefixtures("keep_nothing")
def test_a_long_capture_repeats_without_end(capture: Callable[..., str]) -> None:
    table = from_replay(WireConfig(replay=capture([START]), repeat=0))
    assert table.total == 0
    assert len(list(islice(iter(table.more or list, None), 50))) == 50


@pytest.mark.usefixtures("keep_nothing")
def test_a_long_capture_that_ends_early(capture: Callable[..., str]) -> None:
    path = capture([START + n for n in range(len(FRAMES))])
    whole = Path(path).read_bytes()
    Path(path).write_bytes(whole[:-3])
    with pytest.raises(CaptureError, match=f"packet {len(FRAMES)}, at byte .* ends after 57 of"):
        chunks(from_replay(WireConfig(replay=path)))
    assert sent(chunks(from_replay(WireConfig(replay=path, cut="play")))) == FRAMES[:-1]
    write_capture(path, [])
    with pytest.raises(CaptureError, match="holds no packet"):
        from_replay(WireConfig(replay=path))
    with pytest.raises(CaptureError, match="holds no packet"):
        from_replay(WireConfig(replay=path, repeat=0))


@pytest.mark.parametrize("how", ["kept", "kept, in a process", "read while it is sent"])
def test_every_frame_of_a_paced_replay_arrives_in_order(
    capture: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """So few that the descriptors hold them all: nothing is lost on a busy machine."""
    if how == "read while it is sent":
        monkeypatch.setattr(replay, "KEEP_BYTES", 0)
        monkeypatch.setattr(replay, "CHUNK", 64)
    path = capture([START + 100_000 * n for n in range(200)])
    record = str(tmp_path / "out.pcap")
    wire = captured(path, speed=2.0, repeat=2, record=record)
    began = time.monotonic_ns()
    with card_harness(wire, process="process" in how) as harness:
        with harness.pair() as pair:
            pair.until_finished()
            # Nothing comes before its time.
            assert time.monotonic_ns() - began >= 399 * 50_000
        if harness.process is not None:
            assert harness.process.ask({"do": "stop"})["bad_input"] is None
    assert [bytes(frame) for frame in read_capture(record).frames] == FRAMES[:200] * 2


@pytest.mark.usefixtures("keep_nothing")
def test_a_wire_ends_where_the_capture_is_damaged(capture: Callable[..., str]) -> None:
    path = capture([START + n for n in range(len(FRAMES))])
    whole = Path(path).read_bytes()
    Path(path).write_bytes(whole[:-3])
    with card_harness(WireConfig(replay=path)) as harness:
        with harness.pair() as pair:
            pair.until_finished()
            told = pair.port.bad_input()
            assert len(pair.received) == len(FRAMES) - len(FRAMES) % CHUNK
        assert told == pair.port.bad_input(), "also after the close"
    assert told is not None
    assert f"packet {len(FRAMES)}, at byte" in told
    assert "copy it again" in told


# -- the model ---------------------------------------------------------------------------------


def timed_table(
    stamps: list[int], due: list[int], pace: float = 1.0, period: int = 0, repeat: int = 1
) -> FrameTable:

    timing = Timing(array("q", stamps), array("Q", due), pace, period)
    order = array("I", range(len(stamps)))
    return table_of(FRAMES[: len(stamps)], order, len(stamps) * repeat, None, timing)


def stamps_of(driver: Bare82599, descriptors: int, queue: int = 0) -> list[int]:
    assert driver.sim.card.stamped == 1
    return list(driver.sim.card.stamps[queue][0:descriptors])


def test_each_descriptor_has_the_stamp_of_its_frame() -> None:
    with Bare82599() as driver:
        driver.bring_up()
        driver.sim.load(timed_table([START, START - 5, 7], [0, 0, 0], period=100, repeat=2))
        for _ in range(4):
            driver.sim.step()
        assert [r.data for r in driver.receive()] == FRAMES[:3] * 2
        assert stamps_of(driver, 6) == [START, START - 5, 7, START + 100, START + 95, 107]


def test_a_frame_does_not_arrive_before_it_is_due() -> None:
    with Bare82599() as driver:
        driver.bring_up()
        later = 3600 * SECOND
        driver.sim.load(timed_table([1, 2, 3], [0, 10, later]))
        for _ in range(50):
            driver.sim.step()
        assert [r.data for r in driver.receive()] == FRAMES[:2]
        assert not driver.sim.finished
        driver.sim.load(timed_table([1, 2, 3], [0, 10, later], pace=1e9))
        until = time.monotonic() + 60
        while not driver.sim.finished and time.monotonic() < until:
            driver.sim.step()
        assert [r.data for r in driver.receive()] == FRAMES[:3]


def test_a_paced_wire_does_not_wait_for_room() -> None:
    frames = RING + 20
    with Bare82599() as driver:
        driver.bring_up()
        driver.sim.load(timed_table([1] * frames, [0] * frames))
        for _ in range(4):
            driver.sim.step()
        wire = driver.sim.wire()
        assert wire["offered"] == frames
        assert wire["delivered"] < frames
        dropped = sum(number for name, number in wire.items() if name.startswith("dropped_"))
        assert wire["delivered"] + dropped + wire["held"] == frames


def test_frames_without_times_have_no_stamps() -> None:

    with Bare82599() as driver:
        driver.bring_up()
        driver.sim.load(timed_table([1], [0]))
        assert driver.sim.card.stamped == 1
        driver.sim.load(table_of(FRAMES[:1], array("I", [0]), 1))
        assert driver.sim.card.stamped == 0
        driver.sim.step()
        assert [r.data for r in driver.receive()] == FRAMES[:1]
