"""Runs a plugin on a pair of rings: the Python side of loop/loop.c.

In a worker process the rings are in shared memory and a driver is the peer. In a trial they
are in private memory and the harness is the peer. Everything else is the same code, so a
trial shows what a worker does.
"""

from __future__ import annotations

import time

from ringline.shm._shm import lib as shm
from ringline.shm.clock import wall_offset
from ringline.shm.frames import units_for
from ringline.workers._workers import ffi, lib
from ringline.workers.tiers.tier import sentence, trace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ringline.workers.tiers.tier import Tier
    from ringline.workers.worker import Worker

TURN: int = lib.RL_WORKER_TURN
BATCH: int = lib.RL_WORKER_BATCH
DRAINED: int = lib.RL_WORKER_DRAINED
FAULT: int = lib.RL_WORKER_FAULT

TURN_SECONDS = 0.02  # between two looks at the control socket
SPIN_SECONDS = 0.0001  # polling an empty ring before the first sleep
TICK_SECONDS = 1.0
TRACES_MAX = 10  # tracebacks of one process; an error whose text changes would fill the log

# Used until the first turn measures the rate: to measure it at the start would take 2 ms.
_LIKELY_TICKS_PER_SECOND = 2.5e9


class Engine:
    """Runs `tier`, after its setup, on the rings `in_` and `out`.

    counters, in_, out, times: cdata pointers; `times` is the struct rl_times beside `in_`.
    memory, view: the address of buffer 0, and packet memory from there on.
    frame_max: bytes of the longest frame that a port of the instance sends.
    busy: never sleep.
    yielding: for a worker that shares its core with the driver.
    """

    def __init__(
        self,
        tier: Tier,
        worker: Worker,
        *,
        counters: Any,
        in_: Any,
        out: Any,
        times: Any,
        memory: int,
        view: memoryview,
        frame_max: int = shm.RL_FRAME_MAX,
        busy: bool = False,
        yielding: bool = False,
    ) -> None:
        self._tier = tier
        self._worker = worker
        self._tick = tier.ticks
        self.counters = counters
        self.loop = loop = ffi.new("struct rl_worker *")
        loop.counters = ffi.cast("struct rl_worker_counters *", counters)
        loop.function = ffi.cast("rl_batch_function", tier.function)
        loop.batch.state = ffi.cast("void *", tier.state)
        loop.batch.ports = len(worker.ports)
        loop.batch.queue = worker.queue
        loop.batch.frame_max = frame_max
        loop.batch.room = units_for(frame_max) * shm.RL_BUFFER_STRIDE
        loop.times = ffi.cast("struct rl_times *", times)
        loop.times.unwanted = not tier.reads_times
        if tier.reads_times:
            loop.batch.times = loop.moments
        worker._clock = self.time
        loop.batch.reasons = worker._reasons.close()
        loop.busy = busy
        loop.yielding = yielding
        self._set_rate(_LIKELY_TICKS_PER_SECOND)
        self._measured = False
        shm.rl_end_open(ffi.addressof(loop, "in"), in_)
        shm.rl_end_open(ffi.addressof(loop, "out"), out)
        loop.batch.memory = ffi.cast("uint8_t *", memory)
        loop.batch.packets = loop.packets
        loop.batch.blanks = loop.blanks
        loop.last = shm.rl_now()
        self._began = time.monotonic(), loop.last
        self._tick_at = self._began[0] + TICK_SECONDS
        self._batch = None
        if not tier.function:
            from ringline.workers.batch import Batch

            self._batch = Batch(loop, view)
        self.raised: BaseException | None = None  # the last exception since `complaint`
        self._in_tick = False  # `raised` comes from the plugin's tick
        self._traced: set[str] = set()  # the sentences whose traceback was given
        self.trace: list[str] = []  # the traceback of the last complaint, if it is new

    def run(self) -> int:
        """Run until a turn is due, everything is drained, or a ring index is out of range; returns
        TURN, DRAINED or FAULT."""
        loop, run = self.loop, lib.rl_worker_run
        if self._batch is None:
            return int(run(loop))
        while (reason := run(loop)) == BATCH:
            self.process()
        return int(reason)

    def process(self) -> None:
        """Let the plugin in Python process the batch for which the loop returned BATCH."""
        batch, process = self._batch, self._tier.process
        assert batch is not None
        batch._begin()
        try:
            if (returned := process(batch)) is not None:
                raise self._tier.refuse_answer(returned)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self.raised, self._in_tick = error, False
            self.loop.python = lib.RL_PYTHON_FAILED

    def turn(self) -> None:
        """Call the plugin's tick if it is due; the first turn also measures the clock's rate."""
        now = time.monotonic()
        if not self._measured and now - self._began[0] > TURN_SECONDS / 4:
            self._set_rate((shm.rl_now() - self._began[1]) / (now - self._began[0]))
            self._measured = True
        if self._tick is not None and now >= self._tick_at:
            self._tick_at = now + (0 if self.tick() else TICK_SECONDS)

    def tick(self) -> bool:
        """Call the plugin's tick now; whether it wants to be called again soon. An exception is
        counted and kept for `complaint`."""
        if self._tick is None:
            return False
        try:
            return self._tick(self._worker) is True
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self.raised, self._in_tick = error, True
            self.counters.tick_errors += 1
        return False

    def tick_whole(self, seconds: float, *, pause: float = 0.0, ending: bool = False) -> None:
        """Call the plugin's tick until it has no more to do, at most `seconds`: for the first half
        of them with a `pause` between two calls. `ending`: no packet follows."""
        now = time.monotonic()
        end, hurry = now + seconds, now + seconds / 2
        self._worker.ending = ending
        while self.tick() and (now := time.monotonic()) < end:
            self.counters.heartbeat = shm.rl_now()
            time.sleep(pause if now < hurry else 0)

    def time(self) -> int:
        """The time for `tick`, in nanoseconds since 1970: the driver's clock. If a port has its own
        times, it is the time of the packet that came last, 0 before the first."""
        times = self.loop.times
        if times.stamped:
            return int(self.loop.last_time if self._tier.reads_times else times.last)
        # The driver writes the offset when it attaches the rings, before the first packet.
        return time.monotonic_ns() + int(times.offset or wall_offset())

    def stop(self) -> None:
        """Let `run` empty `in`, return the blanks and then return DRAINED."""
        self.loop.stopping = 1

    def complaint(self) -> str | None:
        """The last exception since the previous call, as a sentence, or None. `trace` is then its
        traceback, or empty if it was given before."""
        error, self.raised = self.raised, None
        self.trace = []
        if error is None:
            return None
        what = ("tick failed: " if self._in_tick else "") + sentence(error)
        if what not in self._traced and len(self._traced) < TRACES_MAX:
            self._traced.add(what)
            self.trace = trace(error)
        return what

    def _set_rate(self, ticks_per_second: float) -> None:
        self.loop.turn_ticks = int(TURN_SECONDS * ticks_per_second)
        self.loop.spin_ticks = int(SPIN_SECONDS * ticks_per_second)
