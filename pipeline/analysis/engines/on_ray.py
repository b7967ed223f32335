"""Ray: a cluster of processes, on this machine or on many (docs.ray.io)."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from ringline.pipeline.analysis.engines.engine import Engine, line, within
from ringline.pipeline.analysis.engines.folder import EngineFolder
from ringline.pipeline.configuration import deadlines
from ringline.shm.errors import EnvironmentLacks, UsageError
from ringline.shm.text import printable
from ringline.workers.analysis import remote

PACKAGE = "the engine ray needs the package ray: pip install ringline[ray]"
RETRIES = 3  # of a task whose worker is lost, as many as Dask has
_PATH_MAX = 40  # bytes of the folder: Ray puts sockets with long names into it

# Ray tries to reach a cluster for minutes, and may end the process then: another one tries first.
_TRY = """
import json, sys
try:
    import ray
    ray.init(address=sys.argv[1], logging_level=50, log_to_driver=False)
    said = ""
except BaseException as error:
    said = " ".join(str(error).split()) or type(error).__name__
print(json.dumps(said), flush=True)
"""


def opened(address: str | None, count: int, patience: float) -> Ray:
    """The cluster at `address`, or one of `count` processes here; the one that this process is in
    already, if it is in one. Raises EnvironmentLacks."""
    try:
        import ray
    except ImportError as error:
        raise EnvironmentLacks(f"{PACKAGE} ({error})") from None
    if address is None and not ray.is_initialized():
        return _started(ray, count, patience)
    where = f"Ray at {printable(address)}" if address else "Ray, in which this process is"
    if address is None:
        return Ray(ray, where, patience, lambda: None)
    if ray.is_initialized():
        raise UsageError("this process is in a Ray cluster already: leave the address out")
    _try(address)
    _init(ray, address=address)
    return Ray(ray, where, patience, ray.shutdown)


def _try(address: str) -> None:
    """Find out in another process whether the cluster can be used. Raises EnvironmentLacks."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _TRY, address],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=deadlines.ANALYSIS_ENGINE,
            check=False,
        )
        said = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        said = f"there was no answer for {deadlines.ANALYSIS_ENGINE:g} s"
    except (IndexError, ValueError):
        said = "Ray's client ended without a word"
    if said:
        raise EnvironmentLacks(f"Ray at {printable(address)} cannot be reached: {said[:500]}")


def _init(ray: Any, **given: Any) -> None:
    """Connect, or start a cluster; Ray replaces the handler of SIGTERM."""
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM) if is_main else None
    try:
        ray.init(logging_level=logging.CRITICAL, log_to_driver=False, **given)
    except (OSError, RuntimeError, ValueError) as error:
        raise EnvironmentLacks(f"Ray cannot be used: {line(error)}") from None
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _started(ray: Any, count: int, patience: float) -> Ray:
    """A cluster on this machine."""
    folder = EngineFolder("ray", _PATH_MAX)

    def close() -> None:
        ray.shutdown()
        folder.close()

    try:
        with _environment(RAY_USAGE_STATS_ENABLED="0"):
            _init(
                ray,
                address="local",
                num_cpus=count,
                include_dashboard=False,
                _temp_dir=folder.path,
                _node_ip_address="127.0.0.1",
            )
        return Ray(ray, "Ray on this machine", patience, close)
    except BaseException:
        close()
        raise


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    """With these environment variables, unless the user has set them."""
    new = [name for name in values if name not in os.environ]
    os.environ.update({name: values[name] for name in new})
    try:
        yield
    finally:
        for name in new:
            del os.environ[name]


def _call(function: Callable[..., Any], arguments: tuple[Any, ...], more: dict[str, Any]) -> Any:
    """What a worker of Ray runs."""
    return function(*arguments, **more)


class Ray(Engine):
    """Workers of a Ray cluster.

    close: leaves the cluster, and ends it if it is ours.
    """

    name = "ray"

    def __init__(self, ray: Any, where: str, patience: float, close: Callable[[], None]) -> None:
        self.where = where
        self._ray = ray
        self._leave = close
        self._task = ray.remote(num_cpus=1, max_retries=RETRIES)(_call)
        super().__init__(patience)

    def _nodes(self) -> list[dict[str, Any]]:
        return [
            node for node in self._ray.nodes() if node["Alive"] and node["Resources"].get("CPU")
        ]

    def _check_versions(self) -> None:
        """Raise EnvironmentLacks when a machine that is there now cannot do our tasks."""
        from ray.exceptions import GetTimeoutError, RayError
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        # No function of ringline, which the worker may lack, and no builtin, which Ray refuses.
        probe = self._ray.remote(num_cpus=0, max_retries=RETRIES)(lambda text: eval(text))  # noqa: PLW0108
        asked = [
            probe.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=True)
            ).remote(remote.PROBE)
            for node in self._nodes()
        ]
        try:
            answers = self._ray.get(asked, timeout=deadlines.ANALYSIS_ENGINE)
        except (GetTimeoutError, RayError):
            return  # each task checks it again
        for host, found in answers:
            if why := remote.differs(remote.versions(), found, host):
                raise EnvironmentLacks(why)

    def end(self, analysis: str) -> None:
        """A task that is cancelled takes its worker along, and a worker its children; others end
        their children when they have been idle for a while."""

    def _begin(
        self, function: Callable[..., Any], *arguments: Any, **more: Any
    ) -> tuple[concurrent.futures.Future[Any], Callable[[], object]]:
        task = self._task.remote(function, arguments, more)

        def cancel() -> None:
            with contextlib.suppress(Exception):  # the cluster may be gone
                self._ray.cancel(task, force=True)

        return task.future(), cancel

    def _error(self, error: BaseException) -> BaseException:
        from ray import exceptions

        lost = (
            *(exceptions.WorkerCrashedError, exceptions.NodeDiedError),
            *(exceptions.ObjectLostError, exceptions.OutOfMemoryError),
        )
        if isinstance(error, lost):
            return concurrent.futures.BrokenExecutor(type(error).__name__)
        if isinstance(error, exceptions.RayTaskError):
            error = error.cause
        return self._lacks(error)

    def _count(self) -> int:
        try:
            nodes = within(deadlines.ANALYSIS_ENGINE, self._nodes)
        except Exception as error:
            raise EnvironmentLacks(f"the cluster does not answer ({line(error)})") from None
        return sum(int(node["Resources"]["CPU"]) for node in nodes)

    def _close(self) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            self._leave()
