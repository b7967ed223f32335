"""A worker slot's counters, and what the plugin named: a directory and its area.

The segment `.worker.<queue>` outlives every generation of its worker, so that
counters only grow and named state survives a crash. Only the worker writes into
it. The supervisor reads it, and believes nothing: every entry is copied, then
checked, then used.

Guarantees (tests in tests/shm/test_slots.py):
 - an entry is seen whole or not at all (test_half_written_entry_is_not_there)
 - whatever a worker wrote into its directory, reading it ends, and reads nothing
   outside the segment (test_hostile_directory)
 - a name means the same memory in every generation (test_names_outlive_their_worker)
"""

from __future__ import annotations

from ringline.shm._shm import ffi, lib
from ringline.shm.errors import PluginError
from ringline.shm.segments import Segment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

COUNTER: int = lib.RL_ENTRY_COUNTER
GAUGE: int = lib.RL_ENTRY_GAUGE
HISTOGRAM: int = lib.RL_ENTRY_HISTOGRAM
STATE: int = lib.RL_ENTRY_STATE
TABLE: int = lib.RL_ENTRY_TABLE
KINDS = {COUNTER: "counter", GAUGE: "gauge", HISTOGRAM: "histogram", STATE: "state", TABLE: "table"}

_ALIGN = 64
_AREA: int = ffi.offsetof("struct rl_slot_segment", "area")
_ENTRY: int = ffi.sizeof("struct rl_slot_entry")
_KIND: int = ffi.offsetof("struct rl_slot_entry", "kind")
_NAME_BYTES = 48
_TYPE_BYTES = 56


class SlotEntry:
    """One thing that the plugin named: `bytes` bytes at `offset` in the segment.

    `kind` is one of the above. Counters and gauges are one 64-bit number,
    histograms `columns` of them, tables rows of `columns`; `type` says what a
    piece of state is, and is the worker's to understand.
    """

    __slots__ = ("bytes", "columns", "kind", "name", "offset", "type")

    def __init__(
        self, name: str, kind: int, type_: str, columns: int, offset: int, bytes_: int
    ) -> None:
        self.name = name
        self.kind = kind
        self.type = type_
        self.columns = columns
        self.offset = offset
        self.bytes = bytes_

    def describe(self) -> str:
        """For messages: what it is, without its name."""
        return f"{KINDS[self.kind]} {self.type or self.columns} of {self.bytes} bytes"


