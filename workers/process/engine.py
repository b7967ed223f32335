"""A prepared plugin on a pair of rings: the Python around loop.c.

The worker process has its rings in shared memory and a driver at the other end;
trials have them in private memory and are both. Everything else is the same code,
so what a trial shows is what a worker does.
"""

from __future__ import annotations

import time

from ringline.shm._shm import lib as shm
from ringline.workers._workers import ffi, lib
from ringline.workers.tiers.tier import sentence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ringline.workers.tiers.tier import Tier
    from ringline.workers.worker import Worker

TURN: int = lib.RL_WORKER_TURN
DRAINED: int = lib.RL_WORKER_DRAINED
FAULT: int = lib.RL_WORKER_FAULT

TURN_SECONDS = 0.02
SPIN_SECONDS = 0.0001  # an empty ring is watched so long before the first sleep
TICK_SECONDS = 1.0

# Until a turn has shown the clock's rate; to measure it first would take 2 ms.
_LIKELY_TICKS_PER_SECOND = 2.5e9


class Engine:
    """Runs `tier`, which is set up, on the rings `in_` and `out`.

    `counters`, `in_` and `out` are cdata pointers, `memory` is the address of buffer 0
    and `view` the bytes from there on. `busy` never sleeps; `yielding` is for a worker
    that shares its core with the driver.
    """

    def __init__(
        self,
        tier: Tier,
        worker: Worker,
        *,
        counters: Any,
        in_: Any,
        out: Any,
        memory: int,
        view: memoryview,
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
        loop.busy = busy
        loop.yielding = yielding
        self._set_rate(_LIKELY_TICKS_PER_SECOND)
        self._measured = False
        lib.rl_worker_begin(loop, in_, out, ffi.cast("uint8_t *", memory))
        self._began = time.monotonic(), shm.rl_now()
        self._tick_at = self._began[0] + TICK_SECONDS
        self._batch = None
        if not tier.function:
            from ringline.workers.batch import Batch

            self._batch = Batch(loop, view)
        self.raised: BaseException | None = None  # the last one since the caller looked

    def run(self) -> int:
        """Run until it is time for a turn, everything is drained, or a ring is at fault."""
        loop, run, batch = self.loop, lib.rl_worker_run, self._batch
        if batch is None:
            return int(run(loop))
        process = self._tier.process
        while True:
            reason = run(loop)
            if reason != lib.RL_WORKER_BATCH:
                return int(reason)
            batch.begin()
            try:
                process(batch)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                self.raised = error
                loop.python = lib.RL_PYTHON_FAILED

    def turn(self) -> None:
        """What is due between two runs: the plugin's tick, and what one look at two clocks
        tells about their rates. Raises what the plugin raises."""
        now = time.monotonic()
        if not self._measured and now - self._began[0] > TURN_SECONDS / 4:
            self._set_rate((shm.rl_now() - self._began[1]) / (now - self._began[0]))
            self._measured = True
        if self._tick is not None and now >= self._tick_at:
            self._tick_at = now + TICK_SECONDS
            self._tick(self._worker)

    def tick(self) -> None:
        """The plugin's tick at once, at the end of a life."""
        if self._tick is not None:
            self._tick(self._worker)

    def stop(self) -> None:
        """From now on: finish what is on `in`, return the blanks, then DRAINED."""
        self.loop.stopping = 1

    def complaint(self) -> str | None:
        """The exception of the last batch that failed since the last call, as a sentence."""
        error, self.raised = self.raised, None
        return None if error is None else sentence(error)

    def _set_rate(self, ticks_per_second: float) -> None:
        self.loop.turn_ticks = int(TURN_SECONDS * ticks_per_second)
        self.loop.spin_ticks = int(SPIN_SECONDS * ticks_per_second)
