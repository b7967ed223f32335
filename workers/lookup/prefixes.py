"""Prefix tables: the value of the longest prefix that covers an address, for IPv4 and IPv6.

A table is a sorted list of ranges of addresses (lookup.h), so its size depends only on the number
of prefixes: the ranges of n prefixes are at most 2n + 1. It has two banks. `fill` and `load` write
the bank that is not in use and then switch with one store, so a lookup and the next process of a
crashed worker see the old prefixes or the new ones, never a mixture.

Guarantees (tests in tests/workers/lookup/test_prefixes.py):
 - the longest prefix wins, whatever the order of the lines
   (test_it_finds_what_a_search_through_all_prefixes_finds)
 - lines that are wrong are all reported at once, and the table stays as it was
   (test_all_wrong_lines_are_reported_with_their_numbers)
"""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, inet_ntop, inet_pton  # `socket` itself takes 5 ms
from bisect import bisect_left
from struct import Struct

from ringline.shm import slots
from ringline.shm.errors import PluginError
from ringline.shm.text import printable
from ringline.workers._workers import ffi, lib
from ringline.workers.lookup.memory import checked, copied, integer, signed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from ringline.shm.slots import WorkerSlot

PREFIXES_MAX = 1 << 26  # of one family
WRONG_LINES = 20  # so many are named; more are counted

IPV4, IPV6 = 32, 128
BOUND = 1 << 63
LOW = (1 << 64) - 1
_ROW = Struct("=QQII")  # struct rl_prefix

# (bits of an address of the family, first address, length in bits)
Prefix = tuple[int, int, int]


