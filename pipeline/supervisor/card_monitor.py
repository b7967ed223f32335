"""The monitor of a card process: a simulated card that runs in a process of its own.

The process outlives the driver, as a real card does. If it exits before it was told to, the
run ends, as if the card had been removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never, cast

from ringline.pipeline.supervisor.instance import grant
from ringline.pipeline.supervisor.monitor import ERRORS, Monitor, RunContext
from ringline.pipeline.telemetry.observe import PortSource
from ringline.shm.control import Message, revive
from ringline.shm.errors import EnvironmentLacks, GaveUp
from ringline.shm.messages import CardOpen, FromCard
from ringline.shm.segments import Segment
from ringline.workers.captures.captures import CaptureError


class CardMonitor(Monitor):
    """The card process of the port with number `index`; `segment` is its `.card.<port>`.

    It is trusted: no user code runs in it.
    """

    def __init__(
        self,
        context: RunContext,
        program: Sequence[str],
        source: PortSource,
        index: int,
        segment: Segment,
    ) -> None:
        super().__init__(context, f"card of port {source.name}", program)
        self.ready = False  # the driver can find the card
        self._source = source
        self._index = index
        self._segment = segment
        self._told_to_stop = False

    def start(self) -> None:
        """Start the process; send it the configuration and its segments."""
        self.spawn()
        instance = self.context.instance
        message: CardOpen = {
            "do": "open",
            "config": self.context.config.to_json(),
            "port": self._index,
        }
        segments = (instance.descriptors.segment, instance.packets.segment, self._segment)
        with grant(*segments) as descriptors:
            self.send(message, descriptors)

    def stop_dma(self) -> None:
        """Forbid DMA. Packets that are still to be sent are not sent."""
        self.send({"do": "bus_master", "on": False})

    def stop(self) -> None:
        """Tell the process to write its recording and exit."""
        self._told_to_stop = True
        self.send({"do": "stop"})

    def on_message(self, event: str, message: Message) -> None:
        """Handle a message of the card process."""
        received = cast("FromCard", message)
        if received["event"] == "ready":
            self.ready = True
        elif received["event"] == "failed":
            self.context.end_now(revive(received["error"], ERRORS))
        elif received["event"] == "stopped":
            self._source.wire = received["wire"]
            if received["trouble"]:
                problem = f"port {self._source.name}: {received['trouble']}"
                self.context.drain_and_end(EnvironmentLacks(problem))
            if received["bad_input"]:
                self.context.drain_and_end(CaptureError(received["bad_input"]))
        elif received["event"] == "bus_master":
            pass  # the supervisor does not wait for it
        else:
            assert_never(received)

    def on_exit(self, reason: str) -> None:
        """End the run, unless the process was told to stop."""
        self.ready = False
        if not self._told_to_stop:
            self.context.end_now(GaveUp(f"the {self.name} {reason}; everything was stopped"))
