"""How many tasks an executor runs at a time, which may change while an analysis runs."""

from __future__ import annotations

import concurrent.futures
import os
import time

from ringline.shm.errors import UsageError

_ASK = 1.0  # between two questions


class Slots:
    """The slots of an executor.

    executor: it may tell them as `slots`; None: processes of this machine, one for each core.
    given: how many the caller says there are, whatever the executor says. Raises UsageError when
        that is none.
    """

    def __init__(self, executor: concurrent.futures.Executor | None, given: int | None) -> None:
        if given is not None and given < 1:
            raise UsageError(f"workers = {given}: an analysis needs at least one worker")
        self._executor = executor
        self._given = given
        self._asked = float("-inf")
        self._count = 0

    def now(self) -> int:
        """Their number; it is at most one second old."""
        if self._given:
            return self._given
        if time.monotonic() - self._asked > _ASK:
            self._count = getattr(self._executor, "slots", 0) or len(os.sched_getaffinity(0))
            self._asked = time.monotonic()
        return self._count
