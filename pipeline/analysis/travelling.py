"""Makes tasks ready to travel, so that an executor may run them in any process, on any machine.

`workers/analysis/remote.py` is what a task finds there.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import os
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from ringline.pipeline.analysis.engines.engine import Engine
from ringline.shm.errors import PluginError, RinglineError
from ringline.workers.analysis import children, remote


class Travelling(concurrent.futures.Executor):
    """Gives the tasks of one analysis to `executor`, each with all that it needs.

    of: the plugin, as for `children.do`. It is loaded here once, to find out what must travel.
    revived: makes an error of the plugin's child an exception, which is raised.
    """

    def __init__(
        self,
        executor: concurrent.futures.Executor,
        of: Mapping[str, Any],
        silence: float,
        revived: Callable[[Mapping[str, Any]], RinglineError],
    ) -> None:
        self._executor = executor
        self._numbers = itertools.count()
        answer, files = children.do(of, {"do": "prepare", "parcel": True}, silence=silence)
        if "error" in answer:
            children.close()
            raise revived(answer["error"])
        if "died" in answer:
            raise PluginError(f"plugin {of['plugin']} {answer['died']}")
        self._envelope = {
            "versions": remote.versions(),
            "analysis": uuid.uuid4().hex,
            "plugin": dict(of),
            "cwd": os.getcwd(),
            "fingerprint": answer["fingerprint"],
            "version": answer["version"],
            "root": answer.get("root", ""),
            "entry": answer.get("entry", ""),
            "files": files,
        }

    def submit(
        self, function: Callable[..., Any], /, *arguments: Any, **more: Any
    ) -> concurrent.futures.Future[Any]:
        """Submit a task of an analysis; `function` does it here, and `remote.do` does it there."""
        _, job, *rest = arguments
        # Dask takes tasks that are equal for one, and gives the answer of the first again.
        job = {**job, "number": next(self._numbers)}
        return self._executor.submit(remote.do, self._envelope, job, *rest, **more)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End what runs for the analysis, wherever it is; the executor stays."""
        if isinstance(self._executor, Engine):
            self._executor.end(self._envelope["analysis"])
        else:
            remote.end(self._envelope["analysis"])  # an executor of threads
