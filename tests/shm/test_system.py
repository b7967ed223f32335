"""System services that shm uses: the clock, single loads and stores, parent death, imports.

Also the exit codes and messages of errors.py.
"""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import time
from pathlib import Path

from ringline.shm import errors
from ringline.shm._shm import ffi, lib
from ringline.shm.clock import ticks, ticks_per_second


def test_ticks_pass_at_the_rate_that_was_measured() -> None:
    # A pause of the machine disturbs the measurement: one of 5 tries must succeed.
    ratios = []
    for _ in range(5):
        began, first = time.monotonic(), ticks()
        time.sleep(0.05)
        ratios.append((ticks() - first) / ticks_per_second() / (time.monotonic() - began))
    assert min(abs(ratio - 1) for ratio in ratios) < 0.01, ratios
    assert ticks_per_second() == ticks_per_second(), "measured once"


def test_ticks_only_grow_and_mean_the_same_in_another_process() -> None:
    before = ticks()
    code = "from ringline.shm.clock import ticks; print(ticks())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert before < int(done.stdout) < ticks()


def test_a_register_is_read_and_written_with_32_bits() -> None:
    memory = mmap.mmap(-1, 4096)
    address = int(ffi.cast("uintptr_t", ffi.from_buffer(memory)))
    lib.rl_write32(address + 4, 0x12345678)
    assert memory[:12] == b"\0\0\0\0\x78\x56\x34\x12\0\0\0\0"
    memory[8:12] = b"\xef\xbe\xad\xde"
    assert lib.rl_read32(address + 8) == 0xDEADBEEF
    lib.rl_publish64(address, 2**64 - 2)
    assert memory[:8] == b"\xfe" + b"\xff" * 7
    lib.rl_publish32(address, 1)
    assert memory[:8] == b"\1\0\0\0" + b"\xff" * 4


ORPHAN = """
import os, signal, subprocess, sys, time
from ringline.shm._shm import lib
if sys.argv[1] == "parent":
    child = subprocess.Popen([sys.executable, "-c", sys.argv[2], "child", str(os.getpid())])
    child.wait()
else:
    assert lib.rl_die_with_parent(signal.SIGKILL, int(sys.argv[2])) == 0
    print(os.getpid(), flush=True)
    time.sleep(60)
"""


def test_a_child_ends_with_its_parent() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", ORPHAN, "parent", ORPHAN], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 60
    while Path(f"/proc/{child}/cmdline").exists() and time.monotonic() < deadline:
        if b"python" not in Path(f"/proc/{child}/cmdline").read_bytes():
            break  # a zombie: dead, not yet reaped by its new parent
        time.sleep(0.01)
    else:
        assert not Path(f"/proc/{child}").exists()
    parent.stdout.close()


def test_a_parent_that_is_gone_already_is_noticed() -> None:
    assert lib.rl_die_with_parent(0, os.getppid()) == 0
    assert lib.rl_die_with_parent(0, 1 << 22) == -1
    assert lib.rl_die_with_parent(4711, os.getppid()) == 22, "EINVAL: there is no such signal"


def test_capabilities_are_dropped() -> None:
    code = """
from ringline.shm._shm import lib
assert lib.rl_drop_capabilities() == 0
print([line.split()[1] for line in open("/proc/self/status") if line.startswith("Cap")][:3])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(["0000000000000000"] * 3)


def test_a_worker_s_imports_are_light(tmp_path: Path) -> None:
    # A worker must start in about 15 ms, so modules that take milliseconds to import are
    # excluded. Runs without `site`, whose imports would hide ours: the path is set here.
    (tmp_path / "ringline").mkdir()
    (tmp_path / "ringline" / "shm").symlink_to(Path(errors.__file__).parent)
    code = (
        "import sys\n"
        f"sys.path[:0] = {[str(tmp_path), *sys.path]!r}\n"
        "import ringline.shm.segments, ringline.shm.slots, ringline.shm.rings\n"
        "import ringline.shm.packets, ringline.shm.clock, ringline.shm.counters\n"
        "print(*sorted(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    heavy = {"typing", "dataclasses", "re", "inspect", "enum", "posix_ipc", "collections", "numpy"}
    assert "ringline.shm._shm" in loaded
    assert not heavy & loaded


def test_every_error_has_its_exit_code_and_its_sentence() -> None:
    expected = {
        "UsageError": 2,
        "ConfigurationError": 2,
        "PluginError": 2,
        "EnvironmentLacks": 3,
        "HardwareError": 3,
        "GaveUp": 4,
        "BooksError": 5,
        "NotAllWell": 6,
        "Bug": 1,
    }
    for name, code in expected.items():
        error = getattr(errors, name)("what is wrong")
        assert isinstance(error, errors.RinglineError)
        assert error.exit_code == code
        assert str(error).startswith("what is wrong")


def test_a_configuration_error_reports_every_problem() -> None:
    error = errors.ConfigurationError(["port.wan.queues: 17 is too many", "name: missing"])
    assert error.problems == ["port.wan.queues: 17 is too many", "name: missing"]
    assert str(error) == "port.wan.queues: 17 is too many\nname: missing"
    assert errors.ConfigurationError("name: missing").problems == ["name: missing"]


def test_the_remark_of_a_bug_is_added_once() -> None:
    said = str(errors.Bug("two owners"))
    assert said == "two owners (this is a bug in ringline)"
    assert str(errors.Bug(said)) == said
