"""A worker process from exec to exit; the test is its supervisor and its driver."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ringline.shm._shm import lib
from ringline.shm.signals import IGNORED_BY_CHILDREN
from ringline.workers.process import exits, launch
from ringline.workers.process.process import FAILING_PACKETS, FAILING_SECONDS, FailureDetector
from ringline.workers.testing import ERROR

if TYPE_CHECKING:
    from tests.workers.conftest import WorkerHarness

DROP: int = lib.RL_VERDICT_DROP
BLANK: int = lib.RL_FLAG_BLANK
CAPACITY: int = lib.RL_RING_CAPACITY
MODULE = "ringline.workers.plugins"
MAC_SWAPS = ["mac_swap", "mac_swap_compiled", "MacSwapColumns", "MacSwapPackets"]

PluginFile = Callable[..., str]


@pytest.mark.parametrize("name", MAC_SWAPS)
def test_a_worker_runs_its_plugin_and_ends_in_order(worker: WorkerHarness, name: str) -> None:
    worker.serve(f"{MODULE}.mac_swap:{name}")
    assert [event["event"] for event in worker.events] == ["prepared", "ready"]
    frames = [bytes([n]) * 6 + bytes([n + 1]) * 6 + bytes(48) for n in range(100)]
    worker.put(frames, port=1)
    back = worker.take(100)
    assert [reference[0] for reference in back] == list(range(100))
    assert {reference[5] for reference in back} == {1}
    assert [worker.frame(r) for r in back] == [f[6:12] + f[:6] + f[12:] for f in frames]
    assert worker.stop() == exits.STOPPED
    assert worker.counters["packets"] == worker.counters["forwarded"] == 100
    assert worker.counters["bytes"] == 6000


def test_stop_takes_effect_after_the_packets_pushed_before(worker: WorkerHarness) -> None:
    worker.serve(f"{MODULE}.drop:drop", idle="busy")
    worker.push([(n % 64, 192, 60, n, 0, 0, 0) for n in range(CAPACITY)])
    assert worker.stop() == exits.STOPPED
    back = worker.take(CAPACITY)
    assert [reference[3] for reference in back] == list(range(CAPACITY))
    assert {reference[5] for reference in back} == {DROP}


SLOW = """
import time

class Slow:
    def process(self, batch):
        time.sleep(0.03)
"""


def test_a_slow_plugin_is_given_time_to_finish(
    worker: WorkerHarness, plugin_file: PluginFile
) -> None:
    """It takes several turns, and each turn checks the deadline."""
    worker.serve(f"{plugin_file(SLOW)}:Slow")
    worker.push([(n % 64, 192, 60, n, 0, 0, 0) for n in range(400)])
    assert worker.stop() == exits.STOPPED
    assert [reference[3] for reference in worker.take(400)] == list(range(400))


FORKS = """
import os

class Forks:
    def process(self, batch):
        if os.fork() == 0:
            os.setsid()
            if not os.fork():
                for packet in batch:
                    packet.data[:] = bytes([238]) * 60
            os._exit(0)
        os.wait()
        batch.verdicts[:] = batch.ports

class Returns:
    def process(self, batch):
        self.pid = os.fork()
        batch.verdicts[:] = batch.ports
        if self.pid:
            os.waitpid(self.pid, 0)
"""


@pytest.mark.parametrize("name", ["Forks", "Returns"])
def test_a_process_that_a_plugin_forks_has_no_packets(
    worker: WorkerHarness, plugin_file: PluginFile, name: str
) -> None:
    """Neither one that writes into frames, nor one that goes on as if it were the worker."""
    worker.serve(f"{plugin_file(FORKS)}:{name}")
    frames = [bytes([n]) * 60 for n in range(10)]
    worker.put(frames, port=1)
    back = worker.take(10)
    assert [worker.frame(reference) for reference in back] == frames
    assert worker.stop() == exits.STOPPED
    assert not worker.out.pop(1), "nobody returned a packet again"


def test_blanks_come_back_when_it_stops(worker: WorkerHarness) -> None:
    worker.serve(f"{MODULE}.drop:drop")
    worker.push([(n, 192, 0, 0, 0, 255, BLANK) for n in range(100)])
    worker.push([(n, 192, 60, 0, 0, 0, 0) for n in range(100, 110)])
    assert [reference[0] for reference in worker.take(10)] == list(range(100, 110))
    assert worker.stop() == exits.STOPPED
    assert sorted(reference[0] for reference in worker.take(100)) == list(range(100))


def test_a_worker_without_a_driver_still_ends(worker: WorkerHarness) -> None:
    """`out` stays full: the deadline of the orderly stop ends the worker."""
    worker.serve(f"{MODULE}.drop:drop")
    for _ in range(2):
        worker.push([(0, 192, 60, 0, 0, 0, 0)] * CAPACITY)
        while worker.in_.room(CAPACITY) < CAPACITY and worker.counters["out_waits"] == 0:
            time.sleep(0.001)
    assert worker.stop() == exits.STOPPED
    assert len(worker.out.pop(2 * CAPACITY)) == CAPACITY


STATEFUL = """
from ringline.workers.api import *

