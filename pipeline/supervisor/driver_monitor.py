"""The monitor of the driver process.

The driver looks at its links once a second. The supervisor hears of a change at once, from the
kernel, and tells the driver to look (tests/e2e/test_link_news.py:
test_a_link_is_seen_without_waiting_for_the_next_look).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, assert_never, cast

from ringline.pipeline.configuration import deadlines
from ringline.pipeline.ports.attachment import remarks_together
from ringline.pipeline.ports.interfaces.netlink import LinkNews
from ringline.pipeline.ports.link_log import LinkLog
from ringline.pipeline.supervisor.heartbeat import Heartbeat
from ringline.pipeline.supervisor.instance import grant
from ringline.pipeline.supervisor.monitor import ERRORS, Monitor, RunContext
from ringline.pipeline.telemetry.observe import Sources
from ringline.pipeline.telemetry.refusal_log import RefusalLog
from ringline.shm.control import Message, revive
from ringline.shm.errors import EnvironmentLacks
from ringline.shm.messages import (
    DriverOpen,
    FromDriver,
    PortReport,
    Renew,
    SettlementReport,
    Sockets,
    ToDriver,
)
from ringline.shm.rings import RingPair
from ringline.workers.captures.captures import CaptureError

DRIVER_HEARTBEAT_TIMEOUT = deadlines.DRIVER_SILENCE
SETTLE_TIMEOUT = deadlines.SETTLE
ATTACH_AGAIN = 1.0  # seconds after an interface that is there again could not be used

DriverChange = Literal["finished", "drained", "stopped", "gone"]
OnSettled = Callable[[SettlementReport], None]


class DriverMonitor(Monitor):
    """The driver process. It is trusted: no user code runs in it.

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
        self.opened = False  # the cards are found
        self.ready = False  # the cards receive
        self.served = False  # `ready` was True at least once
        self._taking = False  # frames of interfaces of the kernel go to the driver
        self.exit_reason = "was not started"
        self._sources = sources
        self._refusal_log, self._link_log = RefusalLog(sources), LinkLog()
        self._news: LinkNews | None = None  # of the interfaces of the kernel, while it runs
        self._looking = self._look_again = False  # Look is sent; after it there were more news
        self._attach_at = 0.0
        self._failed: set[str] = set()  # ports
        self._changed = changed
        self._heartbeat = Heartbeat()
        self._waiting: set[int] = set()  # ports whose interface is gone, when that was announced
        # Renewals without an answer, by queue and new generation: sent when, call what.
        self._renewals: dict[tuple[int, int], tuple[float, OnSettled]] = {}

    def start(self) -> None:
        """Start the process; send it the configuration and its segments."""
        self.spawn()
        self._sources.driver_pid = self.pid
        instance, place = self.context.instance, self.context.places["driver"]
        config = self.context.config
        config = replace(config, driver=replace(config.driver, cpu=place.cpu))
        for index, attachment in instance.attachments.items():
            self._sources.ports[index].attached = attachment.description
            for remark in attachment.remarks:
                self.context.announce(remark)
            self._send_sockets(index)
        if instance.attachments:
            self._news = LinkNews()
            self.context.loop.watch(self._news.fileno(), self._links_changed)
        for remark in remarks_together(config.ports):
            self.context.announce(remark)
        message: DriverOpen = {"do": "open", "config": config.to_json(), "yield": place.shared}
        segments = [instance.descriptors.segment, instance.packets.segment, instance.lane]
        with grant(*segments, *instance.cards.values()) as descriptors:
            self.send(message, descriptors)

    def _links_changed(self) -> None:
        assert self._news is not None
        self._news.take()
        if self._looking:
            self._look_again = True
        elif self.ready:
            self._looking = True
            self.send_now({"do": "look"})

    def _looked(self) -> None:
        """The driver has looked at its ports. A change since then needs another look."""
        again, self._looking, self._look_again = self._look_again, False, False
        if again:
            self._links_changed()

    def _close_news(self) -> None:
        if self._news is not None:
            self.context.loop.forget(self._news.fileno())
            self._news.close()
            self._news = None

    def shut_down(self, seconds: float) -> None:
        """See `Monitor.shut_down`."""
        self._close_news()
        super().shut_down(seconds)

    def _send_sockets(self, port: int) -> None:
        attachment = self.context.instance.attachments[port]
        message: Sockets = {"do": "sockets", "port": port, "channels": [*attachment.channels]}
        self.send(message, attachment.descriptors)

    def renew(
        self, queue: int, generation: int, rings: RingPair | None, on_settled: OnSettled
    ) -> None:
        """Make the driver settle the queue and then use `rings`, or give the queue up (None).

        `on_settled` is called with the result of settling.
        """
        message: Renew = {"do": "renew", "queue": queue, "generation": generation}
        self._renewals[queue, generation] = (time.monotonic(), on_settled)
        if rings is None:
            self.send_now(message)
        else:
            with grant(rings.segment) as descriptors:
                self.send_now(message, descriptors)

    def send_now(self, message: ToDriver, descriptors: Sequence[int] = ()) -> None:
        """Send a message and interrupt the lane, so that the driver reads it at once. Before a
        drain, interfaces of the kernel are given back: no more frames arrive from them."""
        if message["do"] == "drain":
            self._give_back()
        self.send(message, descriptors)
        self.context.instance.request_control_turn()

    def _take(self) -> None:
        """Direct the frames of interfaces of the kernel to the driver, which is ready for them."""
        self._taking = True
        for port in self.context.instance.attachments:
            self._take_port(port)

    def _take_port(self, port: int) -> None:
        try:
            self.context.instance.attachments[port].take()
        except EnvironmentLacks as error:
            self.context.end_now(error)

    def _retake_port(self, port: int) -> None:
        """As `_take_port`, for an interface that was made again: it may be gone once more."""
        attachment = self.context.instance.attachments[port]
        try:
            attachment.take()
        except EnvironmentLacks:
            attachment.close()

    def _renew_attachments(self) -> None:
        """Attach to interfaces that were removed and are there again. An attempt that fails changes
        interfaces, too, so these news are no reason for the next attempt."""
        if time.monotonic() < self._attach_at:
            return
        for port, attachment in self.context.instance.attachments.items():
            try:
                if attachment.renew():
                    self._waiting.discard(port)
                    self._send_sockets(port)
                    self._sources.ports[port].attached = attachment.description
                    self.context.announce(attachment.remarks[0])
                elif attachment.waiting and port not in self._waiting:
                    self._waiting.add(port)
                    self.context.announce(attachment.waiting)
            except EnvironmentLacks as error:
                self._attach_at = time.monotonic() + ATTACH_AGAIN
                if self.context.is_new(str(error)):
                    self.context.announce(str(error))

    def _give_back(self) -> None:
        self._taking = False
        for attachment in self.context.instance.attachments.values():
            attachment.give_back()

    def excuse(self, seconds: float) -> None:
        """Extend the time for answers by a pause of the machine."""
        self._renewals = {
            key: (sent_at + seconds, on_settled)
            for key, (sent_at, on_settled) in self._renewals.items()
        }

    def find_failure(self, now: float, cap: float) -> str:
        """Why the driver counts as hung, as the end of a sentence; "" if it works.

        A check that comes more than `cap` seconds after the last one adds no silence.
        """
        if not self.ready:
            return ""
        value = self.context.instance.books.lane.heartbeat
        self._heartbeat = self._heartbeat.check(value, now, cap)
        if self.is_disconnected(now):
            return "closed its control socket"
        if self._heartbeat.silence > DRIVER_HEARTBEAT_TIMEOUT:
            return f"made no progress for {DRIVER_HEARTBEAT_TIMEOUT:g} s"
        for (queue, _), (sent_at, _) in self._renewals.items():
            if now - sent_at > SETTLE_TIMEOUT:
                return f"did not settle queue {queue} in {SETTLE_TIMEOUT:g} s"
        return ""

    def on_message(self, event: str, message: Message) -> None:
        """Handle a message of the driver."""
        received = cast("FromDriver", message)
        if received["event"] == "opened":
            self.opened = True
        elif received["event"] == "ready":
            self.ready = self.served = True
            self._heartbeat = Heartbeat(checked_at=time.monotonic())
            self._update_ports(received["ports"])
            self._say_links(received["ports"])
            self._say_changed_links(received["ports"])
            self._take()
        elif received["event"] == "ports":
            self._update_ports(received["ports"])
            self._say_changed_links(received["ports"])
            if self._taking:
                self._renew_attachments()
            self._looked()
        elif received["event"] == "attached":
            if not received["used"]:
                self.context.instance.attachments[received["port"]].close()
            elif self._taking:
                self._retake_port(received["port"])
        elif received["event"] == "renewed":
            queue, generation = received["queue"], received["generation"]
            _, on_settled = self._renewals.pop((queue, generation))
            self.context.instance.drop_old_rings(queue, generation)
            on_settled(received["settled"])
        elif received["event"] == "finished":
            self._changed("finished")
        elif received["event"] == "drained":
            self._changed("drained")
        elif received["event"] == "stopped":
            self._update_ports(received["report"].get("ports", []))
            self._changed("stopped")
        elif received["event"] == "failed":
            self.context.end_now(revive(received["error"], ERRORS))
        else:
            assert_never(received)

    def on_exit(self, reason: str) -> None:
        """Note the exit and pass it on."""
        self._close_news()
        self._give_back()
        self.exit_reason = reason
        self._sources.driver_pid = None
        self.ready = False
        self._renewals.clear()
        self._changed("gone")

    def _say_links(self, ports: list[PortReport]) -> None:
        """Say which card has no link when the run is ready; of an interface of the kernel, its
        attachment has said so."""
        for config, port in zip(self.context.config.ports, ports, strict=False):
            if config.device.startswith("pci:") and not port["link"]["up"] and not port["failed"]:
                self.context.announce(
                    f"port {config.name}: the card has no link: no frame comes or is sent until "
                    "its cable is in and the other end is up; the run waits for that"
                )

    def _say_changed_links(self, ports: list[PortReport]) -> None:
        """Say which link has changed since the run was ready. A port that has failed has none."""
        for port in ports:
            if not port["failed"]:
                said = self._link_log.look(port["name"], port["link"], time.monotonic())
                if said:
                    self.context.announce(said)

    def _update_ports(self, ports: list[PortReport]) -> None:
        for sentence in self._refusal_log.news():
            self.context.announce(sentence)
        for source, port in zip(self._sources.ports, ports, strict=False):
            source.update(port)
            if port["failed"] and source.name not in self._failed:
                self._port_failed(source.name, port["failed"])
            if port["trouble"]:
                problem = f"port {source.name}: {port['trouble']}"
                self.context.drain_and_end(EnvironmentLacks(problem))
            if port["bad_input"]:
                self.context.drain_and_end(CaptureError(port["bad_input"]))

    def _port_failed(self, name: str, why: str) -> None:
        """A port that fails ends the run only if it is the last one."""
        self._failed.add(name)
        last = len(self._failed) == len(self._sources.ports)
        sentence = f"port {name} has failed: {why}"
        if last:
            self.context.drain_and_end(EnvironmentLacks(sentence))
        else:
            self.context.announce(f"{sentence}; the other ports go on")
