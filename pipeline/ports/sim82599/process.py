"""A simulated 82599 in a process of its own: like a real card, it outlives the driver.

The supervisor starts it; shm/messages.py declares its messages. It needs no core of its own:
when idle it sleeps, for at most half a millisecond at a time.

It exits when the supervisor tells it to, when its control socket closes, and when the supervisor
dies.
"""

from __future__ import annotations

import sys
from typing import assert_never, cast

from ringline.pipeline._pipeline import lib
from ringline.pipeline.configuration.config import Config
from ringline.pipeline.ports.sim82599 import model
from ringline.pipeline.ports.sim82599.port import card_in, connect
from ringline.shm import control
from ringline.shm.child_main import run_child
from ringline.shm.messages import CardStopped, FromCard, ToCard
from ringline.shm.packets import DESCRIPTORS_BASE, PACKETS_BASE, DescriptorMemory, PacketMemory
from ringline.shm.segments import Segment

TURN = 0.01  # seconds between two polls of the control socket


class Card:
    """One card process; `run` is its main loop."""

    def __init__(self, supervisor: control.Control) -> None:
        self._supervisor = supervisor
        self._segments: list[Segment] = []
        self._model: model.Sim82599 | None = None
        self._ended = False

    def run(self) -> None:
        """Run the card until the supervisor sends `stop` or closes the control socket."""
        try:
            while not self._ended:
                received = self._supervisor.receive(0.0 if self._model else 0.5)
                if received is not None:
                    message, descriptors = received
                    self._on_message(cast("ToCard", message), descriptors)
                elif self._model is not None:
                    self._model.run(TURN)
        except control.Closed:
            pass
        finally:
            if self._model is not None:
                self._model.close()
            for segment in self._segments:
                segment.close()

    def _send(self, message: FromCard) -> None:
        self._supervisor.send(message)

    def _on_message(self, message: ToCard, descriptors: list[int]) -> None:
        if message["do"] == "open":
            self._open(Config.from_json(message["config"]), message["port"], descriptors)
            self._send({"event": "ready"})
        elif message["do"] == "bus_master":
            if self._model is not None:
                self._model.bus_master(message["on"])
                self._send({"event": "bus_master", "on": message["on"]})
        elif message["do"] == "stop":
            self._send(self._end())
            self._ended = True
        else:
            assert_never(message)

    def _open(self, config: Config, index: int, descriptors: list[int]) -> None:
        rings = DescriptorMemory.attach(descriptors[0]).segment
        memory = PacketMemory.attach(descriptors[1], config.buffers, config.buffer_units)
        packets = memory.segment
        card = Segment.attach(descriptors[2], kind=lib.RL_SEGMENT_CARD)
        self._segments = [rings, packets, card]
        sim = connect(config.ports[index], index, card=card_in(card))
        sim.map_window(PACKETS_BASE, packets.address, packets.size)
        sim.map_window(DESCRIPTORS_BASE, rings.address, rings.size)
        sim.bus_master(False)  # the driver switches it on
        self._model = sim

    def _end(self) -> CardStopped:
        if self._model is None:
            return {"event": "stopped", "wire": {}, "trouble": None, "bad_input": None}
        self._model.flush()
        return {
            "event": "stopped",
            "wire": self._model.wire(),
            "trouble": self._model.record_error,
            "bad_input": self._model.bad_input,
        }


def main() -> int:
    """The card process, as the supervisor starts it."""
    return run_child(lambda supervisor: Card(supervisor).run())


if __name__ == "__main__":
    sys.exit(main())