def setup(worker):
    return worker.state("count", "i8", 4)

@packet_function(setup=setup)
def count(frame, meta, state):
    state[meta.port] += 1
    set = field(frame, 0, 1)
    set_field(frame, 0, 8, state[meta.port])
    return 0

class Count:
    def setup(self, worker):
        self.state = worker.state("count", "i8", 4)
        self.seen = worker.counter("seen")

    def process(self, batch):
        for packet in batch:
            self.state[packet.port] += 1
            self.seen.add()
            packet.data[:8] = int(self.state[packet.port]).to_bytes(8, "big")
            packet.verdict = 0
"""


@pytest.mark.parametrize("name", ["count", "Count"])
def test_state_and_counters_survive_a_kill(
    worker: WorkerHarness, plugin_file: PluginFile, name: str
) -> None:
    path = plugin_file(STATEFUL)
    for run in range(2):
        worker.serve(f"{path}:{name}")
        worker.put([bytes(60)] * 10)
        last = worker.frame(worker.take(10)[-1])
        assert int.from_bytes(last[:8], "big") == 10 * (run + 1)
        assert worker.counters["packets"] == 10 * (run + 1)
        worker.kill()
    values = {entry.name: worker.slot.values(entry) for entry in worker.slot.entries()}
    assert values["count"] == [20, 0, 0, 0]
    assert values.get("seen", [20]) == [20]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import nothing_like_it", "No module named 'nothing_like_it'"),
        ("def plugin(frame, meta): return 0", "mark it with @packet_function"),
        (
            "from ringline.workers.api import *\n"
            "@packet_function\ndef plugin(frame, meta):\n    return meta.nothing\n",
            "Unknown attribute 'nothing'",
        ),
        ("class plugin:\n    def process(self, batch, more): pass", "must take (self, batch)"),
        (
            "class plugin:\n    def prepare(self, options): raise KeyError('x')\n"
            "    def process(self, batch): pass",
            "prepare failed: KeyError: 'x'",
        ),
        (
            "class plugin:\n    def setup(self, worker): raise KeyError('x')\n"
            "    def process(self, batch): pass",
            "setup failed: KeyError: 'x'",
        ),
        (
            "import asyncio\nclass plugin:\n"
            "    def setup(self, worker): raise asyncio.CancelledError('x')\n"
            "    def process(self, batch): pass",
            ": CancelledError: x (",
        ),
        (
            "from ringline.workers.api import *\n"
            "@packet_function(options=[3])\ndef plugin(frame, meta):\n    return DROP\n",
            "`options` must be a list of Option",
        ),
    ],
)
def test_a_plugin_that_cannot_start_says_why_and_is_not_started_again(
    worker: WorkerHarness, plugin_file: PluginFile, source: str, words: str
) -> None:
    path = plugin_file(source + "\n")
    worker.start(f"{path}:plugin")
    error = worker.event("failed", "ready")["error"]
    assert error["type"] == "PluginError"
    assert words in error["message"]
    assert path in error["message"]
    assert worker.wait() == exits.PLUGIN


def test_unknown_options_are_refused(worker: WorkerHarness) -> None:
    worker.start(f"{MODULE}.forward:forward", options={"mpa": {}})
    error = worker.event("failed")["error"]
    assert '"mpa" is not an option of this plugin; did you mean "map"?' in error["message"]
    assert worker.wait() == exits.PLUGIN


RAISING = """
class Bad(BaseException):
    pass

class Probe:
    def process(self, batch):
        for packet in batch:
            if packet.data[0]:
                raise Bad("a bad\\nframe \\x1b[2J" + "x" * 10000)
            packet.verdict = 0
