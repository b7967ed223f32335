"""Maps: hash maps from keys to values, both of 64-bit words, that survive a crash of the worker.

The code is in lookup.h; the methods call it, and so does compiled Python. An entry is found when
it is whole, and only then: its check word is written last.

Guarantees (tests in tests/workers/lookup/test_maps.py):
 - it behaves as a dict (test_it_is_a_dict)
 - a map for n entries takes n entries, whatever their keys (test_a_map_takes_its_capacity)
 - an entry that is older than the lifetime is not found (test_entries_age)
"""

from __future__ import annotations

import os

from ringline.shm import slots
from ringline.shm.errors import PluginError
from ringline.workers._workers import ffi, lib
from ringline.workers.lookup.memory import checked, copied, signed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from ringline.shm.slots import WorkerSlot

CAPACITY_MAX = 1 << 32  # entries
WORDS_MAX: int = lib.RL_MAP_WORDS_MAX
_HEADER: int = ffi.sizeof("struct rl_map")
_SPARE: int = ffi.offsetof("struct rl_map", "spare")
_WORD = "int64_t[]"


class Map:
    """A map; `Worker.map` makes it.

        flows = worker.map("flows", 100_000, key=["address", "port"], value=1, lifetime=60)

    A key is a tuple of integers, one per word, or one integer if it has one word; so is a value.
    A word has 64 bits with a sign: of a larger number the low 64 bits count. `now` is a time in
    nanoseconds of a clock that you choose, but the same one for all calls.

    A compiled function, with the map as a part of its state, has the methods `find`, `insert`,
    `delete`, `touch` and `expire`, the attribute `values`, and `len`.

    address: where it begins, a `struct rl_map` of lookup/lookup.h, for a plugin in C.
    capacity: the most entries.
    key_names, value_names: the names of the words; empty when they have none.
    """

    def __init__(
        self,
        name: str,
        address: int,
        capacity: int,
        key: int | Sequence[str],
        value: int | Sequence[str],
        keep: object = None,
    ) -> None:
        self.name = name
        self.address = address
        self.capacity = capacity
        self.key_names = () if isinstance(key, int) else tuple(key)
        self.value_names = () if isinstance(value, int) else tuple(value)
        self.key_words = key if isinstance(key, int) else len(self.key_names)
        self.value_words = value if isinstance(value, int) else len(self.value_names)
        self._map: Any = ffi.cast("struct rl_map *", address)
        self._keep = keep  # whatever holds its memory

    def find(self, key: int | tuple[int, ...], now: int = 0) -> int:
        """The place of the entry with this key, or -1.

        With `now`, an entry that is older than the lifetime is not found. A place is the index of
        the entry in `values`; it is valid until the next `delete` or `expire`.
        """
        return int(lib.rl_lookup_find(self.address, self._key(key), signed(now)))

    def insert(
        self, key: int | tuple[int, ...], value: int | tuple[int, ...] = (), now: int = 0
    ) -> int:
        """Add an entry, and return its place.

        If the key is there, its entry stays as it is, unless `now` says that it is older than the
        lifetime: then it gets the new value. An entry that is inserted without `now` does not age.
        Returns -1 when the map has as many entries as it can; the counter `NAME_refused` counts it.
        """
        words = self._words(value, self.value_words, "value")
        return int(lib.rl_lookup_insert(self.address, self._key(key), words, signed(now)))

    def delete(self, key: int | tuple[int, ...]) -> int:
        """Delete the entry with this key. Returns 1, or 0 when there is none."""
        return int(lib.rl_lookup_delete(self.address, self._key(key)))

    def touch(self, place: int, now: int) -> int:
        """The entry at this place is used now: its lifetime begins again. Returns 1, or 0 when
        the place is outside the map, such as -1."""
        return int(lib.rl_lookup_touch(self.address, signed(place), signed(now)))

    def expire(self, now: int, places: int = (1 << 63) - 1) -> int:
        """Delete the entries that are older than the lifetime. Returns how many those were.

        It looks at the next `places` places of the map, and without `places` at all of them, which
        takes about 10 ms for a million: a large map that must not stop the packets so long looks
        at fewer in each tick, or at two or three with each packet.
        """
        return int(lib.rl_lookup_expire(self.address, signed(now), min(places, (1 << 63) - 1)))

    def __len__(self) -> int:
        """The number of entries, also of those that are older than the lifetime."""
        return int(self._map.used)

    def items(self) -> Iterator[tuple[tuple[int, ...], tuple[int, ...], int]]:
        """(key, value, time) of each entry, in no order. Change nothing meanwhile."""
        words = ffi.cast("int64_t *", self.address + _HEADER)
        stride, key = self._map.stride, 2 + self.key_words
        for at in range(0, self._map.places * stride, stride):
            if words[at] not in (0, lib.RL_MAP_HOLE):
                entry = ffi.unpack(words + at, key + self.value_words)
                yield tuple(entry[2:key]), tuple(entry[key:]), entry[1]

    @property
    def values(self) -> NDArray[Any]:
        """The values by place, writable: int64 of shape (places, words), `values[place, 0] += 1`;
        with named words a record array of shape (places,), `values[place].packets += 1` in
        compiled code and `values["packets"][place] += 1` in NumPy."""
        import numpy as np

        stride, first = self._map.stride, 2 + self.key_words
        size = 8 * self._map.places * stride
        memory = ffi.buffer(ffi.cast("char *", self.address + _HEADER), size)
        rows = np.frombuffer(memory, np.int64).reshape(-1, stride)
        part = rows[:, first : first + self.value_words]
        if not self.value_names:
            return part
        records = np.dtype([(name, np.int64) for name in self.value_names])
        return part.view(records)[:, 0].view(np.recarray)

    @property
    def refused(self) -> int:
        """How many entries were refused because the map was full."""
        counter = ffi.cast("uint64_t *", self.address + self._map.refused)
        return int(counter[0])

    def copy(self) -> Map:
        """A map of the same content in memory of its own."""
        size = bytes_of(self.capacity, self.key_words, self.value_words)
        memory, address = copied(self.address, size)
        other = Map(
            self.name,
            address,
            self.capacity,
            self.key_names or self.key_words,
            self.value_names or self.value_words,
            memory,
        )
        other._map.spare = self.refused
        other._map.refused = _SPARE
        return other

    def _key(self, key: int | tuple[int, ...]) -> Any:
        return self._words(key, self.key_words, "key")

    def _words(self, words: int | tuple[int, ...], count: int, what: str) -> Any:
        given = words if isinstance(words, tuple) else (words,)
        if len(given) != count:
            raise ValueError(words_differ(what, count, len(given)))
        return ffi.new(_WORD, [signed(word) for word in given] or 1)


