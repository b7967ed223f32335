"""What a run shows to the outside: metrics, the status socket, the display, and the service
manager.

Guarantees (tests in tests/pipeline/supervisor/test_supervisor.py):
 - a display that cannot be written to any more does not end the run
   (test_a_display_that_is_closed_ends_nothing)
 - services that the caller passes in are served and left open
   (test_services_of_the_caller_are_served_and_left_open)
 - what fails while it shows the run is told once and counted, and does not end the run
   (tests/pipeline/supervisor/test_publisher.py: test_a_display_that_fails_ends_nothing,
   test_metrics_that_fail_end_nothing, test_a_service_that_fails_ends_nothing)
"""

from __future__ import annotations

import os
import stat
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ringline.pipeline.configuration.config import Config
from ringline.pipeline.supervisor.event_loop import Loop, Service
from ringline.pipeline.supervisor.sd_notify import Notifier
from ringline.pipeline.telemetry import metrics_http, observe
from ringline.pipeline.telemetry.observe import Sources
from ringline.pipeline.telemetry.snapshot import Snapshot
from ringline.pipeline.telemetry.status_socket import StatusServer
from ringline.shm.errors import Bug
from ringline.shm.text import counted

DISPLAY_EVERY = 1.0  # seconds

ShowSnapshot = Callable[[Snapshot], None]


class Publisher:
    """Publishes snapshots of `sources`.

    `display` gets one every second. `services` are served in the loop; closing them is left
    to the caller. `reader_gone` is called when the program that read the display from a pipe
    has closed it. `announce` tells the operator a sentence.
    """

    def __init__(
        self,
        loop: Loop,
        sources: Sources,
        notifier: Notifier,
        display: ShowSnapshot | None,
        services: Sequence[Service],
        reader_gone: Callable[[], None],
        announce: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._sources = sources
        self._notifier = notifier
        self._display = display
        self._passed_in = services
        self._reader_gone = reader_gone
        self._announce = announce
        self.failures: Counter[str] = Counter()  # by what failed
        self._services: list[Service] = []
        self._display_at = self._watchdog_at = time.monotonic()

    def open(self, config: Config) -> None:
        """Open the metrics and status sockets. This happens before there is traffic, so a
        port that is in use refuses the run."""
        listener = metrics_http.listen(config.metrics)
        if listener is not None:
            metrics = metrics_http.MetricsServer(listener, self.take)
            self._sources.metrics_url = metrics.url
            metrics.on_failure = partial(self._note, "the metrics")
            self._services.append(metrics)
        status = StatusServer(config.name, self.take)
        status.on_failure = partial(self._note, "the status socket")
        self._services.append(status)
        for service in (*self._passed_in, *self._services):
            self._loop.watch(service.fileno(), partial(self._serve, service))

    def take(self) -> Snapshot:
        """A snapshot of the run at this moment."""
        return observe.take(self._sources)

    def deadlines(self) -> list[float | None]:
        """When `turn` has work."""
        deadlines = [service.deadline for service in self._services]
        if self._display is not None:
            deadlines.append(self._display_at)
        if self._notifier.watchdog_seconds is not None:
            deadlines.append(self._watchdog_at)
        return deadlines

    def turn(self, now: float) -> None:
        """Do what is due: services, the watchdog, the display."""
        for service in self._services:
            if service.deadline is not None and service.deadline <= now:
                self._serve(service)
        if self._notifier.watchdog_seconds is not None and now >= self._watchdog_at:
            self._watchdog_at = now + self._notifier.watchdog_seconds / 3
            self._notifier.alive()
        if self._display is not None and now >= self._display_at:
            self._display_at = now + DISPLAY_EVERY
            self._show(self._display)

    def ready(self, ports: int, workers: int) -> None:
        """The run is up: notify the service manager, and show that at once."""
        self._display_at = time.monotonic()
        self._notifier.ready(f"{counted(ports, 'port')}, {counted(workers, 'worker')}")

    def stopping(self) -> None:
        """The run has begun to end: notify the service manager."""
        self._notifier.stopping()

    def close(self) -> None:
        """Close the metrics and status sockets."""
        for service in self._services:
            self._loop.forget(service.fileno())
            service.close()
        for what, count in self.failures.items():
            if count > 1:
                self._announce(f"{what} failed {count} times")

    def _serve(self, service: Service) -> None:
        try:
            service.turn()
        except Exception as error:
            self._note("an output of the run", error)

    def _note(self, what: str, error: Exception) -> None:
        """Count a failure of what only shows the run, and tell the first one."""
        self.failures[what] += 1
        if self.failures[what] == 1:
            trace = traceback.extract_tb(error.__traceback__)
            place = f" ({Path(trace[-1].filename).name}:{trace[-1].lineno})" if trace else ""
            self._announce(
                f"{what} failed and the run goes on: {type(error).__name__}: {error}{place}"
                f"{Bug.confession}"
            )

    def _show(self, display: ShowSnapshot) -> None:
        try:
            display(self.take())
        except OSError:
            self._display = None
            if _is_pipe(sys.stdout):  # not for a journal: it may be restarted
                self._reader_gone()
        except Exception as error:
            self._note("the display", error)


def _is_pipe(stream: Any) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError, AttributeError):
        return False
