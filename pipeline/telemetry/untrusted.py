"""Cut what a worker says down to what a terminal, a log and a report can take.

A worker runs a user's code. Its sentences may have any length and any control character, and
its report any depth.

Guarantees (tests in tests/pipeline/telemetry/test_untrusted.py):
 - a sentence is printable, but for its line ends, and has a limited length
   (test_words_are_printable_and_short)
 - a value is JSON that every reader accepts, and has a limited size and depth
   (test_a_value_is_finite_shallow_and_short)
"""

from __future__ import annotations

import math
from typing import Any

WORDS_MAX = 8000  # characters of one sentence: a traceback fits
ITEMS_MAX = 1000  # of one list or object
DEPTH_MAX = 8
_INTEGER_MAX = 1 << 64


def words(text: str, most: int = WORDS_MAX) -> str:
    """The text with an escape for every character that is not printable; its end is cut off."""
    kept = "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode()
        for char in text[:most]
    )
    left = len(text) - most
    return f"{kept} … ({left} more characters)" if left > 0 else kept


def plain(value: Any, depth: int = DEPTH_MAX) -> Any:
    """A JSON value of a worker, without what readers of JSON may refuse."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) < _INTEGER_MAX else f"{value:.6e}" if _fits(value) else "huge"
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return words(value)
    if depth == 0:
        return "…"
    if isinstance(value, dict):
        some = list(value.items())[:ITEMS_MAX]
        return {words(str(key), 200): plain(item, depth - 1) for key, item in some}
    if isinstance(value, list | tuple):
        return [plain(item, depth - 1) for item in value[:ITEMS_MAX]]
    return words(type(value).__name__)


def _fits(number: int) -> bool:
    return number.bit_length() < 1000  # a float can hold it
