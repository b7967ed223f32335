"""Plugins that sum the bytes of all packets as they came, and change them: `write` within a frame,
the others behind its end, where another packet may be."""

from __future__ import annotations

from typing import NamedTuple

import numba
from numba.extending import overload

from ringline.workers.api import Counter, Worker, packet_function
from ringline.workers.api import resize as longer

GROWTH = 64


class State(NamedTuple):
    total: Counter


def _setup(worker: Worker) -> State:
    return State(worker.counter("total"))


@packet_function(setup=_setup)
def write(frame, meta, state):
    for at in range(len(frame)):
        state.total[0] += frame[at]
        frame[at] = 255
    return 0


@packet_function(setup=_setup)
def grow(frame, meta, state):
    for at in range(len(frame)):
        state.total[0] += frame[at]
    longer(meta, 0, GROWTH)[:] = 255
    return 0


@numba.njit
def _grow(meta):
    longer(meta, 0, GROWTH)[:] = 255


@packet_function(setup=_setup)
def by_helper(frame, meta, state):
    for at in range(len(frame)):
        state.total[0] += frame[at]
    _grow(meta)
    return 0


def _hidden(meta):
    raise NotImplementedError


@overload(_hidden)
def _hidden_compiled(meta):
    def fill(meta):
        longer(meta, 0, GROWTH)[:] = 255

    return fill


@packet_function(setup=_setup)
def by_overload(frame, meta, state):
    for at in range(len(frame)):
        state.total[0] += frame[at]
    _hidden(meta)
    return 0
