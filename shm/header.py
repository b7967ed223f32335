"""The header in the first page of every segment: kind, size, layout, owner.

`magic`, the first word, is written last: it says that the other fields are complete. A header is
copied into private memory before it is checked, because every process that maps the segment can
change it at any time.
"""

from __future__ import annotations

import os

from ringline.shm._shm import ffi, lib
from ringline.shm.errors import Bug, UsageError
from ringline.shm.layout import layout_hash

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

MAGIC = int.from_bytes(b"ringline", "little")

_FORGOTTEN = b"-"  # takes the place of the first digit of an address

_SIZE: int = ffi.sizeof("struct rl_segment_header")
_NAME_LENGTH = 48
_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")


def check_instance(instance: str) -> None:
    """Raise UsageError unless `instance` can be part of a segment's name.

    A dot is not allowed, so the names of two instances never collide
    (tests/shm/test_segments.py: test_a_name_does_not_match_a_longer_one).
    """
    if not 0 < len(instance) <= _NAME_LENGTH or not _NAME_CHARACTERS.issuperset(instance):
        raise UsageError(
            f"{instance!r} cannot be the name of an instance: use 1 to {_NAME_LENGTH} "
            "letters, digits, '-' or '_'"
        )


def write_header(
    address: int, instance: str, what: str, *, kind: int, size: int, used: int, generation: int
) -> None:
    """Fill the header at `address`, which is all zeros; `magic` last, with a release store."""
    header = ffi.cast("struct rl_segment_header *", address)
    header.layout_version = lib.RL_LAYOUT_VERSION
    header.kind = kind
    header.layout_hash = layout_hash()
    header.size = size
    header.used = used
    header.owner_pid = os.getpid()
    header.generation = generation
    header.instance = instance.encode()
    header.what = what.encode()
    lib.rl_publish64(address, MAGIC)


def read_header(fd: int) -> Any:
    """A private copy of the header behind `fd`, or None when there is no complete one."""
    try:
        data = os.pread(fd, _SIZE, 0)
    except OSError:
        return None
    if len(data) < _SIZE:
        return None
    header = ffi.new("struct rl_segment_header *")
    ffi.memmove(header, data, _SIZE)
    return header if header.magic == MAGIC else None


def set_addresses(header: Any, addresses: Sequence[str]) -> None:
    """Write PCI addresses into the header; raises Bug when they do not fit."""
    text = " ".join(addresses).encode()
    if len(text) >= ffi.sizeof(header.pci):
        raise Bug(f"{len(addresses)} PCI addresses do not fit into the header of a segment")
    header.pci = text


def note_address(header: Any, address: str) -> None:
    """Add a PCI address to the header.

    A process that is killed at any point of this leaves the addresses before or after the
    change, never another address: the first byte of an addition makes all of it visible, and one
    byte brings a forgotten address back. Raises Bug when it does not fit.
    """
    if address in addresses_in(header):
        return
    text = bytes(ffi.string(header.pci))
    at = text.find(_FORGOTTEN + address[1:].encode())
    if at >= 0:
        header.pci[at] = address[:1].encode()
        return
    added = b" " + address.encode()
    if len(text) + len(added) >= ffi.sizeof(header.pci):
        raise Bug(f"the PCI address {address} does not fit into the header of a segment")
    for place in reversed(range(len(added))):
        header.pci[len(text) + place] = added[place : place + 1]


def forget_address(header: Any, address: str) -> None:
    """Remove a PCI address from the header, by one byte: see `note_address`."""
    at = bytes(ffi.string(header.pci)).find(address.encode())
    if at >= 0:
        header.pci[at] = _FORGOTTEN


def addresses_in(header: Any) -> list[str]:
    """The PCI addresses in a header, without words that are not PCI addresses."""
    text = ffi.string(header.pci).decode("ascii", "replace")
    return [word for word in text.split() if _is_pci_address(word)]


def _is_pci_address(word: str) -> bool:
    """Whether `word` has the form 0000:03:00.0, in lower-case hexadecimal digits."""
    form = "".join("h" if c in "0123456789abcdef" else c for c in word)
    return form == "hhhh:hh:hh.h"
