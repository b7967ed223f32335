"""A run in windows: what they contain, and what is made of them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping

import pytest

from ringline.pipeline.bench.sampling import windows
from ringline.pipeline.bench.sampling.windows import WINDOW, Windows, best_fifth, sample, spread


class Clock:
    """A clock that only sleeping moves; `late` is by how much each sleep is too long."""

    def __init__(self, late: Mapping[int, float] | None = None) -> None:
        self.now = 100.0
        self._late = late or {}
        self._sleeps = itertools.count()

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds + self._late.get(next(self._sleeps), 0.0)

    def read(self) -> dict[str, float]:
        """Packets at 1000 a second, each 1 ms of work."""
        return {"packets": 1000 * self.now, "work": self.now}


def test_the_windows_cover_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(windows, "time", clock)
    before = clock.read()
    run = sample(clock.read, 2.4)
    after = clock.read()
    assert len(run.seconds) == 30
    assert sum(run.seconds) == pytest.approx(2.4)
    assert sum(run.growth["packets"]) == pytest.approx(after["packets"] - before["packets"])
    assert run.rate("packets") == pytest.approx([1000.0] * 30)
    assert run.per("work", "packets") == pytest.approx([0.001] * 30)
    assert run.disturbed == ""


def test_a_late_reading_makes_a_longer_window(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(late={3: 1.0})
    monkeypatch.setattr(windows, "time", clock)
    run = sample(clock.read, 2.4)
    assert run.seconds[3] == pytest.approx(1.0 + WINDOW)
    assert min(run.seconds) == pytest.approx(WINDOW)
    assert sum(run.seconds) == pytest.approx(2.4, abs=WINDOW)


def test_a_reading_in_which_the_processor_was_lost_counts_with_its_middle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(windows, "time", clock)

    def slow() -> dict[str, float]:
        clock.now += 0.01
        values = clock.read()
        clock.now += 0.01
        return values

    rates = sample(slow, 0.8).rate("packets")
    assert rates == pytest.approx([1000.0] * len(rates))


def test_a_window_without_packets_has_no_time_per_packet() -> None:
    run = Windows((0.1, 0.1, 0.1), {"work": (1.0, 1.0, 3.0), "packets": (10, 0, 10)})
    assert run.per("work", "packets") == pytest.approx((0.1, 0.3))
    assert run.rate("packets") == pytest.approx((100.0, 0.0, 100.0))


def test_the_best_fifth_is_the_highest_or_the_lowest() -> None:
    values = [float(value) for value in range(1, 11)]
    assert best_fifth(values, more=True) == 9.5
    assert best_fifth(values, more=False) == 1.5


def test_few_windows_have_a_best_one() -> None:
    assert best_fifth([3.0, 1.0], more=True) == 3.0
    assert best_fifth([3.0, 1.0], more=False) == 1.0


def test_the_spread_leaves_out_a_tenth_on_each_side() -> None:
    assert spread([100.0] * 10) == 0.0
    assert spread([100.0] * 19 + [900.0]) == 0.0
    assert spread([*[90.0] * 3, *[100.0] * 15, *[110.0] * 3]) == pytest.approx(0.2)
    assert spread([5.0]) == spread([0.0, 0.0]) == 0.0


def test_a_short_run_has_one_window() -> None:
    started = time.monotonic()
    run = sample(lambda: {"seconds": time.monotonic()}, 0.001)
    assert len(run.seconds) == 1
    assert run.growth["seconds"][0] >= WINDOW
    assert time.monotonic() - started >= WINDOW
