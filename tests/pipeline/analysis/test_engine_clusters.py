"""Workers of Dask that see other files than we do, have other versions, or die."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ringline.pipeline.analysis import Result, engines, run
from ringline.pipeline.analysis.engines.engine import Engine
from ringline.shm.errors import EnvironmentLacks, PluginError
from ringline.workers.analysis import remote

from .clusters import SECONDS, Cluster, cluster, wait_for
from .conftest import PLUGINS, captures_of_flows, children_of, same

pytestmark = pytest.mark.filterwarnings("ignore")  # those of the engines
PROOF = os.environ.get("RINGLINE_PROOF") == "1"
long = pytest.mark.skipif(not PROOF, reason="needs RINGLINE_PROOF=1: it takes long")
Saved = Callable[..., Path]
HOST = socket.gethostname()

# Reads a module and a library beside it, and says where it is when a packet is odd.
GUARD = """
import ctypes, os
import limits

here = os.path.dirname(os.path.abspath(__file__))
ctypes.CDLL(os.path.join(here, "libsmall.so"))

class Guard:
    def setup(self, worker):
        self.small = worker.counter("small")
    def process(self, batch):
        for packet in batch:
            if packet.data[0] == 7:
                raise ValueError("seven")
            self.small.add(packet.length < limits.SMALL)
            packet.verdict = 0
"""

# Says each time that numba compiles something in it.
COMPILED = """
import os
import numba.core.event as events
from ringline.workers.api import DROP, packet_function

class Listener(events.Listener):
    def on_start(self, event):
        pass
    def on_end(self, event):
        with open(os.environ["COMPILED_LOG"], "a") as log:
            log.write(f"{os.getpid()}\\n")

events.register("numba:compile", Listener())

@packet_function
def odd(frame, meta):
    return DROP if frame[0] & 1 else 0
