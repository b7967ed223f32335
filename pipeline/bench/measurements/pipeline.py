"""`bench pipeline`: a whole run with a simulated card, and the cost of an idle one."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ringline.pipeline.bench._bench import ffi, lib
from ringline.pipeline.bench.figures import Figure
from ringline.pipeline.bench.machine import Machine, quiet_runs
from ringline.pipeline.bench.pair import run_pair
from ringline.pipeline.bench.running import Running, cpu_seconds, resident
from ringline.pipeline.telemetry.snapshot import Snapshot
from ringline.shm.clock import ticks_per_second
from ringline.shm.errors import BooksError
from ringline.workers.captures.captures import read_capture

SECONDS = 10.0  # length of one run
WARM_SECONDS = 1.0
IDLE_SECONDS = 5.0
BARE_COUNT = 32 * 600_000
BARE_BUFFERS = 2048
SILENT_PACKETS = 12
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
    """One run.

    `mpps` is 10^6 packets sent per second; `driver`, `worker` and `model` (the simulated card)
    are ns per packet; `start` is seconds to the first packet; memory is in MB.
    """

    mpps: float
    driver: float
    worker: float
    model: float
    start: float
    driver_memory: float
    worker_memory: float


def measure(machine: Machine, runs: int, seconds: float = SECONDS) -> list[Figure]:
    """Throughput on two cores and on one, start time, memory, and the cost of an idle run."""
    figures: list[Figure] = []
    one, *other = machine.cpus
    if other:
        results = quiet_runs(
            lambda: (_throughput(one, other[0], seconds), _bare(machine)), runs, machine, pair=True
        )
        two = [result for result, _ in results]
        figures += [
            Figure(
                "pipeline, two cores, compiled mac_swap",
                "Mpps",
                tuple(run.mpps for run in two),
                tuple(bare for _, bare in results),
                goal=50.0,
                more=True,
            ),
            Figure("  driver's share", "ns", tuple(run.driver for run in two), goal=9.0),
            Figure("  worker, busy", "ns", tuple(run.worker for run in two), goal=6.0),
            Figure("  simulated card", "ns", tuple(run.model for run in two)),
        ]
    alone = quiet_runs(lambda: _throughput(one, one, seconds), runs, machine)
    figures.append(
        Figure(
            "pipeline, one core",
            "Mpps",
            tuple(run.mpps for run in alone),
            goal=20.0,
            more=True,
        )
    )
    whole = two if other else alone
    figures += [
        Figure("first packet after start", "s", tuple(run.start for run in whole), goal=1.5),
        Figure("memory, driver", "MB", tuple(run.driver_memory for run in whole), goal=40),
        Figure(
            "memory, worker with numba", "MB", tuple(run.worker_memory for run in whole), goal=160
        ),
    ]
    return figures + _idle(machine)


def _bare(machine: Machine) -> float:
    """Mpps of a bare pipeline: two bare rings and a MAC swap between them."""
    size = 2 * ffi.sizeof("struct rl_bare_ring") + BARE_BUFFERS * lib.RL_BUFFER_STRIDE
    given = {"count": BARE_COUNT, "buffers": BARE_BUFFERS}
    ticks, _ = run_pair(machine.cpus, "bare pipeline", given, size)
    return BARE_COUNT / (ticks / ticks_per_second()) / 1e6


def _throughput(driver: int, worker: int, seconds: float) -> Throughput:
    idle = "busy" if driver != worker else "adaptive"
    with Running(configuration(FLOWS, COMPILED, driver, worker, idle=idle)) as run:
        start = run.first_packet()
        time.sleep(WARM_SECONDS)
        before = run.snapshot()
        time.sleep(seconds)
        after = run.snapshot()
        assert after.driver_pid is not None
        assert after.workers[0].pid is not None
        memory = resident(after.driver_pid), resident(after.workers[0].pid)
        report = run.end()
    lost = {reason: count for reason, count in after.drops.items() if count}
    if lost or any(report["balance"].values()):
        raise BooksError(f"a closed loop lost packets: {lost}, balance {report['balance']}")
    sent = _sent(after) - _sent(before)
    each = 1e9 / max(sent, 1)
    lane = after.lane.counters, before.lane.counters
    busy = after.workers[0].counters["busy_seconds"] - before.workers[0].counters["busy_seconds"]
    return Throughput(
        mpps=sent / (after.clock - before.clock) / 1e6,
        driver=(lane[0]["busy_seconds"] - lane[1]["busy_seconds"]) * each,
        worker=busy * each,
        model=(lane[0]["model_seconds"] - lane[1]["model_seconds"]) * each,
        start=start,
        driver_memory=memory[0],
        worker_memory=memory[1],
    )


def _sent(snapshot: Snapshot) -> int:
    return sum(port.total("tx_packets") for port in snapshot.ports)


def _idle(machine: Machine) -> list[Figure]:
    """CPU time of all processes without traffic, and the delay of a packet after silence.

    Packets arrive SILENCE seconds apart. Their time stamps in the recording show how late
    each was sent, relative to the earliest.
    """
    with Running(_silent(machine, "")) as run:
        snapshot = run.snapshot()
        worker = snapshot.workers[0].pid
        assert worker is not None
        time.sleep(WARM_SECONDS)
        before = {pid: cpu_seconds(pid) for pid in run.processes()}
        at = time.monotonic()
        time.sleep(IDLE_SECONDS)
        used = sum(cpu_seconds(pid) - before[pid] for pid in before)
        share = used / (time.monotonic() - at) * 100
        memory = resident(worker)
    record = "silence.pcap"
    with Running(_silent(machine, f'{IDLE_WIRE}, record = "{record}"')) as run:
        run.snapshot()
        time.sleep(SILENCE * (SILENT_PACKETS + 1))
        run.end()
        stamps = list(read_capture(run.folder / record).times)
    late = [stamp - round(i * SILENCE * 1e9) for i, stamp in enumerate(stamps)]
    delays = tuple((value - min(late)) / 1e6 for value in late)
    return [
        Figure("memory, worker with a C plugin", "MB", (memory,), goal=20),
        Figure("idle, all processes, of one core", "%", (share,), goal=3.0),
        Figure("packet after silence, later than the earliest", "ms", delays, goal=1.0),
    ]


def _silent(machine: Machine, wire: str) -> str:
    return configuration(wire, NATIVE, machine.cpus[0], machine.cpus[-1], idle="adaptive")
