"""`ringline run`: load a configuration, run its supervisor, show and report the run."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from ringline.pipeline.commands.check import memory_text
from ringline.pipeline.commands.target import examined
from ringline.pipeline.configuration import builtin
from ringline.pipeline.configuration.config import Config
from ringline.pipeline.configuration.machine_checks import remarks_here, same
from ringline.pipeline.configuration.schema import Examined
from ringline.pipeline.supervisor.supervisor import Supervisor
from ringline.pipeline.telemetry import report
from ringline.pipeline.telemetry.flaws import flaws
from ringline.pipeline.telemetry.snapshot import Snapshot
from ringline.pipeline.terminal import stdio, table
from ringline.pipeline.terminal.display import Display, Silent, display
from ringline.pipeline.terminal.output import StderrCapture, Unblocked, keep_room
from ringline.shm.errors import (
    Bug,
    ConfigurationError,
    NotAllWell,
    RinglineError,
    UsageError,
)
from ringline.shm.family import starter_end
from ringline.shm.text import counted


def run(
    what: str | None,
    seconds: float | None,
    report_path: str | None,
    *,
    strict: bool = False,
    given: builtin.Arguments = builtin.NO_ARGUMENTS,
) -> int:
    """Run the configuration file or the plugin `what`, or `forward`; the exit code.

    `given` holds the arguments in place of a file. The run ends after `seconds`, if given. With
    `strict` it is an error if not all was well. The report goes to `report_path`, which is opened
    before anything starts. Raises RinglineError when the configuration or the report file is
    wrong; an error during the run is printed and becomes the exit code.
    """
    end_with = starter_end(os.environ)
    found = examined(what, given)
    words = []
    wanted = builtin.queues_without_limit()
    if found.file is None and given.queues is None and found.config.queues < wanted:
        words.append(
            f"/dev/shm has room for {found.config.queues} of {wanted} queues; for more, enlarge it "
            "(for a container: docker run --shm-size=1g)"
        )
    return run_examined(found, seconds, report_path, strict, end_with, words=words)


def run_examined(
    found: Examined,
    seconds: float | None,
    report_path: str | None,
    strict: bool,
    end_with: int | None,
    *,
    words: Sequence[str] = (),
    quiet: bool = False,
    on_running: Callable[[], object] = lambda: None,
) -> int:
    """Run what was examined, as `run` does; the exit code.

    The run ends when the descriptor `end_with` is readable. `words` are lines for the operator at
    the start. `quiet` shows no table, and writes the summary to standard error. `on_running` is
    called once, when packets flow.
    """
    if found.problems:
        raise ConfigurationError(found.problems)
    config = found.config
    # Plugins may be in the folder of the configuration. It comes last, so that no file
    # there hides a module of Python or ringline.
    sys.path.append(config.folder)
    with contextlib.ExitStack() as stack:
        file = None
        if report_path is not None:
            _refuse_recording(report_path, config)
            file = stack.enter_context(contextlib.closing(report.ReportFile(report_path)))
        streams = stack.enter_context(Unblocked())
        shown = stack.enter_context(contextlib.closing(Silent() if quiet else display(seconds)))
        captured = contextlib.ExitStack()
        services = shown.services
        if not services:
            write = keep_room(streams.errors)
            services = (captured.enter_context(contextlib.closing(StderrCapture(write))),)
        stack.enter_context(captured)
        shown.announce(_greeting(config))
        for line in words:
            shown.announce(line)
        for remark in remarks_here(config):
            shown.announce(remark)
        outcome = Supervisor(
            config,
            seconds=seconds,
            announce=shown.announce,
            display=_StartFilter(config, shown, streams, on_running).show,
            services=services,
            ignore_signals_after=True,
            adopt_orphans=True,
            end_with=end_with,
        ).run()
        shown.close()
        captured.close()
        ended = outcome.error
        if ended is None and strict and outcome.snapshot is not None:
            ended = _strict_error(outcome.snapshot)
        errors = [ended] if ended else []
        if file is not None and outcome.snapshot is not None:
            try:
                file.write(report.of_a_run(outcome.snapshot, ended, outcome.reports))
            except RinglineError as error:
                errors.append(error)
            except Exception as error:
                errors.append(Bug(f"the report failed: {type(error).__name__}: {error}"))
        to = sys.stderr if quiet else sys.stdout
        return _print_result(outcome.snapshot, errors, streams, to)


def _refuse_recording(path: str, config: Config) -> None:
    """Raise UsageError when the report would overwrite a recording of the same run."""
    for port in config.ports:
        record = port.wire.record if port.wire else None
        if record is not None and same(Path(record), Path(path)):
            raise UsageError(
                f"the report cannot be written to {path}: port {port.name} records to this file; "
                "name another one"
            )


def _strict_error(snapshot: Snapshot) -> NotAllWell | None:
    found = flaws(snapshot)
    return NotAllWell(f"not all was well (--strict): {', '.join(found)}") if found else None


def _greeting(config: Config) -> str:
    ports = ", ".join(f"{port.name} ({port.device})" for port in config.ports)
    workers = counted(config.queues, "worker")
    jumbo = f", buffers {memory_text(config)}" if config.buffer_units > 1 else ""
    return f"starting {config.name}: {ports}, {workers}{jumbo}; Ctrl-C ends it"


def _print_result(
    snapshot: Snapshot | None, errors: list[RinglineError], streams: Unblocked, to: TextIO
) -> int:
    received = snapshot is not None and any(port.total("rx_packets") for port in snapshot.ports)
    if snapshot is not None and (received or not errors):
        try:
            print(table.summary(snapshot, errors[0] if errors else None), file=to, flush=True)
            streams.settle()
        except OSError:
            if not errors:
                raise
            stdio.mute(to)  # the errors below matter more
        except Exception as broken:
            errors.append(Bug(f"the summary failed: {type(broken).__name__}: {broken}"))
    for error in errors:
        stdio.complain(str(error))
    return errors[0].exit_code if errors else 0


class _StartFilter:
    """Passes snapshots to a display once the instance runs: drawing would delay the start."""

    def __init__(
        self,
        config: Config,
        shown: Display,
        streams: Unblocked,
        on_running: Callable[[], object],
    ) -> None:
        self._config = config
        self._shown = shown
        self._streams = streams
        self._on_running = on_running
        self._running = False

    def show(self, snapshot: Snapshot) -> None:
        """Show the snapshot, unless the instance is still starting."""
        if not self._running and snapshot.state == table.RUNNING:
            self._running = True
            self._announce_metrics(snapshot.metrics_url)
            self._on_running()
        if self._running:
            if lost := self._streams.lost():
                self._shown.announce_loss(lost)
            self._shown.show(snapshot)

    def _announce_metrics(self, url: str | None) -> None:
        metrics = self._config.metrics
        if url is None:
            return
        moved = metrics.elsewhere_if_taken and f":{metrics.port}/" not in url
        taken = f", since port {metrics.port} is taken" if moved else ""
        self._shown.announce(f"metrics are at {url}{taken}")
