"""Dask and Ray: the same result as local processes, and a sentence for all that is missing."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import types
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ringline.pipeline.analysis import engines, run
from ringline.pipeline.analysis.engines import on_dask, on_ray, reaching
from ringline.pipeline.analysis.engines.folder import EngineFolder
from ringline.pipeline.configuration import deadlines
from ringline.shm.errors import EnvironmentLacks, UsageError

from ...data import make
from .clusters import descendants_of
from .conftest import PLUGINS, START, analyze, captures_of_flows, children_of, flows, same

pytestmark = pytest.mark.filterwarnings("ignore")  # those of the engines
PROOF = os.environ.get("RINGLINE_PROOF") == "1"
long = pytest.mark.skipif(not PROOF, reason="needs RINGLINE_PROOF=1: it takes long")
Saved = Callable[..., Path]


@pytest.fixture(scope="module", params=["dask", "ray"])
def engine(request: pytest.FixtureRequest) -> Iterator[concurrent.futures.Executor]:
    """The engine, started here with two processes."""
    with engines.opened(request.param, workers=2) as opened:
        assert opened is not None
        yield opened


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Three captures of flows."""
    return captures_of_flows(tmp_path, 3, 2000)


@pytest.mark.parametrize(
    "plugin", ["flow_stats", *([f"{PLUGINS}:Sizes", f"{PLUGINS}:Order"] if PROOF else [])]
)
def test_the_result_is_that_of_local_processes(
    engine: concurrent.futures.Executor, paths: list[Path], plugin: str
) -> None:
    result = run(plugin, paths, executor=engine, piece_bytes=100_000)
    assert result.tasks > 6
    assert same(result) == same(run(plugin, paths, workers=1, piece_bytes=100_000))


def test_parquet_has_the_rows_of_local_processes(
    engine: concurrent.futures.Executor, paths: list[Path], tmp_path: Path
) -> None:
    tables = []
    for name, more in (("there", {"executor": engine}), ("here", {"workers": 1})):
        out = tmp_path / name
        out.mkdir()
        run("flow_stats", paths, piece_bytes=90_000, out=str(out), format="parquet", **more)  # type: ignore[arg-type]
        tables.append(pq.read_table(out / "flows.parquet"))
    assert tables[0].schema == tables[1].schema
    rows = tables[1].to_pylist()
    assert len(rows) > 300
    assert tables[0].to_pylist() == rows


@long
@pytest.mark.parametrize("by", ["piece", "flow"])
def test_a_worker_that_is_killed_changes_nothing(
    engine: concurrent.futures.Executor, paths: list[Path], by: str
) -> None:
    lost: list[int] = []

    def kill(done: int, everything: int, packets: int) -> None:
        for worker in [] if lost else descendants_of(os.getpid()):
            if worker != os.getpid() and children_of(worker):
                os.kill(worker, signal.SIGKILL)
                lost.append(worker)
                return

    plugin = f"{PLUGINS}:Sizes"
    result = run(plugin, paths, executor=engine, piece_bytes=64_000, progress=kill, by=by)
    assert lost
    assert same(result) == same(run(plugin, paths, workers=1, piece_bytes=64_000, by=by))


@long
def test_a_worker_that_is_killed_while_it_divides_packets_changes_nothing(
    engine: concurrent.futures.Executor, tmp_path: Path
) -> None:
    """The engine repeats the task, and finds the file that the dead process has begun."""
    content = make.pcap(flows(1, 2000, START))
    path = tmp_path / "a.pcap"
    path.write_bytes(content + 400 * content[24:])
    lost: list[int] = []
    over = threading.Event()

    def kill() -> None:
        while not lost and not over.is_set():
            with contextlib.suppress(OSError):  # a process that ends meanwhile
                for worker in descendants_of(os.getpid()):
                    for child in children_of(worker) if worker != os.getpid() else []:
                        names = [os.readlink(it) for it in Path(f"/proc/{child}/fd").iterdir()]
                        if not lost and any(it.endswith(".pcapng") for it in names):
                            os.kill(worker, signal.SIGKILL)
                            lost.append(worker)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        result = run("flow_stats", [path], executor=engine, by="flow", shares=2)
    finally:
        over.set()
        killer.join()
    assert lost
    assert same(result) == same(run("flow_stats", [path], workers=2, by="flow", shares=2))


def test_sentences_are_those_of_local_processes(
    engine: concurrent.futures.Executor, capture: Saved
) -> None:
    path = capture("b.pcap", bytes(70) + b"\x07")
    bad = capture("c.pcap", bytes(50), begin=1)
    bad.write_bytes(bad.read_bytes()[:-5])
    result = run(f"{PLUGINS}:Raises", [path, bad], executor=engine)
    assert len(result.complaints) == len(result.broken) == 1
    assert same(result) == same(analyze("Raises", path, bad))


def test_an_error_that_nobody_knows_is_a_sentence(engine: concurrent.futures.Executor) -> None:
    with pytest.raises(EnvironmentLacks, match="a worker cannot do a task: ZeroDivisionError: "):
        engine.submit(divmod, 1, 0).result(100)


