"""The argument of a plugin's `setup(worker)`: the Worker, with counters, tables and state.

Everything that a plugin names here is in the memory of its worker slot, which survives a
crash of the worker. The next worker process gets the same memory for the same name:

 - A counter continues from its last value and never decreases.
 - State is as the crashed process left it, possibly in the middle of an update. A plugin
   orders its writes so that state is always consistent, or checks it in setup.
 - After repeated crashes the supervisor clears the state, because it may be their cause.

Setup of a compiled plugin also runs in a dry run before the first packet, with memory that
is then discarded, to find the types of the state; `worker.rehearsal` is true then. A class
whose module has helpers that numba compiles at their first call is rehearsed as well, with
an object of its own: setup, a batch of sample packets, tick. So a setup must have no effects
outside the Worker.
"""

from __future__ import annotations

import mmap

from ringline.shm import slots
from ringline.shm._shm import ffi
from ringline.shm.errors import EnvironmentLacks, PluginError
from ringline.shm.text import counted
from ringline.workers import tables
from ringline.workers.named.log import Log
from ringline.workers.named.reasons import DropReasons
from ringline.workers.named.values import Counter, Counters, Gauge, Histogram, Table, _Missing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, overload

    from numpy.typing import DTypeLike, NDArray

    from ringline.workers.lookup.maps import Map
    from ringline.workers.lookup.prefixes import Prefixes
    from ringline.workers.named.shared import PeerSlot


