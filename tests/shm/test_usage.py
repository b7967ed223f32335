"""The processor time and the memory of a process."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from ringline.shm.usage import usage_of


def test_the_usage_of_a_process_is_that_of_the_kernel() -> None:
    used = usage_of(os.getpid())
    assert used is not None
    times = os.times()
    assert abs(used[0] - times.user - times.system) < 1.0
    assert 1 << 20 < used[1] < 1 << 36


def test_a_name_with_brackets_and_blanks_is_no_obstacle() -> None:
    code = (
        "import time; open('/proc/self/comm', 'w').write(') 9 9 (x')\n"
        "print(1, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        used = usage_of(child.pid)
        child.kill()
    assert used is not None
    assert used[0] < 60
    assert used[1] > 1 << 20


def test_a_process_that_has_ended_has_none() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait(60)
    until = time.monotonic() + 60
    while usage_of(child.pid) is not None and time.monotonic() < until:
        time.sleep(0.01)
    assert usage_of(child.pid) is None
