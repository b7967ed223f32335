"""The lines of a plugin in the log of the run: the supervisor does not trust the worker."""

from __future__ import annotations

import pytest

from ringline.pipeline.telemetry.plugin_log import BURST, LINE_MAX, PluginLog


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def log(said: list[str]) -> PluginLog:
    return PluginLog("worker 1", "./acl.py:acl", said.append)


def test_a_line_has_its_worker_plugin_and_level(log: PluginLog, said: list[str]) -> None:
    log.note({"event": "log", "level": "warning", "line": "no rules"}, 0.0)
    assert said == ["worker 1: plugin ./acl.py:acl: warning: no rules"]


def test_control_characters_are_escaped(log: PluginLog, said: list[str]) -> None:
    log.note({"level": "info", "line": "a\x1b]0;x\x07\nringline: all well\r"}, 0.0)
    assert said == [
        r"worker 1: plugin ./acl.py:acl: info: a\x1b]0;x\x07\nringline: all well\r",
    ]


def test_a_worker_can_say_neither_too_much_nor_too_long_lines(
    log: PluginLog, said: list[str]
) -> None:
    for number in range(BURST + 10):
        log.note({"level": "info", "line": f"{number} " + "x" * 100_000}, 0.0)
    assert len(said) == BURST
    assert max(map(len, said)) < LINE_MAX + 100
    log.note({"level": "info", "line": "later"}, 1.0)
    assert said[BURST:] == [
        "worker 1: plugin ./acl.py:acl: 10 lines were left out: too many",
        "worker 1: plugin ./acl.py:acl: info: later",
    ]
    for _ in range(BURST + 10):
        log.note({"level": "info", "line": ""}, 1.0)
    log.end()
    assert said[-1].endswith(" lines were left out: too many")


@pytest.mark.parametrize(
    "message",
    [{}, {"level": "info"}, {"level": [], "line": "x"}, {"level": "info", "line": 3}],
)
def test_nonsense_is_ignored(log: PluginLog, said: list[str], message: dict[str, object]) -> None:
    log.note(message, 0.0)
    log.end()
    assert said == []
