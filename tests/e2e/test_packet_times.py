"""In a run, packets have the time of the driver's clock, also after the worker was replaced."""

from __future__ import annotations

import json

from .operator_harness import ONE_QUEUE, Operator

PLUGIN = """
import os, time
from pathlib import Path

class Clock:
    times = True

    def setup(self, worker):
        self.earliest = worker.gauge("earliest")
        self.latest = worker.gauge("latest")
        self.ticked = worker.gauge("ticked")
        self.ran_back = worker.counter("ran_back")
        self.last = 0

    def process(self, batch):
        for packet in batch:
            packet.verdict = packet.port
            self.ran_back.add(packet.time < self.last)
            self.last = packet.time
            self.latest.set(packet.time)
            if not self.earliest.value:
                self.earliest.set(packet.time)
        died = Path("died")
        if not died.exists() and time.time_ns() - self.earliest.value > 500_000_000:
            died.touch()
            os.abort()

    def tick(self, worker):
        self.ticked.set(worker.time)
"""
WIRE = "[port.wan.wire]\nflows = { count = 4, packets = 3000 }\nrate_mpps = 0.001\n"
SECOND = 1_000_000_000
SLACK = 0.02 * SECOND  # the report has milliseconds, and clocks are not read at one moment


def test_packets_have_the_time_of_the_run(operator: Operator) -> None:
    operator.write(PLUGIN, "clock.py")
    config = operator.write(f'{ONE_QUEUE}{WIRE}[worker]\nplugin = "./clock.py:Clock"\n')
    report = operator.folder / "report.json"
    ended = operator.run("run", config, "--report", report, other_output=True)
    assert ended.code == 0, ended
    told = json.loads(report.read_text())
    [worker] = told["workers"]
    assert worker["restarts"] == 1
    seen = worker["metrics"]
    assert seen["ran_back"] == 0
    seconds = told["seconds"]
    assert 1.5 * SECOND <= seen["latest"] - seen["earliest"] <= seconds * SECOND + SLACK
    assert seen["latest"] - SLACK <= seen["ticked"] <= seen["earliest"] + seconds * SECOND + SLACK
