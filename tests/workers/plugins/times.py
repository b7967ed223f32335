"""Plugins that read when their packets came: odd times are sent back, even ones are dropped."""

from __future__ import annotations

import numba
from numba.extending import overload

from ringline.workers.api import DROP, packet_function


@packet_function
def compiled(frame, meta):
    return meta.port if meta.time % 2 else DROP


@numba.njit
def _is_odd(meta):
    return meta.time % 2


@packet_function
def by_helper(frame, meta):
    return meta.port if _is_odd(meta) else DROP


def _hidden(meta):
    raise NotImplementedError


@overload(_hidden)
def _hidden_compiled(meta):
    return lambda meta: meta.time % 2


@packet_function
def by_overload(frame, meta):
    return meta.port if _hidden(meta) else DROP


@packet_function
def without(frame, meta):
    time = meta.length  # a local variable of this name is no packet time
    return meta.port if time else DROP


class Packets:
    times = True

    def process(self, batch):
        for packet in batch:
            packet.verdict = packet.port if packet.time % 2 else DROP


class Columns:
    times = True

    def process(self, batch):
        odd = batch.times % 2 == 1
        batch.verdicts[odd] = batch.ports[odd]


class Forgot:
    def process(self, batch):
        for packet in batch:
            packet.verdict = packet.time % 2


class ForgotColumns:
    def process(self, batch):
        batch.verdicts[:] = batch.times


class Wrong:
    times = 1

    def process(self, batch):
        pass


class Ticks:
    """Exports when it was ticked, and when its last packet before that came."""

    times = True

    def setup(self, worker):
        self.at_setup = worker.time
        self.rows = []
        self.last = 0
        self.table = worker.table("ticks", "number", ["time", "last"], 20)

    def process(self, batch):
        self.last = int(batch.times[-1])
        batch.verdicts[:] = batch.ports

    def tick(self, worker):
        assert self.at_setup == 0
        self.rows.append((str(len(self.rows)), [worker.time, self.last]))
        self.table.write(self.rows)


class TicksAlone(Ticks):
    """The same, but it reads no times of packets."""

    times = False

    def process(self, batch):
        batch.verdicts[:] = batch.ports


class Writes:
    times = True

    def process(self, batch):
        batch.times[:] = 5
