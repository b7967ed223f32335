"""`ringline run`: load a configuration, run its supervisor, show and report the run."""

from __future__ import annotations

import contextlib
import sys

from ringline.pipeline.configuration import schema
from ringline.pipeline.configuration.config import Config
from ringline.pipeline.supervisor.supervisor import Supervisor
from ringline.pipeline.telemetry import report
from ringline.pipeline.telemetry.flaws import flaws
from ringline.pipeline.telemetry.snapshot import Snapshot
from ringline.pipeline.terminal import stdio, table
from ringline.pipeline.terminal.display import Display, display
from ringline.shm.errors import NotAllWell, RinglineError


def run(
    path: str | None, seconds: float | None, report_path: str | None, *, strict: bool = False
) -> int:
    """Run the configuration at `path`, or the built-in one; the exit code.

    The run ends after `seconds`, if given. With `strict` it is an error if not all was well. The
    report goes to `report_path`, which is opened before anything starts. Raises RinglineError
    when the configuration or the report file is wrong; an error during the run is printed and
    becomes the exit code.
    """
    config = schema.builtin() if path is None else schema.load(path)
    # Plugins may be in the folder of the configuration. It comes last, so that no file
    # there hides a module of Python or ringline.
    sys.path.append(config.folder)
    with contextlib.ExitStack() as stack:
        file = None
        if report_path is not None:
            file = stack.enter_context(contextlib.closing(report.ReportFile(report_path)))
        shown = stack.enter_context(contextlib.closing(display(seconds)))
        shown.announce(_greeting(config))
        outcome = Supervisor(
            config,
            seconds=seconds,
            announce=shown.announce,
            display=_StartFilter(config, shown).show,
            services=shown.services,
            ignore_signals_after=True,
        ).run()
        shown.close()
        ended = outcome.error
        if ended is None and strict and outcome.snapshot is not None:
            ended = _strict_error(outcome.snapshot)
        errors = [ended] if ended else []
        if file is not None and outcome.snapshot is not None:
            try:
                file.write(report.of_a_run(outcome.snapshot, ended, outcome.reports))
            except RinglineError as error:
                errors.append(error)
        return _print_result(outcome.snapshot, errors)


def _strict_error(snapshot: Snapshot) -> NotAllWell | None:
    found = flaws(snapshot)
    return NotAllWell(f"not all was well (--strict): {', '.join(found)}") if found else None


def _greeting(config: Config) -> str:
    ports = ", ".join(f"{port.name} ({port.device})" for port in config.ports)
    workers = "1 worker" if config.queues == 1 else f"{config.queues} workers"
    return f"starting {config.name}: {ports}, {workers}; Ctrl-C ends it"


def _print_result(snapshot: Snapshot | None, errors: list[RinglineError]) -> int:
    received = snapshot is not None and any(port.total("rx_packets") for port in snapshot.ports)
    if snapshot is not None and (received or not errors):
        try:
            print(table.summary(snapshot, errors[0] if errors else None), flush=True)
        except OSError:
            if not errors:
                raise
            stdio.mute(sys.stdout)  # the errors below matter more
    for error in errors:
        stdio.complain(str(error))
    return errors[0].exit_code if errors else 0


class _StartFilter:
    """Passes snapshots to a display once the instance runs: drawing would delay the start."""

    def __init__(self, config: Config, shown: Display) -> None:
        self._config = config
        self._shown = shown
        self._running = False

    def show(self, snapshot: Snapshot) -> None:
        """Show the snapshot, unless the instance is still starting."""
        if not self._running and snapshot.state == table.RUNNING:
            self._running = True
            self._announce_metrics(snapshot.metrics_url)
        if self._running:
            self._shown.show(snapshot)

    def _announce_metrics(self, url: str | None) -> None:
        metrics = self._config.metrics
        if url is None:
            return
        moved = metrics.elsewhere_if_taken and f":{metrics.port}/" not in url
        taken = f", since port {metrics.port} is taken" if moved else ""
        self._shown.announce(f"metrics are at {url}{taken}")
