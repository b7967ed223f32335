"""A run in windows of 80 ms: how much each counter grew in each of them.

A machine is never quiet for seconds. A mean over a whole run contains every disturbance; the
best fifth of its windows contains few, and two runs of the same program agree in it.

Guarantees (tests in tests/pipeline/bench/test_windows.py):
 - the windows of a run cover all of it: the growth of a counter in all windows together is the
   growth in the run (test_the_windows_cover_the_run)
 - a run with fewer windows than five still has a best one (test_few_windows_have_a_best_one)
 - a window in which nothing was counted has no time per packet, and is left out
   (test_a_window_without_packets_has_no_time_per_packet)
 - no window is much shorter than the others, because a short one measures little: when the sampler
   wakes late, the window is longer (test_a_late_reading_makes_a_longer_window)
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ringline.pipeline.bench.sampling.disturbance import Watch

WINDOW = 0.08  # seconds
BEST = 5  # the best 1/BEST of the windows count as undisturbed
SECONDS = 2.5  # of a run

Read = Callable[[], Mapping[str, float]]  # the value of each counter now


@dataclass(frozen=True)
class Windows:
    """One run.

    `seconds` is the length of each window, `growth` what each counter grew by in it. `disturbed`
    says what disturbed the run, and is empty if nothing did.
    """

    seconds: tuple[float, ...]
    growth: Mapping[str, tuple[float, ...]]
    disturbed: str = ""

    def rate(self, counter: str) -> tuple[float, ...]:
        """Growth per second in each window."""
        grown = self.growth[counter]
        return tuple(value / each for value, each in zip(grown, self.seconds, strict=True))

    def nanoseconds(self, counter: str) -> tuple[float, ...]:
        """Nanoseconds for each 1 by which `counter` grew, in each window where it grew."""
        pairs = zip(self.seconds, self.growth[counter], strict=True)
        return tuple(each / count * 1e9 for each, count in pairs if count > 0)

    def per(self, counter: str, unit: str) -> tuple[float, ...]:
        """Growth of `counter` for each 1 of `unit`, in each window where `unit` grew: for seconds
        and packets, the seconds per packet."""
        pairs = zip(self.growth[counter], self.growth[unit], strict=True)
        return tuple(value / count for value, count in pairs if count > 0)


def sample(
    read: Read,
    seconds: float = SECONDS,
    watch: Watch | None = None,
    *,
    wait: Callable[[float], object] | None = None,
) -> Windows:
    """Call `read` every WINDOW seconds, for `seconds`.

    `watch` says which processors and processes must not be disturbed meanwhile; it starts here.
    `wait`, called with the seconds to the next reading, may do the measured work itself; without
    it this process sleeps.
    """
    wait = wait or time.sleep
    if watch is not None:
        watch.start()
    at, values = _reading(read)
    end = at + seconds - WINDOW / 2
    lengths: list[float] = []
    growth: dict[str, list[float]] = {name: [] for name in values}
    while at < end or not lengths:
        # From the last reading, not from the beginning: a late one must not make a short window.
        wait(max(0.0, at + WINDOW - time.perf_counter()))
        now, new = _reading(read)
        lengths.append(now - at)
        for name, grown in growth.items():
            grown.append(new[name] - values[name])
        at, values = now, new
    return Windows(
        tuple(lengths),
        {name: tuple(grown) for name, grown in growth.items()},
        "" if watch is None else watch.end(),
    )


def again(once: Callable[[], object]) -> Callable[[float], None]:
    """For `wait` of `sample`: a function that calls `once`, which takes milliseconds, until the
    given seconds have passed, at least once."""

    def until(seconds: float) -> None:
        end = time.perf_counter() + seconds
        once()
        while time.perf_counter() < end:
            once()

    return until


def _reading(read: Read) -> tuple[float, Mapping[str, float]]:
    """When `read` ran, and what it returned. Its time is that of the middle of the call: this
    process may lose its CPU on either side of it."""
    before = time.perf_counter()
    values = read()
    return (before + time.perf_counter()) / 2, values


def best_fifth(values: Sequence[float], *, more: bool) -> float:
    """The mean of the best fifth of the windows; `more` says that larger values are better.

    Raises ValueError without values.
    """
    count = math.ceil(len(values) / BEST)
    return statistics.mean(sorted(values, reverse=more)[:count])


def spread(values: Sequence[float]) -> float:
    """How far the windows are apart: the difference between the highest and the lowest tenth, as
    a share of the median. 0 when fewer than two windows exist."""
    middle = statistics.median(values)
    if len(values) < 2 or middle == 0:
        return 0.0
    ordered = sorted(values)
    last = len(ordered) - 1
    return (ordered[round(last * 0.9)] - ordered[round(last * 0.1)]) / middle
