"""All children of one run: the driver, the workers and the card processes."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ringline.pipeline.supervisor.card_monitor import CardMonitor
from ringline.pipeline.supervisor.driver_monitor import DriverChange, DriverMonitor
from ringline.pipeline.supervisor.monitor import Monitor, RunContext
from ringline.pipeline.supervisor.worker_monitor import WorkerMonitor
from ringline.pipeline.supervisor.worker_states import Phase, RestartPolicy, WorkerEvent
from ringline.pipeline.telemetry.observe import Sources
from ringline.shm.errors import RinglineError
from ringline.workers.process import launch


@dataclass(frozen=True)
class Programs:
    """The command line of each kind of child."""

    # -P: no file in the current folder can replace one of our modules.
    driver: tuple[str, ...] = (sys.executable, "-P", "-m", "ringline.pipeline.driver.process")
    worker: tuple[str, ...] = field(default_factory=lambda: tuple(launch.command()))
    card: tuple[str, ...] = (sys.executable, "-P", "-m", "ringline.pipeline.ports.sim82599.process")


class Children:
    """The monitors of all children.

    `driver_changed` is the `changed` of DriverMonitor.
    """

    def __init__(
        self,
        context: RunContext,
        programs: Programs,
        sources: Sources,
        policy: RestartPolicy,
        driver_changed: Callable[[DriverChange], None],
    ) -> None:
        self._context = context
        self.started = False  # the driver and the workers are started
        self.driver = DriverMonitor(context, programs.driver, sources, driver_changed)
        self.workers = [
            WorkerMonitor(context, programs.worker, source, self.driver, policy)
            for source in sources.workers
        ]
        self.cards = [
            CardMonitor(context, programs.card, sources.ports[index], index, segment)
            for index, segment in context.instance.cards.items()
        ]

    @property
    def cards_ready(self) -> bool:
        """Whether every card process is ready, so that the driver can find its cards."""
        return all(card.ready for card in self.cards)

    @property
    def cards_gone(self) -> bool:
        """Whether every card process has ended."""
        return all(card.child is None for card in self.cards)

    @property
    def workers_served(self) -> bool:
        """Whether every worker was ready at least once. The run does not wait for one that
        has died since."""
        return all(worker.state.served for worker in self.workers)

    @property
    def workers_over(self) -> bool:
        """Whether no worker runs or will run again."""
        return all(worker.state.over for worker in self.workers)

    @property
    def workers_given_up(self) -> bool:
        """Whether every queue is given up."""
        return bool(self.workers) and all(
            worker.state.phase is Phase.GIVEN_UP for worker in self.workers
        )

    @property
    def reports(self) -> dict[int, dict[str, Any]]:
        """The last report of each worker that sent one, by queue."""
        return {worker.queue: worker.report for worker in self.workers if worker.report}

    def deadlines(self) -> list[float | None]:
        """When `check_deadlines` has work, per worker."""
        return [worker.state.deadline for worker in self.workers]

    def check_deadlines(self, now: float) -> None:
        """Report to each worker's table that its deadline has passed."""
        for worker in self.workers:
            if worker.state.deadline is not None and worker.state.deadline <= now:
                worker.step(WorkerEvent.DEADLINE)

    def excuse(self, seconds: float) -> None:
        """Extend every deadline of a child by a pause of the machine."""
        for worker in self.workers:
            worker.excuse(seconds)
        self.driver.excuse(seconds)

    def check_heartbeats(self, now: float, cap: float) -> str:
        """Check all heartbeats. Returns why the driver counts as hung; "" if it works.

        A check that comes more than `cap` seconds after the last one adds no silence.
        """
        for worker in self.workers:
            worker.check(now, cap)
        return self.driver.find_failure(now, cap)

    def start_cards(self) -> None:
        """Start the card processes: before the driver, which needs them from its start."""
        for card in self.cards:
            card.start()

    def start(self) -> None:
        """Start the driver and the workers; they prepare at the same time."""
        self.started = True
        self.driver.start()
        for worker in self.workers:
            worker.step(WorkerEvent.START)

    def stop_workers(self) -> None:
        """Tell the workers to finish. A second call shortens the time that they have."""
        for worker in self.workers:
            worker.step(WorkerEvent.STOP)

    def stop_dma(self, stop: Callable[[str], object]) -> None:
        """Stop DMA of all cards; `stop` does that for the PCI address of a real card.

        Of the real cards only those that the driver noted before it wrote to them: it may have
        refused another one, which somebody else uses.
        """
        for card in self.cards:
            card.stop_dma()
        for address in self._context.instance.descriptors.segment.pci:
            try:
                stop(address)
            except (RinglineError, OSError) as error:
                self._context.announce(f"DMA of {address} could not be stopped: {error}")

    def stop_cards(self) -> None:
        """Tell the card processes to write their recordings and exit."""
        for card in self.cards:
            card.stop()

    def kill_cards(self) -> None:
        """Kill card processes that ignored `stop_cards`."""
        for card in self.cards:
            card.signal(signal.SIGKILL)

    def shut_down(self, seconds: float) -> bool:
        """End all children that still run, each within `seconds`, or kill it.

        Returns whether there were any.
        """
        monitors: list[Monitor] = [*self.workers, self.driver, *self.cards]
        left = [monitor for monitor in monitors if monitor.child is not None]
        for monitor in left:
            monitor.shut_down(seconds)
        return bool(left)
