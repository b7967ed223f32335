"""What a plugin's setup is given: the Worker.

Everything that a plugin names here lies in the segment of its worker slot, which
outlives a crash and a reload. The same name gives the same memory again, so:

 - a counter goes on from where it was, and never steps back
 - state is found as the predecessor left it, at whatever instruction it died; a
   plugin orders its writes so that each moment is a sound one, or checks in setup
 - after repeated crashes the slot starts with blank state, since that may be the cause

While a plugin is prepared, setup runs once more with memory that is thrown away
(`worker.rehearsal` is true): that is how the types of compiled state are known
before there is traffic. A setup should do nothing else that can be seen outside.
"""

from __future__ import annotations

import mmap

from ringline.shm import slots
from ringline.shm._shm import ffi, lib
from ringline.shm.errors import EnvironmentLacks, PluginError
from ringline.workers import tables

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    import numpy as np
    from numpy.typing import DTypeLike, NDArray

_TYPE_TEXT = 55  # characters that describe a piece of state in its slot


class _Words:
    """64-bit numbers in the slot; `array` is their NumPy view, for compiled functions."""

    def __init__(self, address: int, count: int) -> None:
        self._count = count
        self._words: Any = ffi.cast("uint64_t *", address)

    @property
    def array(self) -> NDArray[np.uint64]:
        """The numbers as a NumPy array over the slot's memory."""
        import numpy as np

        return np.frombuffer(ffi.buffer(self._words, 8 * self._count), dtype=np.uint64)


class Counter(_Words):
    """A number that only grows."""

    def add(self, n: int = 1) -> None:
        """Count `n` >= 0 more."""
        if n < 0:
            raise ValueError(f"a counter only grows; {n} was to be added")
        self._words[0] += n

    @property
    def value(self) -> int:
        """The count since the instance started."""
        return int(self._words[0])


class Gauge(_Words):
    """A number >= 0 that goes up and down."""

    def set(self, value: int) -> None:
        """Show `value`."""
        self._words[0] = value

    @property
    def value(self) -> int:
        """What it shows."""
        return int(self._words[0])


class Histogram(_Words):
    """How often values fell into buckets by powers of two (tables.py)."""

    def observe(self, value: int) -> None:
        """Count one `value` >= 0."""
        value = int(value)  # NumPy's numbers do not know their bit length
        if value < 0:
            raise ValueError(f"a histogram counts values from 0 on, not {value}")
        self._words[1 + min(value.bit_length(), self._count - 2)] += 1
        self._words[0] += value


class Table:
    """Up to `rows` rows of a label and numbers, exported with the plugin's name."""

    def __init__(self, address: int, columns: int, rows: int) -> None:
        self._address = address
        self._columns = columns
        self._rows = rows
        self._words: Any = ffi.cast("uint64_t *", address)

    def write(self, rows: Iterable[tuple[str, Sequence[int]]]) -> None:
        """Replace the rows by these (label, values); those beyond the last row are left out."""
        sequence = self._words[0] | 1
        lib.rl_publish64(self._address, sequence)
        used = 0
        for label, values in rows:
            if used == self._rows:
                break
            start = (tables.HEADING_ROWS + used) * self._columns
            if len(values) != self._columns - tables.LABEL_WORDS:
                raise ValueError(
                    f"a row of this table has {self._columns - tables.LABEL_WORDS} values, "
                    f"{len(values)} were given"
                )
            ffi.memmove(self._words + start, tables.pack_label(label), tables.LABEL_BYTES)
            for number, value in enumerate(values, start + tables.LABEL_WORDS):
                self._words[number] = int(value)
            used += 1
        self._words[1] = used
        lib.rl_publish64(self._address, sequence + 1)