"""


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Cluster]:
    """A scheduler without workers."""
    with cluster(tmp_path / "cluster") as made:
        yield made


def there(
    outside: Cluster, plugin: str, *paths: Path, patience: float = 60.0, **more: Any
) -> Result:
    """Run a plugin on the workers of the cluster."""
    outside.wait()
    with engines.opened("dask", outside.address, patience=patience) as engine:
        return run(plugin, paths, executor=engine, **more)


def test_the_file_of_the_plugin_and_its_neighbours_travel(
    outside: Cluster, capture: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RINGLINE_CACHE", str(tmp_path / "cache"))
    home = tmp_path / "home"
    home.mkdir()
    (home / "guard.py").write_text(GUARD)
    (home / "limits.py").write_text("SMALL = 101")
    (tmp_path / "small.c").write_text("int small;")
    subprocess.run(
        ["cc", "-shared", "-o", home / "libsmall.so", tmp_path / "small.c"], check=True, timeout=60
    )
    paths = [capture("a.pcap", bytes(3000)), capture("b.pcap", bytes(9) + b"\x07", begin=9)]
    monkeypatch.chdir(home)
    monkeypatch.setattr(sys, "path", [*sys.path, str(home)])
    local = run("./guard.py:Guard", paths, piece_bytes=70_000)
    assert local.named["small"] == 3009
    assert "guard.py, line" in local.complaints[0][2]
    outside.add(home)
    outside.add(home)
    for plugin in ("./guard.py:Guard", "guard:Guard", f"{home}/guard.py:Guard"):
        found = there(outside, plugin, *paths, piece_bytes=70_000)
        assert {**same(found), "plugin": ""} == {**same(local), "plugin": ""}
    (home / "limits.py").write_text("SMALL = 99")  # another parcel
    assert there(outside, "./guard.py:Guard", *paths).named["small"] == 0


def test_a_capture_that_a_worker_lacks_is_named_with_its_machine(
    outside: Cluster, capture: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    bad = capture("a.pcap", b"abc").rename(hidden / "a.pcap")
    good = capture("b.pcap", b"abcd", begin=9)
    outside.add(hidden)
    result = there(outside, "drop", bad, good)
    assert result.counters["packets"] == 4
    assert result.broken == {
        str(
            bad
        ): f"{bad}: cannot be read on the worker's machine {HOST}: No such file or directory: "
        "put it where all machines have it under this path"
    }
    monkeypatch.chdir(tmp_path)  # a relative path is relative to where we are
    assert there(outside, "drop", Path("b.pcap")).counters["packets"] == 4


def test_a_plugin_is_compiled_once_on_a_machine(
    outside: Cluster, capture: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "odd.py").write_text(COMPILED)
    here, log = tmp_path / "here", tmp_path / "log"
    monkeypatch.setenv("COMPILED_LOG", str(here))
    monkeypatch.setenv("RINGLINE_CACHE", str(tmp_path / "cache-here"))
    machine = {"COMPILED_LOG": str(log), "RINGLINE_CACHE": str(tmp_path / "cache-there")}
    for _ in range(2):
        outside.add(home, **machine)
    paths = [capture("a.pcap", bytes(range(200)) * 30)]
    plugin = f"{home}/odd.py:odd"
    result = there(outside, plugin, *paths, piece_bytes=70_000)
    assert (result.tasks, result.counters["dropped"]) == (9, 3000)
    compiled = log.read_text().split()
    assert len(compiled) > 0
    assert len(set(compiled)) == 1  # one process, though two began
    remote_again = there(outside, plugin, *paths, piece_bytes=70_000)
    assert same(remote_again) == same(result)
    assert log.read_text().split() == compiled
    assert len(set(here.read_text().split())) == 1


@long
def test_another_version_on_a_worker_is_named(
    outside: Cluster, capture: Saved, tmp_path: Path
) -> None:
    info = tmp_path / "other" / "ringline-9.9.9.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ringline\nVersion: 9.9.9\n")
    mine = str(remote.versions()["ringline"])
    sentence = (
        f"the worker on {HOST} has ringline 9.9.9, and here it is ringline {mine}: install the "
        "same version on both"
    )
    path = capture("a.pcap", b"a" * 3000)
    outside.add()
    outside.wait()
    with engines.opened("dask", outside.address) as engine:
        outside.add(PYTHONPATH=str(info.parent))  # it comes later: a task finds it out
        outside.wait()
        outside.workers[0].kill()
        outside.workers[0].wait()
        with pytest.raises(EnvironmentLacks) as raised:
            run("drop", [path], executor=engine)
    assert str(raised.value) == sentence
    with pytest.raises(EnvironmentLacks) as raised:
        there(outside, "drop", path)
    assert str(raised.value) == sentence


def test_the_sentence_names_what_differs() -> None:
    mine = {"ringline": "1.0", "Python": "3.12.1", "machine": "x86_64"}
    assert remote.differs(mine, mine, "h") == ""
    for other, sentence in (
        ({"ringline": None}, "the worker on h has no ringline; here it is ringline 1.0: install"),
        ({"Python": "3.11.7"}, "the worker on h has Python 3.11.7, and here it is Python 3.12.1:"),
        ({"machine": "arm"}, "the worker on h is a machine of type arm, this one is x86_64:"),
    ):
        assert remote.differs(mine, {**mine, **other}, "h").startswith(sentence)


@long
def test_an_installed_plugin_of_another_version_is_refused(
    outside: Cluster, capture: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "class Guard:\n    def process(self, batch): batch.verdicts[:] = 0\n"
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "acme_guard.py").write_text(f"__version__ = '{version}'\n{code}")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "1")])
    outside.add(PYTHONPATH=str(tmp_path / "2"))
    with pytest.raises(PluginError) as raised:
        there(outside, "acme_guard:Guard", capture("a.pcap", b"a"))
    assert str(raised.value) == (
        "plugin acme_guard:Guard of the worker is version 2, and here it is 1: install the same "
        f"one on both (on the worker's machine {HOST})"
    )


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Captures of flows."""
    return captures_of_flows(tmp_path, 6, 1000)


