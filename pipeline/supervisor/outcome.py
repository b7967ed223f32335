"""How a run ended, and the errors that the supervisor itself finds at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ringline.pipeline.configuration.config import PortConfig
from ringline.pipeline.supervisor.run_states import Stage, Timeouts
from ringline.pipeline.telemetry.flaws import given_up
from ringline.pipeline.telemetry.snapshot import Snapshot
from ringline.shm.errors import BooksError, GaveUp, HardwareError, RinglineError


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `error` is None after success.

    `snapshot` was taken when the books were closed; None if the run ended before. `reports`
    holds the last report of each worker that sent one, by queue.
    """

    error: RinglineError | None
    snapshot: Snapshot | None = None
    reports: dict[int, dict[str, Any]] = field(default_factory=dict)


def timeout_error(
    stage: Stage, timeouts: Timeouts, ports: Sequence[PortConfig], *, driver_started: bool
) -> HardwareError | None:
    """The error when a stage did not end in time; None if that is no error."""
    if stage is Stage.OPENING and not driver_started:
        return HardwareError(f"the simulated cards were not ready within {timeouts.open:g} s")
    if stage in (Stage.OPENING, Stage.BEGINNING):
        names = ", ".join(f"{port.name} ({port.device})" for port in ports)
        return HardwareError(
            f"the driver did not open its ports within {timeouts.open:g} s: {names}"
        )
    if stage is Stage.CLOSING:
        return HardwareError(f"the driver did not stop its ports within {timeouts.close:g} s")
    return None


def books_error(final: Snapshot) -> BooksError | None:
    """The error when the books of the last snapshot do not balance; None if they do."""
    if final.balanced:
        return None
    wrong = ", ".join(f"{name} is off by {off}" for name, off in final.balance.items() if off)
    return BooksError(f"the books do not balance: {wrong}")


def given_up_error(final: Snapshot) -> GaveUp | None:
    """The error when a queue was given up at any time of the run; None if none was."""
    queues = given_up(final)
    if not queues:
        return None
    names = ", ".join(map(str, queues))
    what = f"queue {names} was" if len(queues) == 1 else f"queues {names} were"
    return GaveUp(f"{what} given up, since the worker ended too often; see above")
