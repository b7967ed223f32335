"""The register language: a card's registers are a table, and code reads like the datasheet.

One line per register:

    NAME    0xADDRESS  shape     mode  description | FIELD bit, FIELD high:low

`shape` is `-`, or `+0x40*16` for 16 registers that lie 0x40 bytes apart. Modes:

    RO    read only
    RW    read and write
    WO    write only: reading it means nothing
    RC    a counter that reading clears: what was read adds up to a 64-bit total
    RW64, RC64   the same in two registers, the low half here and the high half behind it

Guarantees (tests in tests/pipeline/ports/test_registers.py):
  - a register is used only as its mode says, and a value that its field cannot hold is refused
  - a total only grows, whether or not the registers really clear when they are read
  - every wait ends, with an error that names register, field, what was expected and what was seen
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from ringline.shm.errors import Bug, HardwareError

_LINE = re.compile(
    r"(?P<name>[A-Z][A-Z0-9_]*)\s+(?P<address>0x[0-9A-Fa-f]+)\s+"
    r"(?:-|\+(?P<stride>0x[0-9A-Fa-f]+)\*(?P<count>[0-9]+))\s+"
    r"(?P<mode>RO|RW64|RW|WO|RC64|RC)\s+(?P<description>[^|]+?)\s*(?:\|(?P<fields>.*))?"
)
_FIELD = re.compile(r"\s*(?P<name>[A-Z][A-Z0-9_]*)\s+(?P<high>[0-9]+)(?::(?P<low>[0-9]+))?\s*")
_COUNTERS = ("RC", "RC64")
_PAIRS = ("RW64", "RC64")


class RegisterAccess(Protocol):
    """How registers are reached: a mapped BAR, or a device model that traps every access."""

    read_clears: bool
    """Whether reading a read-to-clear register clears it; plain memory does not."""

    def read32(self, address: int) -> int:
        """The 32-bit register at byte `address` of the BAR."""

    def write32(self, address: int, value: int) -> None:
        """Write it."""

    def pointer(self, address: int) -> Any:
        """The register as cdata `volatile uint32_t *`, for doorbells that C rings."""

    def relax(self) -> None:
        """Let a little time pass between two looks; a model in this process takes a step."""

    def close(self) -> None:
        """Give the registers back; none is touched after that."""


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
        """The first byte behind the register or its array: a BAR must reach that far."""
        size = 8 if self.mode in _PAIRS else 4
        return self.address + self.stride * max(self.count - 1, 0) + size


def table(text: str) -> dict[str, Definition]:
    """Read a register table; empty lines and lines that begin with `#` are for the reader.

    Raises `Bug`: a table is part of the program.
    """
    definitions: dict[str, Definition] = {}
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.rstrip())
        if match is None:
            raise Bug(f"not a line of a register table: {line!r}")
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
            raise Bug(f"register {register}: not a field: {part.strip()!r}")
        low = int(match["low"] or match["high"])
        fields[match["name"]] = (low, int(match["high"]) - low + 1)
    return fields


class Register:
    """One register of a card, or an array of them: then `register[n]` is the one to use."""

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
        """What a counter has come to, as far as it was read."""

    def __getitem__(self, index: int) -> Register:
        return self._elements[index]

    def __iter__(self) -> Iterator[Register]:
        return iter(self._elements)

    def __len__(self) -> int:
        return len(self._elements)

    @property
    def counts(self) -> bool:
        """Whether it is a counter that reading clears."""
        return self._mode in _COUNTERS

    def read(self) -> int:
        """Its value; of a counter the total since `restart`, this reading included."""
        if self._mode in ("WO", "array"):
            raise Bug(f"register {self.name} ({self._mode}) cannot be read")
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
        elif value > self._last:  # else the halves were caught in the middle of a carry
            self.total += value - self._last
            self._last = value
        return self.total

    def sum(self) -> int:
        """The total of a counter, or of all counters of an array."""
        return sum(one.read() for one in self._elements) if self._elements else self.read()

    def restart(self) -> None:
        """Begin a counter at 0, whatever the register has counted so far."""
        self._last = 0
        self.read()
        self.total = 0

    def write(self, value: int = 0, **fields: int) -> None:
        """Write `value` with the named fields put into it; what is not named is 0."""
        if self._mode not in ("RW", "RW64", "WO"):
            raise Bug(f"register {self.name} ({self._mode}) cannot be written")
        for name, content in fields.items():
            low, width = self._field(name)
            if content >> width:
                raise Bug(f"{content} does not fit {self.name}.{name}, which has {width} bits")
            value = value & ~(((1 << width) - 1) << low) | content << low
        self._access.write32(self.address, value & 0xFFFFFFFF)
        if self._mode in _PAIRS:
            self._access.write32(self.address + 4, value >> 32)

    def update(self, **fields: int) -> None:
        """Change the named fields and leave the others as they are."""
        self.write(self.read(), **fields)

    def set(self, *names: str) -> None:
        """Set the named bits and leave the others as they are."""
        self.update(**dict.fromkeys(names, 1))

    def clear(self, *names: str) -> None:
        """Clear the named bits and leave the others as they are."""
        self.update(**dict.fromkeys(names, 0))

    def field(self, name: str) -> int:
        """The value of one field, read now."""
        low, width = self._field(name)
        return self.read() >> low & ((1 << width) - 1)

    def wait(self, name: str, expected: int, seconds: float) -> None:
        """Look until the field has the value. Raises `HardwareError` after `seconds`."""
        deadline = time.monotonic() + seconds
        while (seen := self.field(name)) != expected:
            if time.monotonic() >= deadline:
                raise HardwareError(
                    f"{self._card}: waited {seconds:g} s for {self.name}.{name} to become "
                    f"{expected:d}; it is {seen} ({self._definition.description}, "
                    f"register {self.address:#07x})"
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

    `card` says in errors whose registers they are.
    """

    def __init__(
        self, access: RegisterAccess, definitions: dict[str, Definition], card: str
    ) -> None:
        self._access = access
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

    def relax(self) -> None:
        """Let a little time pass between two looks."""
        self._access.relax()

    def counters(self) -> Iterator[Register]:
        """Every register that counts, those in arrays one by one."""
        for register in self:
            for one in register if len(register) else (register,):
                if one.counts:
                    yield one
