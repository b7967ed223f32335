"""The counters of a run, read from its shared memory."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ringline.pipeline.bench.sampling.counters import Counters, Layout, layout_of
from ringline.pipeline.supervisor.instance import create_lane
from ringline.shm.clock import ticks_per_second
from ringline.shm.errors import EnvironmentLacks
from ringline.shm.slots import WorkerSlot


def test_counters_of_ports_queues_and_workers_are_added_up(instance: Callable[[], str]) -> None:
    name = instance()
    with (
        create_lane(name, 16) as lane,
        WorkerSlot.create(name, 0, 4096) as first,
        WorkerSlot.create(name, 1, 4096) as second,
    ):
        books = lane.at("struct rl_lane_segment *")
        for port in range(2):
            for queue in range(2):
                books.queues[port * 16 + queue].tx_packets = 10 ** (2 * port + queue)
                books.queues[port * 16 + queue].rx_packets = 2
        books.queues[2].tx_packets = 7  # a queue that this run does not have
        books.lane.busy_ticks = int(3 * ticks_per_second())
        books.lane.model_ticks = int(5 * ticks_per_second())
        first.counters.packets, second.counters.packets = 20, 22
        first.counters.busy_ticks = second.counters.busy_ticks = int(ticks_per_second())
        with Counters(name, layout_of(), ports=2, queues=2) as counters:
            values = counters.read()
    assert (values["sent"], values["received"], values["worker_packets"]) == (1111, 8, 42)
    # Another process measured the rate of the clock for the layout.
    assert values["driver"] == pytest.approx(3.0, rel=0.01)
    assert values["model"] == pytest.approx(5.0, rel=0.01)
    assert values["worker"] == pytest.approx(2.0, rel=0.01)


def test_the_offsets_of_another_version_are_used(instance: Callable[[], str]) -> None:
    name = instance()
    ours = layout_of()
    other = Layout(
        ours.lane, {**ours.queue, "tx_packets": ours.queue["rx_packets"]}, ours.worker, 8, 1.0
    )
    with create_lane(name, 16) as lane, WorkerSlot.create(name, 0, 4096):
        books = lane.at("struct rl_lane_segment *")
        books.queues[0].rx_packets, books.queues[0].tx_packets = 3, 4
        with Counters(name, other) as counters:
            assert counters.read()["sent"] == 3


def test_a_version_without_the_counters_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "python"
    other.write_text("#!/bin/sh\necho '{\"lane\": {}}'\n")
    other.chmod(0o755)
    for python in (str(other), str(tmp_path / "nothing"), "/bin/false"):
        with pytest.raises(EnvironmentLacks, match="does not tell where it keeps its counters"):
            layout_of(python)
    assert layout_of(sys.executable).stride > 0


def test_a_run_without_memory_is_named(instance: Callable[[], str]) -> None:
    name = instance()
    with pytest.raises(EnvironmentLacks, match=f"the memory of the run {name} cannot be read"):
        Counters(name, layout_of())
