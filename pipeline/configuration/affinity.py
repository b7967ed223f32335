"""Which process runs on which CPU.

Packet loops spin while there is work, so each needs a CPU of its own. Two that share
a CPU both yield it instead of waiting: one core moved 47 million packets per second
that way, and 0.26 million when one side spun on a full ring.

`place` is a pure function; `usable_cpus` reads the state of the kernel.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ringline.shm.errors import EnvironmentLacks


@dataclass(frozen=True)
class Place:
    """Where a process runs. `cpu` None means not pinned; `shared` means that it must yield."""

    cpu: int | None
    shared: bool


def place(wanted: Mapping[str, int | None], cpus: Sequence[int]) -> dict[str, Place]:
    """A place for each process in `wanted`, which lists the most important first.

    `wanted` has the configured CPU of each process, or None for any. `cpus` are the usable
    CPUs, the best first. A process that may use any gets the CPU with the fewest processes
    so far. If only one CPU is usable and none is configured, no process is pinned.

    Raises EnvironmentLacks when a configured CPU is not in `cpus`.
    """
    for name, cpu in wanted.items():
        if cpu is not None and cpu not in cpus:
            usable = ", ".join(str(cpu) for cpu in sorted(cpus))
            raise EnvironmentLacks(
                f"{name} is to run on CPU {cpu}, but this process may use only CPU {usable}; "
                "change cpu in the configuration or the affinity of this service"
            )
    if len(cpus) == 1:
        only = None if all(cpu is None for cpu in wanted.values()) else cpus[0]
        return {name: Place(only, shared=len(wanted) > 1) for name in wanted}
    load = Counter(cpu for cpu in wanted.values() if cpu is not None)
    chosen: dict[str, int] = {}
    for name, configured in wanted.items():
        if configured is None:
            cpu = min(cpus, key=lambda cpu: load[cpu])
            load[cpu] += 1
        else:
            cpu = configured
        chosen[name] = cpu
    return {name: Place(cpu, shared=load[cpu] > 1) for name, cpu in chosen.items()}


def usable_cpus() -> list[int]:
    """The CPUs that this process may use: the first thread of each core, then the others."""
    mine = sorted(os.sched_getaffinity(0))
    return sorted(mine, key=lambda cpu: (_thread_of(cpu), cpu))


def _thread_of(cpu: int) -> int:
    """The index of a CPU among the threads of its core; 0 if unknown."""
    try:
        text = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
    except OSError:
        return 0
    siblings: list[int] = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        siblings += range(int(first), int(last or first) + 1)
    return siblings.index(cpu) if cpu in siblings else 0
