"""`ringline run PLUGIN` and `ringline check PLUGIN`: no configuration file is needed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ringline.workers.captures.captures import read_capture

from .operator_harness import Operator

pytestmark = pytest.mark.slow

MIXED = Path(__file__).parents[1] / "data" / "mixed.pcap"
GUARD = """
from ringline.workers.api import DROP, Option

class Guard:
    options = [Option("shortest", int, 60, minimum=14)]
    def setup(self, worker):
        self.shortest = worker.options["shortest"]
    def process(self, batch):
        for packet in batch:
            packet.verdict = DROP if packet.length < self.shortest else packet.port
"""


def test_a_plugin_runs_on_a_capture_and_its_output_is_recorded(operator: Operator) -> None:
    operator.write(GUARD, "guard.py")
    shortest = 300
    wanted = sum(len(frame) >= shortest for frame in read_capture(MIXED).frames)
    words = ["./guard.py:Guard", "--replay", MIXED, "--record", "out.pcap"]
    words += ["-o", f"shortest={shortest}", "--queues", "2", "--name", operator.name]
    ended = operator.run("run", *words, "--report", "report.json")
    assert ended.code == 0, ended.errors
    assert f"forwarded {wanted}" in ended.out
    assert len(read_capture(operator.folder / "out.pcap").frames) == wanted
    told = json.loads((operator.folder / "report.json").read_text())
    assert [worker["plugin"] for worker in told["workers"]] == ["./guard.py:Guard"] * 2
    (operator.folder / "out.pcap").unlink()
    checked = operator.run("check", *words)
    assert checked.out.startswith(
        f"./guard.py:Guard: all well; instance {operator.name}, ports wan (sim:82599), workers 2, "
    )
    assert not (operator.folder / "out.pcap").exists()


def test_each_port_has_its_capture_and_its_recording(operator: Operator) -> None:
    whole = MIXED.read_bytes()
    (operator.folder / "cut.pcap").write_bytes(whole[:-10])
    frames = len(read_capture(MIXED).frames)
    words = ["--replay", f"wan={MIXED}", "--replay", "lan=cut.pcap", "--name", operator.name]
    assert "or use what is good with --cut" in operator.refused(2, "run", "forward", *words)
    words += ["--cut", "--record", "wan=wan.pcap", "--record", "lan=lan.pcap"]
    ended = operator.run("run", "forward", *words)
    assert ended.code == 0, ended.errors
    sent = [len(read_capture(operator.folder / f"{name}.pcap").frames) for name in ("wan", "lan")]
    assert sent == [frames - 1, frames]


def test_synthetic_flows_arrive_without_a_capture(operator: Operator) -> None:
    ended = operator.run("run", "drop", "--queues", "1", "--for", "0.5", "--name", operator.name)
    assert ended.code == 0, ended.errors
    assert "dropped: plugin" in ended.out


@pytest.mark.parametrize("command", ["run", "check"])
def test_mistakes_are_told_in_one_sentence_each(operator: Operator, command: str) -> None:
    operator.write(GUARD, "guard.py")
    for words, told in (
        (["./guard.py:Gaurd"], "has no 'Gaurd'; did you mean 'Guard'?"),
        (["./guard.py:Guard", "-o", "shortst=1"], '"shortst" is not an option of this plugin'),
        (["./guard.py:Guard", "-o", "shortest=1"], '"shortest" must be at least 14, not 1'),
        (["./guard.py"], "./guard.py is a file: add the name of the plugin in it"),
        (["./guard.py:Guard", "--replay", "."], "is a directory; name a capture file in it"),
        (["edge.toml", "--queues", "2"], "--queues cannot be given with a configuration file"),
        (["nobody"], '"nobody" is neither a configuration (FILE.toml) nor a plugin'),
    ):
        extra = [] if words[0] == "edge.toml" else ["--name", operator.name]
        assert told in operator.refused(2, command, *words, *extra)
