"""The plugin of test_drop_reasons.py in Python: the frame's first byte selects the verdict."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ringline.workers.api import packet_function


class State(NamedTuple):
    acl: int
    ttl: int


def setup(worker: Any) -> State:
    return State(worker.drop_reason("acl"), worker.drop_reason("ttl"))


@packet_function(setup=setup)
def compiled(frame: Any, meta: Any, state: Any) -> int:
    if frame[0] == 1:
        return state.acl
    if frame[0] == 2:
        return state.ttl
    return frame[0] if frame[0] else meta.port


class Packets:
    def setup(self, worker: Any) -> None:
        self.state = setup(worker)

    def process(self, batch: Any) -> None:
        for packet in batch:
            first = packet.data[0]
            named = {0: packet.port, 1: self.state.acl, 2: self.state.ttl}
            packet.verdict = named.get(first, first)


class Columns:
    def setup(self, worker: Any) -> None:
        self.state = setup(worker)

    def process(self, batch: Any) -> None:
        first = batch.gather(0, "u1")
        named = np.array([0, self.state.acl, self.state.ttl])
        batch.verdicts[:] = np.where(first < 3, named[np.minimum(first, 2)], first)


class Late:
    """Names a reason when packets are there already."""

    def process(self, batch: Any) -> None:
        self.worker.drop_reason("late")

    def setup(self, worker: Any) -> None:
        self.worker = worker
