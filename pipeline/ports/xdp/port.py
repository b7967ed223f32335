"""The driver's part of an AF_XDP port: the rings of sockets that the supervisor has opened.

It needs no right at all. A port starts once: what the kernel was given on the fill ring cannot be
taken back from it.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Any

from ringline.pipeline._pipeline import ffi, lib
from ringline.pipeline.ports.interfaces import interface
from ringline.pipeline.ports.interfaces.socket_port import SocketPort
from ringline.pipeline.ports.port import Link
from ringline.pipeline.ports.rss import rss_key
from ringline.pipeline.ports.xdp.rings import SOL_XDP, STATISTICS, SocketRings, socket_of
from ringline.shm.errors import Bug, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ringline.pipeline.configuration.config import PortConfig
    from ringline.pipeline.ports.interfaces.interface import Interface
    from ringline.shm.packets import DescriptorMemory, DeviceAddresses

HASH_WORDS = 36 * 256

# Fields of struct xdp_statistics (linux/if_xdp.h).
_COUNTS = (
    "rx_dropped",
    "rx_invalid",
    "tx_invalid",
    "rx_ring_full",
    "rx_fill_empty",
    "tx_empty",
)


class XdpPort(SocketPort):
    """One interface of the kernel; see `AttachedPort`. The device string is xdp:NAME."""

    def __init__(self, config: PortConfig, index: int) -> None:
        assert config.xdp is not None
        self.name, self.index, self.mac = config.name, index, ""
        self.queue_pairs = config.queues
        self._config = config
        self._interface = config.address
        self._number = 0
        self._earlier: dict[str, int] = {}  # statistics of sockets before these
        self._sockets: list[socket.socket] = []
        self._rings: Sequence[SocketRings] = []
        self._started = self._running = False
        self._c = ffi.new("struct rl_xdp *")
        self._c.busy_polling = config.xdp.busy_poll_us > 0
        self._c.completing = config.xdp.fix_checksums
        self._c.hashing = config.xdp.hash == "software"
        self._tables = ffi.new("uint32_t[]", HASH_WORDS if self._c.hashing else 1)
        if self._c.hashing:
            lib.rl_xdp_hash_tables(rss_key(config.rss_key), self._tables)
        self._c.toeplitz = self._tables
        self.c_port = ffi.addressof(self._c, "port")
        self.c_port.queues = self._c
        self.c_port.index = index
        self.c_port.queue_pairs = config.queues
        for burst in ("rx_burst", "tx_burst", "reclaim"):
            setattr(self.c_port, burst, ffi.addressof(lib, f"rl_xdp_{burst}"))

    def use_sockets(self, descriptors: Sequence[int]) -> None:
        self._sockets = [socket_of(fd) for fd in descriptors]
        if len(self._sockets) != self.queue_pairs:
            raise Bug(f"port {self.name} has {self.queue_pairs} queues, not {len(descriptors)}")

    def replace_sockets(self, descriptors: Sequence[int]) -> None:
        earlier = self.statistics()
        old, old_rings = self._sockets, self._rings
        found, mapped, queues = self._mapped_anew(descriptors)
        self._earlier = earlier
        lib.rl_xdp_return_all(self._c)
        self._release_these(old_rings, old)
        self._use(found, mapped, queues)
        if self._running and not lib.rl_xdp_post(self._c, self._config.rx_descriptors):
            raise Bug(f"port {self.name} has just freed its buffers, and they are gone")
        self.link()

    # -- life cycle ------------------------------------------------------------------------

    def open(self, memory: Any, descriptors: DescriptorMemory, addresses: DeviceAddresses) -> None:
        self.c_port.memory = memory
        self._use(*self._mapped())

    def _map_queue(self, descriptor: int, place: Any) -> SocketRings:
        config = self._config
        return SocketRings(descriptor, place, config.rx_descriptors, config.tx_descriptors)

    def _use(self, found: Interface, mapped: Sequence[SocketRings], queues: Any) -> None:
        """Work on these rings from now on."""
        self._number, self.mac = found.number, found.mac
        self._rings = mapped
        self._held = ffi.new("uint32_t[]", self.c_port.memory.buffers)
        self._c.held = self._held
        for queue in range(self.queue_pairs):
            self._c.queues[queue] = queues[queue]

    def start(self) -> None:
        if self._started:
            raise Bug(f"port {self.name} cannot start again: its sockets hold buffers")
        queues, count = self.queue_pairs, self._config.rx_descriptors
        if not lib.rl_xdp_post(self._c, count):
            raise ConfigurationError(
                f"memory.buffers: port {self.name} needs {queues} x {count} = {queues * count} "
                f"for its RX descriptors, and {self.c_port.memory.free_count} are free"
            )
        self._started = self._running = True
        self.link()

    def stop_receiving(self) -> None:
        """The supervisor has stopped it already: the program leaves all frames to the kernel."""

    def _reclaim(self, queue: int) -> None:
        lib.rl_xdp_reclaim(self.c_port, queue)

    def _return_all(self) -> None:
        lib.rl_xdp_return_all(self._c)

    # -- state and counters ------------------------------------------------------------------

    def link(self) -> Link:
        _, up = interface.state(self._number)
        self.c_port.ready = up and self._running
        return Link(up, interface.speed(self._number) if up else 0)

    def statistics(self) -> dict[str, int]:
        totals = dict.fromkeys(_COUNTS, 0) | self._earlier
        for queue, each in enumerate(self._sockets):
            data = each.getsockopt(SOL_XDP, STATISTICS, 8 * len(_COUNTS))
            counts = dict(zip(_COUNTS, struct.unpack(f"={len(_COUNTS)}Q", data), strict=True))
            for name in _COUNTS:
                totals[name] += counts[name]
            dropped = f"rx_queue{queue}_dropped"
            totals[dropped] = totals.get(dropped, 0) + counts["rx_dropped"] + counts["rx_ring_full"]
        return totals

    def posted(self) -> tuple[int, int]:
        return self._scan(ffi.NULL)

    def scan(self, seen: Any) -> None:
        self._scan(seen)

    def _scan(self, seen: Any) -> tuple[int, int]:
        receiving, sending = ffi.new("uint32_t *"), ffi.new("uint32_t *")
        lib.rl_xdp_scan(self._c, receiving, sending, seen)
        return receiving[0], sending[0]
