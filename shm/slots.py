"""A worker slot: the worker's counters, and a directory of the memory that its plugin named.

The segment `.worker.<queue>` outlives every generation of its worker. So counters only grow and
named state survives a crash. Only the worker writes counters and entries; the supervisor clears
state between two workers. The supervisor trusts no entry: it copies one, checks the copy and uses
only the copy.

Guarantees (tests in tests/shm/test_slots.py):
 - a reader sees a whole entry or none (test_half_written_entry_is_not_there,
   test_an_entry_is_whole_when_its_kind_is_written)
 - a read of any directory ends, and reads nothing outside the segment (test_hostile_directory)
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
REASON: int = lib.RL_ENTRY_REASON
COUNTERS: int = lib.RL_ENTRY_COUNTERS
KINDS = {
    COUNTER: "counter",
    GAUGE: "gauge",
    HISTOGRAM: "histogram",
    STATE: "state",
    TABLE: "table",
    REASON: "drop reason",
    COUNTERS: "counter with the label",
}

_ALIGN = 64
_ROOM = 1 << 16
_AREA: int = ffi.offsetof("struct rl_slot_segment", "area")
_ENTRY: int = ffi.sizeof("struct rl_slot_entry")
_KIND: int = ffi.offsetof("struct rl_slot_entry", "kind")
_NAME_BYTES = 48
_TYPE_BYTES = 56


class SlotEntry:
    """Memory that the plugin named: `bytes` bytes at `offset` in the segment.

    `kind` is COUNTER, GAUGE, HISTOGRAM, STATE, TABLE, REASON or COUNTERS. A counter or a gauge is
    one 64-bit number, a histogram has `columns` numbers, a table has rows of `columns` numbers, a
    counter with a label `columns` numbers for each value. A drop reason has no memory; its
    number is `columns` - 1. `type` is the dtype and shape of state as text; only the worker
    interprets it. Of a counter with a label it is the name of the label.
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

    @property
    def key(self) -> tuple[str, bool]:
        """What no other entry has: drop reasons have names of their own."""
        return self.name, self.kind == REASON

    def describe(self) -> str:
        """Kind, type and size, for messages."""
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
        """Create the slot of `queue`, with `state_bytes` bytes for the memory that its plugin
        names."""
        return cls(
            Segment.create(
                instance, f"worker.{queue}", _AREA + state_bytes, kind=lib.RL_SEGMENT_SLOT
            )
        )

    @classmethod
    def attach(cls, fd: int, state_bytes: int) -> WorkerSlot:
        """Map the slot behind `fd`, created with `state_bytes`, and take over `fd`. Its header is
        not read, because an earlier worker can have overwritten it."""
        used = _AREA + state_bytes
        return cls(Segment.attach_known(fd, kind=lib.RL_SEGMENT_SLOT, used=used))

    def entries(self) -> list[SlotEntry]:
        """The entries that the plugin has added, in that order, without impossible ones."""
        found: dict[tuple[str, bool], SlotEntry] = {}
        for index in range(lib.RL_SLOT_ENTRIES):
            entry = self.entry(index)
            if entry is not None:
                found.setdefault(entry.key, entry)
        return list(found.values())

    def values(self, entry: SlotEntry) -> list[int]:
        """A copy of the 64-bit numbers of an entry from `entries()`."""
        at = self.segment.address + entry.offset
        return list(ffi.unpack(ffi.cast("uint64_t *", at), entry.bytes // 8))

    def lookup_or_add(
        self,
        name: str,
        kind: int,
        type_: str = "",
        columns: int = 1,
        bytes_: int = 8,
        align: int = _ALIGN,
    ) -> int:
        """For the worker: the address of the memory called `name`; new memory is zero and begins
        at a multiple of `align` bytes in the segment.

        Raises PluginError when the name already has another kind, type or size, or when there is
        no room.
        """
        if not is_name(name):
            raise PluginError(
                f"{name!r:.100} cannot name a {KINDS[kind]}: use a letter, then "
                f"letters, digits and '_', at most {_NAME_BYTES - 1} characters"
            )
        if len(type_.encode()) >= _TYPE_BYTES:
            raise PluginError(f"the type of {name!r}, {type_}, is too long: make it simpler")
        free = -1
        end = _AREA
        for index in range(lib.RL_SLOT_ENTRIES):
            if free < 0 and self._entries[0][index].kind == 0:
                free = index
            entry = self.entry(index)
            if entry is None:
                continue
            if entry.key == (name, kind == REASON):
                wanted = SlotEntry(name, kind, type_, columns, entry.offset, bytes_)
                if entry.describe() != wanted.describe() or entry.columns != columns:
                    raise PluginError(
                        f"the name {name!r} already belongs to a {entry.describe()}; "
                        f"a {wanted.describe()} needs another name"
                    )
                return self.segment.address + entry.offset
            end = max(end, entry.offset + entry.bytes)
        offset = -(-end // align) * align
        if free < 0:
            raise PluginError(
                f"the plugin names more than {lib.RL_SLOT_ENTRIES} counters, tables and states: "
                "use fewer, or put several values into one table"
            )
        if offset + bytes_ > self.segment.used:
            # With room for counters that the plugin names after it: the next start asks no more.
            enough = ((offset + bytes_ - _AREA) // _ROOM + 2) * _ROOM
            raise PluginError(
                f"the plugin asks for {bytes_} bytes as {name!r}, but {self.segment.used - end} "
                f"are left in its slot: set state = {enough} or more under [worker] in the "
                "configuration (`ringline try`: --state)"
            )
        self._add(free, SlotEntry(name, kind, type_, columns, offset, bytes_))
        return self.segment.address + offset

    def clear_state(self) -> None:
        """Set all named state to zero; counters and tables stay. No worker may run."""
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

    def is_used(self, index: int) -> bool:
        """Whether the entry at this place of the directory is written, as what kind ever."""
        return bool(self._entries[0][index].kind)

    def entry(self, index: int) -> SlotEntry | None:
        """A checked copy of an entry; None if it is unused or impossible."""
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


def fitting(text: str) -> str:
    """`text` as the type of an entry: itself, or its first 30 bytes and its hash when it does not
    fit."""
    data = text.encode()
    if len(data) < _TYPE_BYTES and text.isprintable():
        return text
    return f"{data[:30].decode('ascii', 'replace')}~{lib.rl_hash(data, len(data)):016x}"


def is_name(name: object) -> bool:
    """Whether a plugin may use this name: it is the value of a metric label."""
    if not isinstance(name, str):
        return False
    return name.isascii() and name.isidentifier() and len(name) < _NAME_BYTES
