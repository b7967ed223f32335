"""`bench plugin`: `mac_swap` in each tier, the header tools and lookups in compiled Python, and the
plugins `switch` and `router`, in a real worker, with batches of 64 packets.

The figures of a plugin are the time inside the plugin as the worker counts it: the call for a
batch, including the code of the tier around the user's function. The figures of a worker are all
of its work for a packet, with its rings. In the rows of a plugin that reads times, the limit is the
same plugin without them, in turn with it. The switch and the router have 64 hosts, half of them at
each of two ports; each is known. The feeding loop writes their frames again before each batch, as a
card does, because the router changes them.
"""

from __future__ import annotations

import functools
import os
import socket
import statistics
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ringline.pipeline.bench._bench import ffi, lib
from ringline.pipeline.bench.figures import Figure, in_windows
from ringline.pipeline.bench.machine import Machine, Runs, quiet_runs
from ringline.pipeline.bench.sampling.disturbance import Watch
from ringline.pipeline.bench.sampling.windows import again, best_fifth, sample
from ringline.pipeline.bench.worker import BATCH, FRAME, TIMEOUT, Worker, worker
from ringline.shm.clock import ticks_per_second
from ringline.shm.errors import EnvironmentLacks

PACKETS = 200_000  # of one call, which takes milliseconds, for the fast tiers
PACKETS_IN_PYTHON = 10_000
LOOKUPS = 50_000
SECONDS = 0.8  # of one run: ten windows
ENTRIES = 1_000_000  # of the map of `map_lookup`
STATE = 64 << 20  # bytes for that map, or for the prefix table
WARM_SECONDS = 0.2
PACKAGE = "ringline.workers.plugins"
# Ethernet, IPv4 and UDP, from 10.0.0.1 port 1000 to 10.0.0.2 port 53.
UDP_FRAME = bytes.fromhex(
    "02000000000202000000000108004500002000010000401166ca0a0000010a00000203e80035000c0000"
).ljust(FRAME, b"\0")
COMPILED_OF_C = 1.2  # goal of the compiled tier: at most this times the time of C
HOSTS = BATCH
PORTS = ("left", "right")
LEFT, RIGHT = "10.0.0.1", "10.0.1.1"  # the addresses of the router
ROUTER_MAC = bytes.fromhex("0200000000ff")
LONG = 86400.0  # seconds for which a neighbour is known: longer than a benchmark
TIME_COSTS = 0.5  # goal: nanoseconds per packet, for the time of the packet


@dataclass(frozen=True)
class _Run:
    """Nanoseconds per packet in each window: inside the plugin, in the whole worker, and in the
    bare loop."""

    plugin: tuple[float, ...]
    worker: tuple[float, ...]
    bare: tuple[float, ...]
    disturbed: str


def measure(machine: Machine, runs: int) -> list[Figure]:
    """Nanoseconds per packet in the plugin. The bare limit is the same swap in a C loop."""
    figures: list[Figure] = []
    for tier, name, packets, goal in (
        ("C", "mac_swap", PACKETS, 5.0),
        ("compiled Python", "mac_swap_compiled", PACKETS, None),
        ("NumPy columns", "MacSwapColumns", PACKETS_IN_PYTHON, 110.0),
        ("Python, packet by packet", "MacSwapPackets", PACKETS_IN_PYTHON, 400.0),
    ):
        found = _tier(machine, runs, f"{PACKAGE}.mac_swap:{name}", packets)
        if goal is None:  # a share of the time of C, on any machine
            of_c = COMPILED_OF_C * figures[0].value
            figures.append(_figure(f"plugin, {tier}", found, goal=of_c))
        else:
            on = machine.goal_on
            figures.append(_figure(f"plugin, {tier}", found, goal=goal, goal_on=on))
    for tier, name in (("C", "mac_swap"), ("compiled Python", "mac_swap_compiled")):
        figures += _with_times(machine, runs, tier, name)
    name = f"{PACKAGE}.measured"
    idle = _tier(
        machine, runs, f"{name}:nothing", PACKETS, loop=lib.rl_limit_verdicts, frame=UDP_FRAME
    )
    for what, function, loop, goal in (
        ("header view", "header_view", lib.rl_limit_headers, 2.0),
        ("checksum update", "checksum_update", lib.rl_limit_update, 3.0),
    ):
        found = _tier(machine, runs, f"{name}:{function}", PACKETS, loop=loop, frame=UDP_FRAME)
        figures.append(
            _figure(
                f"plugin, {what}",
                _above(found, idle),
                goal=goal,
                goal_on=machine.goal_on,
                note="what it adds to a function that does nothing else",
            )
        )
    for what, function, named, loop, goal in (
        ("prefix lookup", "prefix_lookup", "table", lib.rl_limit_prefixes, 15.0),
        ("map lookup", "map_lookup", "entries", _limit_map, None),
    ):
        found = _lookup(machine, runs, f"{PACKAGE}.measured:{function}", named, loop)
        on = machine.goal_on if goal else ""
        figures.append(_figure(f"plugin, {what}", found, goal=goal, goal_on=on))
    for name, options, learnt, frames in (
        ("switch", {}, switched(learning=True), switched()),
        ("router", ROUTER, arp(), routed()),
    ):
        plugin = f"{PACKAGE}.{name}:{name}"
        with worker(plugin, cpu=machine.cpus[-1], idle="busy", ports=PORTS, options=options) as two:
            _feed(name, two, BATCH, learnt)
            _warm(machine, name, two, PACKETS, frames)
            once = functools.partial(_run, machine, name, two, PACKETS, frames=frames)
            figures.append(_figure(f"plugin, {name}", quiet_runs(once, runs, machine)))
    return figures


