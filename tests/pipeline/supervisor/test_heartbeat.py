"""Guarantees of the heartbeat failure detector."""

from __future__ import annotations

import pytest

from ringline.pipeline.supervisor.heartbeat import Heartbeat


def test_silence_counts_only_while_the_supervisor_runs() -> None:
    heartbeat = Heartbeat().check(7, 100.0, 0.3)
    heartbeat = heartbeat.check(7, 100.25, 0.3)
    assert heartbeat.silence == pytest.approx(0.25)
    heartbeat = heartbeat.check(7, 200.0, 0.3)
    assert heartbeat.silence == pytest.approx(0.25), "time without a check counted"
    heartbeat = heartbeat.check(7, 200.25, 0.3)
    assert heartbeat.silence == pytest.approx(0.5)
    assert heartbeat.check(8, 200.1, 0.3).silence == 0.0
