"""The columns of a table whose rows need not be in memory: each piece is made when it is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Make = Callable[[NDArray[Any]], dict[str, Any]]


def lazy_table(rows: NDArray[Any], make: Make) -> dict[str, LazyColumn]:
    """The columns that `make` makes of `rows`, each from a slice of them at a time."""
    pieces = _Pieces(rows, make)
    return {name: LazyColumn(pieces, name) for name in pieces.columns(slice(0, 0))}


class _Pieces:
    """Makes columns of a piece of the rows, once for all columns that are asked in turn."""

    def __init__(self, rows: NDArray[Any], make: Make) -> None:
        self.rows = rows
        self._make = make
        self._which: tuple[int, int, int] | None = None
        self._made: dict[str, Any] = {}

    def columns(self, which: slice) -> dict[str, Any]:
        """All columns of these rows."""
        place = which.indices(len(self.rows))
        if place != self._which:
            self._made = self._make(self.rows[which])
            self._which = place
        return self._made


class LazyColumn:
    """One column. It has a length and slices; and a dtype, if the values have one."""

    def __init__(self, pieces: _Pieces, name: str) -> None:
        self._pieces = pieces
        self._name = name
        self.dtype = getattr(pieces.columns(slice(0, 0))[name], "dtype", None)

    def __len__(self) -> int:
        return len(self._pieces.rows)

    def __getitem__(self, which: slice) -> Any:
        return self._pieces.columns(which)[self._name][:]
