"""The configuration space of the served 82599: a PCI Express card with MSI-X, as the datasheet
describes it in chapter 9. What Linux and QEMU write stays where the card has bits for it.
"""

from __future__ import annotations

import struct

BYTES = 4096
COMMAND = 0x04
BUS_MASTER = 1 << 2
VECTORS = 64
TABLE_BAR = 4
BAR_BYTES = {0: 1 << 17, TABLE_BAR: 1 << 14}  # both have 64-bit addresses
PENDING_OFFSET = 0x2000  # of the pending bits, in the BAR of the MSI-X table

_INTEL = 0x8086
_NETWORK_CONTROLLER = 0x020000
_POWER, _MSIX, _EXPRESS = 0x40, 0x70, 0xA0  # capabilities, in the order of their list
_MEMORY_64 = 0x4
_ERROR_REPORTING, _SERIAL_NUMBER = 0x100, 0x140  # extended capabilities


class ConfigurationSpace:
    """`device` is the device ID, `mac` the MAC address, from which the serial number is made."""

    def __init__(self, device: int, mac: bytes) -> None:
        self._device = device
        self._mac = mac
        self._bytes = bytearray(BYTES)
        self._writable = bytearray(BYTES)
        self.reset()

    def reset(self) -> None:
        """The state after power-on; addresses of BARs are lost."""
        self._bytes = bytearray(BYTES)
        self._writable = bytearray(BYTES)
        self._set(0x00, "<HH", _INTEL, self._device)
        self._set(COMMAND, "<HH", 0, 0x0010)  # it has a list of capabilities
        self._allow(COMMAND, "<H", 0x0546)
        self._set(0x08, "<I", _NETWORK_CONTROLLER << 8 | 1)
        self._allow(0x0C, "<B", 0xFF)
        for number, size in BAR_BYTES.items():
            self._set(0x10 + 4 * number, "<I", _MEMORY_64)
            self._allow(0x10 + 4 * number, "<Q", (1 << 64) - size)
        self._set(0x2C, "<HH", _INTEL, 0x0003)
        self._set(0x34, "<B", _POWER)
        self._allow(0x3C, "<B", 0xFF)
        self._set(_POWER, "<BBHH", 0x01, _MSIX, 0x0023, 0x0008)
        self._allow(_POWER + 4, "<H", 0x0003)
        places = TABLE_BAR, PENDING_OFFSET | TABLE_BAR  # of the table, and of the pending bits
        self._set(_MSIX, "<BBHII", 0x11, _EXPRESS, VECTORS - 1, *places)
        self._allow(_MSIX + 2, "<H", 0xC000)
        self._set_express()
        self._set(_ERROR_REPORTING, "<I", 0x0001 | 1 << 16 | _SERIAL_NUMBER << 20)
        self._set(_SERIAL_NUMBER, "<I", 0x0003 | 1 << 16)
        serial = self._mac[:3] + b"\xff\xff" + self._mac[3:]
        self._bytes[_SERIAL_NUMBER + 4 : _SERIAL_NUMBER + 12] = serial[::-1]

    @property
    def bus_master(self) -> bool:
        """Whether the card may do DMA."""
        return bool(self._bytes[COMMAND] & BUS_MASTER)

    def read(self, offset: int, size: int) -> bytes:
        return bytes(self._bytes[offset : offset + size])

    def write(self, offset: int, data: bytes) -> bool:
        """Change the bits that can be written. True when it asks for a function level reset."""
        for at, value in enumerate(data, offset):
            mask = self._writable[at]
            self._bytes[at] = self._bytes[at] & ~mask | value & mask
        control = _EXPRESS + 9  # the upper half of the device control register
        return offset <= control < offset + len(data) and bool(data[control - offset] & 0x80)

    def _set_express(self) -> None:
        """An endpoint of version 2 with 8 lanes at 5 GT/s and function level reset."""
        self._set(_EXPRESS, "<BBHI", 0x10, 0, 0x0002, 1 << 28 | 1 << 15 | 2)
        self._allow(_EXPRESS + 8, "<H", 0x7FFF)
        self._set(_EXPRESS + 12, "<I", 0x00000482)
        self._set(_EXPRESS + 18, "<H", 0x1082)
        self._set(_EXPRESS + 36, "<I", 0x0000001F)
        self._allow(_EXPRESS + 40, "<H", 0x001F)

    def _set(self, offset: int, layout: str, *values: int) -> None:
        struct.pack_into(layout, self._bytes, offset, *values)

    def _allow(self, offset: int, layout: str, mask: int) -> None:
        struct.pack_into(layout, self._writable, offset, mask)