def _mac(host: int) -> bytes:
    return b"\x02\0\0\0\1" + bytes([host])


def switched(*, learning: bool = False) -> list[bytes]:
    """Frames from each host to one at the other port, or to all to let a switch learn it."""
    return [
        ((b"\xff" * 6 if learning else _mac(host ^ 1)) + _mac(host) + UDP_FRAME[12:])
        for host in range(HOSTS)
    ]


ROUTER: dict[str, Any] = {
    "addresses": {PORTS[0]: [f"{LEFT}/24"], PORTS[1]: [f"{RIGHT}/24"]},
    "macs": dict.fromkeys(PORTS, ROUTER_MAC.hex(":")),
    "lifetime": LONG,
}


def _address(host: int) -> bytes:
    return bytes([10, 0, host % len(PORTS), 10 + host])


def arp() -> list[bytes]:
    """A request of each host for the address of the router at its port (RFC 826)."""
    own = [socket.inet_aton(LEFT), socket.inet_aton(RIGHT)]
    return [
        (
            b"\xff" * 6
            + _mac(host)
            + bytes.fromhex("08060001080006040001")
            + _mac(host)
            + _address(host)
            + bytes(6)
            + own[host % len(PORTS)]
        ).ljust(FRAME, b"\0")
        for host in range(HOSTS)
    ]


def routed() -> list[bytes]:
    """UDP over IPv4 from each host to one at the other port."""
    frames = []
    for host in range(HOSTS):
        header = bytearray(UDP_FRAME[14:34])
        header[10:12] = bytes(2)
        header[12:20] = _address(host) + _address(host ^ 1)
        total = sum(struct.unpack("!10H", header))
        header[10:12] = struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF)
        frames.append(ROUTER_MAC + _mac(host) + UDP_FRAME[12:14] + bytes(header) + UDP_FRAME[34:])
    return frames


def _figure(what: str, found: Runs[_Run], **given: Any) -> Figure:
    return in_windows(
        what,
        "ns",
        [run.plugin for run in found],
        [run.bare for run in found if run.bare],
        disturbed=found.disturbed,
        **given,
    )


def _above(runs: Runs[_Run], base: Runs[_Run]) -> Runs[_Run]:
    """What each window of `runs` takes more than the best of `base`."""
    plugin = statistics.median(best_fifth(run.plugin, more=False) for run in base)
    bare = statistics.median(best_fifth(run.bare, more=False) for run in base)
    return Runs(
        (
            _Run(
                tuple(value - plugin for value in run.plugin),
                run.worker,
                tuple(value - bare for value in run.bare),
                run.disturbed,
            )
            for run in runs
        ),
        runs.disturbed or base.disturbed,
    )


def _tier(
    machine: Machine,
    runs: int,
    plugin: str,
    packets: int,
    *,
    loop: Callable[..., Any] = lib.rl_limit_swap,
    frame: bytes = bytes(FRAME),
) -> Runs[_Run]:
    frames = bytearray(lib.RL_BUFFER_STRIDE * BATCH)
    for start in range(lib.RL_BUFFER_HEADROOM, len(frames), lib.RL_BUFFER_STRIDE):
        frames[start : start + FRAME] = frame
    with worker(plugin, cpu=machine.cpus[-1], idle="busy", frame=frame) as peer:
        rounds = PACKETS // BATCH

        def bare() -> int:
            return int(loop(ffi.from_buffer(frames), peer.references, BATCH, rounds))

        _warm(machine, plugin, peer, packets)
        # The worker spins between the runs: a cache line would find its CPU busy.
        return quiet_runs(
            lambda: _run(machine, plugin, peer, packets, bare, rounds * BATCH), runs, machine
        )


