"""What prefix tables and maps share: numbers as compiled code sees them, and copies of memory."""

from __future__ import annotations

import mmap
from operator import index

from ringline.shm.errors import PluginError
from ringline.workers._workers import ffi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def signed(number: int) -> int:
    """The low 64 bits of a number, with a sign: as compiled code passes it."""
    low = index(number) & (1 << 64) - 1
    return low - (1 << 64) if low >> 63 else low


def integer(value: Any, what: str) -> int:
    """`value`, also of NumPy, as an int. Raises ValueError when it is no integer."""
    try:
        if not isinstance(value, bool):
            return index(value)
    except TypeError:
        pass
    raise ValueError(f"{what} must be an integer, not {value!r}")


def checked(value: Any, what: str, least: int, most: int) -> int:
    """`value` as an int within these bounds. Raises PluginError."""
    try:
        number = integer(value, what)
    except ValueError as error:
        raise PluginError(str(error)) from None
    if not least <= number <= most:
        raise PluginError(f"{what} must be {least} to {most}, not {number}")
    return number


def copied(address: int, size: int) -> tuple[Any, int]:
    """A copy of `size` bytes in memory of its own, and its address: a multiple of a page."""
    memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE)
    start = ffi.from_buffer(memory)
    ffi.memmove(start, ffi.cast("char *", address), size)
    return start, int(ffi.cast("uintptr_t", start))
