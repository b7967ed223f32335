"""One column of a table: its type, and its values piece by piece.

Whatever has a length and slices can be a column: an array, a list, or an object that makes each
slice when it is asked, so that a table need not be in memory. An object with a `dtype`, as arrays
have, is of that type; the values of another one are looked at.

| type        | in numpy                 | in CSV and JSON lines            |
|-------------|--------------------------|----------------------------------|
| bool        | bool                     | true, false                      |
| i8 … i64    | int8 … int64             | an integer                       |
| u8 … u64    | uint8 … uint64           | an integer                       |
| f32, f64    | float16 … float64        | a number                         |
| time        | datetime64 of any unit   | an integer, ns since 1970 in UTC |
| text        | str                      | text                             |

Nanoseconds have room for the times from 1678 to 2261. A masked value, None and NaT are nulls. A
list with values of several types is a column of text.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ringline.shm.text import counted
from ringline.workers.named import steps

PIECE_ROWS = 4096
_NAT = -(1 << 63)  # NaT as an integer
_TEXT = "text"
_SECONDS_MAX = (1 << 63) // 1_000_000_000  # since 1970, that have room as nanoseconds


class BadPiece(Exception):
    """Values of a column that cannot be written. Its text is a sentence about the column."""


class Column:
    """One column; `heading` is for messages. Raises TypeError, with the end of a sentence, when its
    values fit no type."""

    def __init__(self, values: Any, heading: str = "") -> None:
        self._values = values
        self._heading = heading
        if not hasattr(values, "__len__"):
            raise TypeError(f"is of type {type(values).__name__}, which has no length")
        self._length = len(values)
        if len(getattr(values, "shape", (0,))) != 1:
            raise TypeError(f"has {len(values.shape)} dimensions, not one")
        self.type = _type_of_dtype(values) or self._type_of_values()

    def __len__(self) -> int:
        return self._length

    def piece(self, start: int, stop: int) -> list[Any]:
        """The values from `start` to before `stop`: Python's bool, int, float, str or None. Raises
        BadPiece."""
        piece = self._values[start:stop]
        steps.step()
        if self.type == "time":
            piece = self._nanoseconds(piece)
        listed = piece.tolist() if hasattr(piece, "tolist") else list(piece)
        wanted = min(stop, self._length) - start
        if len(listed) != wanted:
            raise BadPiece(
                f"the column {self._heading} gave {counted(len(listed), 'value')} for the "
                f"{wanted} from row {start} on"
            )
        if self.type == "time":
            return [None if it == _NAT else it for it in listed]
        if self.type == _TEXT:
            return [None if it is None else text_of(it) for it in listed]
        if self.type in ("f32", "f64"):
            return [None if it is None else float(it) for it in listed]
        return [it.item() if hasattr(it, "item") else it for it in listed]

    def _nanoseconds(self, piece: Any) -> Any:
        """The times of a piece in nanoseconds."""
        seconds = piece.astype("datetime64[s]").astype("i8")
        wrong = (abs(seconds) >= _SECONDS_MAX) & (seconds != _NAT)
        if wrong.any():
            raise BadPiece(
                f"the column {self._heading} has the time {piece[wrong][0]}, and only those from "
                "1678 to 2261 can be written"
            )
        return piece.astype("datetime64[ns]")

    def _pieces(self) -> Iterator[list[Any]]:
        for start in range(0, self._length, PIECE_ROWS):
            piece = self._values[start : start + PIECE_ROWS]
            steps.step()
            listed = piece.tolist() if hasattr(piece, "tolist") else piece
            yield [it.item() if hasattr(it, "item") else it for it in listed]

    def _type_of_values(self) -> str:
        kinds: set[type] = set()
        least = most = 0
        for piece in self._pieces():
            kinds |= set(map(type, piece))
            if kinds <= {int, type(None)}:
                numbers = [it for it in piece if it is not None]
                least, most = min([least, *numbers]), max([most, *numbers])
        kinds.discard(type(None))
        if others := sorted(kind.__name__ for kind in kinds - {bool, int, float, str}):
            raise TypeError(f"has values of type {', '.join(others)}, not numbers or text")
        if kinds == {bool}:
            return "bool"
        if kinds == {int} and least >= -(1 << 63) and most < 1 << 63:
            return "i64"
        if kinds == {int} and least >= 0 and most < 1 << 64:
            return "u64"
        return "f64" if kinds in ({float}, {int, float}) else _TEXT


def _type_of_dtype(values: Any) -> str | None:
    """The type of an array; None when its values must be looked at."""
    dtype: Any = getattr(values, "dtype", None)
    kind = getattr(dtype, "kind", "O")
    if kind in "iu":
        return f"{kind}{8 * dtype.itemsize}"
    if kind == "f":
        return "f32" if dtype.itemsize <= 4 else "f64"
    return {"b": "bool", "M": "time", "U": _TEXT, "T": _TEXT}.get(kind)


def text_of(value: Any) -> str:
    """The value as text that every file can hold."""
    text = value if isinstance(value, str) else str(value)
    # A file name may have bytes that are no text.
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
