"""What is left of a worker's words and reports."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from ringline.pipeline.telemetry.untrusted import DEPTH_MAX, ITEMS_MAX, WORDS_MAX, plain, words

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.text())
def test_words_are_printable_and_short(text: str) -> None:
    assert all(line.isprintable() for line in words(text).split("\n"))
    if all(char.isprintable() for char in text):
        assert words(text) == text


def test_long_words_say_how_much_is_missing() -> None:
    assert words("x" * (WORDS_MAX + 7)) == "x" * WORDS_MAX + " … (7 more characters)"
    assert words("\x1b]0;boo\x07\u202e\ud800\n") == "\\x1b]0;boo\\x07\\u202e\\ud800\n"


@given(VALUES)
def test_a_value_is_finite_shallow_and_short(value: object) -> None:
    text = json.dumps(plain(value), allow_nan=False)
    json.loads(text)


def test_a_value_is_cut() -> None:
    deep: object = 1
    for _ in range(10_000):
        deep = [deep]
    assert json.dumps(plain(deep)).count("[") == DEPTH_MAX
    assert len(plain(list(range(ITEMS_MAX + 1)))) == ITEMS_MAX
    assert plain(float("nan")) == "nan"
    assert plain(1 << 70) == "1.180592e+21"
    assert plain(1 << 5000) == "huge"
