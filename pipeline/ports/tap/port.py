"""The driver's part of a port on a TAP: reads and writes on queues that the supervisor has opened.

It needs no right at all.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Any

from ringline.pipeline._pipeline import ffi, lib
from ringline.pipeline.ports.attachment import AttachedPort
from ringline.pipeline.ports.interfaces import netlink
from ringline.pipeline.ports.port import Link
from ringline.pipeline.ports.tap import tun
from ringline.shm.clock import ticks_per_second
from ringline.shm.errors import Bug, EnvironmentLacks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ringline.pipeline.configuration.config import PortConfig
    from ringline.shm.packets import DescriptorMemory, DeviceAddresses

REST = 10e-6  # seconds between two looks at a queue that stays empty

# Fields of struct rtnl_link_stats64 (linux/if_link.h) and their names here: what the interface
# sends, the port receives.
_COUNTS = {"rx_packets": 1, "tx_packets": 0, "rx_missed": 7, "tx_dropped": 6, "tx_errors": 4}


class TapPort(AttachedPort):
    """A TAP interface of the kernel; see `AttachedPort`. The device string is tap:NAME."""

    def __init__(self, config: PortConfig, index: int) -> None:
        self.name, self.index, self.mac = config.name, index, ""
        self.queue_pairs, self.frame_max = config.queues, config.frame_max
        self._config = config
        self._number = 0
        self._descriptors: list[int] = []
        self._earlier = dict.fromkeys(_COUNTS, 0)  # what earlier interfaces of the port counted
        self._before = dict.fromkeys(_COUNTS, 0)  # what this one had counted at its opening
        self._last = dict.fromkeys(_COUNTS, 0)
        self._started = False
        self._c = ffi.new("struct rl_tap *")
        self._c.rest = int(REST * ticks_per_second())
        self._sent = ffi.new("struct rl_tap_sent[]", config.queues * config.tx_descriptors)
        for queue in range(config.queues):
            self._c.queues[queue].sent = self._sent + queue * config.tx_descriptors
            self._c.queues[queue].mask = config.tx_descriptors - 1
            self._c.queues[queue].fd = -1
        self.c_port = ffi.addressof(self._c, "port")
        self.c_port.queues = self._c
        self.c_port.index = index
        self.c_port.frame_max = self.frame_max
        self.c_port.queue_pairs = config.queues
        for burst in ("rx_burst", "tx_burst", "reclaim"):
            setattr(self.c_port, burst, ffi.addressof(lib, f"rl_tap_{burst}"))

    def use_sockets(self, descriptors: Sequence[int]) -> None:
        if len(descriptors) != self.queue_pairs:
            raise Bug(f"port {self.name} has {self.queue_pairs} queues, not {len(descriptors)}")
        self._descriptors = list(descriptors)
        for queue, fd in enumerate(descriptors):
            self._c.queues[queue].fd = fd

    def replace_sockets(self, descriptors: Sequence[int]) -> None:
        if not tun.name_of(descriptors[0]):
            for fd in descriptors:
                os.close(fd)
            raise self._removed()
        self._earlier = self._totals()
        self._before = self._last = dict.fromkeys(_COUNTS, 0)
        self._release()
        self.use_sockets(descriptors)
        self._look()
        self.link()

    # -- life cycle ------------------------------------------------------------------------

    def open(self, memory: Any, descriptors: DescriptorMemory, addresses: DeviceAddresses) -> None:
        self.c_port.memory = memory
        self._look()

    def _look(self) -> None:
        """Note what the interface is, and what it has counted already."""
        name = tun.name_of(self._descriptors[0])
        if not name:
            raise self._removed()
        # Not found: it is in another network namespace already.
        self._number, _, attributes = netlink.link(name=name) or (0, 0, {})
        self.mac = attributes.get(netlink.ADDRESS, b"").hex(":")
        self._before = self._last = _counts(attributes)

    def _removed(self) -> EnvironmentLacks:
        return EnvironmentLacks(f"port.{self.name}.device: {self._config.address} was removed")

    def start(self) -> None:
        self._started = True
        self._c.receiving = 1
        self.link()

    def stop_receiving(self) -> None:
        self._c.receiving = 0

    def stop(self) -> None:
        self._started = False
        self._c.receiving = 0
        self.c_port.ready = 0
        if self.c_port.memory:
            for queue in range(self.queue_pairs):
                lib.rl_tap_reclaim(self.c_port, queue)

    def close(self) -> None:
        self.stop()
        self._release()

    def _release(self) -> None:
        for queue, fd in enumerate(self._descriptors):
            self._c.queues[queue].fd = -1
            os.close(fd)
        self._descriptors = []

    # -- state and counters ------------------------------------------------------------------

    def link(self) -> Link:
        """Packets go to an interface that is down, too: the kernel refuses them, and they are
        dropped as `tx_down`. So the first packet after it is up again is sent."""
        there, up = tun.state(self._descriptors[0]) if self._descriptors else (False, False)
        self.c_port.ready = there and self._started
        return Link(up, 0)

    def statistics(self) -> dict[str, int]:
        # An interface in another network namespace cannot be asked: its last counters stay.
        found = netlink.link(number=self._number) if self._number else None
        if found is not None and self._descriptors:
            self._last = _counts(found[2])
        return self._totals()

    def _totals(self) -> dict[str, int]:
        return {
            name: self._earlier[name] + self._last[name] - self._before[name] for name in _COUNTS
        }

    def posted(self) -> tuple[int, int]:
        """No buffer waits for a frame: the kernel keeps frames in its own queue."""
        return 0, lib.rl_tap_scan(self._c, ffi.NULL)

    def scan(self, seen: Any) -> None:
        lib.rl_tap_scan(self._c, seen)


def _counts(attributes: netlink.Attributes) -> dict[str, int]:
    data = attributes.get(netlink.STATS64, b"").ljust(64, b"\0")
    fields = struct.unpack_from("=8Q", data)
    return {name: fields[at] for name, at in _COUNTS.items()}
