"""Wrong or misbehaving plugins: each is reported in a sentence and harms nothing else."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from ringline.workers.captures.captures import read_capture

from .operator_harness import ONE_QUEUE, TIMEOUT, CommandResult, Operator
from .run_harness import wait_until

pytestmark = pytest.mark.slow

MIXED = Path(__file__).parents[1] / "data" / "mixed.pcap"
FRAMES = [bytes(frame).ljust(60, b"\0") for frame in read_capture(MIXED).frames]
PROOF = os.environ.get("RINGLINE_PROOF") == "1"

PLUGINS = """
import ctypes, os, signal, sys, threading, time

from ringline.workers.api import DROP, packet_function


@packet_function
def one_argument(frame):
    return 0

@packet_function
def no_state(frame, meta, state):
    return 0

@packet_function
def unknown_attribute(frame, meta):
    return frame.banana

@packet_function
def answers_text(frame, meta):
    return "hello"

@packet_function
def answers_nothing(frame, meta):
    pass

@packet_function
def raises_on_odd(frame, meta):
    if frame[29] & 1:
        raise ValueError("odd")
    return 0

@packet_function
def answers_256(frame, meta):
    return 256

@packet_function
def answers_minus_256(frame, meta):
    return -256

@packet_function
def answers_next_port(frame, meta):
    return meta.ports

def plain(frame, meta):
    return 0

number = 3

class Base:
    def process(self, batch):
        batch.verdicts[:] = 0

class WithoutProcess:
    pass

class ProcessAlone:
    def process(self): pass

class WithArgument(Base):
    def __init__(self, what): pass

class FailsPrepare(Base):
    def prepare(self, options): raise ValueError("no luck")

class FailsSetup(Base):
    def setup(self, worker): raise ValueError("no luck")

class HoardsInPrepare(Base):
    def prepare(self, options):
        hoard = []
        while True:
            hoard.append(bytearray(1 << 24))

class BlocksInPrepare(Base):
    def prepare(self, options):
        open("blocks", "w").close()
        time.sleep(1000)

class BlocksInSetup(Base):
    def setup(self, worker): time.sleep(1000)

class RaisesAtThird(Base):
    def setup(self, worker): self.batches = worker.counter("batches")
    def process(self, batch):
        self.batches.add()
        batch.verdicts[:] = 0
        if self.batches.value == 3:
            raise ValueError("the third")

class AnswersNine(Base):
    def process(self, batch): batch.verdicts[:] = 9

class Exits(Base):
    def process(self, batch): os._exit(9)

class ExitsPolitely(Base):
    def process(self, batch): sys.exit(4)

class Crashes(Base):
    def process(self, batch): os.kill(os.getpid(), signal.SIGSEGV)

class Sleeps(Base):
    batches = 0
    def process(self, batch):
        self.batches += 1
        if self.batches > 1:  # the first may take as long as prepare
            time.sleep(1000)
        super().process(batch)

class Hoards(Base):
    def setup(self, worker): self.hoard = []
    def process(self, batch): self.hoard.append(bytearray(1 << 24))

class Prints(Base):
    def prepare(self, options): print("printed in prepare")
    def setup(self, worker): os.write(1, b"written in setup\\n")

class LeavesChild(Base):
    def setup(self, worker):
        if not worker.rehearsal and os.fork() == 0:
            time.sleep(1000)

class LeavesThread(Base):
    def setup(self, worker):
        threading.Thread(target=time.sleep, args=(1000,)).start()

class Truncates(Base):
    def process(self, batch):
        for number in os.listdir("/proc/self/fd"):
            try:
                os.ftruncate(int(number), 0)
            except OSError:
                pass
        super().process(batch)

class SpoilsHeaders(Base):
    def setup(self, worker):
        self.lives = worker.counter("lives")
        self.lives.add()
        for line in open("/proc/self/maps"):
            if "/ringline." in line:
                ctypes.memset(int(line.split("-")[0], 16), 255, 4096)
    def process(self, batch):
        batch.verdicts[:] = 0
        if self.lives.value == 1:
            os._exit(9)
