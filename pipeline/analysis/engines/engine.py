"""What engines have in common."""

from __future__ import annotations

import abc
import concurrent.futures
import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

from ringline.shm.errors import EnvironmentLacks, RinglineError
from ringline.shm.text import printable

_LOOK = 0.5  # between two looks at the workers


def within(seconds: float, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of an engine that may never return. Raises TimeoutError after `seconds`; then
    a thread goes on that does not keep this process alive."""
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def call() -> None:
        try:
            future.set_result(function(*arguments))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=call, name="engine", daemon=True).start()
    try:
        return future.result(seconds)
    except TimeoutError:
        if future.done():
            raise
        raise TimeoutError(f"there was no answer for {seconds:g} s") from None


def line(error: BaseException) -> str:
    """The text of an engine's error, as one line."""
    return printable(" ".join(str(error).split()) or type(error).__name__)[:500]


class Engine(concurrent.futures.Executor, abc.ABC):
    """An executor whose workers are processes of another program.

    patience: after so many seconds without any worker all tasks fail with EnvironmentLacks.

    Raises EnvironmentLacks when a worker that is there now cannot do our tasks; a class calls this
    constructor last.

    A task whose worker was lost more often than the engine accepts fails with BrokenExecutor.
    Every future can be cancelled at any time.
    """

    name: str  # of the engine, as in the option --engine
    where: str  # which engine it is, for sentences
    dashboard = ""  # the address of the engine's page for people

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._slots = 0  # when it was asked last
        self._waiting: set[concurrent.futures.Future[Any]] = set()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._watch = threading.Thread(target=self._look, name="engine", daemon=True)
        self._watch.start()
        try:
            self._check_versions()
        except BaseException:
            self.shutdown()
            raise

    @abc.abstractmethod
    def _check_versions(self) -> None:
        """Raise EnvironmentLacks when a worker that is there now cannot do our tasks."""

    @property
    def slots(self) -> int:
        """How many tasks it runs at a time now; at least 1. While tasks wait, it is what the last
        look at the workers found."""
        with self._lock:
            is_watched = bool(self._waiting)
        if not is_watched:
            self._gone()
        return max(1, self._slots)

    @abc.abstractmethod
    def _count(self) -> int:
        """How many tasks its workers run at a time now; 0: there is no worker. Raises
        EnvironmentLacks when it does not answer."""

    @abc.abstractmethod
    def end(self, analysis: str) -> None:
        """End what its workers do for an analysis, and the children that they keep."""

    @abc.abstractmethod
    def _begin(
        self, function: Callable[..., Any], *arguments: Any, **more: Any
    ) -> tuple[concurrent.futures.Future[Any], Callable[[], object]]:
        """Begin a task: its future, and what cancels it."""

    @abc.abstractmethod
    def _error(self, error: BaseException) -> BaseException:
        """The error of a task as the caller should see it."""

    @abc.abstractmethod
    def _close(self) -> None:
        """Leave the engine, and end what we started of it."""

    def submit(
        self, function: Callable[..., Any], /, *arguments: Any, **more: Any
    ) -> concurrent.futures.Future[Any]:
        """Submit a function that its workers can import. Raises RuntimeError after `shutdown`."""
        if self._closed.is_set():
            raise RuntimeError("the engine was shut down")
        outer: concurrent.futures.Future[Any] = concurrent.futures.Future()
        with self._lock:
            self._waiting.add(outer)
        inner, cancel = self._begin(function, *arguments, **more)

        def forget(_: Any) -> None:
            with self._lock:
                self._waiting.discard(outer)
            if outer.cancelled():
                cancel()
                outer.set_running_or_notify_cancel()  # who waits for it learns it now

        outer.add_done_callback(forget)
        inner.add_done_callback(lambda _: self._settle(outer, inner))
        return outer

    def _lacks(self, error: BaseException) -> BaseException:
        """The error of a task that the engine could not do, as a sentence. One of ringline is one
        already."""
        if isinstance(error, RinglineError) or not isinstance(error, Exception):
            return error
        return EnvironmentLacks(
            f"{self.where}: a worker cannot do a task: {type(error).__name__}: {line(error)}"
        )

    def _settle(
        self, outer: concurrent.futures.Future[Any], inner: concurrent.futures.Future[Any]
    ) -> None:
        """A task has ended: tell who asked."""
        try:
            if inner.cancelled():
                gone = self._gone() or "it cancelled a task"
                outer.set_exception(EnvironmentLacks(f"{self.where}: {gone}"))
            elif (error := inner.exception()) is not None:
                outer.set_exception(self._error(error))
            else:
                outer.set_result(inner.result())
        except concurrent.futures.InvalidStateError:
            pass  # it was cancelled, or given up

    def _gone(self) -> str:
        """Why the engine can do no task at all, as a sentence; "" while it can."""
        try:
            self._slots = self._count()
        except EnvironmentLacks as error:
            return str(error)
        return "" if self._slots else "there is no worker"

    def _look(self) -> None:
        """Give up what waits when there has been no worker for too long."""
        since = time.monotonic()
        while not self._closed.wait(_LOOK):
            with self._lock:
                waiting = list(self._waiting)
            why = self._gone() if waiting else ""
            if not why:
                since = time.monotonic()
            elif time.monotonic() - since > self._patience:
                for future in waiting:
                    if not future.done():
                        lacks = EnvironmentLacks(
                            f"{self.where}: {why}, for {self._patience:g} s: look at its log, and "
                            "start it again"
                        )
                        with contextlib.suppress(concurrent.futures.InvalidStateError):
                            future.set_exception(lacks)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the engine; it may be called again. Tasks that have not ended are cancelled."""
        if self._closed.is_set():
            return
        self._closed.set()
        with self._lock:
            waiting = list(self._waiting)
        for future in waiting:
            future.cancel()
        self._watch.join()
        self._close()