@pytest.mark.parametrize("first", [0, pytest.param(1, marks=long)])
def test_workers_that_come_while_it_runs_have_tasks(
    outside: Cluster, capture: Saved, tmp_path: Path, first: int
) -> None:
    begun, until = tmp_path / "begun", tmp_path / "until"
    for _ in range(first):
        outside.add()
        outside.wait()
    busy: list[int] = []
    give_up = time.monotonic() + SECONDS

    def watch(done: int, everything: int, packets: int) -> None:
        if len(outside.workers) == first and (begun.exists() or not first):
            for _ in range(3 - first):
                outside.add()
        if not until.exists():
            busy.append(sum(bool(children_of(it.pid)) for it in outside.workers))
            if busy[-1] == 3 or time.monotonic() > give_up:
                until.touch()

    with engines.opened("dask", outside.address) as engine:
        result = run(
            f"{PLUGINS}:Waits",
            [capture(f"{number}.pcap", b"abc", begin=number) for number in range(8)],
            {"begun": str(begun), "until": str(until)},
            engine,
            silence=300.0,
            progress=watch,
        )
    assert max(busy) == 3
    assert result.named["seen"] == 24


@long
def test_machines_that_come_while_it_runs_have_tasks_of_ray(
    capture: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.cluster_utils import Cluster as Machines

    begun, until = tmp_path / "begun", tmp_path / "until"
    folder = tempfile.mkdtemp(prefix="ringline-ray-", dir="/tmp")  # sockets need a short name
    monkeypatch.setenv("RAY_TMPDIR", folder)
    os.mkdir(f"{folder}/ray")  # for the file that tells its address
    machines = Machines(True, head_node_args={"num_cpus": 1, "temp_dir": folder})
    waiting: list[int] = []
    give_up = time.monotonic() + SECONDS

    def watch(done: int, everything: int, packets: int) -> None:
        if begun.exists() and len(machines.list_all_nodes()) == 1:
            machines.add_node(num_cpus=3)
        if not until.exists():
            waiting.append(len(engine._waiting))
            if waiting[-1] == 8 or time.monotonic() > give_up:
                until.touch()

    try:
        with engines.opened("ray", machines.address) as engine:
            assert isinstance(engine, Engine)
            result = run(
                f"{PLUGINS}:Waits",
                [capture(f"{number}.pcap", b"abc", begin=number) for number in range(9)],
                {"begun": str(begun), "until": str(until)},
                engine,
                silence=300.0,
                progress=watch,
            )
    finally:
        machines.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
    assert 2 in waiting
    assert waiting[-1] == 8
    assert result.named["seen"] == 27


def test_a_worker_that_is_killed_changes_nothing(outside: Cluster, paths: list[Path]) -> None:
    outside.add()
    outside.add()
    lost: list[int] = []

    def kill(done: int, everything: int, packets: int) -> None:
        if not lost and (children := children_of(outside.workers[0].pid)):
            lost.extend(children)
            outside.workers[0].kill()
            outside.add()

    result = there(outside, f"{PLUGINS}:Sizes", *paths, piece_bytes=64_000, progress=kill)
    assert lost
    assert same(result) == same(run(f"{PLUGINS}:Sizes", paths, workers=1, piece_bytes=64_000))
    wait_for(lambda: not any(_is_there(pid) for pid in lost))


@long
def test_a_child_that_is_killed_changes_nothing(outside: Cluster, paths: list[Path]) -> None:
    outside.add()
    lost: list[int] = []

    def kill(done: int, everything: int, packets: int) -> None:
        if not lost and (children := children_of(outside.workers[0].pid)):
            lost.extend(children)
            os.kill(children[0], signal.SIGKILL)

    result = there(outside, f"{PLUGINS}:Sizes", *paths, piece_bytes=64_000, progress=kill)
    assert lost
    assert same(result) == same(run(f"{PLUGINS}:Sizes", paths, workers=1, piece_bytes=64_000))
    wait_for(lambda: not children_of(outside.workers[0].pid))  # the analysis has ended them


def test_the_executor_of_a_client_of_dask_does_a_task_again(
    outside: Cluster, capture: Saved, tmp_path: Path
) -> None:
    from distributed import Client

    outside.add()
    outside.wait()
    path, options = capture("a.pcap", b"ab\x09c"), {"once": str(tmp_path / "once")}
    with Client(outside.address, set_as_default=False) as client:
        result = run(f"{PLUGINS}:Hurt", [path], options, client.get_executor(), workers=1)
    assert (result.broken, result.named["seen"]) == ({}, 4)


@long
@pytest.mark.parametrize("who", ["worker", "scheduler"])
def test_an_engine_without_workers_is_given_up(
    outside: Cluster, capture: Saved, tmp_path: Path, who: str
) -> None:
    outside.add()
    begun = tmp_path / "begun"
    waits = {"begun": str(begun), "until": str(tmp_path / "never")}
    ended: list[bool] = []

    def kill(done: int, everything: int, packets: int) -> None:
        if begun.exists() and not ended:
            ended.append(True)
            (outside.workers[0] if who == "worker" else outside.scheduler).kill()

    with pytest.raises(EnvironmentLacks) as raised:
        there(
            outside,
            f"{PLUGINS}:Waits",
            capture("a.pcap", b"abc"),
            options=waits,
            progress=kill,
            patience=0.5,
        )
    why = "there is no worker" if who == "worker" else "the scheduler does not answer"
    assert str(raised.value).startswith(f"Dask at {outside.address}: {why}")


@long
def test_an_interruption_leaves_nothing_on_the_workers(
    outside: Cluster, capture: Saved, tmp_path: Path
) -> None:
    outside.add()
    begun = tmp_path / "begun"
    waits = {"begun": str(begun), "until": str(tmp_path / "never")}

    def interrupt(done: int, everything: int, packets: int) -> None:
        if begun.exists():
            raise KeyboardInterrupt

    path = capture("a.pcap", b"abc")
    result = there(
        outside, f"{PLUGINS}:Waits", path, options=waits, progress=interrupt, silence=300.0
    )
    assert result.unfinished == [str(path)]
    wait_for(lambda: not children_of(outside.workers[0].pid))


@long
@pytest.mark.parametrize("name", ["dask", "ray"])
def test_ctrl_c_ends_a_local_engine_and_all_that_it_made(
    capture: Saved, tmp_path: Path, name: str
) -> None:
    begun, folder = tmp_path / "begun", tmp_path / "t"
    folder.mkdir()
    finished, hangs = capture("a.pcap", b"abc"), capture("b.pcap", b"\x09", begin=9)
    command = [
        *(sys.executable, "-m", "ringline", "analyze", f"{PLUGINS}:Hurt"),
        *(str(finished), str(hangs)),
        *("--engine", name, "--workers", "2", "--silence", "300", "-w", str(tmp_path / "out")),
        *("-o", "how=hang", "-o", f"once={begun}"),
    ]
    process = subprocess.Popen(
        command,
        env={**os.environ, "TMPDIR": str(folder)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    kept = tmp_path / "out" / ".ringline-finished"
    wait_for(lambda: begun.exists() and len(list(kept.iterdir())) > 1)  # `about`, and a.pcap
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, said = process.communicate(timeout=100)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [Path(it["path"]).name for it in report["captures"]] == ["a.pcap"]
    assert list(folder.iterdir()) == []
    wait_for(lambda: not _in_session(process.pid))


def _is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _in_session(session: int) -> list[int]:
    """The processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session:
            found.append(int(path.parent.name))
    return found
