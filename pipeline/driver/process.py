"""The driver process: it owns the cards and runs the lane.

All work per packet is done in C. Python code runs in control turns, every TURN seconds or
when the supervisor requests one. A control turn receives messages (shm/messages.py),
publishes the balances and reads the statistics of the cards.

When the control socket closes, the supervisor is gone: the driver stops the cards, restores the
channels of interfaces that the supervisor changed, and exits, even if it was itself stopped by
SIGSTOP (shm/child_main.py).

Guarantees (tests in tests/pipeline/driver/test_process.py):
 - statistics are not sent to a supervisor that does not read; its messages are still answered
   (test_a_supervisor_that_does_not_read_does_not_stop_the_driver)
 - Finished and Drained are sent when no packet is in flight, Drained also at its deadline
   (test_the_driver_is_finished_only_when_nothing_is_in_flight,
   test_the_driver_is_drained_only_when_nothing_is_in_flight,
   test_a_drain_ends_at_its_deadline_with_the_number_of_packets_in_flight)
 - Look is answered in the next turn (test_the_driver_looks_at_its_ports_when_it_is_told)
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, assert_never, cast

from ringline.pipeline.configuration.config import Config
from ringline.pipeline.driver.lane import Idle, Lane
from ringline.pipeline.ports.attachment import AttachedPort
from ringline.pipeline.ports.create import create_port
from ringline.pipeline.ports.port import Port
from ringline.shm import control
from ringline.shm._shm import lib
from ringline.shm.child_main import run_child
from ringline.shm.errors import EnvironmentLacks
from ringline.shm.ledger import Ledger
from ringline.shm.messages import FromDriver, PortReport, StopReport, ToDriver
from ringline.shm.packets import (
    DESCRIPTORS_BASE,
    PACKETS_BASE,
    DescriptorMemory,
    PacketMemory,
)
from ringline.shm.rings import RingPair
from ringline.shm.segments import Segment

if TYPE_CHECKING:
    from ringline.pipeline.ports.pci.vfio import Container

TURN = 0.02  # seconds between control turns under load
IDLE_TURN = 0.1  # the same while no packet moves: each turn costs an idle machine some CPU
BALANCE_EVERY = 0.25  # seconds
STATISTICS_EVERY = 1.0  # seconds


class Driver:
    """One driver process: call `run` once."""

    def __init__(self, supervisor: control.Control) -> None:
        self._supervisor = supervisor
        self._ports: list[Port] = []
        self._lane: Lane | None = None
        self._segments: list[Segment] = []
        self._sockets: dict[int, list[int]] = {}  # by port, until it is opened
        self._channels: dict[int, list[int]] = {}  # by port, see the message Sockets
        self._container: Container | None = None  # memory that cards reach through VFIO
        self._config = Config()
        self._begun = False  # the cards receive
        self._finished = False  # Finished is sent
        self._drain_until: float | None = None
        self._ended = False
        self._balance_at = self._statistics_at = 0.0

    def run(self) -> None:
        """Serve until Stop arrives or the supervisor is gone."""
        try:
            while not self._ended:
                self._turn()
        except control.Closed:
            self._close_ports()
            self._restore_interfaces()
        finally:
            self._close_ports()
            if self._lane is not None:
                self._lane.close()
            if self._container is not None:  # before the memory that it maps
                self._container.close()
            for segment in self._segments:
                segment.close()

    def _close_ports(self) -> None:
        for port in self._ports:
            port.close()
        for descriptors in self._sockets.values():  # of ports that were not made
            for descriptor in descriptors:
                os.close(descriptor)
        self._sockets.clear()

    def _restore_interfaces(self) -> None:
        """The supervisor is gone: restore the channels that it changed. Without the right to do so
        they stay as they are."""
        from ringline.pipeline.ports.interfaces import ethtool, interface

        for number, rx, tx, combined, other in filter(None, self._channels.values()):
            interface.restore_channels(number, ethtool.Channels(0, 0, 0, rx, tx, combined, other))

    def _turn(self) -> None:
        wait = 0.0 if self._begun else 0.5
        received = self._supervisor.receive(wait)
        while received is not None:
            message, descriptors = received
            self._on_message(cast("ToDriver", message), descriptors)
            if self._ended:
                return
            received = self._supervisor.receive(0.0)
        if self._lane is None or not self._begun:
            return
        moved = self._lane.run(TURN if self._lane.moving else IDLE_TURN)
        now = time.monotonic()
        if now >= self._balance_at or self._drain_until is not None:
            self._lane.balance()
            self._lane.follow_clock()
            self._balance_at = now + BALANCE_EVERY
        if now >= self._statistics_at:
            ports = self._describe_ports()  # even if not sent: a card's counters have limited width
            if self._supervisor.peer_reads:  # it may be stopped by Ctrl-Z
                self._send({"event": "ports", "ports": ports})
            self._statistics_at = now + STATISTICS_EVERY
        if self._drain_until is not None:
            self._check_drained(moved, now)
        elif not self._finished and moved == 0 and self._is_finished():
            self._finished = True
            self._send({"event": "finished"})

    # -- messages ---------------------------------------------------------------------

    def _send(self, message: FromDriver) -> None:
        self._supervisor.send(message)

    def _on_message(self, message: ToDriver, descriptors: list[int]) -> None:
        if message["do"] == "sockets":
            self._channels[message["port"]] = message["channels"]
            self._take_sockets(message["port"], descriptors)
        elif message["do"] == "open":
            self._open(Config.from_json(message["config"]), message["yield"], descriptors)
        elif message["do"] == "begin":
            self._begin()
        elif message["do"] == "look":
            self._statistics_at = 0.0
        elif message["do"] == "renew":
            self._renew(message["queue"], message["generation"], descriptors)
        elif message["do"] == "drain":
            self._drain_until = time.monotonic() + message["seconds"]
            for port in self._ports:
                port.stop_receiving()
        elif message["do"] == "stop":
            self._stop()
        else:
            assert_never(message)

    def _open(self, config: Config, yielding: bool, descriptors: list[int]) -> None:
        self._config = config
        if config.driver.cpu is not None:
            os.sched_setaffinity(0, {config.driver.cpu})
        descriptor_memory = DescriptorMemory.attach(descriptors[0])
        # Checked first: workers cannot write to this segment. It holds the size of packet memory.
        books = Segment.attach(descriptors[2], kind=lib.RL_SEGMENT_LANE)
        units = config.buffer_units
        packets = PacketMemory.attach(descriptors[1], Ledger(books).buffers // units, units)
        self._segments += [descriptor_memory.segment, packets.segment, books]
        mode = config.dma_mode
        addresses = packets.device_addresses(mode)
        idle = Idle(
            adaptive=config.driver.idle == "adaptive",
            yielding=yielding,
            descriptors=min(port.rx_descriptors for port in config.ports),
            deep_sleep=config.driver.deep_sleep_us / 1e6,
        )
        lane = Lane(books, packets, addresses, config.queues, idle, self._supervisor.fileno())
        ring_addresses = descriptor_memory.device_addresses(mode)
        self._container = _container(config, packets, descriptor_memory)
        cards = descriptors[3:]
        for index, port_config in enumerate(config.ports):
            port = create_port(port_config, index)
            port.container = self._container
            port.limits = port.limits.share(len(config.ports))
            self._ports.append(port)
            if port_config.process:
                from ringline.pipeline.ports.sim82599.port import Sim82599Port

                assert isinstance(port, Sim82599Port)
                port.use_card(cards.pop(0))
            if port_config.kernel_interface:
                assert isinstance(port, AttachedPort)
                port.use_sockets(self._sockets.pop(index))
            port.open(lane.memory, descriptor_memory, ring_addresses)
            lane.add_port(port)
        self._lane = lane
        self._send({"event": "opened"})

    def _take_sockets(self, number: int, descriptors: list[int]) -> None:
        """Keep the first sockets of a port until it is made; later ones replace them."""
        if self._lane is None:
            self._sockets[number] = descriptors
            return
        port = self._ports[number]
        assert isinstance(port, AttachedPort)
        try:
            port.replace_sockets(descriptors)
            used = True
        except EnvironmentLacks:  # the interface is gone again: the supervisor waits for it
            used = False
        self._send({"event": "attached", "port": number, "used": used})

    def _begin(self) -> None:
        assert self._lane is not None
        for port in self._ports:
            port.start()
        self._lane.receiving = True
        self._begun = True
        self._send({"event": "ready", "ports": self._describe_ports()})

    def _renew(self, queue: int, generation: int, descriptors: list[int]) -> None:
        assert self._lane is not None
        rings = RingPair.attach(descriptors[0]) if descriptors else None
        blanks = self._config.worker(queue).blanks if rings else 0
        settled = self._lane.renew(queue, rings, generation, blanks)
        self._send(
            {
                "event": "renewed",
                "queue": queue,
                "generation": generation,
                "settled": {
                    "returned": settled.returned,
                    "carried": settled.carried,
                    "lost": settled.lost,
                    "refused": settled.refused,
                },
            }
        )

    # -- the end -------------------------------------------------------------------------

    def _is_finished(self) -> bool:
        """Whether every wire is simulated and has sent everything, and nothing is in flight.

        False if no wire has a source.
        """
        assert self._lane is not None
        return (
            any(port.wire is not None and port.wire.has_source for port in self._config.ports)
            and all(port.wire_finished() for port in self._ports)
            and self._lane.in_flight == 0
        )

    def _check_drained(self, moved: int, now: float) -> None:
        assert self._lane is not None
        assert self._drain_until is not None
        left = self._lane.in_flight
        if (moved == 0 and left == 0) or now >= self._drain_until:
            self._lane.receiving = False
            self._drain_until = None
            self._send({"event": "drained", "in_flight": left})

    def _stop(self) -> None:
        report: StopReport = {}
        if self._lane is not None:
            self._lane.receiving = False
            for queue in range(self._config.queues):
                self._lane.renew(queue, None, 0)
            for port in self._ports:
                port.stop()
            self._lane.balance(complete=True)
            if self._begun:
                report["ports"] = self._describe_ports()
        self._send({"event": "stopped", "report": report})
        self._ended = True

    def _describe_ports(self) -> list[PortReport]:
        described: list[PortReport] = []
        for port in self._ports:
            failed = port.examine()
            link = port.link()
            described.append(
                {
                    "name": port.name,
                    "link": {"up": link.up, "mbps": link.mbps},
                    "mac": port.mac,
                    "statistics": port.statistics(),
                    "wire": port.wire_statistics(),
                    "faults": port.faults(),
                    "failed": failed,
                    "trouble": port.trouble(),
                    "bad_input": port.bad_input(),
                }
            )
        return described


def _container(
    config: Config, packets: PacketMemory, descriptors: DescriptorMemory
) -> Container | None:
    """For cards behind an IOMMU; it opens nothing until there is one. None without cards on PCI."""
    if config.dma_mode != "offset" or not any(it.device.startswith("pci:") for it in config.ports):
        return None
    from ringline.pipeline.ports.pci.vfio import Container, Region

    memories = ((DESCRIPTORS_BASE, descriptors.segment), (PACKETS_BASE, packets.segment))
    return Container([Region(base, it.address, it.size) for base, it in memories])


def main() -> int:
    """The driver process, as the supervisor starts it."""
    return run_child(lambda supervisor: Driver(supervisor).run())


if __name__ == "__main__":
    sys.exit(main())
