"""The values that a plugin names in its worker slot: counters, gauges, histograms, tables.

Their layout is in tables.py. Each is a view over memory of the slot, so several objects of one
name are the same value.
"""

from __future__ import annotations

from itertools import islice

from ringline.shm._shm import ffi, lib
from ringline.workers import tables

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

    import numpy as np
    from numpy.typing import NDArray


class _Words:
    """Unsigned 64-bit numbers in the slot."""

    def __init__(self, address: int, count: int) -> None:
        self._address = address
        self._count = count
        self._words: Any = ffi.cast("uint64_t *", address)

    @property
    def array(self) -> NDArray[np.uint64]:
        """The numbers as a writable uint64 array over the slot's memory, for compiled functions."""
        import numpy as np

        return np.frombuffer(ffi.buffer(self._words, 8 * self._count), dtype=np.uint64)


class Counter(_Words):
    """A number >= 0 that never decreases."""

    def add(self, n: int = 1) -> None:
        """Add `n`. Raises ValueError when `n` is negative."""
        if n < 0:
            raise ValueError(f"a counter only grows: the number to add must be at least 0, not {n}")
        self._words[0] += n

    @property
    def value(self) -> int:
        """The count since the start of the run, over all processes of this worker."""
        return int(self._words[0])


class _Missing(KeyError):
    """A KeyError whose text is a sentence: KeyError itself would print it in quotes."""

    def __str__(self) -> str:
        return str(self.args[0])


class Counters(_Words):
    """Counters by the value of one label.

        seen = worker.counter("seen", label="protocol", values=("tcp", "udp", "other"))
        seen["tcp"].add()

    `array` has one number for each value, in the order in which they were given: in compiled
    code, `state.seen[1] += 1` counts "udp".
    """

    def __init__(self, address: int, values: Sequence[str]) -> None:
        super().__init__(address, len(values))
        self._numbers = {value: number for number, value in enumerate(values)}

    @property
    def values(self) -> tuple[str, ...]:
        """The values of the label."""
        return tuple(self._numbers)

    def __getitem__(self, value: str) -> Counter:
        number = self._numbers.get(value)
        if number is None:
            there = ", ".join(map(repr, self._numbers))
            raise _Missing(f"this counter has no value {value!r}; its values are {there}")
        return Counter(self._address + 8 * number, 1)

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)


class Gauge:
    """A number that can increase and decrease."""

    def __init__(self, address: int) -> None:
        self._address = address
        self._number: Any = ffi.cast("double *", address)

    @property
    def array(self) -> NDArray[np.float64]:
        """The number as a writable float64 array of shape (1,) over the slot's memory, for compiled
        functions."""
        import numpy as np

        return np.frombuffer(ffi.buffer(self._number, 8), dtype=np.float64)

    def set(self, value: float) -> None:
        """Set the gauge to `value`, an integer or a float. It is stored as a float of 64 bits:
        integers are exact up to 2^53. Not a number and infinity are exported as such.

        Raises TypeError when `value` is not a number.
        """
        self._number[0] = value

    @property
    def value(self) -> float:
        """The value set last; 0 at first."""
        return float(self._number[0]) + 0.0  # of minus zero, too (workers/analysis/slot.py), 0.0


class Histogram(_Words):
    """Counts of values in buckets by powers of two: bucket b counts values below 2^b that no
    earlier bucket counts, the last bucket all others.

    In compiled code, `state.sizes[0]` is the sum of the values, and `state.sizes[1 + b]` is
    bucket b: add to both.
    """

    def observe(self, value: int) -> None:
        """Count one value. Raises ValueError when `value` is negative."""
        value = int(value)  # a NumPy integer has no bit_length
        if value < 0:
            raise ValueError(f"a value of a histogram must be at least 0, not {value}")
        self._words[1 + min(value.bit_length(), self._count - 2)] += 1
        self._words[0] += value


def address_of(value: Counter | Counters | Gauge | Histogram) -> int:
    """Where the numbers of `value` begin, for a plugin in C."""
    return value._address


class Table:
    """A table of up to `rows` rows; a row is a label and numbers >= 0."""

    def __init__(self, address: int, columns: int, rows: int) -> None:
        self._address = address
        self._columns = columns
        self._rows = rows
        self._words: Any = ffi.cast("uint64_t *", address)

    def write(self, rows: Iterable[tuple[str, Sequence[int]]]) -> None:
        """Replace all rows by `rows`, tuples (label, values); rows beyond the size of the table
        are ignored.

        Raises ValueError when a row has not as many values as the table has columns, or a value
        is not an integer, 0 to 2^64 - 1; then the table keeps its rows.
        """
        # All rows are made before the first is written: an error must not leave half a table.
        made = [self._row(label, values) for label, values in islice(rows, self._rows)]
        sequence = self._words[0] | 1
        lib.rl_publish64(self._address, sequence)
        data = b"".join(made)
        ffi.memmove(self._words + tables.HEADING_ROWS * self._columns, data, len(data))
        self._words[1] = len(made)
        lib.rl_publish64(self._address, sequence + 1)

    def _row(self, label: str, values: Sequence[int]) -> bytes:
        if len(values) != self._columns - tables.LABEL_WORDS:
            raise ValueError(
                f"a row of this table must have {self._columns - tables.LABEL_WORDS} values, "
                f"not {len(values)}"
            )
        if not isinstance(label, str):
            raise TypeError(f"a label of a table must be a string, not {type(label).__name__}")
        numbers = [int(value) for value in values]
        for number, value in zip(numbers, values, strict=True):
            if not 0 <= number < 1 << 64 or number != value:
                raise ValueError(
                    f"a value of a table must be an integer, 0 to 2^64 - 1, not {value!r}"
                )
        return tables.pack_label(label) + b"".join(n.to_bytes(8, "little") for n in numbers)