class Worker:
    """The worker that runs a plugin: the argument of `setup` and `tick`.

        def setup(self, worker):
            self.lan = worker.ports["lan"]
            self.refused = worker.counter("refused")
            self.seen = worker.state("seen", "u8", (1024, 2))

    queue: the number of this worker; it serves the queue of this number on every port.
    ports: a dict from the name of a port to its number, which is the verdict to send there.
    options: a dict of the plugin's options, with defaults.
    rehearsal: true in a dry run before the first packet (see the module).
    time: in `tick` the time now, see `time`.
    ending: in `tick`, whether no packet follows in this process; in `collect`, whether none follows
        in this part of an analysis.
    log: `worker.log.warning("text")` writes a line into the log of the run.

    A name is a letter, then up to 46 letters, digits and `_`. Every method raises PluginError
    when the name is invalid or used for something else, the slot has no room left (`state` in the
    configuration), or more than 128 names are used.
    """

    def __init__(
        self,
        slot: slots.WorkerSlot,
        *,
        queue: int,
        ports: Sequence[str],
        options: Mapping[str, Any],
        rehearsal: bool = False,
        log: Log | None = None,
        reasons: Sequence[str] = (),
        peers: Sequence[PeerSlot] = (),
    ) -> None:
        """`reasons` are the drop reasons that earlier lives of this worker named, `peers` the slots
        of the other workers with this plugin."""
        self._slot = slot
        self._reasons = DropReasons(slot, reasons)
        self._peers = list(peers)
        self.log = log or Log()
        self.queue = queue
        self.ports: dict[str, int] = _Names(
            "port",
            "the configuration names them, and `ringline try` with --ports",
            {name: number for number, name in enumerate(ports)},
        )
        self.options: dict[str, Any] = _Names(
            "option", "the plugin declares them in `options`", options
        )
        self.rehearsal = rehearsal
        self._clock: Callable[[], int] = lambda: 0  # replaced by the engine
        self._tables: dict[str, Table] = {}
        self._arrays: dict[str, NDArray[Any]] = {}  # named state with a dtype
        self.ending = False
        self._counters: dict[str, Counters] = {}

    @property
    def time(self) -> int:
        """The time in a `tick`, in nanoseconds since 1970, by the clock of the packets' times.

        On a live port it is the time now, and packets that the driver took before the tick can
        come after it. In `ringline try`, in `ringline.workers.testing` and beside a port that
        has times of its own, it is the time of the packet that came last; 0 before the first
        packet. In `setup` it is 0.
        """
        return self._clock()

    def drop_reason(self, name: str) -> int:
        """The verdict that drops a packet and counts it under `name`. Call it in `setup`.

            self.acl = worker.drop_reason("acl")   # and in process: packet.verdict = self.acl

        The verdict is an integer, 128 to 159, and is used like DROP: a compiled function and a
        function in C return it. The packet is counted in the metric `port_dropped_packets_total`
        with the label reason="acl". A worker has at most 32 reasons. A reason may have the name of
        a counter, but not of one of ringline's own drop reasons, such as `missed`.
        """
        return self._reasons.verdict(name)

    if TYPE_CHECKING:

        @overload
        def counter(self, name: str) -> Counter: ...
        @overload
        def counter(self, name: str, *, label: str, values: Sequence[str]) -> Counters: ...
        def counter(
            self, name: str, *, label: str | None = None, values: Sequence[str] = ()
        ) -> Counter | Counters: ...

    else:

        def counter(self, name, *, label=None, values=()):
            """The counter `name`. It is exported as the metric `plugin_events_total`.

                refused = worker.counter("refused")
                seen = worker.counter("seen", label="protocol", values=("tcp", "udp", "other"))
                seen["tcp"].add()

            With a label it is one counter for each of 1 to 64 `values`, strings of at most 48
            bytes of UTF-8. `seen.array` has them in this order, for compiled functions.
            """
            if label is None and not values:
                return Counter(self._slot.lookup_or_add(name, slots.COUNTER), 1)
            many = hasattr(values, "__iter__") and not isinstance(values, str)
            return self._labelled(name, label, tuple(values) if many else ())

    def _labelled(self, name: str, label: str | None, values: tuple[str, ...]) -> Counters:
        """The counter `name` with a label."""
        there = self._counters.get(name)
        if there is not None and there.values == values:
            return there
        if label is None or not slots.is_name(label):
            raise PluginError(
                f"counter {name!r}: the name of its label must be an identifier, not {label!r}"
            )
        if not 1 <= len(values) <= tables.VALUES_MAX:
            raise PluginError(
                f"counter {name!r}: the values of its label must be a list of 1 to "
                f"{tables.VALUES_MAX} strings"
            )
        for value in values:
            if not tables.is_value(value):
                raise PluginError(
                    f"counter {name!r}: a value of its label must be a string of 1 to "
                    f"{tables.VALUE_BYTES} printable bytes of UTF-8, not {value!r}"
                )
        if len(set(values)) < len(values):
            raise PluginError(f"counter {name!r} has a value twice: {', '.join(values)}")
        if there is not None:
            raise PluginError(
                f"counter {name!r} already has other values: {', '.join(there.values)}"
            )
        words = tables.COUNTERS_WORDS
        address = self._slot.lookup_or_add(
            name, slots.COUNTERS, label, words, 8 * words * len(values)
        )
        # Also when the entry is not new: an earlier life may have ended before this.
        ffi.memmove(
            ffi.cast("char *", address + 8 * len(values)),
            b"".join(map(tables.pack_value, values)),
            tables.VALUE_BYTES * len(values),
        )
        made = self._counters[name] = Counters(address, values)
        return made

    def gauge(self, name: str) -> Gauge:
        """The gauge `name`. It is exported as the metric `plugin_value`."""
        return Gauge(self._slot.lookup_or_add(name, slots.GAUGE))

    def histogram(self, name: str, buckets: int = 32) -> Histogram:
        """The histogram `name` with 2 to 64 `buckets`; bucket b counts values below 2^b. It is
        exported as the metric `plugin_distribution`."""
        if not 2 <= buckets <= 64:
            raise PluginError(f"histogram {name!r} must have 2 to 64 buckets, not {buckets}")
        words = 1 + buckets
        address = self._slot.lookup_or_add(name, slots.HISTOGRAM, "log2", words, 8 * words)
        return Histogram(address, words)

    def table(self, name: str, label: str, values: Sequence[str], rows: int) -> Table:
        """The table `name` of up to `rows` rows: a label and one number per name in `values`.

            top = worker.table("top_talkers", "flow", ["packets", "bytes"], rows=10)
            top.write([("10.0.0.1 > 10.0.0.2", (12, 900))])

        It is exported as the metric `plugin_table`. A label has up to 112 bytes of UTF-8. The
        largest table has 272 rows with one value, 255 with two, 239 with three (TABLE_WORDS in
        tables.py); all tables together are at most four times as large.
        """
        if name in self._tables:
            return self._tables[name]  # a tick may ask for it every time
        names = [label, *values]
        if not values or not all(slots.is_name(word) for word in names) or rows < 1:
            raise PluginError(
                f"table {name!r} needs a label, at least one value, and at least one row; the "
                "names of the label and the values must be identifiers"
            )
        columns = tables.columns_of(names)
        self._check_exportable(name, columns, rows)
        address = self._slot.lookup_or_add(
            name,
            slots.TABLE,
            " ".join(names),
            columns,
            8 * columns * (tables.HEADING_ROWS + rows),
        )
        self._tables[name] = Table(address, columns, rows)
        return self._tables[name]

    def _check_exportable(self, name: str, columns: int, rows: int) -> None:
        """Raise PluginError when metrics and reports would show only a part of a new table."""
        most = tables.rows_max(columns)
        if rows > most:
            values = columns - tables.LABEL_WORDS
            raise PluginError(
                f"table {name!r} has {rows} rows of {counted(values, 'value')}; at "
                f"most {most} such rows are exported: ask for fewer, or divide the table"
            )
        others = [entry for entry in self._slot.entries() if entry.name != name]
        used = sum(entry.bytes // 8 for entry in others if entry.kind != slots.STATE)
        left = tables.rows_max(columns, tables.SLOT_WORDS - used)
        if rows > left:
            raise PluginError(
                f"table {name!r} has {rows} rows, and beside the other tables of this plugin at "
                f"most {left} rows are exported: ask for fewer rows"
            )

    def state(self, name: str, dtype: DTypeLike, shape: int | tuple[int, ...] = 1) -> NDArray[Any]:
        """The state `name`: a writable array of `shape` and `dtype`, all zeros when it is new."""
        import numpy as np

        kind = np.dtype(dtype)
        if kind.hasobject:
            raise PluginError(f"state {name!r} cannot hold Python objects: {kind}")
        extents = (shape,) if isinstance(shape, int) else tuple(shape)
        count = 1
        for extent in extents:
            count *= extent
        text = slots.fitting(f"{kind} {extents}")
        address = self._slot.lookup_or_add(name, slots.STATE, text, 1, kind.itemsize * count)
        memory = ffi.buffer(ffi.cast("char *", address), kind.itemsize * count)
        made = self._arrays[name] = np.frombuffer(memory, dtype=kind).reshape(extents)
        return made

    def shared(
        self, name: str, dtype: DTypeLike, shape: int | tuple[int, ...]
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """The shared state `name`: the part of this worker, an array of `shape`, and the parts of
        all workers with this plugin and these options, a read-only array of (workers, *shape).

            mine, all_ = worker.shared("seen", "i8", (1024, 2))  # in setup

        The first part of `all_` is `mine`. Each part keeps its contents after a crash of its
        worker. There is no lock: a reader may see the middle of a change, but 8 aligned bytes are
        always whole. The bytes of a part must be a multiple of the size of a page (4096).
        """
        from ringline.workers.named import shared

        extents = (shape,) if isinstance(shape, int) else tuple(shape)
        return shared.make(self._slot, self._peers, name, dtype, extents)

    def prefixes(self, name: str, ipv4: int = 0, ipv6: int = 0, missing: int = -1) -> Prefixes:
        """The prefix table `name`, with room for `ipv4` IPv4 prefixes and `ipv6` IPv6 prefixes;
        `missing` is the answer for an address that none of them covers.

            routes = worker.prefixes("routes", ipv4=100_000, missing=DROP)
            routes.fill([("10.0.0.0/8", 1), ("10.1.0.0/16", 2)])

        It takes about 54 bytes of `state` for each IPv4 prefix and 102 for each IPv6 prefix.
        """
        # Here, because most plugins need no table and the import takes 5 ms.
        from ringline.workers.lookup import prefixes

        return prefixes.make(self._slot, name, ipv4, ipv6, missing)

    def map(
        self,
        name: str,
        capacity: int,
        key: int | Sequence[str] = 1,
        value: int | Sequence[str] = 1,
        lifetime: float | None = None,
    ) -> Map:
        """The map `name` of up to `capacity` entries.

            flows = worker.map("flows", 100_000, key=3, value=["packets", "bytes"], lifetime=60)

        key: the number of 64-bit words of a key, 1 to 16, or a list of their names.
        value: the same of a value, 0 to 16.
        lifetime: seconds after which an unused entry is not found any more; None: no limit.

        An entry takes 48 bytes of `state` if key and value have 2 words together, 96 bytes up to
        6 words. The counter NAME_refused counts the entries that the full map refused.
        """
        from ringline.workers.lookup import maps

        return maps.make(self._slot, name, capacity, key, value, lifetime)

    def memory(self, name: str, bytes_: int) -> int:
        """The address of `bytes_` bytes of state for C; all zeros when it is new."""
        return self._slot.lookup_or_add(name, slots.STATE, "", 1, bytes_)


class _Names(dict):  # type: ignore[type-arg]  # `Any` is not imported at run time
    """A dict by name. The error of a name that is not there says which names there are, and
    `whence` they come."""

    def __init__(self, kind: str, whence: str, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self._kind = kind
        self._whence = whence

    def __missing__(self, name: object) -> Any:
        there = ", ".join(self) or "none"
        raise _Missing(
            f"there is no {self._kind} {name!r}; the {self._kind}s are: {there} ({self._whence})"
        )


class PrivateSegment:
    """Private memory in place of a slot's segment, for dry runs and trials."""

    def __init__(self, state_bytes: int) -> None:
        self.used = ffi.offsetof("struct rl_slot_segment", "area") + state_bytes
        # mmap takes physical memory only for the pages that the plugin touches.
        try:
            self._map = mmap.mmap(-1, self.used, mmap.MAP_PRIVATE)
        except OSError as error:
            raise EnvironmentLacks(
                f"the {self.used} bytes for the state of a plugin cannot be allocated: "
                f"{error.strerror}; give it less state, or raise the limit (ulimit -v)"
            ) from None
        self.address = int(ffi.cast("uintptr_t", ffi.from_buffer(self._map)))

    def at(self, pointer: str, offset: int = 0) -> Any:
        """The address of byte `offset`, cast to the C type `pointer`."""
        return ffi.cast(pointer, self.address + offset)

    def prefer_hugepages(self) -> None:
        """Ask the kernel for large pages, which a table that is read at random needs."""
        try:  # noqa: SIM105  # contextlib takes some milliseconds
            self._map.madvise(mmap.MADV_HUGEPAGE)
        except OSError:
            pass  # a kernel without them

    def close(self) -> None:
        """Nothing to do: the memory is freed with the last reference to it."""


def private_slot(state_bytes: int) -> slots.WorkerSlot:
    """A worker slot in private memory, for dry runs and trials."""
    return slots.WorkerSlot(PrivateSegment(state_bytes))  # type: ignore[arg-type]  # in place of a Segment
