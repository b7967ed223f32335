"""`bench pipeline`: a whole run with a simulated card, and the cost of an idle one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from ringline.pipeline.bench.figures import Figure, in_windows
from ringline.pipeline.bench.machine import Machine, quiet_runs
from ringline.pipeline.bench.pair import BARE_PIPELINE, measure_pair
from ringline.pipeline.bench.running import (
    DRIVER,
    OURS,
    WORKER,
    Running,
    cpu_seconds,
    resident,
)
from ringline.pipeline.bench.sampling.counters import Layout
from ringline.pipeline.bench.sampling.disturbance import Watch
from ringline.pipeline.bench.sampling.windows import SECONDS, Windows
from ringline.shm.errors import BooksError
from ringline.workers.captures.captures import read_capture

WARM_SECONDS = 0.5
IDLE_SECONDS = 4.0
OF_LIMIT = 0.2  # measured on an AMD EPYC of family 23: 0.2 to 0.25
SILENT_PACKETS = 10
SILENCE = 0.5  # seconds between two packets: the driver is in deep sleep after 0.1

FLOWS = "flows = { count = 256, sizes = 64 }"
IDLE_WIRE = f"flows = {{ count = 1, packets = {SILENT_PACKETS} }}, rate_mpps = {1e-6 / SILENCE:.6f}"


def configuration(wire: str, plugin: str, driver: int, worker: int, *, idle: str) -> str:
    """One queue of one simulated card; `driver` and `worker` are the CPUs of the processes."""
    return (
        f'[port.wan]\ndevice = "sim:82599"\nwire = {{ {wire} }}\n'
        f'[worker]\nplugin = "{plugin}"\ncpus = [{worker}]\n'
        f'[driver]\ncpu = {driver}\nidle = "{idle}"\n'
    )


COMPILED = "ringline.workers.plugins.mac_swap:mac_swap_compiled"
NATIVE = "ringline.workers.plugins.mac_swap:mac_swap"


@dataclass(frozen=True)
class Throughput:
    """One run: `start` is seconds to the first packet, memory is in MB."""

    windows: Windows
    start: float
    driver_memory: float
    worker_memory: float

    @property
    def disturbed(self) -> str:
        return self.windows.disturbed

    @property
    def mpps(self) -> tuple[float, ...]:
        """10^6 packets sent per second, in each window."""
        return tuple(rate / 1e6 for rate in self.windows.rate("sent"))

    def nanoseconds(self, part: str) -> tuple[float, ...]:
        """Of `driver`, `model` (the simulated card) or `worker` for each packet."""
        unit = "worker_packets" if part == "worker" else "sent"
        return tuple(value * 1e9 for value in self.windows.per(part, unit))


@dataclass(frozen=True)
class _Pair:
    """A run, and the bare pipeline after it."""

    run: Throughput
    bare: Windows

    @property
    def disturbed(self) -> str:
        return self.run.disturbed or self.bare.disturbed


def measure(machine: Machine, runs: int, seconds: float = SECONDS) -> list[Figure]:
    """Throughput on two cores and on one, start time, memory, and the cost of an idle run."""
    figures: list[Figure] = []
    one, *other = machine.cpus
    whole: list[Throughput] = []
    if other:
        results = quiet_runs(
            lambda: _Pair(
                throughput(one, other[0], seconds),
                measure_pair(machine.cpus, BARE_PIPELINE, seconds=seconds),
            ),
            runs,
            machine,
            pair=True,
        )
        whole = [result.run for result in results]
        bare = [[rate / 1e6 for rate in result.bare.rate("moved")] for result in results]
        figures += _two_cores(machine, whole, bare, results.disturbed)
    alone = quiet_runs(lambda: throughput(one, one, seconds), runs, machine)
    figures.append(
        in_windows(
            "pipeline, one core",
            "Mpps",
            [run.mpps for run in alone],
            more=True,
            goal=20.0,
            goal_on=machine.goal_on,
            disturbed=alone.disturbed,
        )
    )
    whole = whole or list(alone)
    figures += [
        Figure(
            "first packet after start",
            "s",
            tuple(run.start for run in whole),
            goal=1.5,
            disturbed=results.disturbed if other else alone.disturbed,
        ),
        Figure("memory, driver", "MB", tuple(run.driver_memory for run in whole), goal=40),
        Figure(
            "memory, worker with numba", "MB", tuple(run.worker_memory for run in whole), goal=160
        ),
    ]
    return figures + _idle(machine)


def _two_cores(
    machine: Machine, whole: list[Throughput], bare: list[list[float]], disturbed: str
) -> list[Figure]:
    """Throughput beside the bare pipeline, and where its time goes."""
    figures = [
        in_windows(
            "pipeline, two cores, compiled mac_swap",
            "Mpps",
            [run.mpps for run in whole],
            bare,
            more=True,
            goal=50.0,
            goal_on=machine.goal_on,
            goal_of_limit=OF_LIMIT,
            disturbed=disturbed,
        )
    ]
    for what, part, goal in (
        ("  driver's share", "driver", 9.0),
        ("  worker, busy", "worker", 6.0),
        ("  simulated card", "model", None),
    ):
        figures.append(
            in_windows(
                what,
                "ns",
                [run.nanoseconds(part) for run in whole],
                goal=goal,
                goal_on=machine.goal_on if goal else "",
                disturbed=disturbed,
            )
        )
    return figures


def throughput(
    driver: int,
    worker: int,
    seconds: float,
    *,
    command: Sequence[str] = OURS,
    layout: Layout | None = None,
) -> Throughput:
    """Measure one run with these CPUs for its driver and its worker. `command` and `layout` are
    those of another version of ringline.

    Raises BooksError when it lost packets.
    """
    idle = "busy" if driver != worker else "adaptive"
    text = configuration(FLOWS, COMPILED, driver, worker, idle=idle)
    with Running(text, command) as run, run.counters(layout=layout) as counters:
        start = run.first_packet(counters)
        windows = run.windows(counters, (driver, worker), seconds)
        memory = [resident(pid) for part in (DRIVER, WORKER) for pid in run.pids(part)]
        report = run.end()
    lost = {
        reason: count
        for port in report["ports"].values()
        for reason, count in port["drops"].items()
        if count
    }
    if lost or any(report["balance"].values()):
        raise BooksError(f"a closed loop lost packets: {lost}, balance {report['balance']}")
    return Throughput(windows, start, *memory)


def _idle(machine: Machine) -> list[Figure]:
    """CPU time of all processes without traffic, and the delay of a packet after silence.

    Packets arrive SILENCE seconds apart. Their time stamps in the recording show how late
    each was sent, relative to the earliest.
    """
    with Running(_silent(machine, "")) as run:
        run.snapshot()
        [worker] = run.pids(WORKER)
        time.sleep(WARM_SECONDS)
        before = {pid: cpu_seconds(pid) for pid in run.processes()}
        watch = Watch(machine.cpus, helpers=list(before))
        watch.start()
        at = time.monotonic()
        time.sleep(IDLE_SECONDS)
        used = sum(cpu_seconds(pid) - before[pid] for pid in before)
        share = used / (time.monotonic() - at) * 100
        disturbed = watch.end()
        memory = resident(worker)
    record = "silence.pcap"
    with Running(_silent(machine, f'{IDLE_WIRE}, record = "{record}"')) as run:
        run.snapshot()
        watch = Watch(machine.cpus, helpers=run.processes())
        watch.start()
        time.sleep(SILENCE * (SILENT_PACKETS + 1))
        disturbed_later = watch.end()
        run.end()
        stamps = list(read_capture(run.folder / record).times)
    late = [stamp - round(i * SILENCE * 1e9) for i, stamp in enumerate(stamps)]
    delays = tuple((value - min(late)) / 1e6 for value in late)
    return [
        Figure("memory, worker with a C plugin", "MB", (memory,), goal=20),
        Figure("idle, all processes, of one core", "%", (share,), goal=3.0, disturbed=disturbed),
        Figure(
            "packet after silence, later than the earliest",
            "ms",
            delays,
            goal=1.0,
            disturbed=disturbed_later,
        ),
    ]


def _silent(machine: Machine, wire: str) -> str:
    return configuration(wire, NATIVE, machine.cpus[0], machine.cpus[-1], idle="adaptive")
