"""The supervisor's side of a simulated card that runs in a process of its own.

It outlives the driver, as a card in a slot would. When it ends before it was told
to, the run ends too: that is a card which fell out of its slot.
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


class CardMonitor(Monitor):
    """The card process of the port with number `index`; `segment` is its `.card.<port>`."""

    def __init__(
        self,
        context: RunContext,
        program: Sequence[str],
        source: PortSource,
        index: int,
        segment: Segment,
    ) -> None:
        super().__init__(context, f"card of port {source.name}", program)
        self.ready = False
        self._source = source
        self._index = index
        self._segment = segment
        self._dismissed = False

    def start(self) -> None:
        """Spawn it and hand it its port and its segments."""
        self.spawn()
        instance = self.context.instance
        message: CardOpen = {
            "do": "open",
            "config": self.context.config.to_json(),
            "port": self._index,
        }
        segments = (instance.descriptors.segment, instance.packets.segment, self._segment)
        with grant(*segments) as descriptors:
            self.tell(message, descriptors)

    def stop_dma(self) -> None:
        """It moves nothing more; what it had to send is not sent."""
        self.tell({"do": "bus_master", "on": False})

    def dismiss(self) -> None:
        """It writes out its record and ends."""
        self._dismissed = True
        self.tell({"do": "stop"})

    def heard(self, what: str, message: Message) -> None:
        """Its word is taken: it is ours."""
        received = cast("FromCard", message)
        if received["event"] == "ready":
            self.ready = True
        elif received["event"] == "failed":
            self.context.fail(revive(received["error"], ERRORS))
        elif received["event"] == "stopped":
            self._source.wire = received["wire"]
            if received["trouble"]:
                problem = f"port {self._source.name}: {received['trouble']}"
                self.context.lack(EnvironmentLacks(problem))
        elif received["event"] == "bus_master":
            pass  # the supervisor does not wait for it
        else:
            assert_never(received)

    def ended(self, how: str) -> None:
        """Its end is certain."""
        self.ready = False
        if not self._dismissed:
            self.context.fail(GaveUp(f"the {self.name} {how}; everything was stopped"))
