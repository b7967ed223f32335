"""Text that may hold bytes of packets, or of names that somebody else chose.

Such text never reaches a terminal, a log or a metric as it is: it could move the cursor, change
colours, or begin a line that looks like one of ringline's own
(tests/shm/test_text.py: test_nothing_but_printable_characters_is_left).
"""

from __future__ import annotations


def printable(text: str) -> str:
    """`text` with an escape for every character that is not printable: `\\x1b`, `\\n`."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def counted(number: int, one: str, many: str = "") -> str:
    """A number with its noun: `1 queue`, `1,000 queues`, or with `many` that plural.
    (tests/shm/test_text.py: test_one_is_not_many)"""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
