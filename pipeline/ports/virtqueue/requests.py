"""Requests to a device on a virtqueue, one at a time, each with an answer of one byte."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ringline.pipeline._pipeline import ffi, lib

DESCRIPTORS = 64  # a request needs two
_REQUEST, _ANSWER = 0, 1  # descriptors
_BYTES = 4096  # of a request, at most
_NONE = 0xFF  # in place of an answer, until the device has written one
PLACE_BYTES = _BYTES + 64


class RequestQueue:
    """`ring` is the queue, cdata `struct rl_virtq *`; requests lie in `memory`, cdata `uint8_t *`
    of PLACE_BYTES bytes, which the device sees at `bus`. `notify` rings the doorbell."""

    def __init__(self, ring: Any, memory: Any, bus: int, notify: Callable[[], None]) -> None:
        self._ring, self._memory, self._notify = ring, memory, notify
        ring.descriptors[_REQUEST] = (bus, 0, lib.RL_VIRTQ_NEXT, _ANSWER)
        ring.descriptors[_ANSWER] = (bus + _BYTES, 1, lib.RL_VIRTQ_WRITE, 0)
        self._element = ffi.new("struct rl_virtq_element *")

    def ask(self, request: bytes, seconds: float, relax: Callable[[], None]) -> int | None:
        """The answer to a request, 0xFF from a device that returns it without one; None when it has
        not come back after `seconds`. Then the device must be reset. `relax` waits a moment."""
        ffi.memmove(self._memory, request, len(request))
        self._memory[_BYTES] = _NONE
        self._ring.descriptors[_REQUEST].length = len(request)
        if lib.rl_virtq_give(self._ring, _REQUEST):
            self._notify()
        until = time.monotonic() + seconds
        while not lib.rl_virtq_get(self._ring, self._element):
            if time.monotonic() >= until:
                return None
            relax()
        return int(self._memory[_BYTES])
