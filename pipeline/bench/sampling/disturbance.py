"""What disturbs a run while it is measured: stolen processors, other work on them, and processes
that lose their processor.

The kernel counts all three (proc_stat(5), proc_pid_status(5)). A hypervisor steals a processor
when it runs another guest there. Work of others and lost processors come from this machine.

Guarantees (tests in tests/pipeline/bench/test_disturbance.py):
 - a process that shares a processor with the measured one is noticed
   (test_other_load_is_noticed)
 - the measured processes themselves are no disturbance (test_the_measured_work_is_no_disturbance)
 - each reason names the processor or the process, with its figure (test_each_reason_has_a_figure)
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

STOLEN = 0.01  # share of a processor that the hypervisor may take
OTHERS = 0.04  # share of a processor that other processes may use: four ticks in a second
SWITCHES = 60.0  # a second: a window and the timers of the kernel cost a process up to 30

_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class State:
    """What the kernel had counted at one moment.

    `stolen` and `busy` (without stolen) are seconds of each processor, `own` is CPU seconds of the
    measured processes on them, `switches` is how often each process lost its processor.
    """

    at: float
    stolen: Mapping[int, float]
    busy: Mapping[int, float]
    own: float
    switches: Mapping[str, int]


class Watch:
    """Watches `cpus` and `processes`, whose names are for the messages.

    `helpers` are the ids of processes that belong to the measurement too, but may lose their
    processor; this process is one of them. With `shared`, the measured processes share a
    processor by design, so they may lose it.
    """

    def __init__(
        self,
        cpus: Sequence[int],
        processes: Mapping[str, int] | None = None,
        *,
        helpers: Sequence[int] = (),
        shared: bool = False,
    ) -> None:
        self._cpus = tuple(dict.fromkeys(cpus))
        self._processes = dict(processes or {})
        self._helpers = {os.getpid(), *helpers} - set(self._processes.values())
        self._shared = shared
        self._before: State | None = None

    def start(self) -> None:
        """Begin to watch."""
        self._before = self._state()

    def end(self) -> str:
        """What disturbed the time since `start`; empty if nothing did."""
        assert self._before is not None, "start comes first"
        return reasons(self._before, self._state(), shared=self._shared)

    def _state(self) -> State:
        stolen, busy = processor_seconds(self._cpus)
        everybody = [*self._processes.values(), *self._helpers]
        return State(
            time.monotonic(),
            stolen,
            busy,
            sum(process_seconds(pid) for pid in everybody),
            {name: lost_processor(pid) for name, pid in self._processes.items()},
        )


def reasons(before: State, after: State, *, shared: bool = False) -> str:
    """What disturbed the time between two states, as the end of a sentence; empty if nothing
    did."""
    seconds = max(after.at - before.at, 1e-9)
    found = []
    for cpu, value in after.stolen.items():
        share = (value - before.stolen[cpu]) / seconds
        if share > STOLEN:
            found.append(f"the hypervisor took {share:.0%} of CPU {cpu}")
    used = sum(value - before.busy[cpu] for cpu, value in after.busy.items())
    others = (used - (after.own - before.own)) / seconds
    if others > OTHERS * len(after.busy):
        named = " and ".join(map(str, after.busy))
        share = others / len(after.busy)
        what = f"CPU {named}" if len(after.busy) == 1 else f"CPUs {named}"
        found.append(f"other processes used {share:.0%} of {what}")
    for name, count in after.switches.items():
        often = (count - before.switches[name]) / seconds
        if often > SWITCHES and not shared:
            found.append(f"the {name} lost its CPU {often:.0f} times a second")
    return "; ".join(found)


def processor_seconds(cpus: Sequence[int]) -> tuple[dict[int, float], dict[int, float]]:
    """Of each CPU: seconds that the hypervisor took, and seconds in which something ran on it."""
    stolen: dict[int, float] = {}
    busy: dict[int, float] = {}
    for line in Path("/proc/stat").read_text(encoding="ascii").splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cpus:
            user, nice, system, _, _, irq, softirq, steal = (int(field) for field in fields[:8])
            stolen[int(name[3:])] = steal / _TICK
            busy[int(name[3:])] = (user + nice + system + irq + softirq) / _TICK
    return stolen, busy


def process_seconds(pid: int) -> float:
    """CPU seconds that a process has used, in all its threads; 0 when it has ended."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        user, system = fields.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / _TICK
    return 0.0


def lost_processor(pid: int) -> int:
    """How often the kernel took the processor from a thread of a process that wanted to go on; 0
    when it has ended."""
    count = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        with contextlib.suppress(OSError):
            for line in status.read_text(encoding="utf-8", errors="replace").splitlines():
                if line.startswith("nonvoluntary_ctxt_switches:"):
                    count += int(line.split()[1])
    return count