"""
FILES = {
    "syntax": "def f(:\n",
    "raises": "raise RuntimeError('no luck')\n",
    "imports": "import not_there_at_all\n",
    "exits": "import sys\nsys.exit(3)\n",
    "exits_at_once": "import os\nos._exit(7)\n",
    "crashes": "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n",
}
AT_START = {
    "./none.py:f": "plugin ./none.py:f: FOLDER/none.py cannot be read: No such file or directory",
    "./none.so:f": "plugin FOLDER/none.so:f cannot be loaded: ",
    "./plugins.py:nobody": "FOLDER/plugins.py has no 'nobody'; its plugins are: one_argument, ",
    "nothing.there:f": "plugin nothing.there:f: there is no module 'nothing' in this environment",
    "nobody": "there are: drop, flow_stats, forward, mac_swap",
    "./syntax.py:f": "does not import: SyntaxError: invalid syntax (FOLDER/syntax.py, line 1)",
    "./raises.py:f": "does not import: RuntimeError: no luck (FOLDER/raises.py, line 1)",
    "./imports.py:f": "No module named 'not_there_at_all' (FOLDER/imports.py, line 1)",
    "./exits.py:f": "does not import: SystemExit: 3 (FOLDER/exits.py, line 2)",
    "./exits_at_once.py:f": "exited with status 7 while it was made ready",
    "./crashes.py:f": "was ended by SIGSEGV while it was made ready",
    "./plugins.py:one_argument": "the function must take (frame, meta); it takes (frame) (FOLDER",
    "./plugins.py:no_state": "must take (frame, meta); it takes (frame, meta, state) (FOLDER",
    "./plugins.py:ProcessAlone": "process must take (self, batch); it takes (self) (FOLDER",
    "./plugins.py:WithoutProcess": "the class has no method process(self, batch)",
    "./plugins.py:WithArgument": "WithArgument() failed: TypeError: ",
    "./plugins.py:plain": "is a plain function: mark it with @packet_function (FOLDER/plugins.py",
    "./plugins.py:number": "native_plugin(…), not an object of type int",
    "./plugins.py:unknown_attribute": "does not compile: Unknown attribute 'banana'",
    "./plugins.py:answers_text": "a verdict is the number of a port or DROP (FOLDER/plugins.py",
    "./plugins.py:answers_nothing": "returns nothing; a verdict is the number of a port or DROP",
    "./plugins.py:FailsPrepare": "prepare failed: ValueError: no luck (FOLDER/plugins.py, line",
    "./plugins.py:FailsSetup": "setup failed: ValueError: no luck (FOLDER/plugins.py, line",
}
DEATHS = {
    "Exits": "exited with status 9",
    "ExitsPolitely": "exited with status 4",
    "Crashes": "was ended by SIGSEGV",
    "Sleeps": (
        "was ended by SIGABRT (made no progress for 1 s: its plugin did not return from a "
        "batch or tick; worker.silence in the configuration is the limit)"
    ),
}
LATE = {"BlocksInSetup": "setup took longer than 10 s"}
if PROOF:
    LATE["BlocksInPrepare"] = "preparing took longer than 180 s"
NO_PORTS = ("answers_256", "answers_minus_256", "answers_next_port", "AnswersNine")
LITTLE = ("prlimit", f"--as={1 << 28}")  # bytes of memory

# Settings of single plugins.
MORE = dict.fromkeys(DEATHS, "restart = { intensity = 1 }")
WIRES = {"Hoards": 'flows = { packets = 4000 }, rate_mpps = 0.01, record = "out.pcap"'}
WITHIN = dict.fromkeys(("Hoards", "HoardsInPrepare"), LITTLE)
# Plugins whose run prints more than ringline's sentences: the interpreter's or their own.
OTHER_OUTPUT = {*DEATHS, *LATE, "./crashes.py:f", "Prints"}


class Result:
    """A run that has ended. If it wrote a report, its books balance and match the recording."""

    def __init__(self, operator: Operator, ended: CommandResult) -> None:
        self.folder = operator.folder
        self.ended = ended
        path = operator.folder / "report.json"
        if not path.exists():
            return
        self.report = json.loads(path.read_text())
        self.port = self.report["ports"]["wan"]
        self.drops = {reason: n for reason, n in self.port["drops"].items() if n}
        self.recorded = read_capture(operator.folder / "out.pcap")
        assert not any(self.report["balance"].values()), self.report["balance"]
        told = self.port["forwarded"] + sum(self.drops.values()) + self.port["in_flight"]
        assert self.port["received"]["packets"] == told
        assert len(self.recorded) == self.port["transmitted"]["packets"] == self.port["forwarded"]


def prepared(operator: Operator) -> Operator:
    """Write all plugins into the operator's folder."""
    operator.write(PLUGINS, "plugins.py")
    for name, text in FILES.items():
        operator.write(text, f"{name}.py")
    return operator


def configured(operator: Operator, plugin: str, more: str = "") -> Path:
    """Write a configuration that replays a capture through `plugin` and records the output."""
    wire = WIRES.get(plugin, f'replay = "{MIXED}", record = "out.pcap"')
    name = plugin if "." in plugin or plugin in AT_START else f"./plugins.py:{plugin}"
    return operator.write(f'{ONE_QUEUE}wire = {{ {wire} }}\n[worker]\nplugin = "{name}"\n{more}\n')


