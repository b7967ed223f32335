"""Opens an engine by its name."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
from collections.abc import Iterator

from ringline.pipeline.analysis.engines import reaching
from ringline.pipeline.configuration import deadlines
from ringline.shm.errors import UsageError

NAMES = ("local", "dask", "ray")


@contextlib.contextmanager
def opened(
    name: str,
    address: str | None = None,
    *,
    workers: int | None = None,
    patience: float | None = None,
) -> Iterator[concurrent.futures.Executor | None]:
    """The engine `name`, for the `executor` of `run`; "local" is None.

    address: of a scheduler or cluster that runs already. None: one is started on this machine, with
        a process for each core, and ended.
    workers: how many processes to start, instead of one for each core.
    patience: for so many seconds there may be no worker, and at first nothing that listens at
        `address`. None: 60 s for a worker, and a few for a refused connection.

    Raises UsageError when the arguments do not fit, EnvironmentLacks when the engine's package is
    missing, when it cannot be reached, or when a worker has another version of ringline or Python.
    """
    if name not in NAMES:
        raise UsageError(f"the engine must be one of {', '.join(NAMES)}, not {name!r}")
    if name == "local":
        if address is not None:
            raise UsageError("an address is that of an engine: name it, with --engine dask or ray")
        yield None
        return
    if address is not None and workers is not None:
        raise UsageError(
            "the number of processes is for those that this machine starts; the engine at "
            f"{address} has its own: leave --workers out"
        )
    if address is not None:
        waits = deadlines.ANALYSIS_REFUSED if patience is None else patience
        reaching.check(name.capitalize(), address, waits)
    if patience is None:
        patience = deadlines.ANALYSIS_WORKERS
    count = workers or len(os.sched_getaffinity(0))
    if name == "dask":
        from ringline.pipeline.analysis.engines import on_dask

        engine: concurrent.futures.Executor = on_dask.opened(address, count, patience)
    else:
        from ringline.pipeline.analysis.engines import on_ray

        engine = on_ray.opened(address, count, patience)
    with engine:
        yield engine
