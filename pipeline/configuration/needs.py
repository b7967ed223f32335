"""What a run needs of packet memory: buffers, and blanks for plugins that create packets."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ringline.pipeline.configuration import config as c
from ringline.shm import frames

BATCHES = 4  # whole ones of broadcasts, for which a switch has blanks
UNSET = -1  # the blanks of a worker for which the configuration says none


def usual_blanks(plugin: str, ports: int) -> int:
    """The blanks of a worker for which the configuration says none. Of other plugins than bundled
    ones it is not known whether they create packets.

    `switch` floods a frame to each port but one, and the frame itself is one of the copies. A
    worker may run some batches before the driver gives it new blanks.
    """
    if plugin == "switch":
        return min(BATCHES * c.BATCH_MAX * max(ports - 2, 0), c.BLANKS_MAX)
    return c.BATCH_MAX if plugin == "router" else 0


def with_blanks(workers: Sequence[c.WorkerConfig], ports: int) -> tuple[c.WorkerConfig, ...]:
    """The workers with `usual_blanks` in place of UNSET."""
    return tuple(
        dataclasses.replace(worker, blanks=usual_blanks(worker.plugin, ports))
        if worker.blanks == UNSET
        else worker
        for worker in workers
    )


def too_few_buffers(found: c.Config) -> list[str]:
    """A problem when `memory.buffers` is below `needed_buffers`; else an empty list."""
    needed = found.needed_buffers()
    total = sum(number for _, number in needed)
    if found.memory.buffers is None or found.memory.buffers >= total:
        return []
    parts = " + ".join(f"{number} ({what})" for what, number in needed)
    return [
        f"memory.buffers: {found.memory.buffers} are too few: {parts} = {total}; "
        f'write at least {total}, or "auto"'
    ]


def jumbo_zero_copy(ports: Sequence[c.PortConfig]) -> list[str]:
    """A problem when some port has zero-copy and some port has jumbo frames."""
    longest = max((port.frame_max for port in ports), default=0)
    zero_copy = [port.name for port in ports if port.dma_mode == "pieces"]
    if not zero_copy or frames.units_for(longest) == 1:
        return []
    return [
        f"port.{zero_copy[0]}.mode: zero-copy needs buffers that lie in one page, and those "
        f'for jumbo frames (mtu) are longer; write mode = "copy", or mtu = {frames.MTU}'
    ]
