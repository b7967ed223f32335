"""The real port over the simulated 82599, on a lane of its own."""

from __future__ import annotations

import os
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

from ringline.pipeline._pipeline import ffi, lib
from ringline.pipeline.configuration.deadlines import PortLimits
from ringline.pipeline.ports.ixgbe.card import BACKPLANES
from ringline.pipeline.ports.ixgbe.port import IxgbePort
from ringline.pipeline.ports.registers import Register, RegisterAccess
from ringline.pipeline.ports.sim82599.model import Sim82599

from .bare_82599 import table
from .port_harness import PortHarness

DESCRIPTORS_BUS = 0x1000_0000
PACKETS_BUS = 0x1_0000_0000


@dataclass(frozen=True, order=True)
class Received:
    """A received packet."""

    frame: bytes
    queue: int
    rss_hash: int
    flags: int
    tag: int | None


class IgnoringRegisters:
    """The registers of the model; writes to the addresses `ignored` are lost."""

    def __init__(self, sim: Sim82599) -> None:
        self.sim = sim
        self.ignored: Container[int] = ()

    def write32(self, address: int, value: int) -> None:
        if address not in self.ignored:
            self.sim.write32(address, value)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sim, name)


class ModelPort(IxgbePort):
    """The real port over the registers of the model; `ModelCard` maps the DMA windows.

    With `wakes`, its first vector counts up an eventfd. C cannot write to EIMS of the model:
    `follow` does, after `arm` of the port.
    """

    limits = PortLimits(register=0.25, link=0.25, sent=0.05)
    broken: Sequence[str] = ()
    foreign = False
    wakes = False
    eventfd = -1

    def _event(self) -> int:
        if self.wakes and self.eventfd < 0:
            self.eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self.sim.vector(0, self.eventfd)
        return self.eventfd

    def _pointer(self, register: Register) -> Any:
        self.unmask, self.unmask_at = ffi.new("uint32_t *"), register.address
        return self.unmask

    def follow(self) -> None:
        """Write to the register what C has written since the last call."""
        if self.unmask[0]:
            self.registers.write32(self.unmask_at, self.unmask[0])
            self.unmask[0] = 0

    def events(self, steps: int = 40) -> int:
        """How often the vector was raised since the last call."""
        self.follow()
        for _ in range(steps):
            self.sim.step()
        try:
            return os.eventfd_read(self.eventfd)
        except BlockingIOError:
            return 0

    def close(self) -> None:
        super().close()
        if self.eventfd >= 0:
            os.close(self.eventfd)
            self.eventfd = -1

    def _map_registers(self) -> RegisterAccess:
        self.sim = Sim82599(
            foreign=self.foreign, broken=self.broken, backplane=self.device_id in BACKPLANES
        )
        self.sim.bus_master(False)  # its state after PCI enumeration
        self.registers = IgnoringRegisters(self.sim)
        return self.registers

    def _set_bus_mastering(self, on: bool) -> None:
        self.sim.bus_master(on)


class ModelCard(PortHarness):
    """A port that sends back every packet that the wire of the model delivers."""

    port_class = ModelPort
    port: ModelPort

    def start(self) -> ModelCard:
        sim = self.port.sim
        for bus, memory in ((DESCRIPTORS_BUS, self.descriptors), (PACKETS_BUS, self.packets)):
            sim.map_window(bus, memory.segment.address, memory.segment.size)
        return super().start()

    @property
    def sim(self) -> Sim82599:
        return self.port.sim

    def carry(self, frames: list[bytes], steps: int = 40) -> list[Received]:
        """Let `frames` arrive and send received packets back; returns the received packets."""
        self.sim.load(table(frames))
        seen = []
        waiting: list[list[Any]] = [[] for _ in range(self.config.queues)]
        for _ in range(steps):
            self.sim.step()
            for queue, refs in enumerate(waiting):
                self.reclaim(queue)
                for ref in self.rx_burst(queue):
                    tag = ref.vlan_tci if ref.flags & lib.RL_FLAG_VLAN else None
                    seen.append(Received(self.frame(ref), queue, ref.rss_hash, ref.flags, tag))
                    refs.append(self.held(ref, queue))
                del refs[: self.tx_burst(refs, queue)]
        return seen
