"""The array of verdicts: int64, and it accepts integers only."""

from __future__ import annotations

from typing import Any

import numpy as np


class Verdicts(np.ndarray[Any, np.dtype[np.int64]]):
    """An int64 array that raises TypeError for anything but integers and booleans.

    A plain NumPy array would truncate: 0.7 would become 0, "send to port 0".
    """

    def __setitem__(self, index: Any, value: Any) -> None:
        kind = np.asarray(value).dtype
        if kind.kind not in "iub":
            raise TypeError(f"a verdict must be the number of a port or DROP, not {kind}")
        super().__setitem__(index, value)

    def fill(self, value: Any) -> None:
        """Write `value` to every element."""
        self[...] = value