def _lookup(
    machine: Machine, runs: int, plugin: str, named: str, loop: Callable[[int, int], int]
) -> Runs[_Run]:
    """A lookup in the state called `named`. The bare limit is a C loop of lookups in the same
    memory, on the CPU of the worker, which sleeps meanwhile."""
    with worker(plugin, cpu=machine.cpus[-1], idle="adaptive", state_bytes=STATE) as peer:
        _warm(machine, plugin, peer, LOOKUPS)
        [entry] = [entry for entry in peer.slot.entries() if entry.name == named]

        def bare() -> int:
            os.sched_setaffinity(0, {machine.cpus[-1]})
            ticks = loop(peer.slot.segment.address + entry.offset, LOOKUPS)
            if not ticks:
                raise EnvironmentLacks(f"{plugin} was measured on a table with wrong answers")
            return ticks

        def once() -> _Run:
            try:
                return _run(machine, plugin, peer, LOOKUPS, bare, LOOKUPS)
            finally:
                os.sched_setaffinity(0, {machine.cpus[0]})

        return quiet_runs(once, runs, machine)


def _limit_map(address: int, lookups: int) -> int:
    return int(lib.rl_limit_map(address, ENTRIES, lookups))


def _with_times(machine: Machine, runs: int, tier: str, name: str) -> list[Figure]:
    """A plugin without times and with them, one after the other in each run."""
    found = []
    for plugin in (name, f"{name}_timed"):
        with worker(f"{PACKAGE}.mac_swap:{plugin}", cpu=machine.cpus[-1], idle="busy") as peer:
            _warm(machine, plugin, peer, PACKETS)
            found.append(
                quiet_runs(
                    functools.partial(_run, machine, plugin, peer, PACKETS),
                    runs,
                    machine,
                )
            )
    without, reading = found
    disturbed = reading.disturbed or without.disturbed
    base = statistics.median(best_fifth(run.plugin, more=False) for run in without)
    return [
        in_windows(
            f"plugin, {tier}, reads times",
            "ns",
            [run.plugin for run in reading],
            [run.plugin for run in without],
            goal=base + TIME_COSTS,
            compares=True,
            disturbed=disturbed,
        ),
        in_windows(
            f"worker, {tier}, reads times",
            "ns",
            [run.worker for run in reading],
            [run.worker for run in without],
            compares=True,
            disturbed=disturbed,
        ),
    ]


def _run(
    machine: Machine,
    name: str,
    peer: Worker,
    packets: int,
    bare: Callable[[], int] | None = None,
    bare_packets: int = 0,
    *,
    frames: Sequence[bytes] = (),
) -> _Run:
    """Feed the worker `peer` with `packets` again and again; then `bare`, which returns the ticks
    for `bare_packets`. `frames`: see `_feed`."""
    os.sched_setaffinity(0, {machine.cpus[0]})
    second = ticks_per_second() / 1e9
    count = peer.counters

    def read() -> dict[str, float]:
        return {
            "plugin": count.plugin_ticks / second,
            "worker": count.busy_ticks / second,
            "packets": count.packets,
        }

    watch = Watch(machine.cpus, {"feeding loop": os.getpid(), "worker": peer.pid})
    ours = sample(read, SECONDS, watch, wait=again(lambda: _feed(name, peer, packets, frames)))
    limit: tuple[float, ...] = ()
    if bare is not None:
        whole = {"spent": 0.0, "packets": 0}

        def once() -> None:
            whole["spent"] += bare() / second
            whole["packets"] += bare_packets

        limit = sample(lambda: dict(whole), SECONDS / 2, wait=again(once)).per("spent", "packets")
    return _Run(ours.per("plugin", "packets"), ours.per("worker", "packets"), limit, ours.disturbed)


def _warm(
    machine: Machine, name: str, peer: Worker, packets: int, frames: Sequence[bytes] = ()
) -> None:
    os.sched_setaffinity(0, {machine.cpus[0]})
    again(lambda: _feed(name, peer, packets, frames))(WARM_SECONDS)


def _feed(name: str, peer: Worker, packets: int, frames: Sequence[bytes] = ()) -> None:
    """Let `packets` pass the worker `peer`; with `frames`, BATCH of them, these again and again."""
    timeout = int(TIMEOUT * ticks_per_second())
    if not lib.rl_measure_feed(
        *(peer.rings, peer.in_, peer.out, peer.references, BATCH, packets, timeout),
        *(peer.memory, ffi.from_buffer(b"".join(frames)) if frames else ffi.NULL, FRAME),
    ):
        raise EnvironmentLacks(f"the worker with {name} stopped answering")
