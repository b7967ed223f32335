"""The driver's part of a port on packet sockets: the rings of sockets that the supervisor has
opened. It needs no right at all."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any

from ringline.pipeline._pipeline import ffi, lib
from ringline.pipeline.ports.interfaces import interface
from ringline.pipeline.ports.interfaces.socket_port import PAUSE, SocketPort
from ringline.pipeline.ports.packet import rings
from ringline.pipeline.ports.port import Link
from ringline.shm.clock import wall_offset
from ringline.shm.errors import Bug

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ringline.pipeline.configuration.config import PortConfig
    from ringline.pipeline.ports.interfaces.interface import Interface
    from ringline.shm.packets import DescriptorMemory, DeviceAddresses

# Nanoseconds: a smaller difference of the clocks is that of their readings.
CLOCK_STEP = 1_000_000


class PacketPort(SocketPort):
    """A copy of the traffic of an interface; see `AttachedPort`. The device string is packet:NAME.

    The times of its packets are those at which the kernel saw them.
    """

    live_stamps = True

    def __init__(self, config: PortConfig, index: int) -> None:
        self.name, self.index, self.mac = config.name, index, ""
        self.queue_pairs = config.queues
        self._config = config
        self._interface = config.address
        self._number = 0
        self._totals = {"rx_frames": 0, "rx_oversize": 0, "rx_undersize": 0, "rx_freezes": 0}
        self._totals |= {f"rx_queue{queue}_dropped": 0 for queue in range(config.queues)}
        self._sockets: list[socket.socket] = []
        self._rings: Sequence[rings.SocketRings] = []
        self._running = False
        self._clock = wall_offset()
        self._c = ffi.new("struct rl_packet *")
        self.c_port = ffi.addressof(self._c, "port")
        self.c_port.queues = self._c
        self.c_port.index = index
        self.c_port.queue_pairs = config.queues
        self.c_port.stamps = self._c.stamps
        for burst in ("rx_burst", "tx_burst", "reclaim"):
            setattr(self.c_port, burst, ffi.addressof(lib, f"rl_packet_{burst}"))

    def use_sockets(self, descriptors: Sequence[int]) -> None:
        self._sockets = [rings.socket_of(fd) for fd in descriptors]
        if len(self._sockets) != self.queue_pairs:
            raise Bug(f"port {self.name} has {self.queue_pairs} queues, not {len(descriptors)}")

    def replace_sockets(self, descriptors: Sequence[int]) -> None:
        self.statistics()
        old, old_rings = self._sockets, self._rings
        found, mapped, queues = self._mapped_anew(descriptors)
        self._count_unread()
        lib.rl_packet_return_all(self._c)
        self._release_these(old_rings, old)
        self._use(found, mapped, queues)
        self.link()

    # -- life cycle ------------------------------------------------------------------------

    def open(self, memory: Any, descriptors: DescriptorMemory, addresses: DeviceAddresses) -> None:
        self.c_port.memory = memory
        self._use(*self._mapped())

    def _map_queue(self, descriptor: int, place: Any) -> rings.SocketRings:
        return rings.SocketRings(descriptor, place, rings.Geometry.of(self._config))

    def _use(self, found: Interface, mapped: Sequence[rings.SocketRings], queues: Any) -> None:
        """Work on these rings from now on."""
        self._number, self.mac = found.number, found.mac
        self._rings = mapped
        for queue in range(self.queue_pairs):
            old, new = self._c.queues[queue], queues[queue]
            new.oversize, new.runt, new.last = old.oversize, old.runt, old.last
            self._c.queues[queue] = new

    def start(self) -> None:
        self._running = True
        self.link()

    def stop_receiving(self) -> None:
        """The supervisor has stopped it already: a filter keeps frames out of the rings. Waits
        until the kernel hands over the blocks that it has begun to fill."""
        deadline = time.monotonic() + self.limits.stop_receiving
        while self._running and self._open_frames() > 0 and time.monotonic() < deadline:
            time.sleep(PAUSE)

    def _open_frames(self) -> int:
        is_open, total = ffi.new("uint32_t *"), 0
        for queue in range(self.queue_pairs):
            lib.rl_packet_unread(ffi.addressof(self._c.queues, queue), is_open)
            total += is_open[0]
        return total

    def _reclaim(self, queue: int) -> None:
        lib.rl_packet_reclaim(self.c_port, queue)

    def _return_all(self) -> None:
        lib.rl_packet_return_all(self._c)
        self._count_unread()

    # -- state and counters ------------------------------------------------------------------

    def link(self) -> Link:
        _, up = interface.state(self._number)
        self._c.frame_max = interface.mtu(self._number) + interface.ETHERNET_BYTES
        self.c_port.ready = up and self._running
        self._follow_clock(wall_offset())
        return Link(up, interface.speed(self._number) if up else 0)

    def _follow_clock(self, offset: int) -> None:
        """The kernel's times follow its clock back; those of packets do not."""
        self._clock = max(self._clock, offset)
        behind = self._clock - offset
        self._c.behind = behind if behind >= CLOCK_STEP else 0

    def statistics(self) -> dict[str, int]:
        totals = self._totals
        for queue, each in enumerate(self._sockets):
            # Reading sets these counters to 0.
            data = each.getsockopt(rings.SOL_PACKET, rings.STATISTICS, rings.STATISTICS_V3.size)
            frames, drops, freezes = rings.STATISTICS_V3.unpack(data)
            totals["rx_frames"] += frames
            totals["rx_freezes"] += freezes
            totals[f"rx_queue{queue}_dropped"] += drops
        for queue in range(self.queue_pairs):
            c = self._c.queues[queue]
            totals["rx_oversize"] += c.oversize
            totals["rx_undersize"] += c.runt
            c.oversize = c.runt = 0
        return dict(totals)

    def _count_unread(self) -> None:
        """Frames that the kernel gave and nobody read any more are lost for lack of room."""
        is_open = ffi.new("uint32_t *")
        for queue in range(self.queue_pairs):
            unread = lib.rl_packet_unread(ffi.addressof(self._c.queues, queue), is_open)
            self._totals[f"rx_queue{queue}_dropped"] += unread

    def posted(self) -> tuple[int, int]:
        return 0, lib.rl_packet_scan(self._c, ffi.NULL)

    def scan(self, seen: Any) -> None:
        lib.rl_packet_scan(self._c, seen)
