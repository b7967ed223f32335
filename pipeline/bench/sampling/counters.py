"""The counters of a run, read from its shared memory while it runs.

Asking the status socket costs the supervisor a millisecond on a CPU that is measured. Reading
memory costs the run nothing but the cache lines of its counters.

Guarantees (tests in tests/pipeline/bench/test_counters.py):
 - a run of another version is read by the offsets that its own modules tell
   (test_the_offsets_of_another_version_are_used)
 - a version without these counters is refused with one sentence
   (test_a_version_without_the_counters_is_refused)
"""

from __future__ import annotations

import functools
import json
import mmap
import os
import struct
import subprocess
import sys
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from ringline.pipeline.configuration import deadlines
from ringline.shm.errors import EnvironmentLacks
from ringline.shm.owners import SHARED_MEMORY

LANE = ("passes", "busy_ticks", "idle_ticks", "model_ticks")
QUEUE = ("rx_packets", "tx_packets", "transmitted")
WORKER = ("packets", "batches", "busy_ticks", "idle_ticks", "plugin_ticks")

# What a version of ringline tells about its memory: offsets in bytes. Python of that version runs
# it, so it uses only names that every version has.
ASK = """
import json, sys
from ringline.shm._shm import ffi
from ringline.shm.clock import ticks_per_second
lane, queue, worker = json.loads(sys.argv[1])
def inside(struct, field, names):
    start = ffi.offsetof(struct, field)
    type_ = dict(ffi.typeof(struct).fields)[field].type
    if type_.kind == "array":
        type_ = type_.item
    return {name: start + ffi.offsetof(type_, name) for name in names}
print(json.dumps({
    "lane": inside("struct rl_lane_segment", "lane", lane),
    "queue": inside("struct rl_lane_segment", "queues", queue),
    "worker": inside("struct rl_slot_segment", "counters", worker),
    "stride": ffi.sizeof("struct rl_queue_counters"),
    "second": ticks_per_second(),
}))
"""
QUEUES_MAX = 16  # of one port: the counters of the next port come behind them


@dataclass(frozen=True)
class Layout:
    """Where a version of ringline has its counters: bytes from the beginning of the segment.

    `stride` is bytes from one queue to the next, `second` the ticks of a second.
    """

    lane: dict[str, int]
    queue: dict[str, int]
    worker: dict[str, int]
    stride: int
    second: float


@functools.cache
def layout_of(python: str = sys.executable) -> Layout:
    """The layout of the version of ringline that `python`, an interpreter, imports.

    Raises EnvironmentLacks when it does not tell.
    """
    fields = json.dumps([LANE, QUEUE, WORKER])
    try:
        answer = subprocess.run(
            [python, "-P", "-c", ASK, fields],
            capture_output=True,
            text=True,
            timeout=deadlines.BENCH_WORKER,
            check=False,
        )
        told: dict[str, Any] = json.loads(answer.stdout)
        return Layout(**told)
    except (OSError, ValueError, TypeError, subprocess.TimeoutExpired):
        raise EnvironmentLacks(
            f"the ringline of {python} does not tell where it keeps its counters: it is no "
            "version that this benchmark can read, or its modules are not compiled"
        ) from None


class Counters:
    """The counters of the run `name` with `ports` ports and `queues` workers.

    Raises EnvironmentLacks when it has no such memory. A context manager.
    """

    def __init__(self, name: str, layout: Layout, *, ports: int = 1, queues: int = 1) -> None:
        self._layout = layout
        self._maps: list[mmap.mmap] = []
        try:
            self._lane = self._map(f"{name}.lane.0")
            self._workers = [self._map(f"{name}.worker.{queue}") for queue in range(queues)]
        except (OSError, ValueError) as error:
            self.close()
            raise EnvironmentLacks(
                f"the memory of the run {name} cannot be read: {error}"
            ) from None
        self._places = [
            (port * QUEUES_MAX + queue) * layout.stride
            for port in range(ports)
            for queue in range(queues)
        ]

    def _map(self, what: str) -> mmap.mmap:
        fd = os.open(f"{SHARED_MEMORY}/ringline.{what}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._maps.append(mmap.mmap(fd, 0, prot=mmap.PROT_READ))
        finally:
            os.close(fd)
        return self._maps[-1]

    def read(self) -> dict[str, float]:
        """The counters now; those of several queues and workers are added up.

        `driver` is seconds of the lane in passes that moved packets, without `model`, the seconds
        inside simulated cards; `driver_idle` is its other seconds. `worker` is seconds of workers
        with packets, `worker_idle` without them, `plugin` inside plugins. `received` and `sent`
        count packets at the ports, `worker_packets` those that workers took. `passes` and
        `batches` are those of the lane and of the workers.
        """
        at, second = self._layout, self._layout.second

        def lane(name: str) -> int:
            return _word(self._lane, at.lane[name])

        def queues(name: str) -> int:
            return sum(_word(self._lane, at.queue[name] + place) for place in self._places)

        def workers(name: str) -> int:
            return sum(_word(worker, at.worker[name]) for worker in self._workers)

        return {
            "sent": queues("tx_packets"),
            "received": queues("rx_packets"),
            "passes": lane("passes"),
            "driver": lane("busy_ticks") / second,
            "driver_idle": lane("idle_ticks") / second,
            "model": lane("model_ticks") / second,
            "worker_packets": workers("packets"),
            "batches": workers("batches"),
            "worker": workers("busy_ticks") / second,
            "worker_idle": workers("idle_ticks") / second,
            "plugin": workers("plugin_ticks") / second,
        }

    def close(self) -> None:
        """Unmap the memory."""
        while self._maps:
            self._maps.pop().close()

    def __enter__(self) -> Counters:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _word(memory: mmap.mmap, offset: int) -> int:
    value: int = struct.unpack_from("<Q", memory, offset)[0]
    return value
