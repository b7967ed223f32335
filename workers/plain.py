"""The argument `frame` of a packet function that runs as plain Python: it calculates as compiled
code does, so that a test or a debugger shows what a worker does.

numba widens every integer to 64 bits before it calculates:

 - An element of a frame is unsigned, and so is the result of two unsigned operands and of a
   shift of one: a result below 0 becomes itself plus 2^64. Only `~` and `-` of an element itself
   keep 8 bits.
 - With an operand of another kind (a constant, a field of `meta`, the result of `field`) the
   result is signed: `frame[22] - 65` is below 0 when the byte is below 65.
 - `int` does not make it signed. This is the one difference: plain Python cannot show it.

NumPy would keep 8 bits: `frame[12] << 8` would be 0. An element that is written keeps its low 8
bits in both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

_MASK = (1 << 64) - 1


class Unsigned(int):
    """A non-negative number that calculates as an unsigned integer of numba."""


def _binary(name: str) -> Callable[[Unsigned, Any], Any]:
    of_int = getattr(int, name)

    def calculate(self: Unsigned, other: Any) -> Any:
        result = of_int(self, other)
        unsigned = isinstance(other, Unsigned) or name in ("__lshift__", "__rshift__")
        return _cut(result, unsigned=unsigned)

    return calculate


def _unary(name: str) -> Callable[[Unsigned], Any]:
    of_int = getattr(int, name)
    return lambda self: _cut(of_int(self), unsigned=True)


def _cut(result: Any, *, unsigned: bool) -> Any:
    """The result in 64 bits. What is no integer, such as the result of `/`, stays as it is."""
    if type(result) is tuple:  # of divmod
        return tuple(_cut(part, unsigned=unsigned) for part in result)
    if not isinstance(result, int) or isinstance(result, bool):
        return result
    low = result & _MASK
    if unsigned:
        return Unsigned(low)
    return low - (1 << 64) if low >> 63 else low


for _name in ("add", "sub", "mul", "floordiv", "mod", "and", "or", "xor", "pow", "divmod"):
    setattr(Unsigned, f"__{_name}__", _binary(f"__{_name}__"))
    setattr(Unsigned, f"__r{_name}__", _binary(f"__r{_name}__"))
for _name in ("lshift", "rshift"):
    setattr(Unsigned, f"__{_name}__", _binary(f"__{_name}__"))
for _name in ("neg", "invert", "pos", "abs"):
    setattr(Unsigned, f"__{_name}__", _unary(f"__{_name}__"))


class Byte(Unsigned):
    """An element of a frame."""

    def __neg__(self) -> Unsigned:
        return Unsigned(-int(self) & 0xFF)

    def __invert__(self) -> Unsigned:
        return Unsigned(~int(self) & 0xFF)


class Frame(np.ndarray[Any, np.dtype[np.uint8]]):
    """A uint8 array whose elements are Bytes."""

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return Byte(found) if isinstance(found, np.uint8) else found

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(value, (int, np.integer)):
            value = int(value) & 0xFF
        super().__setitem__(index, value)

    def __iter__(self) -> Iterator[Any]:
        return (self[number] for number in range(len(self)))

    def item(self, *arguments: Any) -> Any:
        """One element, as in `frame[0]`."""
        return Byte(super().item(*arguments))


def frame_over(buffer: bytearray, length: int, offset: int) -> Frame:
    """The frame of `length` bytes at `offset` of the buffer; writing to it changes the buffer."""
    return np.frombuffer(buffer, np.uint8, length, offset).view(Frame)