class StandIn:
    """A client of a scheduler that runs in this process."""

    dashboard_link = "http://127.0.0.1:8787/status"

    def run_on_scheduler(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)


class Refuses(StandIn):
    def run_on_scheduler(self, function: Callable[..., Any], *arguments: Any) -> Any:
        raise ValueError("cannot deserialize functions")


def test_the_address_of_a_page_is_told_only_if_there_is_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "distributed.dashboard.scheduler"
    monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    assert on_dask._page(StandIn()) == StandIn.dashboard_link  # type: ignore[arg-type]
    assert on_dask._page(Refuses()) == ""  # type: ignore[arg-type]
    monkeypatch.delitem(sys.modules, name)
    assert on_dask._page(StandIn()) == ""  # type: ignore[arg-type]


def test_the_page_whose_address_is_told_is_one_of_progress() -> None:
    with engines.opened("dask", workers=1) as engine:
        assert isinstance(engine, on_dask.Dask)
        with urllib.request.urlopen(engine._client.dashboard_link, timeout=60) as answer:
            page = answer.read().decode()
        assert engine.dashboard == engine._client.dashboard_link
        [script, *_] = re.findall(r'src="([^"]*bokeh[^"]*\.js)', page)
        address = urllib.parse.urljoin(engine.dashboard, script)
        with urllib.request.urlopen(address, timeout=60) as answer:
            assert answer.status == 200


def test_an_engine_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, address, workers, sentence in (
        ("spark", None, None, "must be one of local, dask, ray, not 'spark'"),
        ("local", "tcp://127.0.0.1:1", None, "name it, with --engine dask or ray"),
        ("dask", "tcp://127.0.0.1:1", 2, "leave --workers out"),
    ):
        with (
            pytest.raises(UsageError, match=sentence),
            engines.opened(name, address, workers=workers),
        ):
            pass
    for name, package in (("dask", "distributed"), ("ray", "ray")):
        monkeypatch.setitem(sys.modules, package, None)
        with (
            pytest.raises(EnvironmentLacks, match=rf"pip install ringline\[{name}\]"),
            engines.opened(name),
        ):
            pass


@pytest.mark.parametrize("engine", [on_dask, on_ray])
def test_an_engine_that_does_not_answer_is_named(
    monkeypatch: pytest.MonkeyPatch, engine: Any
) -> None:
    monkeypatch.setattr(deadlines, "ANALYSIS_ENGINE", 2.0)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(EnvironmentLacks, match=f"127.0.0.1:{port} cannot be reached: there"):
            engine.opened(f"127.0.0.1:{port}", 1, 60.0)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("nonsense", "missing port number in address 'nonsense'"),
        ("foo://host:1", "unknown address scheme 'foo'"),
        ("tcp://host:x", "invalid literal for int"),
    ],
)
def test_no_client_is_made_for_what_is_no_address(
    monkeypatch: pytest.MonkeyPatch, address: str, words: str
) -> None:
    monkeypatch.setattr("distributed.Client", None)
    with pytest.raises(EnvironmentLacks, match=f"Dask at {address} cannot be reached: {words}"):
        on_dask.opened(address, 1, 60.0)


@pytest.mark.parametrize("patience", [None, 1.0])
@pytest.mark.parametrize("name", ["Dask", "Ray"])
def test_an_engine_that_refuses_is_named_soon(name: str, patience: float | None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}" if name == "Dask" else f"127.0.0.1:{port}"
    began = time.monotonic()
    sentence = f"^{name} at {address} cannot be reached: the connection is refused: "
    with (
        pytest.raises(EnvironmentLacks, match=sentence),
        engines.opened(name.lower(), address, patience=patience),
    ):
        pass
    assert (patience or 3) < time.monotonic() - began < 15


def test_an_engine_that_refuses_at_first_is_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with socket.socket() as late:
        late.bind(("127.0.0.1", port))
        listens = threading.Timer(0.5, late.listen)
        listens.start()
        reaching.check("Dask", f"localhost:{port}", 60.0)
        listens.join()
    for address in ("auto", "tcp://127.0.0.1", "inproc://a:1", "tcp://127.0.0.1:a", "[", "no.x:1"):
        reaching.check("Dask", address, 60.0)


def test_what_a_killed_process_left_of_its_engine_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "ringline-on-dask-left" / "deep").mkdir(parents=True)
    (tmp_path / "another").mkdir()
    kept = [EngineFolder("dask"), EngineFolder("ray")]
    assert {path.name for path in tmp_path.iterdir()} == {
        "another",
        *(os.path.basename(folder.path) for folder in kept),
    }
    for folder in kept:
        folder.close()
        folder.close()
    assert [path.name for path in tmp_path.iterdir()] == ["another"]


@pytest.mark.parametrize("number", range(2))
def test_the_examples_of_the_documents_run(paths: list[Path], tmp_path: Path, number: int) -> None:
    text = (Path(__file__).parents[3] / "docs" / "analyze.md").read_text()
    examples = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(examples) == 2
    example = examples[number]
    script = tmp_path / "example.py"
    script.write_text(example.replace("captures/", str(tmp_path)))
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.returncode, done.stdout) == (0, "6000\n"), done.stderr