def run(operator: Operator, plugin: str) -> Result:
    path = configured(prepared(operator), plugin, MORE.get(plugin, ""))
    arguments = ("run", path, "--report", "report.json")
    other_output = plugin in OTHER_OUTPUT
    ended = operator.run(*arguments, within=WITHIN.get(plugin, ()), other_output=other_output)
    return Result(operator, ended)


@pytest.fixture(scope="module")
def ran(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    name_instance: Callable[[], str],
) -> Iterator[Callable[[str], Result]]:
    """`ran(plugin)` returns the result of a run with a plugin.

    All needed runs are started in four threads, the longest first: they mostly wait.
    """
    tests = [item for item in request.session.items if item.path == request.path]
    asked = {test.callspec.params["plugin"] for test in tests if hasattr(test, "callspec")}
    order = sorted(asked, key=lambda plugin: plugin not in LATE)
    with ThreadPoolExecutor(4) as pool:
        runs: dict[str, Future[Result]] = {}
        for plugin in order:
            operator = Operator(tmp_path_factory.mktemp("plugin"), name_instance)
            runs[plugin] = pool.submit(run, operator, plugin)
        yield lambda plugin: runs[plugin].result()


@pytest.fixture
def plugins(operator: Operator) -> Operator:
    return prepared(operator)


@pytest.mark.parametrize("plugin", AT_START)
def test_a_plugin_that_cannot_start_refuses_the_run(
    ran: Callable[[str], Result], plugin: str
) -> None:
    result = ran(plugin)
    assert result.ended.code == 2
    assert AT_START[plugin].replace("FOLDER", str(result.folder)) in result.ended.last
    assert plugin.removeprefix("./") in result.ended.last


def test_check_and_try_report_the_same(plugins: Operator) -> None:
    path = configured(plugins, "FailsSetup", '[worker.0]\nplugin = "./exits.py:f"')
    sentence = plugins.refused(2, "check", path)
    assert sentence.startswith(f"{path}: worker 0: plugin ./exits.py:f does not import: SystemExit")
    plugin = "./plugins.py:FailsSetup"
    told = AT_START[plugin].replace("FOLDER", str(plugins.folder))
    assert told in plugins.refused(2, "check", configured(plugins, plugin))
    for plugin in ("./plugins.py:FailsSetup", "./plugins.py:answers_text", "./imports.py:f"):
        told = AT_START[plugin].replace("FOLDER", str(plugins.folder))
        assert told in plugins.refused(2, "try", plugin, MIXED)
    for plugin, told in (
        ("./crashes.py:f", "crashed (SIGSEGV) while it was made ready"),
        ("./exits_at_once.py:f", "ended the process (exit status 7) while it was made ready"),
        ("./plugins.py:Exits", "ended the process (exit status 9) on one of the frames 1 to 64"),
    ):
        assert told in plugins.refused(2, "try", plugin, MIXED)


def test_options_are_checked(operator: Operator) -> None:
    path = configured(operator, "forward", "options = { mapp = 3 }")
    operator.write(path.read_text().replace("./plugins.py:forward", "forward"))
    told = 'plugin forward: option "mapp" is not an option of this plugin; did you mean "map"?'
    where = " (worker.options.mapp in line 9)"
    assert operator.refused(2, "run", path) == told + where
    assert operator.refused(2, "check", path) == f"{path}: worker 0: {told}{where}"
    assert operator.refused(2, "try", "forward", MIXED, "-o", "mapp=3") == told


@pytest.mark.parametrize("plugin", ["raises_on_odd"])
def test_a_compiled_function_that_raises_loses_that_packet_alone(
    ran: Callable[[str], Result], plugin: str
) -> None:
    result = ran(plugin)
    assert result.ended.code == 0
    right = [frame for frame in FRAMES if not frame[29] & 1]
    assert 0 < len(right) < len(FRAMES)
    assert sorted(bytes(frame) for frame in result.recorded.frames) == sorted(right)
    assert result.drops == {"plugin_error": len(FRAMES) - len(right)}
    assert f"worker 0: plugin ./plugins.py:{plugin}: raised on " in result.ended.errors


@pytest.mark.parametrize("plugin", NO_PORTS)
def test_a_verdict_out_of_range_is_an_error(ran: Callable[[str], Result], plugin: str) -> None:
    result = ran(plugin)
    assert result.ended.code == 0
    assert result.drops == {"plugin_error": len(FRAMES)}
    assert len(result.recorded) == 0
    assert result.report["workers"][0]["errors"]["verdict"] == len(FRAMES)
    assert " a verdict that is neither a port, DROP nor a drop reason" in result.ended.errors


