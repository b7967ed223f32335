"""Registers of a card, defined by a table and used by the datasheet's names.

A table has one line per register:

    NAME    0xADDRESS  shape     mode  description | FIELD bit, FIELD high:low

`shape` is `-`, or `+0x40*16` for 16 registers that lie 0x40 bytes apart. Modes:

    RO    read only
    RW    read and write
    WO    write only
    RO8, RW8, RO16, RW16    the same in registers of 8 and 16 bits, with accesses of this width
    RC    a counter that a read clears; `read` adds the values up in `total`
    RW64, RC64   the same in two registers: the low half at `address`, the high half 4 bytes further

Guarantees (tests in tests/pipeline/ports/test_registers.py):
  - an access that the mode does not allow, and a value too large for its field, raise `Bug` and
    write nothing (test_a_forbidden_access_is_a_bug_and_writes_nothing)
  - a total only grows, with registers that clear on reading and with those that do not
    (test_a_counter_that_reading_clears_adds_up,
    test_a_counter_of_plain_memory_adds_up_to_the_same)
  - every wait ends; its error names register, field, expected and actual value
    (test_a_wait_that_fails_names_register_field_and_both_values)
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, cast

from ringline.shm.errors import Bug, HardwareError

_LINE = re.compile(
    r"(?P<name>[A-Z][A-Z0-9_]*)\s+(?P<address>0x[0-9A-Fa-f]+)\s+"
    r"(?:-|\+(?P<stride>0x[0-9A-Fa-f]+)\*(?P<count>[0-9]+))\s+"
    r"(?P<mode>RO16|RO8|RO|RW64|RW16|RW8|RW|WO|RC64|RC)\s+(?P<description>[^|]+?)\s*(?:\|(?P<fields>.*))?"
)
_FIELD = re.compile(r"\s*(?P<name>[A-Z][A-Z0-9_]*)\s+(?P<high>[0-9]+)(?::(?P<low>[0-9]+))?\s*")
_COUNTERS = ("RC", "RC64")
_PAIRS = ("RW64", "RC64")
_NARROW = {"RO8": 1, "RW8": 1, "RO16": 2, "RW16": 2}  # bytes


class RegisterAccess(Protocol):
    """Access to registers: a mapped BAR, or a device model that handles every access."""

    read_clears: bool
    """Whether a read of a read-to-clear register clears it; False for plain memory."""

    def read32(self, address: int) -> int:
        """The 32-bit register at byte `address` of the BAR."""

    def write32(self, address: int, value: int) -> None:
        """Write the 32-bit register at byte `address` of the BAR."""

    def pointer(self, address: int) -> Any:
        """The register as cdata `volatile uint32_t *`: C writes tail registers through it."""

    def relax(self) -> None:
        """Wait a moment between two reads; a model in this process takes a step."""

    def close(self) -> None:
        """Release the registers; they must not be used afterwards."""


class NarrowAccess(RegisterAccess, Protocol):
    """Access to registers of fewer than 32 bits too."""

    def read(self, address: int, size: int) -> int:
        """The register of `size` bytes, 1, 2 or 4, at byte `address` of the BAR."""

    def write(self, address: int, size: int, value: int) -> None:
        """Write the register of `size` bytes at byte `address` of the BAR."""


@dataclass(frozen=True)
class Definition:
    """One line of a table."""

    name: str
    address: int
    stride: int
    count: int  # 0: not an array
    mode: str
    description: str
    fields: dict[str, tuple[int, int]]  # name -> (lowest bit, width)

    @property
    def end(self) -> int:
        """Byte offset after the register or its array: a BAR must have at least so many bytes."""
        size = 8 if self.mode in _PAIRS else _NARROW.get(self.mode, 4)
        return self.address + self.stride * max(self.count - 1, 0) + size


def table(text: str) -> dict[str, Definition]:
    """Parse a register table. Empty lines and lines that begin with `#` are ignored.

    Raises `Bug` for a line that is not valid: a table is part of the program.
    """
    definitions: dict[str, Definition] = {}
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.rstrip())
        if match is None:
            raise Bug(f"register table: not a valid line: {line!r}")
        if match["name"] in definitions:
            raise Bug(f"register {match['name']} is listed twice")
        definitions[match["name"]] = Definition(
            name=match["name"],
            address=int(match["address"], 16),
            stride=int(match["stride"] or "0", 16),
            count=int(match["count"] or "0"),
            mode=match["mode"],
            description=match["description"],
            fields=_fields(match["name"], match["fields"] or ""),
        )
    return definitions


def _fields(register: str, text: str) -> dict[str, tuple[int, int]]:
    fields: dict[str, tuple[int, int]] = {}
    for part in filter(str.strip, text.split(",")):
        match = _FIELD.fullmatch(part)
        if match is None:
            raise Bug(f"register {register}: not a valid field: {part.strip()!r}")
        low = int(match["low"] or match["high"])
        fields[match["name"]] = (low, int(match["high"]) - low + 1)
    return fields


class Register:
    """One register of a card, or an array of registers; its elements are `register[n]`."""

    def __init__(
        self, access: RegisterAccess, definition: Definition, card: str, index: int | None = None
    ) -> None:
        self._access = access
        self._definition = definition
        self._card = card
        self._mode = definition.mode
        self._last = 0
        self._elements: list[Register] = []
        if definition.count and index is None:
            self._mode = "array"
            self._elements = [
                Register(access, definition, card, n) for n in range(definition.count)
            ]
        self.name = definition.name if index is None else f"{definition.name}[{index}]"
        self.address = definition.address + definition.stride * (index or 0)
        self.total = 0
        """Sum of the values of a counter since `restart`, up to the last read."""

    def __getitem__(self, index: int) -> Register:
        return self._elements[index]

    def __iter__(self) -> Iterator[Register]:
        return iter(self._elements)

    def __len__(self) -> int:
        return len(self._elements)

    @property
    def counts(self) -> bool:
        """Whether it is a counter (mode RC or RC64)."""
        return self._mode in _COUNTERS

    def read(self) -> int:
        """Its value now; for a counter the total since `restart`."""
        if self._mode in ("WO", "array"):
            raise Bug(f"register {self.name} ({self._mode}) cannot be read")
        if size := _NARROW.get(self._mode):
            return cast("NarrowAccess", self._access).read(self.address, size)
        value = self._access.read32(self.address)
        if self._mode in _PAIRS:
            value |= self._access.read32(self.address + 4) << 32
        if not self.counts:
            return value
        if self._access.read_clears:
            self.total += value
        elif self._mode == "RC":
            self.total += (value - self._last) % (1 << 32)
            self._last = value
        elif value > self._last:  # smaller: the halves were read in the middle of a carry
            self.total += value - self._last
            self._last = value
        return self.total

    def sum(self) -> int:
        """The total of a counter, or of all counters of an array."""
        return sum(one.read() for one in self._elements) if self._elements else self.read()

    def restart(self) -> None:
        """Set the total of a counter to 0; earlier counts of the register are ignored."""
        self._last = 0
        self.read()
        self.total = 0

    def write(self, value: int = 0, **fields: int) -> None:
        """Write `value` with the named fields set in it; other bits are those of `value`."""
        if self._mode not in ("RW", "RW64", "WO", "RW8", "RW16"):
            raise Bug(f"register {self.name} ({self._mode}) cannot be written")
        for name, content in fields.items():
            low, width = self._field(name)
            if content >> width:
                raise Bug(
                    f"register {self.name}: {content} does not fit the field {name} of {width} bits"
                )
            value = value & ~(((1 << width) - 1) << low) | content << low
        if size := _NARROW.get(self._mode):
            cast("NarrowAccess", self._access).write(self.address, size, value)
            return
        self._access.write32(self.address, value & 0xFFFFFFFF)
        if self._mode in _PAIRS:
            self._access.write32(self.address + 4, value >> 32)

    def update(self, **fields: int) -> None:
        """Change the named fields and keep the others."""
        self.write(self.read(), **fields)

    def set(self, *names: str) -> None:
        """Set the named bits and keep the others."""
        self.update(**dict.fromkeys(names, 1))

    def clear(self, *names: str) -> None:
        """Clear the named bits and keep the others."""
        self.update(**dict.fromkeys(names, 0))

    def field(self, name: str) -> int:
        """The value of one field, read now."""
        low, width = self._field(name)
        return self.read() >> low & ((1 << width) - 1)

    def wait(self, name: str, expected: int, seconds: float) -> None:
        """Poll until the field has the value. Raises `HardwareError` after `seconds`."""
        deadline = time.monotonic() + seconds
        while (seen := self.field(name)) != expected:
            if time.monotonic() >= deadline:
                raise HardwareError(
                    f"{self._card}: waited {seconds:.2g} s for {self.name}.{name} to become "
                    f"{expected:d}; it is {seen} ({self._definition.description}, "
                    f"register {self.address:#07x}); start again, and if the card still does not "
                    "answer, switch the machine off and on"
                )
            self._access.relax()

    def pointer(self) -> Any:
        """The register as cdata `volatile uint32_t *`."""
        return self._access.pointer(self.address)

    def _field(self, name: str) -> tuple[int, int]:
        try:
            return self._definition.fields[name]
        except KeyError:
            raise Bug(f"register {self.name} has no field {name}") from None


class Registers:
    """The registers of a table, by name: `registers.CTRL`, `registers.RXDCTL[3]`.

    Errors begin with `card`, the name of the card. A handshake may take `register_seconds`, and
    less when the time of the whole call is over, which `begin_call` sets: the supervisor waits for
    calls, not for registers.
    """

    def __init__(
        self,
        access: RegisterAccess,
        definitions: dict[str, Definition],
        card: str,
        register_seconds: float = math.inf,
    ) -> None:
        self.name = card
        self._access = access
        self._register_seconds = register_seconds
        self._until = math.inf
        self._registers = {
            name: Register(access, definition, card) for name, definition in definitions.items()
        }

    def __getattr__(self, name: str) -> Register:
        try:
            return self._registers[name]
        except KeyError:
            raise AttributeError(f"the card's table has no register {name}") from None

    def __iter__(self) -> Iterator[Register]:
        return iter(self._registers.values())

    def begin_call(self, seconds: float) -> None:
        """All waits from now until the next call may take `seconds` together."""
        self._until = time.monotonic() + seconds

    @property
    def wait_seconds(self) -> float:
        """How long the next handshake may take."""
        return max(0.0, min(self._register_seconds, self._until - time.monotonic()))

    def relax(self) -> None:
        """Wait a moment between two reads."""
        self._access.relax()

    def counters(self) -> Iterator[Register]:
        """Every counter; arrays element by element."""
        for register in self:
            for one in register if len(register) else (register,):
                if one.counts:
                    yield one
