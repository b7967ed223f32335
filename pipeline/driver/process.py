"""The driver process: it owns the cards and runs the lane.

Everything per packet happens in C. Python gets a turn every TURN seconds or when
the supervisor asks for one, and then: takes messages, publishes the balances,
reads the cards' statistics.

Its course, as the supervisor asks for it:
 `open`   the cards are found and mapped
 `begin`  they are started, and packets move
 `drain`  the cards stop receiving; what they had received is still received,
          worked on and sent; then nothing is in flight (or the deadline passed)
 `stop`   what workers still hold is settled, the cards are stopped, the books are
          counted with a full scan, and the process ends

When the control socket closes, the supervisor is gone: the cards are stopped and
the process ends by itself, even if it was stopped itself (SIGSTOP).
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from typing import Any

from ringline.pipeline.configuration.config import Config
from ringline.pipeline.driver.lane import Idle, Lane
from ringline.pipeline.ports.create import create_port
from ringline.pipeline.ports.port import Port
from ringline.shm import control
from ringline.shm._shm import lib
from ringline.shm.errors import RinglineError
from ringline.shm.ledger import Ledger
from ringline.shm.packets import DescriptorMemory, PacketMemory
from ringline.shm.rings import RingPair
from ringline.shm.segments import Segment

TURN = 0.02  # seconds between control turns under load
IDLE_TURN = 0.1  # when nothing moves: a turn costs a sleeping machine some CPU
BALANCE_EVERY = 0.25
STATISTICS_EVERY = 1.0


class Driver:
    """One driver process; `run` is its life."""

    def __init__(self, supervisor: control.Control) -> None:
        self._supervisor = supervisor
        self._ports: list[Port] = []
        self._lane: Lane | None = None
        self._segments: list[Segment] = []
        self._config = Config()
        self._begun = False
        self._finished = False
        self._drain_until: float | None = None
        self._ended = False
        self._balance_at = self._statistics_at = 0.0

    def run(self) -> None:
        """Serve until told to stop or the supervisor is gone."""
        try:
            while not self._ended:
                self._turn()
        except control.Closed:
            pass  # nobody is left to report to: stop the cards and go
        finally:
            for port in self._ports:
                port.close()
            if self._lane is not None:
                self._lane.close()
            for segment in self._segments:
                segment.close()

    def _turn(self) -> None:
        wait = 0.0 if self._begun else 0.5
        received = self._supervisor.receive(wait)
        while received is not None:
            self._obey(*received)
            if self._ended:
                return
            received = self._supervisor.receive(0.0)
        if self._lane is None or not self._begun:
            return
        moved = self._lane.run(TURN if self._lane.moving else IDLE_TURN)
        now = time.monotonic()
        if now >= self._balance_at or self._drain_until is not None:
            self._lane.balance()
            self._balance_at = now + BALANCE_EVERY
        if now >= self._statistics_at:
            ports = self._describe_ports()  # always: the cards' own counters have an end
            if self._supervisor.heeded:  # it may be stopped (Ctrl-Z), and packets go on
                self._supervisor.send({"event": "ports", "ports": ports})
            self._statistics_at = now + STATISTICS_EVERY
        if self._drain_until is not None:
            self._drained(moved, now)
        elif not self._finished and moved == 0 and self._is_finished():
            self._finished = True
            self._supervisor.send({"event": "finished"})

    # -- messages ---------------------------------------------------------------------

    def _obey(self, message: control.Message, descriptors: list[int]) -> None:
        what = message.get("do")
        if what == "open":
            self._open(Config.from_json(message["config"]), bool(message.get("yield")), descriptors)
        elif what == "begin":
            self._begin()
        elif what == "renew":
            self._renew(message["queue"], message["generation"], descriptors)
        elif what == "drain":
            for port in self._ports:
                port.stop_receiving()
            self._drain_until = time.monotonic() + message["seconds"]
        elif what == "stop":
            self._stop()

    def _open(self, config: Config, yielding: bool, descriptors: list[int]) -> None:
        self._config = config
        if config.driver.cpu is not None:
            os.sched_setaffinity(0, {config.driver.cpu})
        descriptor_memory = DescriptorMemory.attach(descriptors[0])
        # What no worker can write says that the layout is ours, and how many buffers there are.
        books = Segment.attach(descriptors[2], kind=lib.RL_SEGMENT_LANE)
        packets = PacketMemory.attach(descriptors[1], Ledger(books).buffers)
        self._segments += [descriptor_memory.segment, packets.segment, books]
        mode = config.ports[0].dma_mode  # one for all: they share packet memory (schema.py)
        addresses = packets.device_addresses(mode)
        idle = Idle(
            adaptive=config.driver.idle == "adaptive",
            yielding=yielding,
            descriptors=min(port.rx_descriptors for port in config.ports),
            deep_sleep=config.driver.deep_sleep_us / 1e6,
        )
        lane = Lane(books, packets, addresses, config.queues, idle)
        cards = descriptors[3:]
        for index, port_config in enumerate(config.ports):
            port = create_port(port_config, index)
            self._ports.append(port)
            if port_config.process:
                from ringline.pipeline.ports.sim82599.port import Sim82599Port

                assert isinstance(port, Sim82599Port)
                port.use_card(cards.pop(0))
            port.open(lane.memory, descriptor_memory, descriptor_memory.device_addresses(mode))
            lane.add_port(port)
        self._lane = lane
        self._supervisor.send({"event": "opened"})

    def _begin(self) -> None:
        assert self._lane is not None
        for port in self._ports:
            port.start()
        self._lane.receiving = True
        self._begun = True
        self._supervisor.send({"event": "ready", "ports": self._describe_ports()})

    def _renew(self, queue: int, generation: int, descriptors: list[int]) -> None:
        assert self._lane is not None
        rings = RingPair.attach(descriptors[0]) if descriptors else None
        blanks = self._config.worker(queue).blanks if rings else 0
        settled = self._lane.renew(queue, rings, generation, blanks)
        self._supervisor.send(
            {
                "event": "renewed",
                "queue": queue,
                "generation": generation,
                "settled": vars(settled),
            }
        )

    # -- ends -------------------------------------------------------------------------

    def _is_finished(self) -> bool:
        """Whether every wire is finite and dry, and its last packet accounted for.

        Wires with nothing to send do not hold up the end, but alone they are no reason for it.
        """
        assert self._lane is not None
        return (
            any(port.wire is not None and port.wire.has_source for port in self._config.ports)
            and all(port.wire_finished() for port in self._ports)
            and self._lane.in_flight == 0
        )

    def _drained(self, moved: int, now: float) -> None:
        assert self._lane is not None
        assert self._drain_until is not None
        left = self._lane.in_flight
        if (moved == 0 and left == 0) or now >= self._drain_until:
            self._lane.receiving = False
            self._drain_until = None
            self._supervisor.send({"event": "drained", "in_flight": left})

    def _stop(self) -> None:
        report: dict[str, Any] = {}
        if self._lane is not None:
            self._lane.receiving = False
            for queue in range(self._config.queues):
                self._lane.renew(queue, None, 0)
            for port in self._ports:
                port.stop()
            self._lane.balance(complete=True)
            if self._begun:
                report["ports"] = self._describe_ports()
        self._supervisor.send({"event": "stopped", "report": report})
        self._ended = True

    def _describe_ports(self) -> list[dict[str, Any]]:
        described = []
        for port in self._ports:
            link = port.link()
            described.append(
                {
                    "name": port.name,
                    "link": {"up": link.up, "mbps": link.mbps},
                    "mac": port.mac,
                    "statistics": port.statistics(),
                    "wire": port.wire_statistics(),
                    "faults": port.faults(),
                    "trouble": port.trouble(),
                }
            )
        return described


def main() -> int:
    """The driver process, as the supervisor starts it."""
    # A terminal's Ctrl-C reaches the whole process group; the end is the supervisor's to order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    supervisor = control.Control.from_environment()
    # One that was stopped must go on to see that its control socket closed.
    lib.rl_die_with_parent(signal.SIGCONT, os.getppid())
    driver = Driver(supervisor)
    try:
        driver.run()
    except RinglineError as error:
        with contextlib.suppress(control.Closed, TimeoutError):
            supervisor.send({"event": "failed", "error": control.describe(error)})
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
