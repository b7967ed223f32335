"""What bundled plugins in compiled Python share: `helper`, and a hash.

`helper` marks a function that only compiled code calls. It leaves out the functions by which Python
would call it. To unpack a state with many arrays, they are longer than the helpers themselves.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

helper: Any = njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)

# An odd number with no pattern in its bits: 2^64 / the golden ratio.
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)


@njit
def mix(hashed: Any, word: Any) -> Any:
    """A hash of 64 bits that has `word` in it, too.

    The numbers are unsigned: LLVM may assume that a product of signed numbers does not overflow.
    """
    mixed = (np.uint64(hashed) ^ np.uint64(word)) * _FACTOR
    return np.int64(mixed ^ (mixed >> _HALF))
