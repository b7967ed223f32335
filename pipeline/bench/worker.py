"""A real worker process, driven by the benchmark instead of the driver."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ringline.pipeline.bench._bench import ffi, lib
from ringline.pipeline.configuration import deadlines
from ringline.pipeline.supervisor.child import Child
from ringline.pipeline.supervisor.instance import grant
from ringline.shm import control, errors
from ringline.shm.errors import EnvironmentLacks, PluginError
from ringline.shm.messages import WorkerOpen
from ringline.shm.packets import PacketMemory
from ringline.shm.rings import RingPair
from ringline.shm.slots import WorkerSlot
from ringline.workers.captures.headers import ETHERNET_MIN
from ringline.workers.process import launch

READY_SECONDS = deadlines.BENCH_WORKER
TIMEOUT = deadlines.BENCH_PROGRESS
FRAME = ETHERNET_MIN  # bytes of each packet, without CRC
STATE = 1 << 20  # bytes for the named state of a plugin
BATCH: int = lib.RL_BATCH_MAX
AREA: int = ffi.offsetof("struct rl_slot_segment", "area")


@dataclass
class Worker:
    """A worker that is ready.

    `in_` and `out` are the driver's ends of its rings (`struct rl_ring_end *`), `references`
    BATCH packets of FRAME bytes in packet memory, `counters` its struct rl_worker_counters, `slot`
    its slot.
    """

    rings: Any
    in_: Any
    out: Any
    references: Any
    counters: Any
    pid: int
    slot: WorkerSlot
    memory: Any  # uint8_t *, the first buffer


@contextlib.contextmanager
def worker(
    plugin: str,
    *,
    cpu: int,
    idle: str,
    frame: bytes = bytes(FRAME),
    state_bytes: int = STATE,
    ports: Sequence[str] = ("bench",),
    options: Mapping[str, Any] | None = None,
) -> Iterator[Worker]:
    """Start a worker that runs `plugin` with `options` on `cpu`, and wait until it is ready.

    `idle` is busy or adaptive; `frame` is the content of each packet, FRAME bytes; `state_bytes`
    are for the named state of the plugin. The packets come from `ports` in turn. The worker ends
    with the context.
    """
    instance = f"bench-{os.getpid()}"
    with (
        PacketMemory.create(instance, BATCH, hugepages="off") as packets,
        RingPair.create(instance, 0, 1) as rings,
        WorkerSlot.create(instance, 0, state_bytes) as slot,
        started(
            plugin, packets, rings, slot, cpu=cpu, idle=idle, ports=ports, options=options
        ) as pid,
    ):
        segment = ffi.cast("struct rl_rings_segment *", rings.segment.address)
        yield Worker(
            segment,
            ffi.new("struct rl_ring_end *", {"ring": ffi.addressof(segment, "in")}),
            ffi.new("struct rl_ring_end *", {"ring": ffi.addressof(segment, "out")}),
            _references(packets, frame, len(ports)),
            slot.counters,
            pid,
            slot,
            ffi.cast("uint8_t *", packets.segment.address + packets.first_offset),
        )


@contextlib.contextmanager
def started(
    plugin: str,
    packets: PacketMemory,
    rings: RingPair,
    slot: WorkerSlot,
    *,
    cpu: int,
    idle: str,
    ports: Sequence[str] = ("bench",),
    options: Mapping[str, Any] | None = None,
) -> Iterator[int]:
    """Start a worker of queue 0 over this memory, and wait until it is ready; its process id."""
    child = Child("worker", launch.command(), launch.environment())
    try:
        with grant(packets.segment, rings.segment, slot.segment) as descriptors:
            message: WorkerOpen = {
                "do": "open",
                "queue": 0,
                "generation": 1,
                "plugin": plugin,
                "options": dict(options or {}),
                "places": {},
                "reasons": [],
                "frame_max": lib.RL_FRAME_MAX,
                "ports": [*ports],
                "folder": None,
                "state_bytes": slot.segment.used - AREA,
                "debug": False,
                "idle": idle,
                "yield": False,
                "cpu": cpu,
            }
            child.send(message, descriptors)
        _await_ready(child)
        yield child.pid
    finally:
        child.shut_down(deadlines.KILL)


def _await_ready(child: Child) -> None:
    while True:
        try:
            received = child.control.receive(READY_SECONDS)
        except control.Closed:
            raise EnvironmentLacks("the benchmark's worker ended before it was ready") from None
        if received is None:
            raise EnvironmentLacks(f"the worker was not ready after {READY_SECONDS:g} s")
        message, _ = received
        if message["event"] == "failed":
            raise control.revive(message["error"], [PluginError, errors.Bug])
        if message["event"] == "ready":
            return


def _references(packets: PacketMemory, frame: bytes, ports: int) -> Any:
    references = ffi.new("struct rl_reference[]", BATCH)
    memory = ffi.cast("uint8_t *", packets.segment.address + packets.first_offset)
    for number in range(BATCH):
        ffi.memmove(memory + number * packets.stride + packets.headroom, frame, FRAME)
        references[number].buffer = number
        references[number].offset = lib.RL_BUFFER_HEADROOM
        references[number].length = FRAME
        references[number].port = number % ports
    return references
