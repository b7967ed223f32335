"""A simulated card with the driver of the real one, and a loop that sends back what it receives.

For tests of card and driver together, without rings and workers.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ringline.pipeline._pipeline import ffi
from ringline.pipeline.configuration.config import Config, MemoryConfig, PortConfig, WireConfig
from ringline.pipeline.driver.lane import Idle, Lane
from ringline.pipeline.ports.create import create_port
from ringline.pipeline.ports.sim82599.port import Sim82599Port, card_segment
from ringline.pipeline.supervisor.instance import create_lane, grant
from ringline.shm import control
from ringline.shm.packets import DescriptorMemory, PacketMemory
from ringline.shm.segments import Segment

BUFFERS = 8192
TIMEOUT = 20.0  # seconds; long, for a busy machine


@dataclass
class Pair:
    """An open port with its lane, and the packets received so far."""

    port: Sim82599Port
    lane: Lane
    queues: int
    received: list[tuple[int, Any]] = field(default_factory=list)

    def step(self) -> None:
        if self.port.step is not None:
            function, context = self.port.step
            ffi.cast("uint32_t (*)(void *)", function)(ffi.cast("void *", context))

    def turn(self, *, send: bool = True) -> int:
        """One pass over all queues; returns the packets received."""
        c_port, total = self.port.c_port, 0
        refs = ffi.new("struct rl_reference[64]")
        self.step()
        for queue in range(self.queues):
            c_port.reclaim(c_port, queue)
            got = c_port.rx_burst(c_port, queue, refs, 64)
            total += got
            self.received += [(queue, (refs[i].length, refs[i].rss_hash)) for i in range(got)]
            sent = 0
            deadline = time.monotonic() + TIMEOUT
            while send and sent < got and time.monotonic() < deadline:
                sent += c_port.tx_burst(c_port, queue, refs + sent, got - sent)
                if sent < got:
                    self.step()
                    c_port.reclaim(c_port, queue)
        return total

    def until_finished(self) -> None:
        """Forward until the wire has finished and all packets are sent."""
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline:
            # First: a frame may come between a turn that found none and the end of the wire.
            finished = self.port.wire_finished()
            if self.turn() == 0 and finished and self.port.posted()[1] == 0:
                return
        raise AssertionError(f"not finished: {self.port.wire_statistics()} {self.port.faults()}")


class CardProcess:
    """The model in a process of its own, started as by the supervisor."""

    def __init__(self, config: Config, *segments: Segment) -> None:
        self.control, theirs = control.Control.pair()
        with theirs:
            theirs.set_inheritable(True)
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ringline.pipeline.ports.sim82599.process"],
                env={**os.environ, control.ENVIRONMENT: str(theirs.fileno())},
                pass_fds=[theirs.fileno()],
            )
        with grant(*segments) as descriptors:
            message = {"do": "open", "config": config.to_json(), "port": 0}
            self.control.send(message, descriptors)

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        self.control.send(message)
        return self.answer()

    def answer(self) -> dict[str, Any]:
        received = self.control.receive(TIMEOUT)
        assert received is not None, "the card process does not answer"
        return received[0]

    def close(self) -> None:
        self.control.close()
        try:
            self.process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass
class CardHarness:
    """Packet memory and, in process mode, a card process; `pair` opens a port on them."""

    config: Config
    packets: PacketMemory
    descriptors: DescriptorMemory
    books: Segment
    card: Segment | None
    process: CardProcess | None

    @contextlib.contextmanager
    def pair(self, *, start: bool = True) -> Iterator[Pair]:
        port_config = self.config.ports[0]
        addresses = self.packets.device_addresses("offset")
        queues = port_config.queues
        lane = Lane(self.books, self.packets, addresses, queues, Idle())
        port = create_port(port_config, 0)
        assert isinstance(port, Sim82599Port)
        if self.card is not None:
            port.use_card(self.card.share())
        try:
            port.open(lane.memory, self.descriptors, self.descriptors.device_addresses("offset"))
            if start:
                port.start()
            yield Pair(port, lane, queues)
        finally:
            port.close()
            lane.close()


@contextlib.contextmanager
def card_harness(wire: WireConfig, *, process: bool = False, **port: Any) -> Iterator[CardHarness]:
    """Make everything except the port."""
    name = f"t{os.getpid()}-sim"
    config = Config(
        name=name,
        memory=MemoryConfig(buffers=BUFFERS),
        ports=(PortConfig(name="p", device="sim:82599", wire=wire, process=process, **port),),
    )
    with contextlib.ExitStack() as stack:
        packets = stack.enter_context(PacketMemory.create(name, BUFFERS, hugepages="off"))
        descriptors = stack.enter_context(DescriptorMemory.create(name, 1 << 20, hugepages="off"))
        books = stack.enter_context(create_lane(name, BUFFERS))
        card, running = None, None
        if process:
            card = stack.enter_context(card_segment(name, config.ports[0]))
            running = CardProcess(config, descriptors.segment, packets.segment, card)
            stack.callback(running.close)
            assert running.answer() == {"event": "ready"}
        yield CardHarness(config, packets, descriptors, books, card, running)
