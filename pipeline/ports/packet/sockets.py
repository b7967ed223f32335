"""The supervisor's part of a port on packet sockets: one socket for each queue, with its rings.

It needs CAP_NET_RAW. What it opens needs no right to be used, so the driver has none. The sockets,
and with them the membership that makes the interface promiscuous, end with this process, also after
SIGKILL. Until `take`, and after `give_back`, a filter keeps every frame out of the rings.

Guarantees (tests in tests/e2e/test_packet_life.py):
 - a driver without any capability receives and sends (test_the_driver_needs_no_privilege)
 - an error leaves nothing open (test_a_port_that_cannot_be_opened_leaves_nothing)
 - the kernel keeps all traffic (test_the_kernel_keeps_its_traffic)
 - an interface that was removed and made again is used again
   (test_an_interface_that_is_made_again_is_used_again)
 - so is one that was moved to another network namespace and comes back
   (test_an_interface_that_is_moved_and_comes_back_is_used_again)
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from typing import TYPE_CHECKING

from ringline.pipeline._pipeline import ffi
from ringline.pipeline.configuration.config import FRAME_MAX
from ringline.pipeline.ports.interfaces import interface, neighbours
from ringline.pipeline.ports.interfaces.socket_port import SocketAttachment
from ringline.pipeline.ports.packet import checks, rings
from ringline.shm.errors import EnvironmentLacks, reason_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ringline.pipeline.configuration.config import PortConfig

_ALL = 3  # ETH_P_ALL
_ATTACH_FILTER = 26  # SO_ATTACH_FILTER
_FANOUT_UNIQUE = 0x2000  # PACKET_FANOUT_FLAG_UNIQUEID; the kind PACKET_FANOUT_HASH is 0
_SEND_BUFFER = 4 << 20  # bytes; the kernel may allow fewer, and then it takes fewer at once

# Classic BPF (linux/filter.h): code, jump if true, jump if not, value.
_NOTHING = [(0x06, 0, 0, 0)]
# What a filter lets pass is cut to this length: so a frame of 64 KiB takes little room in a ring.
_WHOLE = (0x06, 0, 0, FRAME_MAX + 1)
_KIND = (0x30, 0, 0, 0xFFFFF004)  # load SKF_AD_PKTTYPE
_IS_OUTGOING = (0x15, 0, 1, socket.PACKET_OUTGOING)
_EVERYTHING = [_WHOLE]
_ARRIVING = [_KIND, _IS_OUTGOING, *_NOTHING, _WHOLE]


class PacketAttachment(SocketAttachment):
    """The sockets of one port."""

    def __init__(self, config: PortConfig) -> None:
        """Open everything. Raises EnvironmentLacks; then nothing stays open."""
        assert config.packet is not None
        self._config, self._packet = config, config.packet
        self._open_all()

    def _open_all(self) -> None:
        self._sockets: list[socket.socket] = []
        with contextlib.ExitStack() as stack:
            self._closing = stack
            self._open()
            self._closing = stack.pop_all()
        self._gone = False
        self.descriptors = [each.fileno() for each in self._sockets]

    def _open(self) -> None:
        config = self._config
        found = self._found = checks.check(config)
        where = f"port.{config.name}.device: {found.name}"
        try:
            for _ in range(config.queues):
                self._sockets.append(self._new_socket(found.name))
            self._share()
        except OSError as error:
            raise EnvironmentLacks(
                f"{where}: no packet socket can be opened: {reason_of(error)}"
            ) from None
        if config.promiscuous:
            try:
                self._closing.enter_context(interface.promiscuous(found))
            except OSError as error:
                raise EnvironmentLacks(
                    f"{where}: it could not be made promiscuous: {error.strerror}"
                ) from None
        self.description = "packet sockets, a copy of the traffic"
        kernel = f", driver {found.driver}" if found.driver else ""
        self.remarks = [
            f"port {config.name}: {found.name}{kernel}: {self.description}, queues {config.queues}",
            *(
                f"port {config.name}: {sentence}"
                for sentence in (
                    *interface.without_link(found),
                    *neighbours.said_of_packet(found, config.promiscuous),
                )
            ),
            *checks.long_frames(config, found),
        ]

    def _new_socket(self, name: str) -> socket.socket:
        """A socket with its rings, bound to the interface. Raises OSError."""
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        made = self._closing.enter_context(socket.socket(socket.AF_PACKET, kind, 0))
        _filter(made, _NOTHING)
        geometry = rings.Geometry.of(self._config)
        made.setsockopt(rings.SOL_PACKET, rings.VERSION, rings.TPACKET_V3)
        try:
            wait = self._packet.block_timeout_ms
            made.setsockopt(rings.SOL_PACKET, rings.RX_RING, geometry.rx_request(wait))
            made.setsockopt(rings.SOL_PACKET, rings.TX_RING, geometry.tx_request())
        except OSError as error:
            number = error.errno or 0
            why = os.strerror(number)
            if number == errno.ENOMEM:
                why = f"the kernel has no memory for rings of {geometry.size >> 10} KiB"
                why += "; set fewer rx_descriptors and tx_descriptors"
                number = errno.ENOBUFS  # that is the remedy
            raise OSError(number, why) from None
        if self._packet.qdisc_bypass:
            made.setsockopt(rings.SOL_PACKET, rings.QDISC_BYPASS, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        made.bind((name, _ALL))
        return made

    def _share(self) -> None:
        """Let the sockets share the frames by a hash over their flow. Raises OSError."""
        if len(self._sockets) == 1:
            return
        number = 0
        for each in self._sockets:
            flags = 0 if number else _FANOUT_UNIQUE
            try:
                each.setsockopt(rings.SOL_PACKET, rings.FANOUT, number | flags << 16)
            except OSError as error:
                why = error.strerror
                if error.errno == errno.EINVAL and not self._found.up:
                    why = (
                        "it is down, and before Linux 6.13 frames are shared among queues only "
                        f"while it is up; run: ip link set dev {self._found.name} up"
                    )
                raise OSError(error.errno, why) from None
            number = each.getsockopt(rings.SOL_PACKET, rings.FANOUT) & 0xFFFF

    # -- life -------------------------------------------------------------------------------

    def take(self) -> None:
        for each in self._sockets:
            _filter(each, _EVERYTHING if self._packet.outgoing else _ARRIVING)

    def give_back(self) -> None:
        for each in self._sockets:
            _filter(each, _NOTHING)

    def _is_bound(self) -> bool:
        return bool(self._sockets[0].getsockname()[0])  # the name of the interface

    def close(self) -> None:
        self._gone = True
        self._sockets = []
        self._closing.close()


def _filter(each: socket.socket, program: Sequence[tuple[int, int, int, int]]) -> None:
    """Replace the filter of a socket. Raises OSError."""
    code = ffi.from_buffer(b"".join(struct.pack("=HBBI", *step) for step in program))
    address = int(ffi.cast("uintptr_t", code))
    each.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, struct.pack("@HP", len(program), address))
