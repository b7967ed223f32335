"""`bench plugin`: `mac_swap` in each tier, and the header tools and lookups in compiled Python, in
a real worker, with batches of 64 packets.

The figures of a plugin are the time inside the plugin as the worker counts it: the call for a
batch, including the code of the tier around the user's function. The figures of a worker are all
of its work for a packet, with its rings. In the rows of a plugin that reads times, the limit is the
same plugin without them, in turn with it.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ringline.pipeline.bench._bench import ffi, lib
from ringline.pipeline.bench.figures import Figure
from ringline.pipeline.bench.machine import Machine, quiet_runs
from ringline.pipeline.bench.worker import BATCH, FRAME, TIMEOUT, Worker, worker
from ringline.shm.clock import ticks_per_second
from ringline.shm.errors import EnvironmentLacks

PACKETS = 8_000_000  # of one run, for the fast tiers
PACKETS_IN_PYTHON = 400_000
LOOKUPS = 1_000_000
ENTRIES = 1_000_000  # of the map of `map_lookup`
STATE = 64 << 20  # bytes for that map, or for the prefix table
WARM = 10  # 1/WARM of the packets of a run come first and are not counted
PACKAGE = "ringline.workers.plugins"
# Ethernet, IPv4 and UDP, from 10.0.0.1 port 1000 to 10.0.0.2 port 53.
UDP_FRAME = bytes.fromhex(
    "02000000000202000000000108004500002000010000401166ca0a0000010a00000203e80035000c0000"
).ljust(FRAME, b"\0")
COMPILED_OF_C = 1.2  # goal of the compiled tier: at most this times the time of C
TIME_COSTS = 0.5  # goal: nanoseconds per packet, for the time of the packet


@dataclass(frozen=True)
class _Spent:
    """Nanoseconds per packet: inside the plugin, and in the whole worker."""

    plugin: float
    worker: float


def measure(machine: Machine, runs: int) -> list[Figure]:
    """Nanoseconds per packet in the plugin. The bare limit is the same swap in a C loop."""
    figures: list[Figure] = []
    for tier, name, packets, goal in (
        ("C", "mac_swap", PACKETS, 5.0),
        ("compiled Python", "mac_swap_compiled", PACKETS, None),
        ("NumPy columns", "MacSwapColumns", PACKETS_IN_PYTHON, 110.0),
        ("Python, packet by packet", "MacSwapPackets", PACKETS_IN_PYTHON, 400.0),
    ):
        ours, bare = _tier(machine, runs, f"{PACKAGE}.mac_swap:{name}", packets)
        limit = goal if goal is not None else COMPILED_OF_C * figures[0].value
        figures.append(Figure(f"plugin, {tier}", "ns", ours, bare, limit))
    for tier, name in (("C", "mac_swap"), ("compiled Python", "mac_swap_compiled")):
        figures += _with_times(machine, runs, tier, name)
    name = f"{PACKAGE}.measured"
    idle, bare_idle = _tier(
        machine, runs, f"{name}:nothing", PACKETS, loop=lib.rl_limit_verdicts, frame=UDP_FRAME
    )
    for what, function, loop, goal in (
        ("header view", "header_view", lib.rl_limit_headers, 2.0),
        ("checksum update", "checksum_update", lib.rl_limit_update, 3.0),
    ):
        ours, bare = _tier(machine, runs, f"{name}:{function}", PACKETS, loop=loop, frame=UDP_FRAME)
        note = "what it adds to a function that does nothing else"
        figures.append(
            Figure(
                f"plugin, {what}",
                "ns",
                _above(ours, idle),
                _above(bare, bare_idle),
                goal,
                note=note,
            )
        )
    for what, function, named, loop, goal in (
        ("prefix lookup", "prefix_lookup", "table", lib.rl_limit_prefixes, 15.0),
        ("map lookup", "map_lookup", "entries", _limit_map, None),
    ):
        ours, bare = _lookup(machine, runs, f"{PACKAGE}.measured:{function}", named, loop)
        figures.append(Figure(f"plugin, {what}", "ns", ours, bare, goal))
    return figures


def _above(runs: Sequence[float], base: Sequence[float]) -> tuple[float, ...]:
    """What each of `runs` takes more than the median of `base`."""
    middle = statistics.median(base)
    return tuple(run - middle for run in runs)


def _tier(
    machine: Machine,
    runs: int,
    plugin: str,
    packets: int,
    *,
    loop: Callable[..., Any] = lib.rl_limit_swap,
    frame: bytes = bytes(FRAME),
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    frames = bytearray(lib.RL_BUFFER_STRIDE * BATCH)
    for start in range(lib.RL_BUFFER_HEADROOM, len(frames), lib.RL_BUFFER_STRIDE):
        frames[start : start + FRAME] = frame

    def once() -> tuple[float, float]:
        # A new worker for each run: a spinning one would disturb `quiet_runs`.
        with worker(plugin, cpu=machine.cpus[-1], idle="busy", frame=frame) as peer:
            spent = _feed(machine, plugin, peer, packets)
            rounds = PACKETS // BATCH
            bare = loop(ffi.from_buffer(frames), peer.references, BATCH, rounds)
        return spent.plugin, bare / (rounds * BATCH) / ticks_per_second() * 1e9

    ours, bare = zip(*quiet_runs(once, runs, machine, pair=True), strict=True)
    return ours, bare


def _lookup(
    machine: Machine, runs: int, plugin: str, named: str, loop: Callable[[int, int], int]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """A lookup in the state called `named`. The bare limit is a C loop of lookups in the same
    memory, on the CPU of the worker, which sleeps meanwhile."""

    def once() -> tuple[float, float]:
        with worker(plugin, cpu=machine.cpus[-1], idle="adaptive", state_bytes=STATE) as peer:
            inside = _feed(machine, plugin, peer, LOOKUPS).plugin
            [entry] = [entry for entry in peer.slot.entries() if entry.name == named]
            os.sched_setaffinity(0, {machine.cpus[-1]})
            ticks = loop(peer.slot.segment.address + entry.offset, LOOKUPS)
        if not ticks:
            raise EnvironmentLacks(f"{plugin} was measured on a table with wrong answers")
        return inside, ticks / LOOKUPS / ticks_per_second() * 1e9

    ours, bare = zip(*quiet_runs(once, runs, machine, pair=True), strict=True)
    return ours, bare


def _limit_map(address: int, lookups: int) -> int:
    return int(lib.rl_limit_map(address, ENTRIES, lookups))


def _with_times(machine: Machine, runs: int, tier: str, name: str) -> list[Figure]:
    """A plugin without times and with them, one after the other in each run."""

    def once() -> tuple[_Spent, ...]:
        spent = []
        for plugin in (name, f"{name}_timed"):
            with worker(f"{PACKAGE}.mac_swap:{plugin}", cpu=machine.cpus[-1], idle="busy") as peer:
                spent.append(_feed(machine, plugin, peer, PACKETS))
        return tuple(spent)

    without, reading = zip(*quiet_runs(once, runs, machine, pair=True), strict=True)
    goal = statistics.median(spent.plugin for spent in without) + TIME_COSTS
    return [
        Figure(
            f"plugin, {tier}, reads times",
            "ns",
            tuple(spent.plugin for spent in reading),
            tuple(spent.plugin for spent in without),
            goal,
        ),
        Figure(
            f"worker, {tier}, reads times",
            "ns",
            tuple(spent.worker for spent in reading),
            tuple(spent.worker for spent in without),
        ),
    ]


def _feed(machine: Machine, name: str, peer: Worker, packets: int) -> _Spent:
    """Let `packets` pass the worker `peer`, after some that are not counted."""
    os.sched_setaffinity(0, {machine.cpus[0]})
    second = ticks_per_second()
    count = peer.counters
    for todo in (packets // WARM, packets):
        before = count.plugin_ticks, count.busy_ticks, count.packets
        if not lib.rl_measure_feed(
            peer.rings, peer.in_, peer.out, peer.references, BATCH, todo, int(TIMEOUT * second)
        ):
            raise EnvironmentLacks(f"the worker with {name} stopped answering")
    inside, busy = count.plugin_ticks - before[0], count.busy_ticks - before[1]
    done = (count.packets - before[2]) * second / 1e9
    return _Spent(inside / done, busy / done)
