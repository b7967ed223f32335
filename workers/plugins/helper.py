"""What bundled plugins in compiled Python share: `helper`, and a hash.

`helper` marks a function that a packet function calls. numba compiles it once for integers, and not
once more for each constant that a caller passes. Python calls the function as it is written.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numba.extending import register_jitable

helper: Any = register_jitable(no_cfunc_wrapper=True)

# An odd number with no pattern in its bits: 2^64 / the golden ratio.
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)


# Python calls the compiled code: NumPy warns of a product that overflows.
@njit
def mix(hashed: Any, word: Any) -> Any:
    """A hash of 64 bits that has `word` in it, too.

    The numbers are unsigned: LLVM may assume that a product of signed numbers does not overflow.
    """
    mixed = (np.uint64(hashed) ^ np.uint64(word)) * _FACTOR
    return np.int64(mixed ^ (mixed >> _HALF))