class WorkerSlot:
    """The slot of one queue. `counters` is `struct rl_worker_counters *`."""

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        slot = segment.at("struct rl_slot_segment *")
        self.counters: Any = ffi.addressof(slot, "counters")
        self._entries = ffi.addressof(slot, "entries")

    @classmethod
    def create(cls, instance: str, queue: int, state_bytes: int) -> WorkerSlot:
        """The slot of `queue`, with `state_bytes` for everything that its plugin names."""
        return cls(
            Segment.create(
                instance, f"worker.{queue}", _AREA + state_bytes, kind=lib.RL_SEGMENT_SLOT
            )
        )

    @classmethod
    def attach(cls, fd: int, state_bytes: int) -> WorkerSlot:
        """The slot behind `fd`, which is taken over; made with `state_bytes`. An earlier
        worker may have died of writing anywhere: its header is not read."""
        used = _AREA + state_bytes
        return cls(Segment.attach_known(fd, kind=lib.RL_SEGMENT_SLOT, used=used))

    def entries(self) -> list[SlotEntry]:
        """What the plugin has named, in that order; entries that cannot be are left out."""
        found: dict[str, SlotEntry] = {}
        for index in range(lib.RL_SLOT_ENTRIES):
            entry = self._read(index)
            if entry is not None:
                found.setdefault(entry.name, entry)
        return list(found.values())

    def values(self, entry: SlotEntry) -> list[int]:
        """The 64-bit numbers of an entry of `entries()`, copied."""
        at = self.segment.address + entry.offset
        return list(ffi.unpack(ffi.cast("uint64_t *", at), entry.bytes // 8))

    def lookup_or_add(
        self, name: str, kind: int, type_: str = "", columns: int = 1, bytes_: int = 8
    ) -> int:
        """For the worker: the address of what is named so, made of zeros if it is new.

        Raises PluginError when the name stands for something else already, or
        there is no room.
        """
        if not is_name(name):
            raise PluginError(
                f"{name!r} cannot name a {KINDS[kind]}: use a letter, then letters, digits and "
                f"'_', at most {_NAME_BYTES - 1}"
            )
        if len(type_.encode()) >= _TYPE_BYTES:
            raise PluginError(f"the type of {name!r}, {type_}, is too long: make it simpler")
        free = -1
        end = _AREA
        for index in range(lib.RL_SLOT_ENTRIES):
            if free < 0 and self._entries[0][index].kind == 0:
                free = index
            entry = self._read(index)
            if entry is None:
                continue
            if entry.name == name:
                wanted = SlotEntry(name, kind, type_, columns, entry.offset, bytes_)
                if entry.describe() != wanted.describe() or entry.columns != columns:
                    raise PluginError(
                        f"the plugin asks for {name!r} as {wanted.describe()}, but in this slot "
                        f"it is a {entry.describe()} since an earlier start: use another name"
                    )
                return self.segment.address + entry.offset
            end = max(end, entry.offset + entry.bytes)
        offset = -(-end // _ALIGN) * _ALIGN
        if free < 0:
            raise PluginError(
                f"the plugin names more than {lib.RL_SLOT_ENTRIES} counters, tables and states"
            )
        if offset + bytes_ > self.segment.used:
            raise PluginError(
                f"the plugin asks for {bytes_} bytes as {name!r} and {self.segment.used - end} are "
                "left in its slot: give the worker more state bytes in the configuration"
            )
        self._add(free, SlotEntry(name, kind, type_, columns, offset, bytes_))
        return self.segment.address + offset

    def clear_state(self) -> None:
        """Zero all named state, while no worker runs; counters and tables stay."""
        for entry in self.entries():
            if entry.kind == STATE:
                at = self.segment.address + entry.offset
                ffi.memmove(ffi.cast("char *", at), bytes(entry.bytes), entry.bytes)

    def _add(self, index: int, entry: SlotEntry) -> None:
        place = self._entries[0][index]
        place.name = entry.name.encode()
        place.type = entry.type.encode()
        place.columns = entry.columns
        place.offset = entry.offset
        place.bytes = entry.bytes
        at = int(ffi.cast("uintptr_t", ffi.addressof(place)))
        lib.rl_publish32(at + _KIND, entry.kind)

    def _read(self, index: int) -> SlotEntry | None:
        """A checked copy of an entry, or None for an unused or impossible one."""
        copy = ffi.new("struct rl_slot_entry *")
        ffi.memmove(copy, ffi.addressof(self._entries[0][index]), _ENTRY)
        name = ffi.string(copy.name).decode("ascii", "replace")
        type_ = ffi.string(copy.type).decode("ascii", "replace")
        if copy.kind not in KINDS or not is_name(name) or not type_.isprintable():
            return None
        if copy.offset < _AREA or copy.offset % 8 or copy.offset + copy.bytes > self.segment.used:
            return None
        if copy.kind != STATE and (copy.columns == 0 or copy.bytes % (8 * copy.columns)):
            return None
        return SlotEntry(name, copy.kind, type_, copy.columns, copy.offset, copy.bytes)

    def close(self) -> None:
        """Unmap; addresses and `counters` must not be used any more."""
        self.counters = self._entries = ffi.NULL
        self.segment.close()

    def __enter__(self) -> WorkerSlot:
        return self

    def __exit__(self, *failure: object) -> None:
        self.counters = self._entries = ffi.NULL
        self.segment.__exit__(*failure)


def is_name(name: str) -> bool:
    """Whether this can name something in a slot: it becomes part of a metric's name."""
    return name.isascii() and name.isidentifier() and len(name) < _NAME_BYTES