class Worker:
    """The worker as its plugin sees it.

    `queue` is its number, `ports` the port names with their numbers, which are the
    verdicts, `options` the plugin's options with the defaults filled in.
    """

    def __init__(
        self,
        slot: slots.WorkerSlot,
        *,
        queue: int,
        ports: Sequence[str],
        options: Mapping[str, Any],
        rehearsal: bool = False,
    ) -> None:
        self._slot = slot
        self.queue = queue
        self.ports = {name: number for number, name in enumerate(ports)}
        self.options = dict(options)
        self.rehearsal = rehearsal
        self._tables: dict[str, Table] = {}

    def counter(self, name: str) -> Counter:
        """The counter called `name`; it is exported as a metric of the plugin."""
        return Counter(self._slot.lookup_or_add(name, slots.COUNTER), 1)

    def gauge(self, name: str) -> Gauge:
        """The gauge called `name`."""
        return Gauge(self._slot.lookup_or_add(name, slots.GAUGE), 1)

    def histogram(self, name: str, buckets: int = 32) -> Histogram:
        """The histogram called `name`: bucket b counts values below 2^b."""
        if not 2 <= buckets <= 64:
            raise PluginError(f"histogram {name!r} has 2 to 64 buckets, not {buckets}")
        words = 1 + buckets
        address = self._slot.lookup_or_add(name, slots.HISTOGRAM, "log2", words, 8 * words)
        return Histogram(address, words)

    def table(self, name: str, label: str, values: Sequence[str], rows: int) -> Table:
        """The table called `name`: `rows` rows of a `label` and of numbers called `values`."""
        if name in self._tables:
            return self._tables[name]  # a tick may ask for it every time
        names = [label, *values]
        if not values or not all(slots.is_name(word) for word in names) or rows < 1:
            raise PluginError(
                f"table {name!r} needs a label, the names of its values, which are identifiers, "
                "and at least one row"
            )
        columns = tables.columns_of(names)
        address = self._slot.lookup_or_add(
            name,
            slots.TABLE,
            " ".join(names),
            columns,
            8 * columns * (tables.HEADING_ROWS + rows),
        )
        self._tables[name] = Table(address, columns, rows)
        return self._tables[name]

    def state(self, name: str, dtype: DTypeLike, shape: int | tuple[int, ...] = 1) -> NDArray[Any]:
        """The named state `name` as an array of `shape`; zeros when it is new."""
        import numpy as np

        kind = np.dtype(dtype)
        if kind.hasobject:
            raise PluginError(f"state {name!r} cannot hold Python objects: {kind}")
        extents = (shape,) if isinstance(shape, int) else tuple(shape)
        count = 1
        for extent in extents:
            count *= extent
        text = _fitting(f"{kind} {extents}")
        address = self._slot.lookup_or_add(name, slots.STATE, text, 1, kind.itemsize * count)
        memory = ffi.buffer(ffi.cast("char *", address), kind.itemsize * count)
        return np.frombuffer(memory, dtype=kind).reshape(extents)

    def memory(self, name: str, bytes_: int) -> int:
        """The address of `bytes_` bytes of named state, for C; zeros when it is new."""
        return self._slot.lookup_or_add(name, slots.STATE, "", 1, bytes_)


def _fitting(text: str) -> str:
    """`text`, or a short text that differs when it does."""
    data = text.encode()
    if len(data) <= _TYPE_TEXT and text.isprintable():
        return text
    return f"{data[:30].decode('ascii', 'replace')}~{lib.rl_hash(data, len(data)):016x}"


class PrivateSegment:
    """Memory of this process alone in place of a slot's segment: for rehearsals and trials."""

    def __init__(self, state_bytes: int) -> None:
        self.used = ffi.offsetof("struct rl_slot_segment", "area") + state_bytes
        # Mapped, not allocated: only what the plugin touches takes memory.
        try:
            self._map = mmap.mmap(-1, self.used, mmap.MAP_PRIVATE)
        except OSError as error:
            raise EnvironmentLacks(
                f"{self.used} bytes for the state of a plugin cannot be had: {error.strerror}; "
                "give it less state, or raise the limit (ulimit -v)"
            ) from None
        self.address = int(ffi.cast("uintptr_t", ffi.from_buffer(self._map)))

    def at(self, pointer: str, offset: int = 0) -> Any:
        """The address `offset` bytes into it as `pointer`."""
        return ffi.cast(pointer, self.address + offset)

    def close(self) -> None:
        """The memory goes with the last reference to it."""


def private_slot(state_bytes: int) -> slots.WorkerSlot:
    """A slot in memory of this process alone."""
    return slots.WorkerSlot(PrivateSegment(state_bytes))  # type: ignore[arg-type]  # stands in
