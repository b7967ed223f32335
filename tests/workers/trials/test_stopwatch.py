"""Warnings about batches and ticks that would end a worker in a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from ringline.pipeline.configuration.config import PortConfig
from ringline.pipeline.ports.sim82599.capture_card import CaptureCard
from ringline.workers.captures.captures import CaptureReader, Tally
from ringline.workers.trials import checking, trial

DATA = Path(__file__).parents[2] / "data"
SLOW = """
import time
class Base:
    n = 0
    def process(self, batch):
        for packet in batch: packet.verdict = packet.port
class Once(Base):
    def process(self, batch):
        self.n += 1
        if self.n == 3: time.sleep(0.3)
        super().process(batch)
class First(Base):
    def process(self, batch):
        self.n += 1
        if self.n == 1: time.sleep(0.3)
        super().process(batch)
class Ticks(Base):
    def tick(self, worker): time.sleep(0.3)
class Raises(Base):
    def process(self, batch): raise ValueError
    def tick(self, worker): raise ValueError
"""
END = "a run replaces a worker that is silent for 0.2 s: make it shorter, or raise worker.silence"
TOLD = {"Once": "a batch took 0.", "Ticks": "tick took 0.", "First": "", "Raises": ""}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "slow.py").write_text(SLOW)
    return tmp_path


@pytest.mark.parametrize("name", TOLD)
def test_check_warns_of_what_takes_too_long(folder: Path, name: str) -> None:
    warnings: list[str] = []
    spec = f"./slow.py:{name}"
    problems = checking.check(spec, {}, ["wan"], folder=str(folder), limit=0.2, warnings=warnings)
    assert problems == []
    assert bool(warnings) == bool(TOLD[name])
    for warning in warnings:
        assert warning.startswith(f"plugin {spec}: {TOLD[name]}")
        assert warning.endswith(END)


def test_try_tells_which_frames_took_too_long(folder: Path) -> None:
    with CaptureReader(Tally(str(DATA / "mixed.pcap"))) as reader:
        card = CaptureCard(reader, PortConfig("port", "sim:82599"))
        done = trial.run("./slow.py:Once", card, folder=str(folder), limit=0.2)
    (remark,) = done.remarks
    assert " s on the frames 129 to 192; " in remark
    assert remark.endswith(END)
