"""A plugin's options: values, defaults and error messages."""

from __future__ import annotations

from typing import Any

import pytest

from ringline.workers.options import Option, resolve

DECLARED = [
    Option("slots", int, 1024, minimum=16, maximum=65536),
    Option("ratio", float, 0.5),
    Option("action", str, "forward", choices=("forward", "drop")),
    Option("quiet", bool, False),
    Option("hosts", list, []),
    Option("map", dict, None, "port = port"),
]


def test_options_have_defaults() -> None:
    values, problems = resolve(DECLARED, {})
    assert problems == []
    assert values == {
        "slots": 1024,
        "ratio": 0.5,
        "action": "forward",
        "quiet": False,
        "hosts": [],
        "map": None,
    }


def test_given_values_are_used() -> None:
    given = {"slots": 16, "ratio": 2, "action": "drop", "quiet": True, "hosts": [1], "map": {}}
    values, problems = resolve(DECLARED, given)
    assert problems == []
    assert values == given
    assert isinstance(values["ratio"], float)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"slot": 3}, '"slot" is not an option of this plugin; did you mean "slots"?'),
        ({"zzz": 3}, '"zzz" is not an option of this plugin; it has "slots", "ratio"'),
        ({"slots": "many"}, "\"slots\" must be an integer, not 'many'"),
        ({"slots": True}, '"slots" must be an integer, not True'),
        ({"slots": 1.5}, '"slots" must be an integer, not 1.5'),
        ({"slots": 3}, '"slots" must be at least 16, not 3'),
        ({"slots": 1 << 20}, '"slots" must be at most 65536'),
        ({"ratio": "x"}, '"ratio" must be a number'),
        ({"action": "fly"}, "\"action\" must be one of 'forward', 'drop', not 'fly'"),
        ({"quiet": 1}, '"quiet" must be true or false, not 1'),
        ({"hosts": {}}, '"hosts" must be a list'),
        ({"map": []}, '"map" must be a table'),
    ],
)
def test_a_mistake_is_reported_with_the_remedy(given: dict[str, Any], words: str) -> None:
    _, problems = resolve(DECLARED, given)
    assert len(problems) == 1
    assert words in problems[0]


def test_all_mistakes_are_reported_at_once() -> None:
    _, problems = resolve(DECLARED, {"slots": 3, "ratio": "x", "no": 1})
    assert len(problems) == 3


def test_an_option_without_default_must_be_given() -> None:
    declared = [Option("target", str, help="an address")]
    assert resolve(declared, {})[1] == ['"target" must be given (an address)']
    assert resolve(declared, {"target": "x"}) == ({"target": "x"}, [])
    assert resolve([], {"x": 1})[1] == ['"x" is not an option of this plugin; it has none']


@pytest.mark.parametrize(
    ("declare", "words"),
    [
        (lambda: Option("x", bytes), "its type must be one of int, float"),
        (lambda: Option("x", int, "3"), "the default of option 'x' must be an integer"),
        (lambda: Option("x", int, 3, minimum=4), "must be at least 4"),
    ],
)
def test_a_declaration_that_contradicts_itself_is_refused(declare: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        declare()
