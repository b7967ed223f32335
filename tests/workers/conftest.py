"""A cache of its own for compiled plugins, plugin files on the fly, and a worker process
whose driver is the test."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ringline.shm import counters
from ringline.shm._shm import lib
from ringline.shm.control import Closed, Control, Message
from ringline.shm.packets import PacketMemory
from ringline.shm.rings import RingEnd, RingPair
from ringline.shm.slots import WorkerSlot
from ringline.workers.api import include_directory
from ringline.workers.process import launch

if TYPE_CHECKING:
    from ringline.shm.rings import Reference

PLUGINS = Path(__file__).parent / "plugins"
PATIENCE = 60.0  # seconds; numba on a busy machine
HEADROOM: int = lib.RL_BUFFER_HEADROOM
BLANK: int = lib.RL_FLAG_BLANK
DROP: int = lib.RL_VERDICT_DROP


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compiled once per test run, and nothing of the user's."""
    patch = pytest.MonkeyPatch()
    patch.setenv("RINGLINE_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture
def plugin_file(tmp_path: Path) -> Callable[[str], str]:
    """Writes a plugin's source; returns the path to name it by."""

    def write(source: str, name: str = "plugin.py") -> str:
        path = tmp_path / name
        path.write_text(source)
        return str(path)

    return write


@pytest.fixture(scope="session")
def compile_c(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], str]:
    """Compiles a plugin in C as its author would; returns the shared object."""
    folder = tmp_path_factory.mktemp("c")

    def compile_(source: Path) -> str:
        target = folder / f"{source.stem}.so"
        compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
        arguments = ["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror"]
        include = f"-I{include_directory()}"
        subprocess.run(
            [compiler, *arguments, include, str(source), "-o", str(target)], check=True, timeout=60
        )
        return str(target)

    return compile_


class WorkerUnderTest:
    """A worker process; the test is supervisor and driver at once.

    `packets`, `rings` and `slot` are its segments; `in_` and `out` the driver's ends.
    """

    def __init__(self, instance: str, *, buffers: int = 256, state_bytes: int = 1 << 22) -> None:
        self._stack = contextlib.ExitStack()
        self._instance = instance
        self.state_bytes = state_bytes
        self.generation = 0
        self.packets = self._stack.enter_context(
            PacketMemory.create(instance, buffers, hugepages="off")
        )
        self.slot = self._stack.enter_context(WorkerSlot.create(instance, 0, state_bytes))
        self.rings: RingPair
        self.in_: RingEnd
        self.out: RingEnd
        self.process: subprocess.Popen[bytes] | None = None
        self.control: Control
        self.events: list[Message] = []

    def start(self, plugin: str, ports: Sequence[str] = ("a", "b"), **message: Any) -> None:
        """Start one life with new rings; it has been told what to do."""
        self.generation += 1
        self.rings = self._stack.enter_context(RingPair.create(self._instance, 0, self.generation))
        self.in_, self.out = RingEnd(self.rings.in_), RingEnd(self.rings.out)
        self.events = []
        self.control, theirs = Control.pair()
        with theirs:
            self.process = subprocess.Popen(
                launch.command(),
                env={**launch.environment(), "RINGLINE_CONTROL": str(theirs.fileno())},
                pass_fds=(theirs.fileno(),),
            )
        told = {
            "do": "open",
            "queue": 0,
            "generation": self.generation,
            "plugin": plugin,
            "options": {},
            "ports": list(ports),
            "folder": None,
            "state_bytes": self.state_bytes,
            "debug": False,
            "idle": "adaptive",
            "yield": True,
            "cpu": None,
            **message,
        }
        segments = (self.packets.segment, self.rings.segment, self.slot.segment)
        descriptors = [segment.share() for segment in segments]
        self.control.send(told, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)

    def serve(self, plugin: str, ports: Sequence[str] = ("a", "b"), **message: Any) -> None:
        """Start one life, and wait until it is ready."""
        self.start(plugin, ports, **message)
        assert self.event("ready", "failed")["event"] == "ready", self.events

    def event(self, *names: str) -> Message:
        """The next event of one of these names; others are kept in `events`."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            received = self.control.receive(until - time.monotonic())
            assert received is not None
            self.events.append(received[0])
            if received[0]["event"] in names:
                return received[0]
        raise AssertionError(f"none of {names} came, but {self.events}")

    def put(self, frames: Sequence[bytes], port: int = 0, first: int = 0) -> None:
        """Put frames into buffers `first` and up, and on the ring."""
        references: list[Reference] = []
        for number, frame in enumerate(frames, first):
            start = self.packets.first_offset + number * self.packets.stride + HEADROOM
            self.packets.segment.memory[start : start + len(frame)] = frame
            references.append((number, HEADROOM, len(frame), 0, 0, port, 0))
        self.push(references)

    def push(self, references: Sequence[Reference]) -> None:
        """Push all of them, and wake the worker."""
        assert self.in_.push(references) == len(references)
        if self.in_.is_asleep():
            self.in_.wake()

    def take(self, n: int) -> list[Reference]:
        """`n` references from `out`, when they are there."""
        taken: list[Reference] = []
        until = time.monotonic() + PATIENCE
        while len(taken) < n:
            taken += self.out.pop(n - len(taken))
            assert time.monotonic() < until, f"{len(taken)} of {n} came back"
            time.sleep(0.0005)
        return taken

    def frame(self, reference: Reference) -> bytes:
        """The bytes that a reference names."""
        buffer, offset, length = reference[:3]
        start = self.packets.first_offset + buffer * self.packets.stride + offset
        return bytes(self.packets.segment.memory[start : start + length])

    def stop(self) -> int:
        """Tell it to stop; its exit code."""
        self.control.send({"do": "stop"})
        return self.wait()

    def wait(self) -> int:
        """Its exit code, when it has ended."""
        assert self.process is not None
        with contextlib.suppress(Closed):
            while (received := self.control.receive(PATIENCE)) is not None:
                self.events.append(received[0])
        code = self.process.wait(PATIENCE)
        self.control.close()
        return code

    def kill(self) -> None:
        """End it as a crash would."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.wait()

    @property
    def counters(self) -> dict[str, Any]:
        """What the worker counts."""
        return counters.read(self.slot.counters)

    def close(self) -> None:
        """End what runs, remove what was made."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.process is not None:
            self.control.close()
        self._stack.close()


@pytest.fixture
def worker(instance: Callable[[], str]) -> Iterator[WorkerUnderTest]:
    """A worker slot whose process the test starts."""
    under_test = WorkerUnderTest(instance())
    yield under_test
    under_test.close()


@pytest.fixture
def no_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if numba were not installed."""
    monkeypatch.setitem(sys.modules, "numba", None)


@pytest.fixture
def no_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if NumPy were not installed."""
    monkeypatch.setitem(sys.modules, "numpy", None)
