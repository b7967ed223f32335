"""Dask: a scheduler with workers, on this machine or on many (distributed.dask.org)."""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import signal
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ringline.pipeline.analysis.engines.engine import Engine, line, within
from ringline.pipeline.analysis.engines.folder import EngineFolder
from ringline.pipeline.configuration import deadlines
from ringline.shm.errors import EnvironmentLacks
from ringline.shm.text import printable
from ringline.workers.analysis import remote

if TYPE_CHECKING:
    from distributed import Client

# A terminal sends Ctrl-C to all processes of a command, but it is for the first one.
_LEAVE_CTRL_C = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
# Its scheduler has loaded this when it has a page of progress, which bokeh makes.
_PAGE = '"distributed.dashboard.scheduler" in __import__("sys").modules'
PACKAGE = "the engine dask needs the package distributed: pip install ringline[dask]"


def opened(address: str | None, count: int, patience: float) -> Dask:
    """The scheduler at `address`, or a cluster of `count` processes here. Raises
    EnvironmentLacks."""
    try:
        import distributed  # noqa: F401
    except ImportError as error:
        raise EnvironmentLacks(f"{PACKAGE} ({error})") from None
    if address is None:
        return _started(count, patience)
    try:
        with _quiet():
            client = within(deadlines.ANALYSIS_ENGINE, _client, address)
    except (OSError, ValueError, TypeError, RuntimeError, ImportError) as error:
        raise EnvironmentLacks(
            f"Dask at {printable(address)} cannot be reached: {line(error)}"
        ) from None
    return Dask(client, f"Dask at {printable(address)}", patience, client.close)


def _client(address: str) -> Client:
    import distributed

    _check(address)
    return distributed.Client(address, timeout=deadlines.ANALYSIS_ENGINE, set_as_default=False)


def _check(address: str) -> None:
    """Raise ValueError when it is no address: a client that finds it out needs a minute to end."""
    from distributed.comm import addressing, registry

    scheme, place = addressing.parse_address(address)
    registry.get_backend(scheme)
    if scheme not in ("inproc", "ucx"):
        addressing.parse_host_port(place)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C waits until the end of the block."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _started(count: int, patience: float) -> Dask:
    """A cluster of single-threaded processes on this machine, which only this machine can reach."""
    import dask
    import distributed

    folder = EngineFolder("dask")
    ends = contextlib.ExitStack()
    ends.callback(folder.close)
    try:
        with _quiet(), _uninterrupted(), dask.config.set({"temporary-directory": folder.path}):
            cluster = ends.enter_context(
                distributed.LocalCluster(
                    n_workers=count,
                    threads_per_worker=1,
                    processes=True,
                    host="127.0.0.1",
                    dashboard_address="127.0.0.1:0",
                    local_directory=folder.path,
                    preload=_LEAVE_CTRL_C,
                    silence_logs=logging.CRITICAL,
                )
            )
            client = ends.enter_context(distributed.Client(cluster, set_as_default=False))
        return Dask(client, "Dask on this machine", patience, ends.pop_all().close)
    except (OSError, RuntimeError) as error:
        raise EnvironmentLacks(f"Dask cannot be started here: {line(error)}") from None
    finally:
        ends.close()


def _page(client: Client) -> str:
    """The address of the scheduler's page of progress; "" when it has none, or only one that says
    that bokeh is missing."""
    address = str(client.dashboard_link or "")
    try:
        there = within(deadlines.ANALYSIS_ENGINE, client.run_on_scheduler, eval, _PAGE)
    except Exception:  # of many kinds: a scheduler may refuse functions of its clients
        return ""
    return address if there else ""


class Dask(Engine):
    """Workers of a Dask scheduler.

    close: leaves the scheduler, and ends it if it is ours.
    """

    name = "dask"

    def __init__(
        self, client: Client, where: str, patience: float, close: Callable[[], None]
    ) -> None:
        self.where = where
        self._client = client
        self._leave = close
        self.dashboard = _page(client)
        self._inner = client.get_executor(pure=False)
        super().__init__(patience)

    def _check_versions(self) -> None:
        """Raise EnvironmentLacks when a worker that is there now cannot do our tasks."""
        try:
            answers = within(deadlines.ANALYSIS_ENGINE, self._client.run, eval, remote.PROBE)
        except (OSError, RuntimeError):
            return  # each task checks it again
        for host, found in answers.values():
            if why := remote.differs(remote.versions(), found, host):
                raise EnvironmentLacks(why)

    def end(self, analysis: str) -> None:
        with contextlib.suppress(Exception):  # a worker that is gone has ended it
            within(deadlines.ANALYSIS_ENGINE, lambda: self._client.run(remote.end, analysis))

    def _begin(
        self, function: Callable[..., Any], *arguments: Any, **more: Any
    ) -> tuple[concurrent.futures.Future[Any], Callable[[], object]]:
        with _quiet():  # Dask warns of parts with more than 10 MB
            task = self._inner.submit(function, *arguments, **more)
        return task, task.cancel

    def _error(self, error: BaseException) -> BaseException:
        from distributed import KilledWorker

        if isinstance(error, KilledWorker):
            return concurrent.futures.BrokenExecutor(
                f"{error.allowed_failures + 1} workers died with it"
            )
        return self._lacks(error)

    def _count(self) -> int:
        client = self._client
        seconds = min(deadlines.ANALYSIS_ENGINE, self._patience)
        try:
            if client.status == "running":
                cores = client.sync(client.scheduler.ncores, callback_timeout=seconds)
                return int(sum(cores.values()))
        except Exception:  # of many kinds
            pass
        raise EnvironmentLacks("the scheduler does not answer")

    def _close(self) -> None:
        with _quiet(), contextlib.suppress(OSError, TimeoutError):
            self._inner.shutdown(wait=False)
            self._leave()


@contextlib.contextmanager
def _quiet() -> Any:
    """Without warnings: what is wrong is told as a sentence."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
