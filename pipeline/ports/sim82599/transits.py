"""How long frames were under way, as the wire of a simulated card measures it.

A frame arrives when it is due on an open-loop wire, even if the card or the driver is late: so a
delay counts for all frames that it held up. It leaves when the card takes its packet from a
transmit descriptor.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from typing import Any

from ringline.pipeline._pipeline import ffi, lib

BUCKETS: int = lib.RL_SIM_TRANSIT_BUCKETS


class Transits:
    """Counts of frames by the time that they were under way.

    `memory` is cdata `struct rl_sim_transits *`, to which the model adds.
    """

    def __init__(self) -> None:
        self.memory: Any = ffi.new("struct rl_sim_transits *")

    def counts(self) -> array[int]:
        """The frames in each of BUCKETS buckets since the measurement began; a copy that takes
        some microseconds."""
        return array("Q", bytes(ffi.buffer(self.memory)))


def quantile(counts: Sequence[float], share: float) -> float:
    """The time in nanoseconds within which `share` of the frames in `counts`, one count for each
    bucket, were under way: the middle of its bucket, so at most 2 % off from 32 ns on.

    Raises ValueError when there are no frames.
    """
    wanted = math.ceil(sum(counts) * share)
    if wanted == 0:
        raise ValueError("no frame has arrived and left")
    seen = 0.0
    for bucket, count in enumerate(counts):
        seen += count
        if seen >= wanted:
            return _middle(bucket)
    raise AssertionError("a share is at most 1")


def _middle(bucket: int) -> float:
    begin: int = lib.rl_sim_transit_begin(bucket)
    end: int = lib.rl_sim_transit_begin(bucket + 1)
    return (begin + end) / 2
