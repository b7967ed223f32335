"""Segments: whose they are, what is refused, and that nothing is left."""

from __future__ import annotations

import fcntl
import gc
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ringline.shm._shm import ffi, lib
from ringline.shm.errors import Bug, EnvironmentLacks, UsageError
from ringline.shm.segments import Segment, live_owner, remove_stale, segments_of

if TYPE_CHECKING:
    from collections.abc import Callable

LANE = lib.RL_SEGMENT_LANE
SLOT = lib.RL_SEGMENT_SLOT


def create(instance: str, what: str = "lane.0", size: int = 10_000) -> Segment:
    return Segment.create(instance, what, size, kind=LANE)


def no_dma(address: str) -> None:
    raise AssertionError(f"no device was to be stopped, but {address} was")


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


DIE_HOLDING = """
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
    """Segments whose creator was killed; returns its process id."""
    done = run_python(DIE_HOLDING, instance, whats, *pci)
    assert done.returncode == -9, done.stderr
    return int(done.stdout)


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
def test_created_0600_whatever_the_umask(instance: Callable[[], str], umask: int) -> None:
    before = os.umask(umask)
    try:
        with create(instance()) as segment:
            assert os.stat(segment.path).st_mode & 0o7777 == 0o600
    finally:
        os.umask(before)


def test_a_segment_is_what_was_asked_for(instance: Callable[[], str]) -> None:
    name = instance()
    with Segment.create(
        name, "rings.3.7", 10_001, kind=SLOT, generation=7, pci=["0000:03:00.0", "0000:03:00.1"]
    ) as segment:
        assert segment.name == f"/ringline.{name}.rings.3.7"
        assert segment.path == f"/dev/shm/ringline.{name}.rings.3.7"
        assert segment.used == 10_001
        assert segment.size == 12_288, "whole pages"
        assert (segment.kind, segment.generation) == (SLOT, 7)
        assert segment.pci == ["0000:03:00.0", "0000:03:00.1"]
        assert not any(segment.memory[lib.RL_HEADER_BYTES :])
        assert live_owner(name) == os.getpid()
        assert segments_of(name) == [segment.path]
    assert segments_of(name) == []
    assert live_owner(name) is None


def test_what_one_writes_the_other_reads(instance: Callable[[], str]) -> None:
    with create(instance()) as segment:
        other = Segment.attach(segment.share(), kind=LANE)
        segment.memory[5000:5005] = b"hello"
        assert bytes(other.memory[5000:5005]) == b"hello"
        other.at("uint32_t *", 8000)[0] = 77
        assert segment.at("uint32_t *", 8000)[0] == 77
        other.close()
        assert os.path.exists(segment.path), "who attached does not unlink"


@pytest.mark.parametrize("name", ["", "a.b", "a/b", "..", "a b", "é", "x" * 49, "a\0b"])
def test_names_that_could_meet_another_instance_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be the name of an instance"):
        create(name)


def test_names_of_instances_do_not_meet(instance: Callable[[], str]) -> None:
    short = instance()
    longer = f"{short}-worker"
    with create(short), create(longer) as other:
        assert segments_of(longer) == [other.path]
        assert len(segments_of(short)) == 1
        with pytest.raises(EnvironmentLacks):
            remove_stale(short, no_dma)
    assert segments_of(short) == []


def test_a_pointer_never_leaves_the_segment(instance: Callable[[], str]) -> None:
    with create(instance()) as segment:
        assert segment.at("uint64_t *", segment.size - 8)[0] == 0
        for offset in (-1, segment.size - 7, segment.size, 2**63):
            with pytest.raises(Bug, match="does not lie in"):
                segment.at("uint64_t *", offset)
        with pytest.raises(Bug):
            segment.at("struct rl_rings_segment *")
    with pytest.raises(Bug, match="is closed"):
        segment.at("uint64_t *")


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
        with pytest.raises(EnvironmentLacks, match="stop it, or give this one another name"):
            create(name)
        # Neither took anything away.
        assert live_owner(name) == os.getpid()


def test_a_child_does_not_keep_a_dead_owner_s_segment_alive(instance: Callable[[], str]) -> None:
    name = instance()
    holder = subprocess.Popen(
        [sys.executable, "-c", CHILD_HOLDS_ON, name], stdout=subprocess.PIPE, text=True
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


CHILD_HOLDS_ON = """
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