"""


def test_a_batch_that_fails_is_counted_and_reported(
    worker: WorkerHarness, plugin_file: PluginFile
) -> None:
    path = plugin_file(RAISING)
    worker.serve(f"{path}:Probe")
    worker.put([b"\1" * 60] * 3)
    assert {reference[5] for reference in worker.take(3)} == {ERROR}
    told = worker.event("report")["plugin"]["error"]
    bad = r"a bad frame \x1b[2J" + "x" * 10000
    assert told == f"plugin {path}:Probe: Bad: {bad[:500]}... ({path}, line 9)"
    worker.put([bytes(60)] * 3)
    assert {reference[5] for reference in worker.take(3)} == {0}
    for _ in range(50):  # more errors at once than the log should have
        worker.put([b"\1" * 60])
        worker.take(1)
    assert worker.stop() == exits.STOPPED
    assert sum(event["event"] == "report" for event in worker.events) < 10
    assert worker.counters["plugin_errors"] == 53
    assert worker.counters["forwarded"] == 3


FAILING_TICK = """
import json

class Probe:
    def setup(self, worker):
        self.table = worker.table("who", "source", ["packets"], 8)
        self.table.write([("good", [1])])

    def process(self, batch):
        batch.verdicts[:] = 0

    def tick(self, worker):
        self.table.write([("x", [1]), ("y", json.loads("["))])
"""


def test_a_tick_that_fails_is_counted_and_reported_with_its_traceback_once(
    worker: WorkerHarness, plugin_file: PluginFile
) -> None:
    path = plugin_file(FAILING_TICK)
    worker.serve(f"{path}:Probe")
    told = worker.event("report")["plugin"]
    assert told["error"].startswith(f"plugin {path}:Probe: tick failed: JSONDecodeError: ")
    assert told["error"].endswith(f"({path}, line 13)")
    assert told["trace"][:2] == [
        f'  File "{path}", line 13, in tick',
        '    self.table.write([("x", [1]), ("y", json.loads("["))])',
    ]
    assert worker.stop() == exits.STOPPED
    reports = [event["plugin"] for event in worker.events if event["event"] == "report"]
    assert len(reports) >= 2
    assert sum("trace" in report for report in reports) == 1
    assert worker.counters["tick_errors"] >= 2
    assert worker.counters["plugin_errors"] == 0


def test_a_worker_gives_up_when_every_packet_fails_for_a_while() -> None:
    detector, many = FailureDetector(0.0), FAILING_PACKETS
    assert not detector.only_failures(many, many, 1.0)
    assert detector.only_failures(2 * many, 2 * many, FAILING_SECONDS + 0.1)


def test_a_good_packet_silence_or_few_packets_keep_a_worker_alive() -> None:
    late, many = FAILING_SECONDS + 0.1, FAILING_PACKETS
    detector = FailureDetector(0.0)
    assert not detector.only_failures(many, many - 1, late)
    assert not detector.only_failures(2 * many, 2 * many - 1, 2 * late - 0.2)
    detector = FailureDetector(0.0)
    assert not detector.only_failures(0, 0, late)
    detector = FailureDetector(0.0)
    assert not detector.only_failures(many - 1, many - 1, late)
    assert detector.only_failures(many, many, late)


def test_an_index_out_of_range_has_an_exit_code_of_its_own(worker: WorkerHarness) -> None:
    worker.serve(f"{MODULE}.drop:drop")
    worker.rings.in_.producer = CAPACITY + 1
    assert worker.event("failed")["error"]["type"] == "Bug"
    assert worker.wait() == exits.RING_FAULT


def test_it_ends_when_its_supervisor_closes_the_socket(worker: WorkerHarness) -> None:
    worker.serve(f"{MODULE}.drop:drop")
    worker.control.close()
    assert worker.process is not None
    assert worker.process.wait(30) == exits.ORPHAN


def test_a_hanging_plugin_ends_with_its_supervisor(plugin_file: PluginFile) -> None:
    """It does not read the control socket: the kernel ends it with its parent."""
    path = plugin_file("import os, time\nos.write(1, b'%d\\n' % os.getpid())\ntime.sleep(600)\n")
    code = f"""
import json, os, subprocess, sys, time
from ringline.shm.control import Control
from ringline.shm.packets import PacketMemory
from ringline.workers.process import launch
control, theirs = Control.pair()
environment = {{**launch.environment(), "RINGLINE_CONTROL": str(theirs.fileno())}}
child = subprocess.Popen(launch.command(), env=environment, pass_fds=(theirs.fileno(),))
with PacketMemory.create("t{os.getpid()}-orphan", 4, hugepages="off") as packets:
    from ringline.shm.rings import RingPair
    from ringline.shm.slots import WorkerSlot
    with RingPair.create("t{os.getpid()}-orphan", 0, 1) as rings:
        with WorkerSlot.create("t{os.getpid()}-orphan", 0, 4096) as slot:
            fds = [s.share() for s in (packets.segment, rings.segment, slot.segment)]
            control.send({{"do": "open", "queue": 0, "generation": 1, "ports": ["a"],
                           "state_bytes": 4096, "plugin": {path + ":x"!r}, "options": {{}},
                           "places": {{}}, "reasons": [], "folder": None, "debug": False,
                           "idle": "adaptive", "yield": True, "cpu": None}}, fds)
            sys.stdin.readline()
