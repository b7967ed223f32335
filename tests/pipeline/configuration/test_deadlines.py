"""Deadlines nest, and the processes that cannot import the table have the same values."""

from __future__ import annotations

import inspect
from dataclasses import fields

import pytest

from ringline.pipeline.configuration import deadlines
from ringline.pipeline.configuration.deadlines import NESTED, PortLimits
from ringline.shm._shm import lib
from ringline.shm.control import Control
from ringline.workers.process import channel, process
from ringline.workers.trials import checking, trial


@pytest.mark.parametrize(
    ("inner", "outer"), [pair[:2] for pair in NESTED], ids=[pair[2] for pair in NESTED]
)
def test_an_inner_deadline_is_shorter_than_the_one_around_it(inner: float, outer: float) -> None:
    assert 0 < inner < outer


def test_the_mirrored_values_are_equal() -> None:
    assert process.DRAIN_SECONDS == deadlines.WORKER_DRAIN
    assert channel._SECONDS == deadlines.WORKER_SEND
    assert checking.PREPARE_SECONDS == deadlines.TRIAL_PREPARE
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


def test_every_deadline_is_in_the_table_once() -> None:
    """A constant of the module is used in a pair, or it names what nothing waits around."""
    outermost = {"TRIAL_BATCH", "WORKER_SEND", "WORKER_SILENCE", "EXIT_DELAY", "KILLED"}
    text = inspect.getsource(deadlines)
    pairs = text[text.index("NESTED:") :] + inspect.getsource(deadlines.longest_end)
    names = {name for name in vars(deadlines) if name.isupper()} - {"NESTED", "TYPE_CHECKING"}
    unused = {name for name in names - outermost if name not in pairs}
    assert unused <= {"GRACE", "DISMISS", "BENCH_PROGRESS"}, unused
