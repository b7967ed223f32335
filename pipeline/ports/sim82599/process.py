"""A simulated 82599 in a process of its own, so that it outlives the driver as a card does.

The supervisor starts it; port.py says how. It needs no core to itself: with nothing to do it
sleeps, half a millisecond at a time in the end.

It ends when it is told to, when its control socket closes, and when its supervisor dies.
"""

from __future__ import annotations

import sys
from typing import Any

from ringline.pipeline._pipeline import lib
from ringline.pipeline.configuration.config import Config
from ringline.pipeline.ports.sim82599 import model
from ringline.pipeline.ports.sim82599.port import card_in, connect
from ringline.shm import control
from ringline.shm.child_main import run_child
from ringline.shm.packets import DESCRIPTORS_BASE, PACKETS_BASE, DescriptorMemory, PacketMemory
from ringline.shm.segments import Segment

TURN = 0.01  # seconds between looks at the control socket


class Card:
    """The life of one card process; `run` is it."""

    def __init__(self, supervisor: control.Control) -> None:
        self._supervisor = supervisor
        self._segments: list[Segment] = []
        self._model: model.Sim82599 | None = None
        self._ended = False

    def run(self) -> None:
        """Be a card until told otherwise, or until nobody is left to be one for."""
        try:
            while not self._ended:
                received = self._supervisor.receive(0.0 if self._model else 0.5)
                if received is not None:
                    self._obey(*received)
                elif self._model is not None:
                    self._model.run(TURN)
        except control.Closed:
            pass
        finally:
            if self._model is not None:
                self._model.close()
            for segment in self._segments:
                segment.close()

    def _obey(self, message: control.Message, descriptors: list[int]) -> None:
        what = message.get("do")
        if what == "open":
            self._open(Config.from_json(message["config"]), message["port"], descriptors)
            self._supervisor.send({"event": "ready"})
        elif what == "bus_master" and self._model is not None:
            self._model.bus_master(message["on"])
            self._supervisor.send({"event": "bus_master", "on": message["on"]})
        elif what == "stop":
            self._supervisor.send({"event": "stopped", **self._end()})
            self._ended = True

    def _open(self, config: Config, index: int, descriptors: list[int]) -> None:
        rings = DescriptorMemory.attach(descriptors[0]).segment
        packets = PacketMemory.attach(descriptors[1], config.buffers).segment
        card = Segment.attach(descriptors[2], kind=lib.RL_SEGMENT_CARD)
        self._segments = [rings, packets, card]
        sim = connect(config.ports[index], index, card=card_in(card))
        sim.map_window(PACKETS_BASE, packets.address, packets.size)
        sim.map_window(DESCRIPTORS_BASE, rings.address, rings.size)
        sim.bus_master(False)  # the driver's to switch on
        self._model = sim

    def _end(self) -> dict[str, Any]:
        if self._model is None:
            return {"wire": {}, "trouble": None}
        self._model.flush()
        return {"wire": self._model.wire(), "trouble": self._model.record_error}


def main() -> int:
    """The card process, as the supervisor starts it."""
    return run_child(lambda supervisor: Card(supervisor).run())


if __name__ == "__main__":
    sys.exit(main())
