"""Text of packets is printed so that a terminal obeys nothing of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ringline.shm.text import counted, printable


@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")))
def test_nothing_but_printable_characters_is_left(text: str) -> None:
    assert printable(text).isprintable()


def test_what_can_be_printed_stays_and_the_rest_is_escaped() -> None:
    assert printable("h\u00e9 \u4e2d") == "h\u00e9 \u4e2d"
    assert printable("\x1b[2J\nforged\udc80\u202e") == "\\x1b[2J\\nforged\\udc80\\u202e"


def test_one_is_not_many() -> None:
    assert [counted(number, "queue") for number in (0, 1, 1000)] == [
        "0 queues",
        "1 queue",
        "1,000 queues",
    ]
    assert [counted(number, "copy", "copies") for number in (1, 2)] == ["1 copy", "2 copies"]
