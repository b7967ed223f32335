"""Guarantees of the heartbeat failure detector."""

from __future__ import annotations

from typing import cast

import pytest

from ringline.pipeline.configuration.config import Config
from ringline.pipeline.configuration.deadlines import WORKER_SILENCE
from ringline.pipeline.supervisor.children import Children
from ringline.pipeline.supervisor.heartbeat import Heartbeat
from ringline.pipeline.supervisor.run_states import RunState, Stage
from ringline.pipeline.supervisor.supervisor import Supervisor


def test_silence_counts_only_while_the_supervisor_runs() -> None:
    heartbeat = Heartbeat().check(7, 100.0, 0.3)
    heartbeat = heartbeat.check(7, 100.25, 0.3)
    assert heartbeat.silence == pytest.approx(0.25)
    heartbeat = heartbeat.check(7, 200.0, 0.3)
    assert heartbeat.silence == pytest.approx(0.25), "time without a check counted"
    heartbeat = heartbeat.check(7, 200.25, 0.3)
    assert heartbeat.silence == pytest.approx(0.5)
    assert heartbeat.check(8, 200.1, 0.3).silence == 0.0


class SilentChildren:
    """Children whose heartbeat does not change; `silence` is what the supervisor has counted."""

    def __init__(self) -> None:
        self._heartbeat = Heartbeat(7, 100.0)

    def check_heartbeats(self, now: float, cap: float) -> str:
        self._heartbeat = self._heartbeat.check(7, now, cap)
        return ""

    @property
    def silence(self) -> float:
        return self._heartbeat.silence


def test_a_pause_of_the_machine_ends_no_child() -> None:
    """A late check adds nothing; checks on schedule add all the time."""
    timeout, children = WORKER_SILENCE, SilentChildren()
    supervisor = Supervisor(Config())
    supervisor._run = RunState(stage=Stage.RUNNING)
    supervisor._children = cast("Children", children)
    supervisor._check_at = now = 100.0
    supervisor._check_heartbeats(now)
    supervisor._check_heartbeats(now := supervisor._check_at)
    before = children.silence
    assert before == pytest.approx(supervisor._check_at - now)
    supervisor._check_heartbeats(now := now + 3600.0)
    assert children.silence < timeout, "an hour without a check counted as silence"
    after = children.silence
    supervisor._check_heartbeats(supervisor._check_at)
    assert children.silence - after == pytest.approx(before)
    for _ in range(3):
        supervisor._check_heartbeats(supervisor._check_at)
    assert children.silence > timeout, "a child that is silent on schedule is found"
