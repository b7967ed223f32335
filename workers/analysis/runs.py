"""Rows of a plugin on disk: when a plugin says that its rows are in order, parts are joined there.

Rows that take more than `Store.limit` bytes are written to a file, a run. Two parts with runs are
then merged when the runs of both are listed. At the end all runs are read together, block by
block, and the plugin merges the rows of a block. So a process holds few rows at a time.
"""

from __future__ import annotations

import mmap
import os
import uuid
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ringline.shm.errors import EnvironmentLacks, reason_of
from ringline.shm.text import printable
from ringline.workers.named import steps
from ringline.workers.named.part import RUN, Part

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK_BYTES = 1 << 20  # of one run
BLOCK_BYTES_MIN = 4096
BLOCKS_BYTES = 16 << 20  # of all runs together, if these are not very many

Merge = Callable[[Part, Part], Part]


class Store(NamedTuple):
    """Where runs are: the path of a folder, and how many bytes of rows a part holds without one."""

    folder: str
    limit: int


def settled(part: Part, ordered: Sequence[str], store: Store | None) -> Part:
    """The part, its ordered rows in a run if they are many. Raises EnvironmentLacks."""
    there = [name for name in ordered if name in part.state]
    size = sum(part.state[name].nbytes for name in there)
    if store is not None and size > store.limit:
        for name in there:
            _to_run(part, name, store)
    return part


def merged(a: Part, b: Part, ordered: Sequence[str], store: Store | None, merge: Merge) -> Part:
    """Two parts as one; if one of them has runs, its rows stay where they are."""
    if not (a.runs or b.runs):
        return settled(merge(a, b), ordered, store)
    assert store is not None
    runs: dict[str, list[tuple[str, int]]] = {}
    for part in (a, b):
        for name in ordered:
            if name in part.state and len(part.state[name]):
                _to_run(part, name, store)
            runs[name] = runs.get(name, []) + part.runs.get(name, [])
        part.runs = {}
    joined = merge(a, b)
    joined.runs = runs
    return joined


def _to_run(part: Part, name: str, store: Store) -> None:
    """Move the rows of `name` to a new run."""
    rows = part.state[name]
    path = os.path.join(store.folder, uuid.uuid4().hex + RUN)
    _append(path, rows)
    part.runs.setdefault(name, []).append((path, len(rows)))
    part.state[name] = rows[:0].copy()


def _append(path: str, rows: NDArray[Any]) -> None:
    import numpy as np

    try:
        with open(path, "ab") as file:  # `tofile` does not tell why it could not
            file.write(np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data)
    except FileNotFoundError:
        raise no_folder(os.path.dirname(path)) from None
    except OSError as error:
        raise EnvironmentLacks(
            f"{printable(os.path.dirname(path))}: the results of an analysis cannot be written: "
            f"{reason_of(error)}, or name another folder with --scratch"
        ) from None


def no_folder(folder: str) -> EnvironmentLacks:
    """The error when a folder for what an analysis puts on disk is missing."""
    return EnvironmentLacks(
        f"{printable(folder)}: there is no such folder: with an engine, --scratch must name one "
        "that all workers share and nobody else cleans"
    )


def whole(part: Part, keys: dict[str, int], store: Store | None, merge: Merge) -> Part:
    """The part without runs: the rows of each are in one file, which is mapped into memory."""
    import numpy as np

    if not part.runs:
        return part
    assert store is not None
    empty = Part(dict(part.state), part.tables)
    for name, runs in part.runs.items():
        path = os.path.join(store.folder, f"{uuid.uuid4().hex}.rows")
        model = part.state[name]
        count = 0
        for rows in _blocks(empty, name, runs, keys[name], merge):
            _append(path, rows)
            count += len(rows)
            steps.step()
        part.state[name] = np.memmap(path, model.dtype, "r", shape=(count, *model.shape[1:]))
        for old, _ in runs:
            if os.path.dirname(old) == store.folder:  # what is finished has others
                os.unlink(old)
    part.runs = {}
    return part


def mappings(part: Part) -> list[mmap.mmap]:
    """Those of `whole`. What was read of one may be let go of: it is read again when needed."""
    import numpy as np

    mapped = (rows for rows in part.state.values() if isinstance(rows, np.memmap))
    return [rows._mmap for rows in mapped]  # type: ignore[attr-defined]


def _blocks(
    empty: Part, name: str, runs: Sequence[tuple[str, int]], key: int, merge: Merge
) -> Iterator[NDArray[Any]]:
    """The merged rows of all runs, in order."""
    size = max(min(BLOCK_BYTES, BLOCKS_BYTES // len(runs)), BLOCK_BYTES_MIN)
    readers = [_Run(path, count, empty.state[name], key, size) for path, count in runs]
    while readers := [reader for reader in readers if reader.fill()]:
        # What comes later in any run is behind this key.
        cut = min(reader.end for reader in readers)
        parts = [
            Part(empty.state | {name: rows}) for reader in readers if len(rows := reader.take(cut))
        ]
        while len(parts) > 1:
            pairs = zip(parts[::2], parts[1::2], strict=False)
            parts = [merge(a, b) for a, b in pairs] + parts[len(parts) & ~1 :]
        yield parts[0].state[name]


class _Run:
    """Reads a run block by block."""

    def __init__(self, path: str, count: int, model: NDArray[Any], key: int, size: int) -> None:
        self._path = path
        self._left = count
        self._model = model
        self._key = key
        self._row = model.dtype.itemsize
        for length in model.shape[1:]:
            self._row *= length
        self._most = max(size // self._row, 1)
        self._at = 0
        self._rows = model

    def fill(self) -> bool:
        """Read the next block when there are no rows; whether there are some then."""
        import numpy as np

        if not len(self._rows) and self._left:
            count = min(self._most, self._left)
            try:
                data = np.fromfile(
                    self._path, np.uint8, count * self._row, offset=self._at * self._row
                )
            except OSError as error:
                raise self._failure(reason_of(error)) from None
            if len(data) < count * self._row:
                raise self._failure("it is cut short")
            shape = (count, *self._model.shape[1:])
            self._rows = data.view(self._model.dtype).reshape(shape)
            self._at += count
            self._left -= count
        return len(self._rows) > 0

    def _failure(self, why: str) -> EnvironmentLacks:
        return EnvironmentLacks(f"{printable(self._path)}: cannot be read: {why}")

    def _key_of(self, row: Any) -> tuple[Any, ...]:
        return tuple(row[: self._key].tolist())

    @property
    def end(self) -> tuple[Any, ...]:
        """The key of the last row."""
        return self._key_of(self._rows[-1])

    def take(self, cut: tuple[Any, ...]) -> NDArray[Any]:
        """The rows up to the key `cut`; they are not there any more."""
        count = bisect_right(self._rows, cut, key=self._key_of)
        taken, self._rows = self._rows[:count], self._rows[count:]
        return taken
