"""The supervisor's side of the driver process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, assert_never, cast

from ringline.pipeline.supervisor.instance import grant
from ringline.pipeline.supervisor.monitor import ERRORS, Monitor, RunContext
from ringline.pipeline.supervisor.worker_states import Heartbeat
from ringline.pipeline.telemetry.observe import Sources
from ringline.shm.control import Message, revive
from ringline.shm.errors import EnvironmentLacks
from ringline.shm.messages import (
    DriverOpen,
    FromDriver,
    PortReport,
    Renew,
    SettlementReport,
    ToDriver,
)
from ringline.shm.rings import RingPair

SILENCE = 3.0  # seconds without a pass of its loop until the driver counts as hung
RENEWAL = 5.0  # seconds in which it must have settled a queue

DriverChange = Literal["finished", "drained", "stopped", "gone"]
Settled = Callable[[SettlementReport], None]


class DriverMonitor(Monitor):
    """The driver process. Its word is taken: it is ours, and no user code runs in it.

    `changed` is called with "finished", "drained" and "stopped" when the driver sends that
    message, and with "gone" when it has exited.
    """

    def __init__(
        self,
        context: RunContext,
        program: Sequence[str],
        sources: Sources,
        changed: Callable[[DriverChange], None],
    ) -> None:
        super().__init__(context, "driver", program)
        self.opened = False  # has found its cards
        self.ready = False  # they receive
        self.served = False  # was ready at least once
        self.how = "was not started"  # how it ended
        self._sources = sources
        self._changed = changed
        self._beat = Heartbeat()
        # What it was asked to settle, by queue and new generation: since when, whom to tell.
        self._renewals: dict[tuple[int, int], tuple[float, Settled]] = {}

    def start(self) -> None:
        """Spawn it and hand it its configuration and its segments."""
        self.spawn()
        self._sources.driver_pid = self.pid
        instance, place = self.context.instance, self.context.places["driver"]
        config = self.context.config
        config = replace(config, driver=replace(config.driver, cpu=place.cpu))
        message: DriverOpen = {"do": "open", "config": config.to_json(), "yield": place.shared}
        segments = [instance.descriptors.segment, instance.packets.segment, instance.lane]
        with grant(*segments, *instance.cards.values()) as descriptors:
            self.tell(message, descriptors)

    def renew(self, queue: int, generation: int, rings: RingPair | None, settled: Settled) -> None:
        """Have it settle the queue's last generation and take these rings, or none.

        `settled` is called with what that came to.
        """
        message: Renew = {"do": "renew", "queue": queue, "generation": generation}
        self._renewals[queue, generation] = (time.monotonic(), settled)
        if rings is None:
            self.order(message)
        else:
            with grant(rings.segment) as descriptors:
                self.order(message, descriptors)

    def order(self, message: ToDriver, descriptors: Sequence[int] = ()) -> None:
        """Tell it something and have it read that at once."""
        self.tell(message, descriptors)
        self.context.instance.ask_for_a_turn()

    def silent(self, now: float, longest: float) -> str:
        """Why it counts as hung, or "". `longest`: the most that one look counts for."""
        if not self.ready:
            return ""
        self._beat = self._beat.look(self.context.instance.books.lane.heartbeat, now, longest)
        if self.deaf(now):
            return "closed its control socket"
        if self._beat.silent > SILENCE:
            return f"gave no sign of life for {SILENCE:g} s"
        for (queue, _), (since, _) in self._renewals.items():
            if now - since > RENEWAL:
                return f"did not settle queue {queue} in {RENEWAL:g} s"
        return ""

    def heard(self, what: str, message: Message) -> None:
        """Take over what it tells, then tell of it."""
        received = cast("FromDriver", message)
        if received["event"] == "opened":
            self.opened = True
        elif received["event"] == "ready":
            self.ready = self.served = True
            self._beat = Heartbeat(seen=time.monotonic())
            self._describe(received["ports"])
        elif received["event"] == "ports":
            self._describe(received["ports"])
        elif received["event"] == "renewed":
            queue, generation = received["queue"], received["generation"]
            _, settled = self._renewals.pop((queue, generation))
            self.context.instance.settled(queue, generation)
            settled(received["settled"])
        elif received["event"] == "finished":
            self._changed("finished")
        elif received["event"] == "drained":
            self._changed("drained")
        elif received["event"] == "stopped":
            self._describe(received["report"].get("ports", []))
            self._changed("stopped")
        elif received["event"] == "failed":
            self.context.fail(revive(received["error"], ERRORS))
        else:
            assert_never(received)

    def ended(self, how: str) -> None:
        """Its end is certain."""
        self.how = how
        self._sources.driver_pid = None
        self.ready = False
        self._renewals.clear()
        self._changed("gone")

    def _describe(self, ports: list[PortReport]) -> None:
        for source, port in zip(self._sources.ports, ports, strict=False):
            source.update(port)
            if port["trouble"]:
                self.context.lack(EnvironmentLacks(f"port {source.name}: {port['trouble']}"))
