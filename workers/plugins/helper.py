"""`helper` marks a function that only compiled code calls.

It leaves out the functions by which Python would call it. To unpack a state with many arrays, they are
longer than the helpers themselves: without them the router compiles in half of the time.
"""

from __future__ import annotations

from typing import Any

from numba import njit

helper: Any = njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
