"""The configuration of `ringline run` without a file."""

from __future__ import annotations

import os

from ringline.pipeline.configuration import config as c
from ringline.pipeline.configuration.affinity import usable_cpus
from ringline.pipeline.configuration.machine_checks import free_shared_memory, shared_memory


def builtin() -> c.Config:
    """The configuration of `ringline run` without a file.

    A simulated card with synthetic flows at full load, and one queue for each CPU but
    the driver's: at least one, at most QUEUES_MAX, and no more than /dev/shm has room for.
    """
    queues = queues_without_limit()
    room = free_shared_memory()
    while queues > 1 and shared_memory(_builtin(queues)) > room:
        queues -= 1
    return _builtin(queues)


def queues_without_limit() -> int:
    """The queues of `builtin` when /dev/shm is large enough."""
    return min(max(len(usable_cpus()) - 1, 1), c.QUEUES_MAX)


def _builtin(queues: int) -> c.Config:
    wan = c.PortConfig(
        name="wan",
        device="sim:82599",
        queues=queues,
        wire=c.WireConfig(flows=c.FlowsConfig()),
    )
    return c.Config(
        ports=(wan,),
        workers=(c.WorkerConfig(),) * queues,
        metrics=c.MetricsConfig(elsewhere_if_taken=True),
        folder=os.getcwd(),
    )
