"""Fixtures: a private cache for compiled plugins, plugin files, and a worker process.

The test takes the place of the worker's supervisor and driver.
"""

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
TIMEOUT = 60.0  # seconds; numba is slow on a busy machine
HEADROOM: int = lib.RL_BUFFER_HEADROOM
BLANK: int = lib.RL_FLAG_BLANK
DROP: int = lib.RL_VERDICT_DROP


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compile plugins once per test run, without the user's cache."""
    patch = pytest.MonkeyPatch()
    patch.setenv("RINGLINE_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture
def plugin_file(tmp_path: Path) -> Callable[[str], str]:
    """Writes a plugin's source; returns its path."""

    def write(source: str, name: str = "plugin.py") -> str:
        path = tmp_path / name
        path.write_text(source)
        return str(path)

    return write


@pytest.fixture(scope="session")
def compile_c(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], str]:
    """Compiles a plugin in C as its author would; returns the path of the shared object."""
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


class WorkerHarness:
    """A worker process; the test is its supervisor and its driver.

    `packets`, `rings` and `slot` are its segments; `in_` and `out` are the driver's ends
    of the rings.
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
        """Start a process with new rings and send it the message `open`."""
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
        opening = {
            "do": "open",
            "queue": 0,
            "generation": self.generation,
            "plugin": plugin,
            "options": {},
            "places": {},
            "reasons": [],
            "ports": list(ports),
            "frame_max": lib.RL_FRAME_MAX,
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
        self.control.send(opening, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)

    def serve(self, plugin: str, ports: Sequence[str] = ("a", "b"), **message: Any) -> None:
        """Start a process and wait until it is ready."""
        self.start(plugin, ports, **message)
        assert self.event("ready", "failed")["event"] == "ready", self.events

    def event(self, *names: str) -> Message:
        """Return the next event with one of these names; all are kept in `events`."""
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline:
            received = self.control.receive(deadline - time.monotonic())
            assert received is not None
            self.events.append(received[0])
            if received[0]["event"] in names:
                return received[0]
        raise AssertionError(f"none of {names} came, only {self.events}")

    def put(self, frames: Sequence[bytes], port: int = 0, first: int = 0) -> None:
        """Write frames into the buffers from `first` on, and push them."""
        references: list[Reference] = []
        for number, frame in enumerate(frames, first):
            start = self.packets.first_offset + number * self.packets.stride + HEADROOM
            self.packets.segment.memory[start : start + len(frame)] = frame
            references.append((number, HEADROOM, len(frame), 0, 0, port, 0))
        self.push(references)

    def push(self, references: Sequence[Reference]) -> None:
        """Push all references and wake the worker."""
        assert self.in_.push(references) == len(references)
        if self.in_.is_asleep():
            self.in_.wake()

    def take(self, n: int) -> list[Reference]:
        """Wait for `n` references on `out` and return them."""
        taken: list[Reference] = []
        deadline = time.monotonic() + TIMEOUT
        while len(taken) < n:
            taken += self.out.pop(n - len(taken))
            assert time.monotonic() < deadline, f"{len(taken)} of {n} came back"
            time.sleep(0.0005)
        return taken

    def frame(self, reference: Reference) -> bytes:
        """Return the frame of a reference."""
        buffer, offset, length = reference[:3]
        start = self.packets.first_offset + buffer * self.packets.stride + offset
        return bytes(self.packets.segment.memory[start : start + length])

    def stop(self) -> int:
        """Tell the worker to stop; return its exit code."""
        self.control.send({"do": "stop"})
        return self.wait()

    def wait(self) -> int:
        """Wait until the worker has ended; return its exit code."""
        assert self.process is not None
        with contextlib.suppress(Closed):
            while (received := self.control.receive(TIMEOUT)) is not None:
                self.events.append(received[0])
        code = self.process.wait(TIMEOUT)
        self.control.close()
        return code

    def kill(self) -> None:
        """Kill the worker (SIGKILL)."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.wait()

    @property
    def counters(self) -> dict[str, Any]:
        """The worker's counters, by name."""
        return counters.read(self.slot.counters)

    def close(self) -> None:
        """Kill the worker if it runs, and remove its segments."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.process is not None:
            self.control.close()
        self._stack.close()


@pytest.fixture
def worker(instance: Callable[[], str]) -> Iterator[WorkerHarness]:
    """A worker slot; the test starts its process."""
    harness = WorkerHarness(instance())
    yield harness
    harness.close()


@pytest.fixture
def no_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the import of numba fail."""
    monkeypatch.setitem(sys.modules, "numba", None)


@pytest.fixture
def no_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the import of NumPy fail."""
    monkeypatch.setitem(sys.modules, "numpy", None)