os._exit(0)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert Path(f"/proc/{pid}").exists()
    # An open copy of the supervisor's end must not matter: the kernel ends the worker.
    parent.communicate("\n", timeout=30)
    until = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_signals_to_the_process_group_do_not_end_it(worker: WorkerHarness) -> None:
    worker.serve(f"{MODULE}.drop:drop")
    assert worker.process is not None
    for number in IGNORED_BY_CHILDREN:
        worker.process.send_signal(number)
    worker.put([bytes(60)])
    assert len(worker.take(1)) == 1
    assert worker.stop() == exits.STOPPED


MODULES = """
import sys
from ringline.workers.api import PluginError, native_plugin

def tell(worker):
    raise PluginError(" ".join(sorted(sys.modules)))

from ringline.workers._workers import ffi, lib
tell = native_plugin(ffi.addressof(lib, "rl_drop"), setup=tell)
"""
HEAVY = "numpy numba json socket typing dataclasses re enum site ctypes threading subprocess"


def test_a_worker_with_a_plugin_in_c_imports_nothing_heavy(
    worker: WorkerHarness, plugin_file: PluginFile
) -> None:
    """So it runs 13 ms after its start and needs 12 MB."""
    worker.start(f"{plugin_file(MODULES)}:tell")
    modules = set(worker.event("failed")["error"]["message"].split())
    assert "ringline.workers.process.process" in modules
    assert modules.isdisjoint(HEAVY.split()), modules.intersection(HEAVY.split())
    assert not [name for name in modules if name.startswith("ringline.pipeline")]


def test_a_long_message_arrives_whole(worker: WorkerHarness, plugin_file: PluginFile) -> None:
    """In both directions, with characters that JSON escapes."""
    text = 'é"\\\n\t\u2028 ' * 20_000
    source = """
from ringline.workers.api import Option, PluginError
class Echo:
    options = [Option("text", str), Option("rest", list)]
    def prepare(self, options):
        raise PluginError(repr(options["rest"]) + options["text"].replace(" ", "_"))
    def process(self, batch): pass
"""
    rest = [1, -2.5, True, False, None, {"a": []}]
    options = {"text": text, "rest": rest}
    worker.start(f"{plugin_file(source)}:Echo", options=options)
    message = worker.event("failed")["error"]["message"]
    wanted = " ".join((repr(rest) + text.replace(" ", "_")).split())
    assert message.endswith(wanted)


def test_a_segment_that_is_too_small_is_refused(worker: WorkerHarness) -> None:
    worker.start(f"{MODULE}.drop:drop", state_bytes=1 << 40)
    error = worker.event("failed")["error"]
    assert error["type"] == "EnvironmentLacks"
    assert f"has {worker.slot.segment.size} bytes, but 109" in error["message"]
    assert worker.wait() == 3


def test_it_starts_although_another_worker_overwrote_the_headers(worker: WorkerHarness) -> None:
    for segment in (worker.packets.segment, worker.slot.segment):
        segment.memory[: lib.RL_HEADER_BYTES] = b"\xff" * lib.RL_HEADER_BYTES
    worker.serve(f"{MODULE}.drop:drop")
    worker.put([bytes(60)])
    assert len(worker.take(1)) == 1
    assert worker.stop() == exits.STOPPED


def test_it_is_pinned_to_the_given_processor(worker: WorkerHarness) -> None:
    cpu = max(os.sched_getaffinity(0))
    worker.serve(f"{MODULE}.drop:drop", cpu=cpu)
    assert worker.process is not None
    assert os.sched_getaffinity(worker.process.pid) == {cpu}


def test_a_file_is_found_relative_to_the_configuration(
    worker: WorkerHarness, plugin_file: PluginFile
) -> None:
    folder = Path(plugin_file(RAISING)).parent
    worker.serve("./plugin.py:Probe", folder=str(folder))


def test_a_worker_started_by_hand_names_the_right_command() -> None:
    result = subprocess.run(
        launch.command(),
        check=False,
        env=launch.environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 1
    assert "started by `ringline run`, not by hand" in result.stderr


def test_it_also_starts_as_a_module_and_without_a_search_path() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "RINGLINE_PATH"}
    for command in ([sys.executable, "-m", "ringline.workers.process.process"], launch.command()):
        result = subprocess.run(
            command, check=False, env=environment, capture_output=True, text=True, timeout=60
        )
        assert "not by hand" in result.stderr, json.dumps(command)