@pytest.mark.parametrize("plugin", ["RaisesAtThird"])
def test_a_batch_that_raises_is_dropped_and_the_run_goes_on(
    ran: Callable[[str], Result], plugin: str
) -> None:
    result = ran(plugin)
    assert result.ended.code == 0
    assert set(result.drops) == {"plugin_error"}
    assert 0 < result.drops["plugin_error"] <= 64
    assert result.report["workers"][0]["restarts"] == 0
    assert f"{plugin}: ValueError: the third (" in result.ended.errors


@pytest.mark.parametrize("plugin", DEATHS)
def test_a_worker_that_dies_again_and_again_is_given_up(
    ran: Callable[[str], Result], plugin: str
) -> None:
    result = ran(plugin)
    assert result.ended.code == 4
    how = f"worker 0 {DEATHS[plugin]}; "
    told = [sentence for sentence in result.ended.sentences if sentence.startswith(how)]
    assert len(told) == 2, result.ended.errors
    assert "it died 2 times in 30 s and is given up" in told[1]
    assert result.ended.last == "the workers of all queues were given up; see above"
    assert set(result.drops) <= {"worker_lost", "no_worker"}
    assert result.drops["worker_lost"] <= 2 * 64
    assert result.report["exit"]["code"] == 4


@pytest.mark.parametrize("plugin", ["Truncates"])
def test_a_plugin_that_truncates_its_descriptors_cuts_no_memory(
    ran: Callable[[str], Result], plugin: str
) -> None:
    result = ran(plugin)
    assert result.ended.code == 0, result.ended.errors
    assert sorted(bytes(frame) for frame in result.recorded.frames) == sorted(FRAMES)


@pytest.mark.parametrize("plugin", ["Prints"])
def test_the_output_of_a_plugin_is_separate_from_the_command_s(
    ran: Callable[[str], Result], plugins: Operator, plugin: str
) -> None:
    tried = plugins.run("try", f"./plugins.py:{plugin}", MIXED, other_output=True)
    for ended in (ran(plugin).ended, tried):
        assert ended.code == 0
        assert "printed in prepare\n" in ended.errors
        assert "written in setup\n" in ended.errors
        assert "printed" not in ended.out
        assert "written in" not in ended.out


@pytest.mark.parametrize("plugin", ["LeavesChild", "LeavesThread"])
def test_processes_and_threads_of_a_plugin_end_with_the_run(
    ran: Callable[[str], Result], plugin: str
) -> None:
    result = ran(plugin)  # the run has checked that nothing is left
    assert result.ended.code == 0
    assert result.port["forwarded"] == len(FRAMES)


@pytest.mark.parametrize("plugin", ["SpoilsHeaders"])
def test_a_worker_that_overwrites_all_headers_harms_no_other_process(
    ran: Callable[[str], Result], plugin: str
) -> None:
    result = ran(plugin)
    assert result.ended.code == 0
    assert result.report["workers"][0]["restarts"] == 1
    assert set(result.drops) == {"worker_lost"}
    assert result.port["forwarded"] >= len(FRAMES) - 64


@pytest.mark.parametrize("plugin", ["HoardsInPrepare"])
def test_a_plugin_that_takes_all_memory_in_prepare_is_refused(
    ran: Callable[[str], Result], plugin: str
) -> None:
    result = ran(plugin)
    assert result.ended.code == 2
    assert f"./plugins.py:{plugin}: prepare failed: MemoryError" in result.ended.last


@pytest.mark.parametrize("plugin", ["Hoards"])
def test_a_plugin_that_takes_all_memory_later_is_reported(
    ran: Callable[[str], Result], plugin: str
) -> None:
    result = ran(plugin)
    assert result.ended.code == 0
    assert f"plugin ./plugins.py:{plugin}: MemoryError (" in result.ended.errors
    assert result.drops["plugin_error"] > 0


def test_a_plugin_that_never_comes_back_from_prepare_can_be_interrupted(plugins: Operator) -> None:
    path = configured(plugins, "BlocksInPrepare")
    with plugins.started("run", path) as process:
        wait_until((plugins.folder / "blocks").exists, "prepare")
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, errors


@pytest.mark.timeout(240)
@pytest.mark.parametrize("plugin", LATE)
def test_a_plugin_that_never_gets_ready_is_refused(
    ran: Callable[[str], Result], plugin: str
) -> None:
    ended = ran(plugin).ended
    assert ended.code == 2
    assert f"./plugins.py:{plugin} was ended by SIGABRT ({LATE[plugin]}) while" in ended.last