class Prefixes:
    """A prefix table; `Worker.prefixes` makes it.

        table = worker.prefixes("routes", ipv4=100_000, missing=DROP)
        table.fill([("10.0.0.0/8", 1), ("2001:db8::/32", 2)])

    In a compiled function, as a part of the state, it has `find4` and `find6`.

    address: where it begins, a `struct rl_prefixes` of lookup/lookup.h, for a plugin in C.
    ipv4, ipv6: the most prefixes of each family.
    """

    def __init__(
        self, name: str, address: int, ipv4: int, ipv6: int, missing: int, keep: object = None
    ) -> None:
        self.name = name
        self.address = address
        self.ipv4 = ipv4
        self.ipv6 = ipv6
        self._table: Any = ffi.cast("struct rl_prefixes *", address)
        self._table.missing = missing
        self._keep = keep  # whatever holds its memory

    def find4(self, address: int) -> int:
        """The value of the longest IPv4 prefix that covers `address`, a number of 32 bits in the
        order of the machine, as `field(frame, 30, 4)` returns it; `missing` without one."""
        return int(lib.rl_lookup_find4(self.address, signed(address)))

    def find6(self, high: int, low: int) -> int:
        """The same for IPv6: `high` and `low` are the halves of the address, 64 bits each, as
        `field(frame, 38, 8)` and `field(frame, 46, 8)` return them."""
        return int(lib.rl_lookup_find6(self.address, signed(high), signed(low)))

    def __len__(self) -> int:
        """The number of prefixes in the table."""
        return int(self._table.banks[self._table.active & 1].prefixes)

    def fill(self, prefixes: Iterable[tuple[str, int]]) -> None:
        """Replace all prefixes by these pairs (prefix, value).

        A prefix is text such as "10.0.0.0/8" or "2001:db8::/32"; an address without a length
        means one address. A value has 64 bits with a sign.

        Raises PluginError, and leaves the table as it was, when prefixes or values are wrong, a
        prefix comes twice with different values, or they are more than the table has room for.
        100,000 prefixes take 0.5 to 1 s. In `tick` that must be less than the setting `silence`.
        """
        self._replace(_pairs(prefixes), "")

    def load(
        self,
        lines: Iterable[str],
        values: Mapping[str, int] | Callable[[str], int] = int,
        *,
        header: bool = False,
    ) -> None:
        """Replace all prefixes by those of a text, such as an open file.

            with open("rules.csv") as file:
                table.load(file, {"permit": 1, "deny": 0}, header=True)

        A line is a prefix, a comma or white space, and the text of its value. Empty lines and
        what follows a `#` are left out.

        values: what the text of a value means: a dict, or a function that returns an integer and
            raises ValueError for a wrong text.
        header: the first line has the names of the columns and is left out. It is wrong when it
            begins with a prefix, because that prefix would be lost.

        Raises PluginError, and leaves the table as it was; the message names each wrong line with
        its number, up to 20 lines. See `fill`.
        """
        if isinstance(lines, (str, bytes)) or hasattr(lines, "__fspath__"):
            raise PluginError(
                f"prefix table {self.name!r} stays as it was: load takes an open file or lines, "
                f"not {lines!r}: write open(…)"
            )
        source = getattr(lines, "name", "")
        where = f"{printable(source)}: " if isinstance(source, str) and source else ""
        try:
            self._replace(_lines(lines, values, header), where)
        except UnicodeDecodeError as error:
            raise PluginError(
                f"{where}prefix table {self.name!r} stays as it was: the file is not text in "
                f"{error.encoding}, because of the byte 0x{error.object[error.start]:02x}; save "
                f"it as UTF-8"
            ) from None

    def _replace(self, rows: Iterable[tuple[str, str, Any]], source: str) -> None:
        found: dict[Prefix, tuple[int, str]] = {}
        wrong: list[str] = []
        for place, text, value in rows:
            try:
                number = value if type(value) is int and -BOUND <= value < BOUND else _value(value)
                new = (number, place)
                there = found.setdefault(parse(text), new)
                if there is not new and there[0] != number:
                    raise ValueError(f"{_short(text)!r} has another value in {there[1]}")
            except ValueError as error:
                wrong.append(f"{place}: {error}")
        prefixes = sorted(found)
        ipv4 = bisect_left(prefixes, (IPV6,))
        for count, most, family in (
            (ipv4, self.ipv4, 4),
            (len(prefixes) - ipv4, self.ipv6, 6),
        ):
            if count > most:
                wrong.append(
                    f"these are {count} IPv{family} prefixes, and the table has room for {most}: "
                    f"make it with ipv{family}={count}"
                )
        if wrong:
            more = f"; and {len(wrong) - WRONG_LINES} more" if len(wrong) > WRONG_LINES else ""
            raise PluginError(
                f"{source}prefix table {self.name!r} stays as it was: "
                + "; ".join(wrong[:WRONG_LINES])
                + more
            )
        numbers = [found[prefix][0] for prefix in prefixes]
        self._write(prefixes, numbers, ipv4)

    def _write(self, prefixes: list[Prefix], numbers: list[int], ipv4: int) -> None:
        # The values that differ, the first for addresses without a prefix, and the place of each.
        values = [self._table.missing, *dict.fromkeys(numbers)]
        places = dict(zip(values[1:], range(1, len(values)), strict=True))
        rows = b"".join(
            _ROW.pack(start >> 64, start & LOW, length, places[number])
            for (_, start, length), number in zip(prefixes, numbers, strict=True)
        )
        lib.rl_prefixes_fill(
            self._table,
            self.ipv4,
            self.ipv6,
            ffi.from_buffer("struct rl_prefix[]", rows),
            ipv4,
            len(prefixes) - ipv4,
            ffi.new("int64_t[]", values),
            len(values),
        )

    def copy(self) -> Prefixes:
        """A table of the same content in memory of its own."""
        memory, address = copied(self.address, bytes_of(self.ipv4, self.ipv6))
        return Prefixes(self.name, address, self.ipv4, self.ipv6, self._table.missing, memory)


def bytes_of(ipv4: int, ipv6: int) -> int:
    """Bytes of named state that a table for so many prefixes takes."""
    return int(lib.rl_prefixes_bytes(ipv4, ipv6))


