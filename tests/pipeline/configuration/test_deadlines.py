"""Deadlines nest, and the processes that cannot import the table have the same values."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest

from ringline.pipeline.configuration import deadlines
from ringline.pipeline.configuration.deadlines import NESTED, PortLimits
from ringline.shm._shm import lib
from ringline.shm.control import Control
from ringline.workers.analysis import children, remote
from ringline.workers.process import channel, process
from ringline.workers.trials import checking, trial

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("inner", "outer"), [pair[:2] for pair in NESTED], ids=[pair[2] for pair in NESTED]
)
def test_an_inner_deadline_is_shorter_than_the_one_around_it(inner: float, outer: float) -> None:
    assert 0 < inner < outer


def test_the_mirrored_values_are_equal() -> None:
    assert process.DRAIN_SECONDS == deadlines.WORKER_DRAIN
    assert channel._SECONDS == deadlines.WORKER_SEND
    assert checking.PREPARE_SECONDS == deadlines.TRIAL_PREPARE
    assert children.SILENCE_SECONDS == deadlines.ANALYSIS_SILENCE
    assert children.JOIN_SECONDS == deadlines.ANALYSIS_JOIN
    assert remote.IDLE_SECONDS == deadlines.ANALYSIS_IDLE
    assert trial.SILENCE_SECONDS == deadlines.TRIAL_BATCH
    assert inspect.signature(Control.send).parameters["seconds"].default == deadlines.SEND


@pytest.mark.parametrize("ports", range(1, lib.RL_PORTS_MAX + 1))
def test_the_shares_of_all_ports_fit_into_the_limit_of_one_call(ports: int) -> None:
    whole, share = PortLimits(), PortLimits().share(ports)
    for name in ("start", "stop_receiving", "stop", "abandon"):
        assert getattr(share, name) * ports == pytest.approx(getattr(whole, name))
    assert share.link < share.start
    assert share.sent < share.stop
    assert all(getattr(share, field.name) > 0 for field in fields(share))


# Lengths and pauses: nobody waits for them to end.
NO_DEADLINES = {
    "RESET_SECONDS",  # how long the card is left alone after a reset
    "PHY_SECONDS",  # likewise, its PHY
    "SECONDS",  # the length of a measurement, as are the next two
    "WARM_SECONDS",
    "IDLE_SECONDS",
    "POLL_SECONDS",  # between two looks
    "ATTACH_AGAIN",  # between two attempts
}


def test_every_deadline_of_the_pipeline_is_in_the_table() -> None:
    found = re.compile(r"^(\w*(?:SECONDS|TIMEOUT|DEADLINE|DELAY)\w*) = [\d.]", re.MULTILINE)
    # `time.monotonic() + NAME`, with a number for NAME in the same file
    until = re.compile(r"monotonic\(\) \+ (_?[A-Z][A-Z_]*)\b")
    waits = re.compile(r"(?:timeout|seconds)=[\d.]|settimeout\([\d.]|shut_down\([\d.]")
    for path in (ROOT / "pipeline").rglob("*.py"):
        text = path.read_text()
        if path.name != "deadlines.py":
            assert set(found.findall(text)) <= NO_DEADLINES, path
            assert waits.findall(text) == [], path
            for name in set(until.findall(text)) - NO_DEADLINES:
                assert not re.search(rf"^{name} = [\d.]", text, re.MULTILINE), (path, name)
