"""`bench pipeline`: what it says of a run without traffic."""

from __future__ import annotations

import os

import pytest

from ringline.pipeline.bench.machine import Machine
from ringline.pipeline.bench.measurements import pipeline
from ringline.pipeline.bench.sampling.disturbance import Watch

SILENT = ("idle, all processes, of one core", "packet after silence, later than the earliest")


def test_what_disturbs_a_run_without_traffic_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that find their caches cold and their CPU taken need more time for the same."""
    monkeypatch.setattr(pipeline, "IDLE_SECONDS", 0.1)
    monkeypatch.setattr(pipeline, "SILENT_PACKETS", 1)
    monkeypatch.setattr(Watch, "end", lambda self: "others were busy")
    cpus = tuple(sorted(os.sched_getaffinity(0))[-2:])
    figures = {each.what: each for each in pipeline._idle(Machine(cpus, 1.0, None, {}))}
    assert [figures[what].disturbed for what in SILENT] == ["others were busy"] * 2
