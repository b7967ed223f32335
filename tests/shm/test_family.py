"""The family of a process: which orphans end, and when.

Each test runs a program of its own, because adoption belongs to a whole process.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

# Helpers of the programs: `started(code)` starts a child of the family, `orphan_of(child)` reads
# the process id that a child prints, `lives(pid)` is false for a zombie.
PREAMBLE = """
import contextlib, os, signal, subprocess, sys, time
from pathlib import Path
from ringline.shm.family import MARK, Family

LEAVE = '''
import os, subprocess, sys, time
left = subprocess.Popen([sys.executable, "-c", {code!r}], start_new_session=True,
                        env={env}, stdout=subprocess.DEVNULL)
print(left.pid, flush=True)
if {ends}: os._exit(0)
time.sleep(600)
'''
SLEEP = "import time; time.sleep(600)"

def leave(code=SLEEP, env="None", ends=True):
    return LEAVE.format(code=code, env=env, ends=ends)

def started(family, code):
    mark = family.mark()
    child = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, MARK: mark},
                             stdout=subprocess.PIPE, text=True)
    family.add(child.pid, mark)
    return child

def left_by(child):
    return int(child.stdout.readline())

def reaped(family, child):
    child.kill()
    child.wait()
    family.remove(child.pid)

def state(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return ""

def lives(pid):
    return state(pid) not in ("", "Z")

def wait_for(condition):
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)

family = Family()
"""


def check(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_what_a_child_leaves_ends_with_it() -> None:
    check("""
        with family.adopt():
            child = started(family, leave())
            orphan = left_by(child)
            child.wait()
            assert lives(orphan)
            family.remove(child.pid)
            assert state(orphan) == "", "it was not ended, or not reaped"
    """)


def test_a_chain_of_orphans_ends_with_its_child() -> None:
    """Each generation becomes an orphan only when the one before it is killed."""
    check("""
        def marked():
            mark = f"{MARK}={os.getpid()}.".encode()
            for folder in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):
                    if mark in (folder / "environ").read_bytes():
                        yield int(folder.name)

        with family.adopt():
            chain = leave(leave(leave(ends=False), ends=False), ends=False)
            child = started(family, chain)
            wait_for(lambda: len(list(marked())) == 4)
            reaped(family, child)
            assert list(marked()) == []
    """)


def test_the_family_of_another_child_lives_on() -> None:
    check("""
        with family.adopt():
            one, other = started(family, leave()), started(family, leave(ends=False))
            first, second = left_by(one), left_by(other)
            reaped(family, one)
            assert not lives(first)
            assert lives(second) and lives(other.pid)
            os.kill(other.pid, signal.SIGKILL)
            wait_for(lambda: not lives(other.pid))
            family.reap()
            assert lives(second), "its own child is not reaped yet"
            reaped(family, other)
            assert not lives(second)
    """)


def test_a_process_that_was_there_before_lives_on() -> None:
    check("""
        before = subprocess.Popen([sys.executable, "-c", SLEEP])
        with family.adopt():
            child = started(family, leave())
            left_by(child)
            reaped(family, child)
        assert lives(before.pid)
        before.kill()
        before.wait()
    """)


def test_an_orphan_without_a_mark_ends() -> None:
    check("""
        with family.adopt():
            child = started(family, leave(env="{}"))
            orphan = left_by(child)
            reaped(family, child)
            assert state(orphan) == ""
    """)


def test_orphans_that_have_ended_are_reaped() -> None:
    check("""
        with family.adopt():
            child = started(family, leave("pass", ends=True))
            orphan = left_by(child)
            wait_for(lambda: state(orphan) in ("", "Z"))
            wait_for(lambda: family.reap() or state(orphan) == "")
            reaped(family, child)
    """)


@pytest.mark.parametrize("adopting", [True, False])
def test_nothing_is_left_at_the_end(adopting: bool) -> None:
    """Without adoption the orphan belongs to others, and is left alone."""
    check(f"""
        with family.adopt() if {adopting} else contextlib.nullcontext():
            child = started(family, leave())
            orphan = left_by(child)
            child.wait()
            if not {adopting}:
                family.remove(child.pid)
        assert lives(orphan) is not {adopting}
        if not {adopting}:
            os.kill(orphan, signal.SIGKILL)
    """)


def test_the_end_of_the_starter_is_seen() -> None:
    check("""
        import select
        from ringline.shm.family import END_WITH, starter_end
        from ringline.shm.errors import UsageError

        def readable(end):
            return bool(select.select([end], [], [], 0)[0])

        assert starter_end({}) is None
        starter = subprocess.Popen([sys.executable, "-c", SLEEP])
        environment = {END_WITH: str(starter.pid)}
        end = starter_end(environment)
        assert environment == {} and not readable(end)
        starter.kill()
        starter.wait()
        assert readable(end)
        assert readable(starter_end({END_WITH: str(starter.pid)})), "it has ended already"
        for text in ("", "me", "0", "-1", "9" * 30):
            try:
                starter_end({END_WITH: text})
                raise SystemExit(f"{text!r} is taken for a process")
            except UsageError as error:
                assert "must be the id of a process, not" in str(error)
    """)