def words_differ(what: str, count: int, given: int) -> str:
    """The sentence for a key or a value of the wrong size."""
    return f"the {what} of this map has {count} word{'' if count == 1 else 's'}, not {given}"


def bytes_of(capacity: int, key_words: int, value_words: int) -> int:
    """Bytes of named state that a map takes."""
    return int(lib.rl_map_bytes(capacity, key_words, value_words))


def check_words(name: str, what: str, words: Any, least: int) -> int:
    """The number of words that `key` or `value` of a map asks for. Raises PluginError."""
    count = words
    if isinstance(words, (list, tuple)):
        count = len(words)
        named = all(isinstance(word, str) and word.isidentifier() for word in words)
        if not named or len(set(words)) != count:
            count = None
    if not isinstance(count, int):
        raise PluginError(
            f"the {what} of map {name!r} must be a number of words or a list of different names, "
            f"not {words!r}"
        )
    if not least <= count <= WORDS_MAX:
        raise PluginError(
            f"the {what} of map {name!r} must have {least} to {WORDS_MAX} words, not {count}"
        )
    return count


def check_lifetime(name: str, lifetime: float | None) -> int:
    """The lifetime in nanoseconds; 0: entries do not age. Raises PluginError."""
    if lifetime is None:
        return 0
    if isinstance(lifetime, bool) or not isinstance(lifetime, (int, float)):
        raise PluginError(f"the lifetime of map {name!r} must be a number, not {lifetime!r}")
    if not 1e-9 <= lifetime <= 1e9:
        raise PluginError(
            f"the lifetime of map {name!r} must be 1e-9 to 1e9 seconds, not {lifetime!r:.40}"
        )
    return int(lifetime * 1e9)


def make(
    slot: WorkerSlot,
    name: str,
    capacity: int,
    key: int | Sequence[str],
    value: int | Sequence[str],
    lifetime: float | None,
) -> Map:
    """The map `name` in this slot. Raises PluginError."""
    most = checked(capacity, f"the capacity of map {name!r}", 1, CAPACITY_MAX)
    keys, values = check_words(name, "key", key, 1), check_words(name, "value", value, 0)
    nanoseconds = check_lifetime(name, lifetime)
    words = "key {} value {}".format(
        *(str(part) if isinstance(part, int) else ",".join(part) for part in (key, value))
    )
    type_ = slots.fitting(f"map {most} {words}")
    address = slot.lookup_or_add(name, slots.STATE, type_, 1, bytes_of(most, keys, values))
    refused = slot.lookup_or_add(f"{name}_refused", slots.COUNTER)
    seed = int.from_bytes(os.urandom(8), "little")
    lib.rl_map_open(
        ffi.cast("struct rl_map *", address),
        most,
        keys,
        values,
        nanoseconds,
        seed,
        refused - address,
    )
    return Map(name, address, most, key, value, slot)
