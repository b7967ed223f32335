"""Which process runs on which CPU. Pure, but for the two functions that ask the kernel.

Packet loops spin while there is work, so each wants a CPU of its own. Where two
must share one, both give it away whenever they would wait: 47 million packets a
second were moved on one core that way, 0.26 when one side spins on a full ring.
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
    """Where a process runs. `cpu` None: wherever the kernel likes. `shared`: it must yield."""

    cpu: int | None
    shared: bool


def place(wishes: Mapping[str, int | None], cpus: Sequence[int]) -> dict[str, Place]:
    """A place for every process of `wishes`, which names them in order of importance.

    A wish is a CPU or None for "any". `cpus` are those that may be used, the best
    first. Those without a wish get the CPU with the fewest others on it. With
    one CPU nobody is pinned: there is nothing to keep apart.

    Raises EnvironmentLacks when a wish names a CPU that is not in `cpus`.
    """
    for name, cpu in wishes.items():
        if cpu is not None and cpu not in cpus:
            usable = ", ".join(str(cpu) for cpu in sorted(cpus))
            raise EnvironmentLacks(
                f"{name} is to run on CPU {cpu}, but this process may use only CPU {usable}; "
                "change cpu in the configuration or the affinity of this service"
            )
    if len(cpus) == 1:
        only = None if all(cpu is None for cpu in wishes.values()) else cpus[0]
        return {name: Place(only, shared=len(wishes) > 1) for name in wishes}
    load = Counter(cpu for cpu in wishes.values() if cpu is not None)
    chosen: dict[str, int] = {}
    for name, wish in wishes.items():
        if wish is None:
            cpu = min(cpus, key=lambda cpu: load[cpu])
            load[cpu] += 1
        else:
            cpu = wish
        chosen[name] = cpu
    return {name: Place(cpu, shared=load[cpu] > 1) for name, cpu in chosen.items()}


def usable_cpus() -> list[int]:
    """The CPUs this process may use; whole cores first, then their second threads."""
    mine = sorted(os.sched_getaffinity(0))
    return sorted(mine, key=lambda cpu: (_thread_of(cpu), cpu))


def _thread_of(cpu: int) -> int:
    """Which thread of its core a CPU is: 0 for the first."""
    try:
        text = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
    except OSError:
        return 0
    siblings: list[int] = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        siblings += range(int(first), int(last or first) + 1)
    return siblings.index(cpu) if cpu in siblings else 0
