"""What a plugin leaves behind after a part of the captures, to be joined with that of others.

A Part holds state and tables by name; the plugin's `merge(a, b)` joins two of them. Counters and
histograms are not in it: ringline adds them itself.
"""

from __future__ import annotations

RUN = ".run"  # how the names of files with rows end (analysis/runs.py)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from numpy.typing import NDArray

    Rows = list[tuple[str, list[int]]]
    Merge = Callable[["Part", "Part"], "Part"]

COMPLAINTS_MAX = 10  # different errors of a plugin that an analysis tells


class _NoSuchName(KeyError):
    __str__ = Exception.__str__  # that of KeyError puts the sentence in quotes


class _ByName(dict[str, "Any"]):
    """What a plugin left, by name. Another name is an error that tells which there are."""

    def __init__(self, what: str, content: Mapping[str, Any]) -> None:
        super().__init__(content)
        self._what = what

    def __missing__(self, name: object) -> Any:
        there = f"it has {', '.join(map(repr, self))}" if self else "it has none"
        raise _NoSuchName(f"this part has no {self._what} {name!r}: {there}")


class Part:
    """The state and the tables of a plugin after a part of the captures.

    state: arrays by name, as `worker.state` made them, or what the plugin's `collect` returned.
    tables: lists of rows (label, values) by name.
    """

    def __init__(
        self,
        state: Mapping[str, NDArray[Any]] | None = None,
        tables: Mapping[str, Rows] | None = None,
    ) -> None:
        self.state: dict[str, NDArray[Any]] = _ByName("state", state or {})
        self.tables: dict[str, Rows] = _ByName("table", tables or {})
        # By name, rows of `state` that are on disk: paths and numbers of rows (analysis/runs.py).
        self.runs: dict[str, list[tuple[str, int]]] = {}

    def __bool__(self) -> bool:
        return bool(self.state or self.tables)

    def pack(self) -> bytes:
        """The part as bytes, which `unpack` reads; b"" when it is empty."""
        if not self:
            return b""
        import io
        import json

        head = json.dumps(
            {"state": list(self.state), "tables": self.tables, "runs": self.runs}
        ).encode()
        out = io.BytesIO()
        out.write(len(head).to_bytes(8, "little") + head)
        if self.state:
            import numpy as np

            for array in self.state.values():
                np.save(out, array, allow_pickle=False)
        return out.getvalue()

    @classmethod
    def unpack(cls, data: bytes) -> Part:
        """The part that `pack` wrote."""
        if not data:
            return cls()
        import io

        head = _head(data)
        source = io.BytesIO(data)
        source.seek(8 + int.from_bytes(data[:8], "little"))
        state: dict[str, Any] = {}
        if head["state"]:
            import numpy as np

            state = {name: np.load(source, allow_pickle=False) for name in head["state"]}
        tables = {
            name: [(label, values) for label, values in rows]
            for name, rows in head["tables"].items()
        }
        part = cls(state, tables)
        part.runs = {name: [(path, rows) for path, rows in of] for name, of in head["runs"].items()}
        return part


def runs_of(packed: bytes) -> dict[str, list[tuple[str, int]]]:
    """The runs of a part as `pack` wrote it."""
    return _head(packed)["runs"] if packed else {}


def with_runs(packed: bytes, runs: Mapping[str, list[tuple[str, int]]]) -> bytes:
    """The same part as `pack` wrote it, with other runs."""
    import json

    head = json.dumps(_head(packed) | {"runs": runs}).encode()
    rest = packed[8 + int.from_bytes(packed[:8], "little") :]
    return len(head).to_bytes(8, "little") + head + rest


def _head(packed: bytes) -> dict[str, Any]:
    """What a part says of itself before its arrays."""
    import json

    head: dict[str, Any] = json.loads(packed[8 : 8 + int.from_bytes(packed[:8], "little")])
    return head


def ordered(**keys: int) -> Callable[[Merge], Merge]:
    """Marks a `merge` that may be given a part of the rows at a time: `@ordered(flows=5)`.

    keys: of arrays of `state` by name, how many of the first words of each row are its key. The
        plugin promises that its rows are in order of their keys, from the smallest to the largest,
        each key once, and that `merge` joins the rows of a key, whatever other rows there are.
        Then ringline keeps the rows on disk when they are many, and `present` gets an array that
        is mapped from a file.
    """

    def marked(merge: Merge) -> Merge:
        merge.ordered = keys  # type: ignore[attr-defined]
        return merge

    return marked
