"""Ownership of an instance: a running one is protected, a dead one is cleaned up."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ringline.shm._shm import lib
from ringline.shm.errors import EnvironmentLacks
from ringline.shm.segments import Segment, live_owner, remove_stale, segments_of

if TYPE_CHECKING:
    from collections.abc import Callable


def create(instance: str, what: str = "lane.0", size: int = 10_000) -> Segment:
    return Segment.create(instance, what, size, kind=lib.RL_SEGMENT_LANE)


def no_dma(address: str) -> None:
    raise AssertionError(f"stopped device {address}, but none may be stopped")


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


CREATE_AND_DIE = """
import os, signal, sys
from ringline.shm._shm import lib
from ringline.shm.segments import Segment
kept = [
    Segment.create(sys.argv[1], what, 10_000, kind=lib.RL_SEGMENT_LANE, pci=sys.argv[3:])
    for what in sys.argv[2].split(",")
]
print(os.getpid(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def left_by_a_dead_owner(instance: str, whats: str, *pci: str) -> int:
    """Create segments in a process that is then killed; return its process id."""
    done = run_python(CREATE_AND_DIE, instance, whats, *pci)
    assert done.returncode == -9, done.stderr
    return int(done.stdout)


def test_a_second_instance_is_refused_with_the_owner_s_id(instance: Callable[[], str]) -> None:
    name = instance()
    sentence = f"{name!r} already runs: process {os.getpid()} holds /dev/shm/ringline.{name}"
    with create(name):
        done = run_python(
            "import sys\n"
            "from ringline.shm.segments import remove_stale\n"
            "remove_stale(sys.argv[1], print)\n",
            name,
        )
        assert sentence in done.stderr
        with pytest.raises(EnvironmentLacks, match="stop it, or give this instance another name"):
            create(name)
        # Neither removed the segment.
        assert live_owner(name) == os.getpid()


def test_a_child_does_not_keep_a_dead_owner_s_segment_alive(instance: Callable[[], str]) -> None:
    name = instance()
    holder = subprocess.Popen(
        [sys.executable, "-c", OWNER_WITH_CHILD, name], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        child = int(holder.stdout.readline())
        assert live_owner(name) == holder.pid
        holder.kill()
        holder.wait()
        assert Path(f"/proc/{child}").exists()
        assert live_owner(name) is None
        assert remove_stale(name, no_dma) == [f"/dev/shm/ringline.{name}.lane.0"]
        os.kill(child, 9)
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


OWNER_WITH_CHILD = """
import subprocess, sys, time
from ringline.shm._shm import lib
from ringline.shm.segments import Segment
segment = Segment.create(sys.argv[1], "lane.0", 10_000, kind=lib.RL_SEGMENT_LANE)
fd = segment.share()
sleep = "import time; time.sleep(60)"
child = subprocess.Popen([sys.executable, "-c", sleep], pass_fds=[fd], stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
time.sleep(60)
"""


def test_segments_of_a_dead_owner_are_removed_after_its_devices_are_stopped(
    instance: Callable[[], str],
) -> None:
    name = instance()
    left_by_a_dead_owner(name, "descriptors,packets", "0000:03:00.0", "0000:81:00.1")
    assert live_owner(name) is None
    seen = []

    def stop_dma(address: str) -> None:
        seen.append((address, len(segments_of(name))))

    removed = remove_stale(name, stop_dma)
    assert sorted(removed) == [
        f"/dev/shm/ringline.{name}.descriptors",
        f"/dev/shm/ringline.{name}.packets",
    ]
    assert seen == [("0000:03:00.0", 2), ("0000:81:00.1", 2)], (
        "each once, before anything was removed"
    )
    assert segments_of(name) == []


def test_nothing_is_removed_when_a_device_cannot_be_stopped(instance: Callable[[], str]) -> None:
    name = instance()
    left_by_a_dead_owner(name, "descriptors", "0000:03:00.0")

    def stop_dma(address: str) -> None:
        raise PermissionError(address)

    with pytest.raises(PermissionError):
        remove_stale(name, stop_dma)
    assert len(segments_of(name)) == 1
    assert len(remove_stale(name, lambda address: None)) == 1


@pytest.mark.parametrize("what", ["packets", "rings.0.1", "worker.0", "lane.0"])
def test_a_device_that_a_worker_names_is_left_alone(instance: Callable[[], str], what: str) -> None:
    name = instance()
    left_by_a_dead_owner(name, what, "0000:00:1f.2")
    assert len(remove_stale(name, no_dma)) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"ring",
        b"ringline",
        os.urandom(423),
        os.urandom(9000),
        b"ringline" + b"\xff" * 500,
        b"\0" * 4096,
    ],
    ids=["empty", "short", "magic only", "cut", "garbage", "magic and garbage", "unfinished"],
)
def test_garbage_of_our_name_is_stale(instance: Callable[[], str], content: bytes) -> None:
    name = instance()
    path = Path(f"/dev/shm/ringline.{name}.packets")
    path.write_bytes(content)
    assert live_owner(name) is None
    with pytest.raises(EnvironmentLacks, match="is not a complete ringline segment"):
        Segment.attach(os.open(path, os.O_RDWR))
    assert remove_stale(name, no_dma) == [str(path)]
    with create(name, "packets"):
        pass


def plant(name: str, what: str) -> Path:
    """Put a segment of this name where it lay after a crash, with devices in its header."""
    left_by_a_dead_owner(name, what, "0000:03:00.0")
    return Path(f"/dev/shm/ringline.{name}.{what}")


@pytest.mark.parametrize("planted", ["given away", "writable by others"])
@pytest.mark.parametrize("what", ["descriptors", "packets"])
def test_a_planted_file_is_refused_and_stops_no_device(
    instance: Callable[[], str], what: str, planted: str
) -> None:
    name = instance()
    path = plant(name, what)
    if planted == "writable by others":
        path.chmod(0o666)
        told = f"{path} can be written by other users"
    else:
        if os.geteuid() != 0:
            pytest.skip("needs root to give a file to another user")
        os.chown(path, 4242, -1)
        told = f"{path} belongs to user 4242, so ringline does not trust it: remove it"
    for attempt in (live_owner, lambda name: remove_stale(name, no_dma), lambda n: create(n, what)):
        with pytest.raises(EnvironmentLacks, match=told):
            attempt(name)
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(EnvironmentLacks, match=told):
            live_owner(name)
    assert path.exists()
    path.unlink()


def test_links_and_folders_of_our_name_are_left_alone(
    instance: Callable[[], str], tmp_path: Path
) -> None:
    name = instance()
    target = tmp_path / "precious"
    target.write_text("precious")
    link = Path(f"/dev/shm/ringline.{name}.packets")
    link.symlink_to(target)
    try:
        assert remove_stale(name, no_dma) == []
        with pytest.raises(EnvironmentLacks, match="is in the way: it is"):
            create(name, "packets")
        assert target.read_text() == "precious"
    finally:
        link.unlink()


@pytest.mark.parametrize(
    ("made", "kind", "command"),
    [
        (Path.mkdir, "a folder", "rm -r"),
        (lambda path: path.symlink_to("/none"), "a link", "rm"),
        (os.mkfifo, "a pipe", "rm"),
    ],
)
def test_what_no_run_has_made_is_named(
    instance: Callable[[], str], made: Callable[[Path], None], kind: str, command: str
) -> None:
    """To start again does not help."""
    name = instance()
    path = Path(f"/dev/shm/ringline.{name}.packets")
    made(path)
    try:
        with pytest.raises(EnvironmentLacks) as error:
            create(name, "packets")
    finally:
        path.rmdir() if path.is_dir() else path.unlink()
    assert str(error.value) == (
        f"{path} is in the way: it is {kind}, which no run of ringline made; remove it "
        f"({command} {path}), or give this instance another name"
    )


def test_a_locked_file_without_a_header_counts_as_alive(
    instance: Callable[[], str],
) -> None:
    name = instance()
    path = Path(f"/dev/shm/ringline.{name}.packets")
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert live_owner(name) == os.getpid()
    assert remove_stale(name, no_dma) == [str(path)]


def test_a_file_that_is_removed_before_it_is_locked_is_made_again(
    instance: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Another start finds the new file before it is locked, and removes it.
    name = instance()
    removed = []
    lock = fcntl.flock

    def lock_late(fd: int, operation: int) -> None:
        if not removed:
            monkeypatch.setattr(fcntl, "flock", lock)
            removed.extend(remove_stale(name, no_dma))
        lock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", lock_late)
    with create(name) as segment:
        assert removed == [segment.path]
        assert os.stat(segment.path).st_ino == os.fstat(segment.fd).st_ino
        assert live_owner(name) == os.getpid()


def test_a_shared_lock_does_not_make_an_owner(instance: Callable[[], str]) -> None:
    name = instance()
    left_by_a_dead_owner(name, "lane.0")
    with open(f"/dev/shm/ringline.{name}.lane.0", "rb") as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        assert live_owner(name) is None
    remove_stale(name, no_dma)


def test_a_closed_segment_has_no_owner_though_a_view_keeps_its_mapping(
    instance: Callable[[], str],
) -> None:
    name = instance()
    segment = create(name)
    view = segment.memory[:8]
    segment.close()
    assert bytes(view) == b"ringline"
    assert live_owner(name) is None
    assert remove_stale(name, no_dma) == [segment.path]


@pytest.mark.slow
def test_racing_creators_never_share(instance: Callable[[], str]) -> None:
    # Each process tries again and again to become the owner, as a start does. The owner
    # writes its process id into the segment and must find it there before it closes.
    name = instance()
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, name],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    wins = 0
    for racer in racers:
        out, errors = racer.communicate(timeout=60)
        assert racer.returncode == 0, errors
        wins += int(out)
    assert wins >= 4, "too few starts became the owner"
    remove_stale(name, no_dma)


RACE = """
import os, sys, time
from ringline.shm._shm import lib
from ringline.shm.errors import EnvironmentLacks
from ringline.shm.segments import Segment, remove_stale
name, wins, until = sys.argv[1], 0, time.monotonic() + 1.5
while time.monotonic() < until:
    try:
        remove_stale(name, print)
        segment = Segment.create(name, "lane.0", 10_000, kind=lib.RL_SEGMENT_LANE)
    except EnvironmentLacks as error:
        # "in the way": another racer left its file between the two steps.
        assert "already runs" in str(error) or "is in the way" in str(error), error
        continue
    pid = segment.at("uint64_t *", 4096)
    assert pid[0] == 0
    pid[0] = os.getpid()
    assert os.stat(segment.path).st_ino == os.fstat(segment.fd).st_ino
    time.sleep(0.001)
    assert pid[0] == os.getpid()
    if wins % 2:
        segment.unlink()  # otherwise the file stays, as after a crash
    segment.close()
    wins += 1
print(wins)
"""


def test_an_instance_of_another_user_is_refused(instance: Callable[[], str]) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    name = instance()
    code = """
import os, sys
from ringline.shm import owners, segments
from ringline.shm.errors import EnvironmentLacks
os.setuid(65534)
for attempt in (segments.live_owner, lambda name: segments.remove_stale(name, print)):
    try:
        attempt(sys.argv[1])
    except EnvironmentLacks as error:
        print(error)
"""
    with create(name) as segment:
        done = run_python(code, name)
        sentence = f"{segment.path} belongs to user root: give this instance another name"
        assert done.stdout.splitlines() == [sentence, sentence], done.stderr