def make(slot: WorkerSlot, name: str, ipv4: int, ipv6: int, missing: int) -> Prefixes:
    """The table `name` in this slot. Raises PluginError."""
    most4 = checked(ipv4, f"ipv4 of prefix table {name!r}", 0, PREFIXES_MAX)
    most6 = checked(ipv6, f"ipv6 of prefix table {name!r}", 0, PREFIXES_MAX)
    answer = checked(missing, f"missing of prefix table {name!r}", -1 << 63, (1 << 63) - 1)
    if not most4 and not most6:
        raise PluginError(
            f"prefix table {name!r} has room for no prefix: give ipv4 or ipv6, the most prefixes"
        )
    type_ = f"prefixes {most4} {most6}"
    address = slot.lookup_or_add(name, slots.STATE, type_, 1, bytes_of(most4, most6))
    return Prefixes(name, address, most4, most6, answer, slot)


def parse(text: str) -> Prefix:
    """A prefix from text. Raises ValueError with a sentence."""
    if not isinstance(text, str):
        raise ValueError(f"a prefix must be text, such as '10.0.0.0/8', not {text!r}")
    address, slash, digits = text.partition("/")
    family, bits = (AF_INET6, IPV6) if ":" in address else (AF_INET, IPV4)
    try:
        start = int.from_bytes(inet_pton(family, address), "big")
    except (OSError, ValueError):
        raise ValueError(f"{_short(text)!r} is not an IPv4 or IPv6 prefix") from None
    if not slash:
        return bits, start, bits
    length = int(digits) if digits.isdecimal() and digits.isascii() and len(digits) <= 3 else -1
    if not 0 <= length <= bits:
        raise ValueError(
            f"the length of {_short(text)!r} must be an integer, 0 to {bits}, in decimal digits"
        )
    inside = bits - length
    if start >> inside << inside != start:
        first = inet_ntop(family, (start >> inside << inside).to_bytes(bits // 8, "big"))
        raise ValueError(f"{_short(text)!r} has bits set after its length: write {first}/{length}")
    return bits, start, length


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}..."


def _value(value: Any) -> int:
    if isinstance(value, ValueError):
        raise value
    number = integer(value, "the value")
    if not -BOUND <= number < BOUND:
        raise ValueError(f"the value must be -2^63 to 2^63 - 1, not {number}")
    return number


def _pairs(pairs: Iterable[tuple[str, int]]) -> Iterable[tuple[str, str, Any]]:
    """(place, prefix, value) of each pair; the value is a ValueError when it is no pair."""
    for number, pair in enumerate(pairs, 1):
        text: str
        value: Any
        try:
            text, value = pair
        except (TypeError, ValueError):
            text, value = "", ValueError(f"must be a pair (prefix, value), not {pair!r}")
        yield f"prefix {number}", text, value


def _lines(
    lines: Iterable[str], values: Mapping[str, int] | Callable[[str], int], header: bool
) -> Iterable[tuple[str, str, Any]]:
    """(place, prefix, value) of each line; the value is a ValueError when its text is wrong."""
    for number, line in enumerate(lines, 1):
        if not isinstance(line, str):
            wrong = ValueError("is not text: open the file without the mode b")
            yield f"line {number}", "", wrong
            continue
        text = line.partition("#")[0].strip()
        if not text:
            continue
        prefix, *rest = text.split("," if "," in text else None, 1)
        prefix = prefix.rstrip()
        if not (header and number == 1):
            yield f"line {number}", prefix, _read(rest[0].strip() if rest else "", values)
        elif _is_prefix(prefix):
            lost = f"{_short(prefix)!r} is a prefix, and not the name of a column: write the names "
            yield "line 1", prefix, ValueError(f"{lost}above it, or call load without header=True")


def _is_prefix(text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True


def _read(text: str, values: Mapping[str, int] | Callable[[str], int]) -> Any:
    if not text:
        return ValueError("the value is missing: write it after a comma")
    try:
        return values(text) if callable(values) else values[text]
    except KeyError:
        known = "" if callable(values) or not values else f" must be {' or '.join(values)},"
        return ValueError(f"the value{known} not {_short(text)!r}" if known else _unread(text))
    except ValueError:
        return ValueError(_unread(text))


def _unread(text: str) -> str:
    return f"the value {_short(text)!r} cannot be read"
