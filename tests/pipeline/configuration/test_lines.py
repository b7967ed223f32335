"""The line of each mistake in a configuration."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from ringline.pipeline.configuration import schema
from ringline.pipeline.configuration.lines import lines_of, with_line
from ringline.shm.errors import ConfigurationError

# Each value is the line on which its key begins.
NUMBERED = '''# a comment with [brackets] = and "quotes
one = 2
"two words" = 3
[a.b]  # a header
c = 5
d.e = 6
inline = { x = 7, y = { z = 7 } }

[a."b.c"]
text = """ [not.a.header]
z = 1
"""
after = 13
list = [
  1, # ]
  2,
]
last = 18
[[many]]
item = 20
'''


def test_each_key_has_its_line() -> None:
    def check(values: dict[str, object], path: str) -> None:
        for key, value in values.items():
            where = f"{path}.{key}" if path else key
            if isinstance(value, dict):
                check(value, where)
            elif isinstance(value, int):
                assert found[where] == value, where

    found = lines_of(NUMBERED)
    whole = tomllib.loads(NUMBERED)
    assert found.pop('"two words"') == whole.pop("two words")
    assert found['a."b.c".after'] == whole["a"].pop("b.c")["after"]
    assert found['a."b.c".list'] == 14
    assert found["a"] == found["a.b"] == 4
    assert (found["many"], found["many.item"]) == (19, whole.pop("many")[0]["item"])
    check(whole, "")
    assert lines_of(NUMBERED.replace("\n", "\r\n"))["a.b.c"] == 5


def test_a_problem_gets_the_line_of_its_key_or_of_the_table_around_it() -> None:
    lines = {"port.wan": 3, "port.wan.queues": 4, "worker.options": 7}
    for problem, line in {
        "port.wan.queues: must be an integer": 4,
        "port.wan.device: is missing": 3,
        "worker.options[2].map: must be an integer": 7,
    }.items():
        assert with_line(problem, lines) == f"{problem} (line {line})"
    for problem in ("memory.buffers: are too few", 'x."a]": wrong', "no path", ""):
        assert with_line(problem, lines) == problem


def test_a_very_long_value_ends_the_search() -> None:
    items = "1,\n" * 100_000
    assert lines_of(f"a = 1\nb = [\n{items}]\nc = 3\n") == {"a": 1}


def test_a_mistake_in_a_file_has_its_line(tmp_path: Path) -> None:
    file = tmp_path / "edge.toml"
    file.write_text("\n[port.wan]\nqueues = 99\nwire = {\tflows = { sizes = [ 1 ] } }\n")
    with pytest.raises(ConfigurationError) as caught:
        schema.load(file)
    ends = {
        problem.split(": ")[1]: problem.rpartition(" (")[2] for problem in caught.value.problems
    }
    assert ends == {
        "port.wan.device": "line 2)",
        "port.wan.queues": "line 3)",
        "port.wan.wire.flows.sizes": "line 4)",
    }
