"""All children of one run: the driver, the workers, the cards in processes of their own."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ringline.pipeline.supervisor.card_monitor import CardMonitor
from ringline.pipeline.supervisor.driver_monitor import DriverChange, DriverMonitor
from ringline.pipeline.supervisor.instance import pci_address
from ringline.pipeline.supervisor.monitor import Monitor, RunContext
from ringline.pipeline.supervisor.worker_monitor import WorkerMonitor
from ringline.pipeline.supervisor.worker_states import Phase, RestartPolicy, WorkerEvent
from ringline.pipeline.telemetry.observe import Sources
from ringline.shm.errors import RinglineError
from ringline.workers.process import launch


@dataclass(frozen=True)
class Programs:
    """What is executed for each kind of child."""

    # -P: nothing that lies in the current folder can stand in for a module of ours.
    driver: tuple[str, ...] = (sys.executable, "-P", "-m", "ringline.pipeline.driver.process")
    worker: tuple[str, ...] = field(default_factory=lambda: tuple(launch.command()))
    card: tuple[str, ...] = (sys.executable, "-P", "-m", "ringline.pipeline.ports.sim82599.process")


class Children:
    """The monitors of all children, started and ended together.

    `silence` is the age in seconds at which a worker's heartbeat means that it hangs.
    """

    def __init__(
        self,
        context: RunContext,
        programs: Programs,
        sources: Sources,
        policy: RestartPolicy,
        silence: float,
        driver_changed: Callable[[DriverChange], None],
    ) -> None:
        self._context = context
        self.started = False  # the driver and the workers were
        self.driver = DriverMonitor(context, programs.driver, sources, driver_changed)
        self.workers = [
            WorkerMonitor(context, programs.worker, source, self.driver, policy, silence)
            for source in sources.workers
        ]
        self.cards = [
            CardMonitor(context, programs.card, sources.ports[index], index, segment)
            for index, segment in context.instance.cards.items()
        ]

    @property
    def cards_ready(self) -> bool:
        """Whether the driver can look for its cards."""
        return all(card.ready for card in self.cards)

    @property
    def cards_gone(self) -> bool:
        """Whether no card process is left."""
        return all(card.child is None for card in self.cards)

    @property
    def workers_served(self) -> bool:
        """Whether every worker was ready once. One may have died since: that is not for
        the whole run to wait for."""
        return all(worker.state.served for worker in self.workers)

    @property
    def workers_over(self) -> bool:
        """Whether no worker is left, and none will come."""
        return all(worker.state.over for worker in self.workers)

    @property
    def workers_given_up(self) -> bool:
        """Whether every queue was given up."""
        return bool(self.workers) and all(
            worker.state.phase is Phase.GIVEN_UP for worker in self.workers
        )

    @property
    def reports(self) -> dict[int, dict[str, Any]]:
        """What plugins said of themselves at last, by queue."""
        return {worker.queue: worker.report for worker in self.workers if worker.report}

    def deadlines(self) -> list[float | None]:
        """When `late` has something to do."""
        return [worker.state.deadline for worker in self.workers]

    def late(self, now: float) -> None:
        """Tell every worker whose deadline has passed."""
        for worker in self.workers:
            if worker.state.deadline is not None and worker.state.deadline <= now:
                worker.step(WorkerEvent.DEADLINE)

    def look(self, now: float, longest: float) -> str:
        """Look at all heartbeats; why the driver counts as hung, or "".

        `longest` seconds is the most that one look counts for.
        """
        for worker in self.workers:
            worker.look(now, longest)
        return self.driver.silent(now, longest)

    def start_cards(self) -> None:
        """First: the driver looks for its cards at once."""
        for card in self.cards:
            card.start()

    def start(self) -> None:
        """The driver and the workers, side by side."""
        self.started = True
        self.driver.start()
        for worker in self.workers:
            worker.step(WorkerEvent.START)

    def stop_workers(self) -> None:
        """Tell them to finish; the second time, they have little time left."""
        for worker in self.workers:
            worker.step(WorkerEvent.STOP)

    def stop_dma(self, stop: Callable[[str], None]) -> None:
        """No card writes into memory any more; `stop` knows how, given a PCI address."""
        for card in self.cards:
            card.stop_dma()
        for port in self._context.config.ports:
            address = pci_address(port)
            if address is None:
                continue
            try:
                stop(address)
            except (RinglineError, OSError) as error:
                self._context.announce(f"DMA of {address} could not be stopped: {error}")

    def dismiss_cards(self) -> None:
        """They write out what they recorded and end."""
        for card in self.cards:
            card.dismiss()

    def kill_cards(self) -> None:
        """They did not."""
        for card in self.cards:
            card.signal(signal.SIGKILL)

    def abandon(self, seconds: float) -> bool:
        """End whoever is left; whether there was anybody. `seconds` is for each."""
        monitors: list[Monitor] = [*self.workers, self.driver, *self.cards]
        left = [monitor for monitor in monitors if monitor.child is not None]
        for monitor in left:
            monitor.abandon(seconds)
        return bool(left)
