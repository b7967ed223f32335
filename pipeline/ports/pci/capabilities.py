"""The capabilities of a PCI device: a list in configuration space (PCI Local Bus 3.0, 6.7)."""

from __future__ import annotations

from collections.abc import Iterator

from ringline.pipeline.ports.pci.sysfs import ReadConfig

VENDOR = 9  # kind of a capability whose content its vendor defines
_STATUS, _BARS, _POINTER = 0x06, 0x10, 0x34
_HAS_CAPABILITIES, _IO = 0x10, 1
_MOST = 48  # as many as fit
_BAR_MAX = 5


def capabilities(read: ReadConfig, kind: int) -> Iterator[int]:
    """The offsets of the capabilities of a kind, in the order of the list."""
    at = read(_POINTER, 1) if read(_STATUS, 2) & _HAS_CAPABILITIES else 0
    for _ in range(_MOST):
        at &= ~3
        if at == 0:
            return
        if read(at, 1) == kind:
            yield at
        at = read(at + 1, 1)


def is_memory(read: ReadConfig, bar: int) -> bool:
    """Whether there is a BAR with this number, and it is memory and not I/O."""
    return bar <= _BAR_MAX and not read(_BARS + 4 * bar, 4) & _IO
