"""The column of verdicts: int64, and only whole numbers may be written into it."""

from __future__ import annotations

from typing import Any

import numpy as np


class Verdicts(np.ndarray[Any, np.dtype[np.int64]]):
    """NumPy would cut what is no whole number: 0.7 would be 0, "send to port 0"."""

    def __setitem__(self, index: Any, value: Any) -> None:
        kind = np.asarray(value).dtype
        if kind.kind not in "iub":
            raise TypeError(f"a verdict is the number of a port or DROP, not {kind}")
        super().__setitem__(index, value)

    def fill(self, value: Any) -> None:
        """As an assignment to all of it."""
        self[...] = value
