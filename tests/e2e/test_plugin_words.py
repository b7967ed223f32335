"""What a plugin names and says in a run: drop reasons, log, values, its file; and /healthz."""

from __future__ import annotations

import json
import os
import re
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .operator_harness import TIMEOUT, Operator
from .run_harness import answer_of

pytestmark = pytest.mark.slow

Status = dict[str, Any]

PLUGIN = """
import os
from pathlib import Path
from typing import NamedTuple
from ringline.workers.api import Option, packet_function

__version__ = "7.1"

class State(NamedTuple):
    acl: int
    odd: int
    seen: object

def setup(worker):
    worker.log.warning("%s\\x1b has %d bytes", worker.options["rules"].name,
                       worker.options["rules"].stat().st_size)
    worker.gauge("share").set(0.5)
    seen = worker.counter("seen", label="parity", values=("even", "odd"))
    return State(worker.drop_reason("acl"), worker.drop_reason("odd"), seen)

OPTIONS = [Option("rules", Path)]

@packet_function(setup=setup, options=OPTIONS)
def compiled(frame, meta, state):
    state.seen[frame[29] & 1] += 1
    if frame[29] & 1:
        return state.odd
    return state.acl if frame[29] & 2 else meta.port

class Batch:
    options = OPTIONS
    def setup(self, worker):
        self.state = setup(worker)
    def process(self, batch):
        for packet in batch:
            last = packet.data[29]
            self.state.seen["odd" if last & 1 else "even"].add()
            if last & 1:
                packet.verdict = self.state.odd
            else:
                packet.verdict = self.state.acl if last & 2 else packet.port
"""

CONFIG = """
name = "NAME"
memory.hugepages = "off"
metrics.listen = "127.0.0.1:0"
[port.wan]
device = "sim:82599"
wire = {{ flows = {{ count = 64{packets} }} }}
[worker]
plugin = "./words.py:{name}"
options = {{ rules = "rules.csv" }}
"""


@pytest.fixture
def folder(operator: Operator) -> Operator:
    operator.write(PLUGIN, "words.py")
    operator.write("0123456789", "rules.csv")
    return operator


@pytest.mark.parametrize("name", ["compiled", "Batch"])
def test_a_run_counts_and_tells_by_name(folder: Operator, name: str) -> None:
    config = folder.write(CONFIG.format(name=name, packets=", packets = 20000"))
    ended = folder.run("run", config, "--strict", "--report", "report.json", cwd=folder.folder)
    assert ended.code == 0, ended
    spec = f"./words.py:{name}"
    said = [line for line in ended.sentences if "bytes" in line]
    assert said == [f"worker 0: plugin {spec}: warning: rules.csv\\x1b has 10 bytes"]
    report = json.loads((folder.folder / "report.json").read_text())
    port, (worker,) = report["ports"]["wan"], report["workers"]
    drops = {reason: number for reason, number in port["drops"].items() if number}
    assert set(drops) == {"acl", "odd"}
    assert port["received"]["packets"] == 20000 == port["forwarded"] + sum(drops.values())
    assert worker["counters"]["dropped"] == sum(drops.values())
    assert worker["metrics"]["seen"] == {"even": 20000 - drops["odd"], "odd": drops["odd"]}
    assert (worker["metrics"]["share"], worker["version"]) == (0.5, "7.1")
    assert report["exit"]["reason"] == "all well"
    assert not any(report["balance"].values())
    for reason, number in drops.items():
        assert re.search(rf"dropped: .*{reason} {number:,}", ended.out.replace("\n", " "))


def test_try_shows_the_same_names(folder: Operator) -> None:
    capture = Path(__file__).parents[1] / "data" / "mixed.pcap"
    ended = folder.run(
        "try", "./words.py:Batch", capture, "-o", "rules=rules.csv", other_output=True
    )
    assert ended.code == 0
    assert re.search(r"dropped [\d,]+ \((acl|odd) \d+", ended.out)
    assert re.search(r"seen: even \d+, odd \d+", ended.out)
    assert "plugin ./words.py:Batch: warning: rules.csv\\x1b has 10 bytes" in ended.errors


def ask(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as got:
            return got.status, got.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_names_and_numbers_outlive_a_worker_and_health_tells_the_state(folder: Operator) -> None:
    text = CONFIG.format(name="Batch", packets="") + "restart = { intensity = 1, period = 60.0 }\n"
    config = folder.write(text.replace('2599"\n', '2599"\nqueues = 2\n'))
    with folder.serving(config):

        def wait_for(what: str, condition: Callable[[Status], object]) -> Status:
            until = time.monotonic() + TIMEOUT
            while not condition(now := answer_of(folder.name)):
                assert time.monotonic() < until, f"no {what}: {now}"
                time.sleep(0.1)
            return now

        first = wait_for("drops", lambda now: now["drops"].get("acl", 0) > 100)
        url = first["metrics"].replace("/metrics", "/healthz")
        assert ask(url) == (200, "ok\n")
        os.kill(first["workers"][0]["pid"], signal.SIGKILL)
        second = wait_for("restart", lambda now: now["workers"][0]["restarts"] and _up(now))
        grown = wait_for("more", lambda now: now["drops"]["acl"] > second["drops"]["acl"])
        assert grown["workers"][0]["drop_reasons"] == ["acl", "odd"]
        assert grown["drops"]["odd"] >= first["drops"]["odd"]
        assert not any(grown["balance"].values())
        text = ask(first["metrics"])[1]
        assert 'ringline_worker_state{state="running",worker="0"} 1.0' in text
        assert 'reason="acl"' in text
        assert 'ringline_worker_info{plugin="./words.py:Batch",version="7.1",worker="0"}' in text
        os.kill(grown["workers"][0]["pid"], signal.SIGKILL)
        wait_for("end", lambda now: now["workers"][0]["state"] == "given up")
        assert ask(url) == (503, "given up: queue 0\n")
        text = ask(first["metrics"])[1]
        assert 'ringline_worker_state{state="given_up",worker="0"} 1.0' in text
        assert 'ringline_worker_state{state="running",worker="1"} 1.0' in text


def _up(now: Status) -> bool:
    return bool(now["workers"][0]["up"])