def test_what_a_dead_owner_left_is_removed_after_its_devices_are_stopped(
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
    assert seen == [("0000:03:00.0", 2), ("0000:81:00.1", 2)], "each once, before anything went"
    assert segments_of(name) == []


def test_nothing_is_removed_when_a_device_cannot_be_stopped(instance: Callable[[], str]) -> None:
    name = instance()
    left_by_a_dead_owner(name, "packets", "0000:03:00.0")

    def stop_dma(address: str) -> None:
        raise PermissionError(address)

    with pytest.raises(PermissionError):
        remove_stale(name, stop_dma)
    assert len(segments_of(name)) == 1
    assert len(remove_stale(name, lambda address: None)) == 1


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
    with pytest.raises(EnvironmentLacks, match="is not a whole ringline segment"):
        Segment.attach(os.open(path, os.O_RDWR))
    assert remove_stale(name, no_dma) == [str(path)]
    with create(name, "packets"):
        pass


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
        with pytest.raises(EnvironmentLacks, match="is in the way"):
            create(name, "packets")
        assert target.read_text() == "precious"
    finally:
        link.unlink()


def test_a_file_that_somebody_locks_without_a_header_counts_as_alive(
    instance: Callable[[], str],
) -> None:
    name = instance()
    path = Path(f"/dev/shm/ringline.{name}.packets")
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert live_owner(name) == os.getpid()
    assert remove_stale(name, no_dma) == [str(path)]


def test_racing_creators_never_share(instance: Callable[[], str]) -> None:
    # Each tries to become the owner again and again, as a start does; whoever has the
    # instance writes its id into the segment, and finds it there before it lets go.
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
    assert wins >= 4, "nobody, or hardly anybody, ever got it"
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
        # The second when another racer has left it between our two steps.
        assert "already runs" in str(error) or "is in the way" in str(error), error
        continue
    pid = segment.at("uint64_t *", 4096)
    assert pid[0] == 0
    pid[0] = os.getpid()
    assert os.stat(segment.path).st_ino == os.fstat(segment.fd).st_ino
    time.sleep(0.001)
    assert pid[0] == os.getpid()
    if wins % 2:
        segment.unlink()  # else it is left behind, as by a crash
    segment.close()
    wins += 1
print(wins)
"""


def test_attach_refuses_what_is_not_a_segment(instance: Callable[[], str]) -> None:
    with create(instance()) as segment:
        header = segment.at("struct rl_segment_header *")
        with pytest.raises(Bug, match="is a segment of kind 3, not 4"):
            Segment.attach(segment.share(), kind=SLOT)
        for field, value, sentence in [
            ("layout_version", 99, "another build of ringline"),
            ("layout_hash", 1, "another build of ringline"),
            ("size", 4096, "not a whole ringline segment"),
            ("magic", 0, "not a whole ringline segment"),
        ]:
            right = getattr(header, field)
            setattr(header, field, value)
            with pytest.raises(EnvironmentLacks, match=sentence):
                Segment.attach(segment.share())
            setattr(header, field, right)
        # Cut off: what lies beyond the end would be a SIGBUS.
        os.ftruncate(segment.fd, 8192)
        with pytest.raises(EnvironmentLacks, match="not a whole ringline segment"):
            Segment.attach(segment.share())
        os.ftruncate(segment.fd, segment.size)
        Segment.attach(segment.share()).close()


def test_too_many_devices_for_a_header_is_an_error(instance: Callable[[], str]) -> None:
    name = instance()
    with pytest.raises(Bug, match="40 PCI addresses do not fit"):
        Segment.create(name, "lane.0", 9000, kind=LANE, pci=["0000:03:00.0"] * 40)
    assert segments_of(name) == []


def test_full_shared_memory_is_an_error_and_leaves_nothing(instance: Callable[[], str]) -> None:
    name = instance()
    status = os.statvfs("/dev/shm")
    size = (status.f_blocks + 10) * status.f_frsize
    before = status.f_bavail
    with pytest.raises(EnvironmentLacks, match=rf"/dev/shm is too full .* {size} bytes are needed"):
        create(name, size=size)
    assert segments_of(name) == []
    free = os.statvfs("/dev/shm").f_bavail
    assert abs(free - before) < before / 2, "what could be had of it was given back"


def in_a_world_where(setup: str, code: str, *arguments: str) -> str:
    """Run Python where mounts are its own; returns the message that it ended with."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root and unshare to make a mount namespace")
    shell = ["unshare", "-m", "sh", "-c", f'{setup} && exec "$@"', "sh"]
    done = subprocess.run(
        [*shell, sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


TRY_TO_CREATE = """
import os, sys
from ringline.shm._shm import lib
from ringline.shm.errors import EnvironmentLacks
from ringline.shm.segments import Segment, segments_of
try:
    Segment.create(sys.argv[1], "packets", 4 << 20, kind=lib.RL_SEGMENT_PACKETS)
except EnvironmentLacks as error:
    print(error)
print(segments_of(sys.argv[1]))
"""


def test_small_shared_memory_says_how_much_is_needed_and_free(
    instance: Callable[[], str],
) -> None:
    said = in_a_world_where(
        "mount -t tmpfs -o size=1M none /dev/shm", TRY_TO_CREATE, instance()
    ).splitlines()
    assert "/dev/shm is too full" in said[0]
    assert "4194304 bytes are needed, 1048576 are free" in said[0]
    assert "mount -o remount,size=" in said[0]
    assert said[1] == "[]"


def test_shared_memory_that_is_not_writable_is_said_so(instance: Callable[[], str]) -> None:
    said = in_a_world_where(
        "mount -t tmpfs -o ro none /dev/shm", TRY_TO_CREATE, instance()
    ).splitlines()
    assert said[0].startswith("/dev/shm is not writable for user 0, so /dev/shm/ringline.t")
    assert said[1] == "[]"
    missing = "mount -t tmpfs none /dev && mkdir /dev/x"
    said = in_a_world_where(missing, TRY_TO_CREATE, instance()).splitlines()
    assert "cannot be created: there is no /dev/shm; mount a tmpfs there" in said[0]


def test_another_user_s_instance_of_that_name_is_refused(instance: Callable[[], str]) -> None:
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
        sentence = f"{segment.path} belongs to another user: give this instance another name"
        assert done.stdout.splitlines() == [sentence, sentence], done.stderr


def open_things() -> tuple[list[str], int]:
    """What this process has open, and how many mappings of segments."""
    gc.collect()
    fds = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            fds.append(os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:
            continue  # of the listing itself
    maps = Path("/proc/self/maps").read_text(encoding="ascii")
    return sorted(fds), maps.count("ringline.t")


def test_nothing_is_left_open(instance: Callable[[], str]) -> None:
    name = instance()
    before = open_things()
    for _ in range(3):
        with create(name) as segment:
            attached = Segment.attach(segment.share())
            with pytest.raises(EnvironmentLacks):
                create(name)
            with pytest.raises(EnvironmentLacks):
                remove_stale(name, no_dma)
            with pytest.raises(Bug):
                Segment.attach(segment.share(), kind=SLOT)
            assert open_things() != before
            attached.close()
            attached.close()
        segment.close()
        assert open_things() == before


def test_a_view_that_outlives_its_segment_stays_readable(instance: Callable[[], str]) -> None:
    name = instance()
    before = open_things()
    with create(name) as segment:
        segment.memory[4096] = 42
        view = segment.memory[4096:4100]
    assert view[0] == 42
    assert live_owner(name) is None
    with pytest.raises(ValueError, match="released"):
        segment.memory[0]
    del view, segment
    assert open_things() == before


def test_unlink_leaves_a_successor_s_file_alone(instance: Callable[[], str]) -> None:
    name = instance()
    first = create(name)
    first.unlink()
    first.unlink()
    with create(name) as second:
        first.unlink()
        assert os.path.exists(second.path)
    first.close()


def test_a_header_is_whole_when_its_magic_is_there(instance: Callable[[], str]) -> None:
    # Watched from outside while segments come and go: with the magic, all is in place.
    name = instance()
    done = subprocess.Popen([sys.executable, "-c", COME_AND_GO, name])
    path, seen = f"/dev/shm/ringline.{name}.lane.0", 0
    deadline = time.monotonic() + 30
    while done.poll() is None and time.monotonic() < deadline:
        try:
            fd = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            continue
        data = os.pread(fd, ffi.sizeof("struct rl_segment_header"), 0)
        os.close(fd)
        if data[:8] == b"ringline":
            header = ffi.new("struct rl_segment_header *")
            ffi.memmove(header, data, len(data))
            assert header.owner_pid == done.pid
            assert (header.size, header.used) == (12288, 10000)
            seen += 1
    assert done.wait() == 0
    assert seen > 0


COME_AND_GO = """
import sys, time
from ringline.shm._shm import lib
from ringline.shm.segments import Segment
until = time.monotonic() + 0.5
while time.monotonic() < until:
    with Segment.create(sys.argv[1], "lane.0", 10_000, kind=lib.RL_SEGMENT_LANE):
        time.sleep(0.0005)
"""
