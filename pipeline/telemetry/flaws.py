"""What is wrong with a run, from a Snapshot: now (`health`), or after its end (`flaws`).

"All well" has one meaning for the summary, the report and `--strict`: there is no flaw. A packet
that the plugin drops by its verdict is no flaw.
"""

from __future__ import annotations

from collections import Counter

from ringline.pipeline.telemetry.snapshot import Snapshot
from ringline.shm.text import counted

ALL_WELL = "all well"
STARTING, RUNNING = ("starting", "opening", "beginning"), "running"  # (supervisor/run_states.py)
ENDED = "ended"
GIVEN_UP = "given up"  # the state of a worker (supervisor/worker_states.py)


def given_up(snapshot: Snapshot) -> list[int]:
    """The queues that were given up."""
    return [worker.queue for worker in snapshot.workers if worker.state == GIVEN_UP]


def health(snapshot: Snapshot) -> str | None:
    """Why not all queues are served now, as a few words; None if they are."""
    if snapshot.state in STARTING:
        return "starting"
    if snapshot.state != RUNNING:
        return f"stopping ({snapshot.state})"
    if queues := given_up(snapshot):
        return f"given up: queue {', '.join(map(str, queues))}"
    waiting = [f"{worker.queue} ({worker.state})" for worker in snapshot.workers if not worker.up]
    return f"not served: queue {', '.join(waiting)}" if waiting else None


def flaws(snapshot: Snapshot) -> list[str]:
    """Everything that went wrong, as parts of a sentence; empty if all is well."""
    found = []
    if snapshot.state == ENDED and (idle := sum(not worker.served for worker in snapshot.workers)):
        found.append(f"ended before {counted(idle, 'worker')} had started")
    if queues := given_up(snapshot):
        found.append(f"{counted(len(queues), 'queue')} given up")
    if restarts := sum(worker.restarts for worker in snapshot.workers):
        found.append(counted(restarts, "restart"))
    errors: Counter[str] = Counter()
    for worker in snapshot.workers:
        errors.update(worker.errors)
    found += [counted(number, f"{kind} error") for kind, number in errors.items() if number]
    if lost := snapshot.lost:
        found.append(f"{counted(lost, 'packet')} lost")
    if faults := sum(len(port.faults) for port in snapshot.ports):
        found.append(counted(faults, "fault"))
    return found


def how_it_ended(snapshot: Snapshot) -> str:
    """`all well`, or the flaws as one sentence."""
    return ", ".join(flaws(snapshot)) or ALL_WELL
