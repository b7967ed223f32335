"""A running laboratory: its processes, network namespaces and XDP programs, and what is left."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ringline.pipeline._pipeline import ffi, lib

from .operator_harness import Operator

TIMEOUT = 60.0  # seconds
_PROGRAM_BY_NUMBER = 13  # BPF_PROG_GET_FD_BY_ID


def needs_lab(*tools: str) -> None:
    """Skip the test where no laboratory can be made."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to make network namespaces")
    for tool in ("ip", "nsenter", *tools):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is missing")


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + TIMEOUT
    while not (value := condition()):
        assert time.monotonic() < end, f"{what} did not happen within {TIMEOUT:g} s"
        time.sleep(0.02)
    return value


class Lab:
    """A laboratory that runs, started by `running`."""

    def __init__(self, process: subprocess.Popen[str], command: bool) -> None:
        """Wait until packets flow. `command`: --exec is given."""
        self.process = process
        self.instance = wait_until(lambda: self.children(process.pid), "the instance")[0]
        wait_until(lambda: len(self.children(self.instance)) >= 2, "driver and worker")
        wait_until(lambda: all(self._programs()), "the XDP programs")
        if command:
            wait_until(lambda: len(self.children(process.pid)) == 2, "the command")
        self.namespaces = {
            os.readlink(path)
            for path in Path(f"/proc/{process.pid}/fd").iterdir()
            if os.readlink(path).startswith("net:")
        }
        self.processes = self.descendants(process.pid)
        self.programs = self._programs()
        assert len(self.namespaces) == 3

    @staticmethod
    def children(pid: int) -> list[int]:
        """The children of a process, in the order of their start."""
        with contextlib.suppress(OSError):
            return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
        return []

    def descendants(self, pid: int) -> list[int]:
        return [pid] + [one for child in self.children(pid) for one in self.descendants(child)]

    def named(self, name: str) -> int:
        """The process of the instance that calls itself so, such as `driver`."""
        found = [pid for pid in self.descendants(self.instance) if name in _command_line(pid)]
        assert found, [_command_line(pid) for pid in self.descendants(self.instance)]
        return found[0]

    def _programs(self) -> list[int]:
        """The numbers of the XDP programs of both interfaces, 0 for none."""
        done = subprocess.run(
            ["nsenter", f"--net=/proc/{self.instance}/ns/net", "ip", "-j", "link"],
            capture_output=True,
            check=False,
        )
        links = json.loads(done.stdout or "[]")
        own = [link for link in links if link["ifname"] in ("here", "peer")]
        return [link.get("xdp", {}).get("prog", {}).get("id", 0) for link in own] or [0]

    def left(self) -> list[str]:
        """What is there of the processes, the namespaces and the programs."""
        found = [f"process {pid}" for pid in self.processes if _runs(pid)]
        for folder in Path("/proc").glob("[0-9]*"):
            for path in (folder / "ns/net", *_descriptors(folder)):
                with contextlib.suppress(OSError):
                    if (target := os.readlink(path)) in self.namespaces:
                        found.append(f"{target}: {path}")
        found += [f"program {number}" for number in self.programs if _is_loaded(number)]
        return found


@contextlib.contextmanager
def running(operator: Operator, *arguments: str, **more: Any) -> Iterator[Lab]:
    """A laboratory with these arguments, which runs. At the end of the block it must end, and
    nothing may be left."""
    with operator.started("lab", "--name", operator.name, *arguments, **more) as process:
        lab = Lab(process, "--exec" in arguments)
        try:
            yield lab
        except BaseException:
            process.send_signal(signal.SIGTERM)
            raise
        process.wait(TIMEOUT)
        wait_until(lambda: not lab.left(), f"the end of all; left: {lab.left()}")


def _descriptors(folder: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        yield from (folder / "fd").iterdir()


def _command_line(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""


def _runs(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def _is_loaded(program: int) -> bool:
    attributes = ffi.new("char[]", struct.pack("=III", program, 0, 0))
    descriptor = lib.rl_xdp_bpf(_PROGRAM_BY_NUMBER, attributes, 12)
    if descriptor >= 0:
        os.close(descriptor)
    return bool(descriptor != -errno.ENOENT)
