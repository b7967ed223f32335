"""Plugins of every tier read when their packets came; ticks know what time it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ringline.pipeline.configuration.config import PortConfig
from ringline.pipeline.ports.sim82599.capture_card import CaptureCard
from ringline.shm.errors import PluginError
from ringline.workers.api import DROP, Meta
from ringline.workers.captures.captures import CaptureReader, Tally, write_capture
from ringline.workers.testing import Frame, run_plugin
from ringline.workers.tiers import loading, names
from ringline.workers.tiers.tier import Context
from ringline.workers.trials import trial
from ringline.workers.trials.harness import named_values

from .conftest import WorkerHarness

PLUGINS = Path(__file__).parent / "plugins"
FILE = f"{PLUGINS}/times.py"
SECOND = 1_000_000_000
NOW = 1_700_000_000 * SECOND
READ_TIMES = ["compiled", "by_helper", "by_overload", "Packets", "Columns"]


@pytest.mark.parametrize("name", [*READ_TIMES, "C"])
def test_every_tier_reads_the_time_of_each_packet(
    name: str, compile_c: Callable[[Path], str]
) -> None:
    spec = f"{compile_c(PLUGINS / 'times.c')}:odd_times" if name == "C" else f"{FILE}:{name}"
    times = [NOW + 7 * i * i for i in range(200)]
    run = run_plugin(spec, [Frame(bytes(60), time=when) for when in times], blanks=3)
    assert run.remarks == []
    assert [result.verdict for result in run] == [0 if when % 2 else DROP for when in times]


@pytest.mark.parametrize("name", READ_TIMES)
def test_times_are_kept_only_for_a_plugin_that_reads_them(name: str) -> None:
    def reads_times(name: str) -> bool:
        tier = loading.load(f"{FILE}:{name}")
        tier.accept({})
        tier.prepare(Context())
        return tier.reads_times

    assert reads_times(name)
    assert reads_times(name)  # compiled code from the cache
    assert not reads_times("without")
    assert not reads_times("Forgot")
    assert not loading.load("mac_swap").reads_times


@pytest.mark.parametrize("name", ["Forgot", "ForgotColumns"])
def test_a_class_that_did_not_ask_for_times_gets_an_exception(name: str) -> None:
    [result] = run_plugin(f"{FILE}:{name}", [bytes(60)])
    assert "AttributeError: the times of packets are only there for a plugin" in str(result.error)
    assert "write `times = True` into its class" in str(result.error)


def test_times_cannot_be_written() -> None:
    [result] = run_plugin(f"{FILE}:Writes", [bytes(60)])
    assert "read-only" in str(result.error)


def test_the_attribute_times_must_be_true_or_false() -> None:
    with pytest.raises(PluginError, match="`times` must be true or false, not int"):
        run_plugin(f"{FILE}:Wrong", [])


def test_the_time_of_meta_cannot_be_set(plugin_file: Callable[..., str]) -> None:
    path = plugin_file(
        "from ringline.workers.api import *\n\n@packet_function\ndef set_it(frame, meta):\n"
        "    meta.time = 5\n    return 0\n"
    )
    with pytest.raises(PluginError, match=r"meta\.time cannot be set"):
        run_plugin(f"{path}:set_it", [bytes(60)])
    meta = Meta(bytes(60), time=NOW)
    assert meta.time == NOW
    with pytest.raises(AttributeError, match=r"meta\.time cannot be set"):
        meta.time = 5


@pytest.mark.parametrize("name", ["Ticks", "TicksAlone"])
def test_ticks_come_by_the_times_of_the_frames(name: str) -> None:
    """A second after the first frame or the last tick, and at the end."""
    halves = [0, 1, 2, 3, 3, 9, 4, 5, 6]  # the clock steps back once
    frames = [Frame(bytes(60), time=NOW + half * SECOND // 2) for half in halves]
    run = run_plugin(f"{FILE}:{name}", [*frames, bytes(60)])
    ticks = [(values[0] - NOW) * 2 / SECOND for _, values in run.named["ticks"]]
    assert ticks == [1, 3, 5, 6]
    if name == "Ticks":
        assert all(values[0] == values[1] for _, values in run.named["ticks"])


def test_a_frame_without_a_time_comes_with_the_one_before_it() -> None:
    run = run_plugin(f"{FILE}:Packets", [bytes(60), Frame(bytes(60), time=3), bytes(60)])
    assert [result.verdict for result in run] == [DROP, 0, 0]


@pytest.mark.parametrize("wrong", [1 << 63, -(1 << 63) - 1])
def test_a_time_that_does_not_fit_is_refused(wrong: int) -> None:
    with pytest.raises(ValueError, match="nanoseconds that fit into 64 bits"):
        run_plugin(f"{FILE}:Packets", [Frame(bytes(60), time=wrong)])


def test_a_trial_has_the_times_of_the_capture(tmp_path: Path) -> None:
    times = [NOW + i * SECOND // 3 for i in range(20)]
    write_capture(tmp_path / "in.pcap", [bytes(60)] * 20, times)
    with CaptureReader(Tally(str(tmp_path / "in.pcap"))) as reader:
        card = CaptureCard(reader, PortConfig("port", "sim:82599"))
        summary = trial.run(f"{FILE}:Ticks", card)
    assert summary.complaints == []
    ticks = [values for _, values in summary.named["ticks"]]
    assert ticks == [[times[i]] * 2 for i in (2, 5, 8, 11, 14, 17, 19)]


def test_a_worker_process_gets_the_times_of_the_driver(worker: WorkerHarness) -> None:
    """Without stamps of a port a tick knows the time now, also when no packet comes."""
    worker.serve(f"{FILE}:Ticks")
    assert not worker.rings.times.unwanted
    ahead = 3600 * SECOND  # the clock of the driver does not follow one that is set back
    worker.rings.times.offset = time.time_ns() - time.monotonic_ns() + ahead
    before = time.time_ns() + ahead
    for i in range(3):
        worker.rings.times.of[i] = NOW + i
    worker.put([bytes(60)] * 3)
    worker.take(3)
    assert worker.stop() == 0
    [*_, (_, [when, last])] = named_values(worker.slot)["ticks"]
    assert last == NOW + 2
    assert before - SECOND <= when <= time.time_ns() + ahead + SECOND


def test_a_worker_process_says_when_it_reads_no_times(worker: WorkerHarness) -> None:
    worker.serve("ringline.workers.plugins.mac_swap:mac_swap")
    assert worker.rings.times.unwanted == 1
    assert worker.stop() == 0


def helper_by_default(meta: Any, helper: Any = lambda meta: meta.time) -> Any:
    return helper(meta)


def helper_in_a_tuple(meta: Any) -> Any:
    return HELPERS[0](meta)


def helper_in_a_module(meta: Any) -> Any:
    return MODULE.inner(meta)


def by_name(meta: Any) -> Any:
    return getattr(meta, "time")  # noqa: B009


def recursive(meta: Any, n: int) -> Any:
    return recursive(meta, n - 1) if n else meta.length


def inside(meta: Any) -> Any:
    def inner() -> Any:
        return meta.time

    return inner()


def _reads(meta: Any) -> Any:
    return meta.time


HELPERS = (_reads,)
MODULE: Any = type(time)("helpers")
MODULE.inner, MODULE.other = _reads, _reads


def other_function_of_the_module(meta: Any) -> Any:
    return MODULE.length if meta else SimpleNamespace()


@pytest.mark.parametrize(
    ("function", "found"),
    [
        (helper_by_default, True),
        (helper_in_a_tuple, True),
        (helper_in_a_module, True),
        (by_name, True),
        (inside, True),
        (recursive, False),
        (other_function_of_the_module, False),
    ],
)
def test_a_name_is_found_wherever_compiled_code_can_reach_it(function: Any, found: bool) -> None:
    assert names.mentions(function, "time") is found


def test_a_name_in_a_closure_is_found() -> None:
    inner = _reads

    def outer(meta: Any) -> Any:
        return inner(meta)

    assert names.mentions(outer, "time")
