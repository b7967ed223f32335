"""The server's side of vfio-user: messages over a UNIX socket, by which another program uses a
device as it would use one through Linux's VFIO (QEMU's docs/interop/vfio-user.rst, version 0.1).

This file knows the protocol and no device: `Device` says what a device must do. One client is
served at a time. A request with a mistake gets an error number in its reply, as from an ioctl; a
client that does not speak the protocol at all, or reads no answers, is disconnected, and `Garbled`
says why.

Guarantees (tests in tests/pipeline/ports/test_served_protocol.py):
 - the version is negotiated first, and max_msg_fds is at most 16, or QEMU refuses
   (test_the_version_is_negotiated)
 - a wrong request gets an error, and the client stays (test_a_wrong_request_gets_an_error)
 - no descriptor that a client sends is left open (test_no_descriptor_is_left)
 - a client that reads no answers does not stop the server
   (test_a_client_that_reads_no_answers_ends_the_talk)
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import struct
from collections.abc import Sequence
from typing import Protocol

from ringline.pipeline.configuration import deadlines

_HEADER = struct.Struct("<HHIII")  # id, command, size with the header, flags, error
_REPLY, _NO_REPLY, _ERROR = 0x1, 0x10, 0x20  # flags
_TYPE = 0xF

MESSAGE_FDS = 16  # descriptors in one message
TRANSFER_BYTES = 1 << 20  # of a region, in one message
_MESSAGE_BYTES = TRANSFER_BYTES + 64
_CAPABILITIES = {
    "max_msg_fds": MESSAGE_FDS,
    "max_data_xfer_size": TRANSFER_BYTES,
    "pgsizes": 4096,
    "max_dma_maps": 65535,
}

# linux/vfio.h
_DEVICE_RESET, _DEVICE_PCI = 0x1, 0x2
_REGION_READABLE, _REGION_WRITABLE = 0x1, 0x2
_DMA_READ, _DMA_WRITE, _UNMAP_ALL = 0x1, 0x2, 0x2
_IRQ_EVENTFD, _IRQ_NO_RESIZE = 0x1, 0x8
_DATA_NONE, _DATA_BOOL, _DATA_EVENTFD = 0x1, 0x2, 0x4
_ACTION_TRIGGER = 0x20
_ACTIONS = 0x38


class _Command:
    VERSION, DMA_MAP, DMA_UNMAP, DEVICE_INFO, REGION_INFO = 1, 2, 3, 4, 5
    IRQ_INFO, SET_IRQS, REGION_READ, REGION_WRITE, RESET = 7, 8, 9, 10, 13


class Garbled(Exception):
    """The client does not speak the protocol; the text says what it did."""


class Device(Protocol):
    """A PCI device. Methods raise OSError, whose number the client gets."""

    regions: list[int]  # the size of each region in bytes; 0: it is not there
    vectors: list[int]  # the number of interrupts of each kind

    def read(self, region: int, offset: int, size: int) -> bytes: ...
    def write(self, region: int, offset: int, data: bytes) -> None: ...
    def map_memory(self, address: int, size: int, fd: int, offset: int) -> None: ...
    def unmap_memory(self, address: int, size: int) -> None: ...
    def set_vectors(self, start: int, fds: Sequence[int]) -> None: ...
    def trigger(self, start: int, count: int) -> None: ...
    def reset(self) -> None: ...


class Connection:
    """A client, and the device that it uses. A context manager."""

    def __init__(self, client: socket.socket, device: Device) -> None:
        self._client = client
        self._device = device
        self._received = b""
        self._fds: list[int] = []
        self._greeted = False
        client.settimeout(deadlines.CARD_CLIENT)

    def fileno(self) -> int:
        """The descriptor that becomes readable when there is something to do."""
        return self._client.fileno()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._close_fds()
        self._client.close()

    def serve(self) -> bool:
        """Receive what is there, and answer all whole messages. False when the client has gone.
        Raises Garbled."""
        try:
            data, fds, flags, _ = socket.recv_fds(self._client, 1 << 16, MESSAGE_FDS)
        except ConnectionError:
            return False
        self._fds += fds
        if flags & socket.MSG_CTRUNC:
            raise Garbled(f"it sent more than {MESSAGE_FDS} descriptors in one message")
        self._received += data
        try:
            while self._answer_one():
                pass
        except (BrokenPipeError, ConnectionError):
            return False
        return bool(data)

    def _answer_one(self) -> bool:
        if len(self._received) < _HEADER.size:
            return False
        number, command, size, flags, _ = _HEADER.unpack_from(self._received)
        if not _HEADER.size <= size <= _MESSAGE_BYTES or flags & _TYPE:
            raise Garbled(f"it sent a message of type {flags & _TYPE} with {size} bytes")
        if len(self._received) < size:
            return False
        payload = self._received[_HEADER.size : size]
        self._received = self._received[size:]
        error, answer = 0, b""
        try:
            answer = self._carry_out(command, payload)
        except OSError as failed:
            error = failed.errno or errno.EIO
        except (struct.error, IndexError, ValueError):
            error = errno.EINVAL
        finally:
            self._close_fds()
        if not flags & _NO_REPLY:
            said = _REPLY | (_ERROR if error else 0)
            answer = b"" if error else answer
            head = _HEADER.pack(number, command, _HEADER.size + len(answer), said, error)
            try:
                self._client.sendall(head + answer)
            except TimeoutError:
                raise Garbled(
                    f"it has not read its answers for {deadlines.CARD_CLIENT:.2g} s"
                ) from None
        return True

    def _carry_out(self, command: int, payload: bytes) -> bytes:
        if not self._greeted and command != _Command.VERSION:
            raise Garbled(f"it sent command {command} before the version")
        match command:
            case _Command.REGION_READ:
                return self._region_read(payload)
            case _Command.REGION_WRITE:
                return self._region_write(payload)
            case _Command.VERSION:
                return self._version(payload)
            case _Command.DMA_MAP:
                return self._dma_map(payload)
            case _Command.DMA_UNMAP:
                return self._dma_unmap(payload)
            case _Command.DEVICE_INFO:
                flags = _DEVICE_RESET | _DEVICE_PCI
                kinds = len(self._device.regions), len(self._device.vectors)
                return struct.pack("<IIII", 16, flags, *kinds)
            case _Command.REGION_INFO:
                return self._region_info(payload)
            case _Command.IRQ_INFO:
                index = struct.unpack_from("<III", payload)[2]
                flags = _IRQ_EVENTFD | _IRQ_NO_RESIZE
                return struct.pack("<IIII", 16, flags, index, self._device.vectors[index])
            case _Command.SET_IRQS:
                return self._set_irqs(payload)
            case _Command.RESET:
                self._device.reset()
                return b""
            case _:
                raise OSError(errno.ENOTSUP, "an unknown command")

    def _version(self, payload: bytes) -> bytes:
        major, minor = struct.unpack_from("<HH", payload)
        if major != 0:
            raise OSError(errno.EINVAL, "another version")
        self._greeted = True
        text = json.dumps({"capabilities": _CAPABILITIES}).encode() + b"\0"
        return struct.pack("<HH", 0, min(minor, 1)) + text

    def _dma_map(self, payload: bytes) -> bytes:
        _, flags, offset, address, size = struct.unpack("<IIQQQ", payload)
        both = _DMA_READ | _DMA_WRITE
        if flags & both == both and self._fds:
            self._device.map_memory(address, size, self._fds[0], offset)
        # Else the card cannot reach it: it has no descriptor, or is read-only.
        return b""

    def _dma_unmap(self, payload: bytes) -> bytes:
        _, flags, address, size = struct.unpack_from("<IIQQ", payload)
        if flags & _UNMAP_ALL:
            address, size = 0, (1 << 64) - 1
        self._device.unmap_memory(address, size)
        return payload[:24]

    def _region_info(self, payload: bytes) -> bytes:
        index = struct.unpack_from("<III", payload)[2]
        size = self._device.regions[index]
        flags = _REGION_READABLE | _REGION_WRITABLE if size else 0
        return struct.pack("<IIIIQQ", 32, flags, index, 0, size, index << 40)

    def _place(self, payload: bytes) -> tuple[int, int, int]:
        """Offset, region and size of an access."""
        offset, region, size = struct.unpack_from("<QII", payload)
        if offset + size > self._device.regions[region] or size > TRANSFER_BYTES:
            raise OSError(errno.EINVAL, "outside of the region")
        return offset, region, size

    def _region_read(self, payload: bytes) -> bytes:
        offset, region, size = self._place(payload)
        return payload[:16] + self._device.read(region, offset, size)

    def _region_write(self, payload: bytes) -> bytes:
        offset, region, size = self._place(payload)
        if len(payload) != 16 + size:
            raise OSError(errno.EINVAL, "another size than it says")
        self._device.write(region, offset, payload[16:])
        return payload[:16]

    def _set_irqs(self, payload: bytes) -> bytes:
        _, flags, index, start, count = struct.unpack_from("<IIIII", payload)
        if start + count > self._device.vectors[index]:
            raise OSError(errno.EINVAL, "there are fewer vectors")
        if flags & _ACTIONS != _ACTION_TRIGGER:
            return b""  # masks are those of the MSI-X table, which the client keeps
        if flags & _DATA_EVENTFD:
            if len(self._fds) > count:
                raise OSError(errno.EINVAL, "more descriptors than vectors")
            fds = self._fds + [-1] * (count - len(self._fds))
            self._fds = []
            self._device.set_vectors(start, fds)
        elif flags & _DATA_NONE and count == 0:
            self._device.set_vectors(0, [-1] * self._device.vectors[index])
        elif flags & _DATA_NONE:
            self._device.trigger(start, count)
        elif flags & _DATA_BOOL:
            for number, wanted in enumerate(payload[20 : 20 + count]):
                if wanted:
                    self._device.trigger(start + number, 1)
        return b""

    def _close_fds(self) -> None:
        for fd in self._fds:
            with contextlib.suppress(OSError):
                os.close(fd)
        self._fds = []
