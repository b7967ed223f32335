"""The array of verdicts: int64, and it accepts integers only."""

from __future__ import annotations

from typing import Any

import numpy as np


class Verdicts(np.ndarray[Any, np.dtype[np.int64]]):
    """An int64 array that raises TypeError for anything but integers and booleans.

    A plain NumPy array would truncate: 0.7 would become 0, "send to port 0".

    plain: a plain array over the same memory, or None. An assignment through it takes half the
        time. A slice of this array has none.
    """

    plain: np.ndarray[Any, np.dtype[np.int64]] | None = None

    def __setitem__(self, index: Any, value: Any) -> None:
        dtype = value.dtype if type(value) is np.ndarray else np.asarray(value).dtype
        if dtype.kind not in "iub":
            raise TypeError(f"a verdict must be the number of a port or DROP, not {dtype}")
        if self.plain is None:
            super().__setitem__(index, value)
        else:
            self.plain[index] = value

    def fill(self, value: Any) -> None:
        """Write `value` to every element."""
        self[...] = value
