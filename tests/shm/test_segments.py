"""Segments: creation, refusals, and that nothing is left behind."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from ringline.shm._shm import ffi, lib
from ringline.shm.errors import Bug, EnvironmentLacks, UsageError
from ringline.shm.header import addresses_in, forget_address, note_address
from ringline.shm.segments import Segment, live_owner, remove_stale, segments_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

LANE = lib.RL_SEGMENT_LANE
SLOT = lib.RL_SEGMENT_SLOT


def no_dma(address: str) -> None:
    raise AssertionError(f"stopped device {address}, but none may be stopped")


def create(instance: str, what: str = "lane.0", size: int = 10_000) -> Segment:
    return Segment.create(instance, what, size, kind=LANE)


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
def test_created_0600_whatever_the_umask(instance: Callable[[], str], umask: int) -> None:
    before = os.umask(umask)
    try:
        with create(instance()) as segment:
            assert os.stat(segment.path).st_mode & 0o7777 == 0o600
    finally:
        os.umask(before)


def test_a_segment_has_the_properties_that_were_asked_for(instance: Callable[[], str]) -> None:
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


def resident(address: int) -> int:
    """The bytes of the mapping at `address` that this process has mapped by now."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    next(line for line in lines if line.startswith(f"{address:x}-"))
    return 1024 * int(next(line for line in lines if line.startswith("Rss:")).split()[1])


def test_attaching_maps_every_page(instance: Callable[[], str]) -> None:
    with (
        create(instance(), size=1 << 20) as owner,
        Segment.attach(owner.share(), kind=LANE) as guest,
        Segment.attach_known(owner.share(), kind=LANE, used=1 << 20) as known,
    ):
        assert resident(guest.address) == resident(known.address) == owner.size


def test_attaching_a_slot_waits_for_no_page(instance: Callable[[], str]) -> None:
    slot = lib.RL_SEGMENT_SLOT
    with (
        Segment.create(instance(), "worker.0", 1 << 20, kind=slot) as owner,
        Segment.attach_known(owner.share(), kind=slot, used=1 << 20) as guest,
    ):
        assert resident(guest.address) < owner.size


def test_an_attached_segment_shares_its_memory(instance: Callable[[], str]) -> None:
    with create(instance()) as segment:
        other = Segment.attach(segment.share(), kind=LANE)
        segment.memory[5000:5005] = b"hello"
        assert bytes(other.memory[5000:5005]) == b"hello"
        other.at("uint32_t *", 8000)[0] = 77
        assert segment.at("uint32_t *", 8000)[0] == 77
        other.close()
        assert os.path.exists(segment.path), "closing an attached segment does not unlink it"


@pytest.mark.parametrize("name", ["", "a.b", "a/b", "..", "a b", "é", "x" * 49, "a\0b"])
def test_names_that_could_match_another_instance_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be the name of an instance"):
        create(name)


def test_a_name_does_not_match_a_longer_one(instance: Callable[[], str]) -> None:
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


def test_attach_refuses_what_is_not_a_segment(instance: Callable[[], str]) -> None:
    with create(instance()) as segment:
        header = segment.at("struct rl_segment_header *")
        with pytest.raises(Bug, match="is a segment of kind 3, not 4"):
            Segment.attach(segment.share(), kind=SLOT)
        for field, value, sentence in [
            ("layout_version", 99, "another build of ringline"),
            ("layout_hash", 1, "another build of ringline"),
            ("size", 4096, "not a complete ringline segment"),
            ("used", segment.size + 1, "not a complete ringline segment"),
            ("magic", 0, "not a complete ringline segment"),
        ]:
            right = getattr(header, field)
            setattr(header, field, value)
            with pytest.raises(EnvironmentLacks, match=sentence):
                Segment.attach(segment.share())
            setattr(header, field, right)
        # Truncated: an access after the end would be a SIGBUS.
        os.ftruncate(segment.fd, 8192)
        with pytest.raises(EnvironmentLacks, match="not a complete ringline segment"):
            Segment.attach(segment.share())
        os.ftruncate(segment.fd, segment.size)
        Segment.attach(segment.share()).close()


def test_a_header_that_is_overwritten_changes_nothing(instance: Callable[[], str]) -> None:
    with create(instance()) as segment:
        other = Segment.attach(segment.share(), kind=LANE)
        before = segment.kind, segment.used, segment.generation, segment.size
        segment.memory[: lib.RL_HEADER_BYTES] = b"\xff" * lib.RL_HEADER_BYTES
        for mapped in (segment, other):
            assert (mapped.kind, mapped.used, mapped.generation, mapped.size) == before
        other.close()


def test_a_spoiled_header_is_not_needed(instance: Callable[[], str]) -> None:
    with create(instance(), size=10_000) as segment:
        segment.memory[: lib.RL_HEADER_BYTES] = b"\xff" * lib.RL_HEADER_BYTES
        other = Segment.attach_known(segment.share(), kind=LANE, used=10_000)
        assert (other.kind, other.used, other.size) == (LANE, 10_000, segment.size)
        other.close()
        with pytest.raises(EnvironmentLacks, match=f"{segment.size} bytes, but 12289 are needed"):
            Segment.attach_known(segment.share(), kind=LANE, used=segment.size + 1)


def test_too_many_devices_for_a_header_is_an_error(instance: Callable[[], str]) -> None:
    name = instance()
    with pytest.raises(Bug, match="40 PCI addresses do not fit into"):
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
    assert abs(free - before) < before / 2, "the memory that was allocated is free again"


def run_with_mounts(setup: str, code: str, *arguments: str) -> str:
    """Run Python in a mount namespace of its own, after the shell commands `setup`.

    Returns its standard output.
    """
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
    said = run_with_mounts(
        "mount -t tmpfs -o size=1M none /dev/shm", TRY_TO_CREATE, instance()
    ).splitlines()
    assert "/dev/shm is too full" in said[0]
    assert "4194304 bytes are needed, 1048576 are free" in said[0]
    assert "mount -o remount,size=" in said[0]
    assert said[1] == "[]"


def test_shared_memory_that_is_missing_or_not_writable_is_reported(
    instance: Callable[[], str],
) -> None:
    said = run_with_mounts(
        "mount -t tmpfs -o ro none /dev/shm", TRY_TO_CREATE, instance()
    ).splitlines()
    assert said[0].startswith("/dev/shm is not writable for user 0, so /dev/shm/ringline.t")
    assert said[1] == "[]"
    missing = "mount -t tmpfs none /dev && mkdir /dev/x"
    said = run_with_mounts(missing, TRY_TO_CREATE, instance()).splitlines()
    assert "cannot be created: there is no /dev/shm; mount a tmpfs there" in said[0]


def open_files() -> tuple[list[str], int]:
    """Return the open files of this process, and the number of mapped segments."""
    gc.collect()
    fds = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            fds.append(os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:
            continue  # the file of the listing itself
    maps = Path("/proc/self/maps").read_text(encoding="ascii")
    return sorted(fds), maps.count("ringline.t")


def test_nothing_is_left_open(instance: Callable[[], str]) -> None:
    name = instance()
    before = open_files()
    for _ in range(3):
        with create(name) as segment:
            attached = Segment.attach(segment.share())
            with pytest.raises(EnvironmentLacks):
                create(name)
            with pytest.raises(EnvironmentLacks):
                remove_stale(name, no_dma)
            with pytest.raises(Bug):
                Segment.attach(segment.share(), kind=SLOT)
            assert open_files() != before
            attached.close()
            attached.close()
        segment.close()
        assert open_files() == before


def test_a_view_that_outlives_its_segment_stays_readable(instance: Callable[[], str]) -> None:
    name = instance()
    before = open_files()
    with create(name) as segment:
        segment.memory[4096] = 42
        view = segment.memory[4096:4100]
    assert view[0] == 42
    assert live_owner(name) is None
    with pytest.raises(ValueError, match="released"):
        segment.memory[0]
    del view, segment
    assert open_files() == before


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
    # Another process makes and removes segments. A header with the magic is complete.
    name = instance()
    done = subprocess.Popen([sys.executable, "-c", CREATE_AND_REMOVE, name])
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


CREATE_AND_REMOVE = """
import sys, time
from ringline.shm._shm import lib
from ringline.shm.segments import Segment
until = time.monotonic() + 0.5
while time.monotonic() < until:
    with Segment.create(sys.argv[1], "lane.0", 10_000, kind=lib.RL_SEGMENT_LANE):
        time.sleep(0.0005)
"""


ONE, OTHER = "0000:03:00.0", "0000:81:00.1"


def test_a_withheld_segment_is_not_mapped_in_a_forked_process(instance: Callable[[], str]) -> None:
    """In a process of its own, because pytest is not for forks."""
    program = """
import os, sys
from ringline.shm._shm import lib
from ringline.shm.segments import Segment

def mapped():
    with open("/proc/self/maps") as maps:
        return {line.split()[-1].rpartition(".")[2] for line in maps if "/ringline." in line}

def create(what):
    return Segment.create(sys.argv[1], what, 10_000, kind=lib.RL_SEGMENT_LANE)

with create("lane.withheld") as withheld, create("lane.given") as given:
    withheld.withhold_from_forks()
    assert mapped() == {"withheld", "given"}
    if os.fork() == 0:
        os._exit(mapped() != {"given"})
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
    if os.fork() == 0:
        withheld.memory[5000] = 1
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.wait()[1]) == -11
    withheld.memory[5000] = 1
"""
    subprocess.run([sys.executable, "-c", program, instance()], check=True, timeout=60)


def test_a_hidden_descriptor_cannot_cut_the_file(instance: Callable[[], str]) -> None:
    """In a process of its own, because it truncates everything that it has open."""
    program = """
import os, sys
from ringline.shm._shm import lib
from ringline.shm.segments import Segment

with Segment.create(sys.argv[1], "lane.0", 10_000, kind=lib.RL_SEGMENT_LANE) as segment:
    segment.hide_descriptors()
    for number in range(3, 100):
        try:
            os.ftruncate(number, 0)
        except OSError:
            pass
    assert os.stat(segment.path).st_size == segment.size
    segment.memory[9999] = 1
assert not os.path.exists(segment.path)
"""
    subprocess.run([sys.executable, "-c", program, instance()], check=True, timeout=60)


def test_devices_are_noted_and_forgotten_one_by_one(instance: Callable[[], str]) -> None:
    with create(instance()) as segment:
        segment.note_pci(ONE)
        segment.note_pci(OTHER)
        segment.note_pci(ONE)
        assert segment.pci == [ONE, OTHER]
        segment.forget_pci(ONE)
        assert segment.pci == [OTHER]
        segment.forget_pci(ONE)
        segment.note_pci(ONE)
        assert segment.pci == [ONE, OTHER]
        more = [f"0000:05:{n:02x}.0" for n in range(lib.RL_PORTS_MAX - 2)]
        for address in more:
            segment.note_pci(address)
        assert segment.pci == [ONE, OTHER, *more]
        with pytest.raises(Bug, match="does not fit into"):
            for n in range(32):
                segment.note_pci(f"0000:06:{n:02x}.0")


def test_a_process_that_dies_while_it_notes_a_device_names_no_other(
    instance: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each byte that is written, the header names the devices before or after."""

    def string(array: Any) -> Any:
        return ffi.string(getattr(array, "array", array))

    def sizeof(array: Any) -> int:
        return ffi.sizeof(array.array)

    with create(instance()) as segment:
        segment.note_pci(ONE)
        watched = SimpleNamespace(string=string, sizeof=sizeof)
        monkeypatch.setattr("ringline.shm.header.ffi", watched)
        header = Watched(segment.at("struct rl_segment_header *"))
        for change, before, after in (
            (note_address, [ONE], [ONE, OTHER]),
            (forget_address, [ONE, OTHER], [ONE]),
            (note_address, [ONE], [ONE, OTHER]),
        ):
            header.seen.clear()
            change(header, OTHER)
            assert header.seen
            assert all(one in (before, after) for one in header.seen)
            assert header.seen[-1] == after


class Watched:
    """A header that keeps which devices it names after each byte is written."""

    def __init__(self, header: Any) -> None:
        self.seen: list[list[str]] = []
        self._header = header
        self.array = header.pci
        self.pci = self

    def __setitem__(self, at: int, byte: bytes) -> None:
        self.array[at] = byte
        self.seen.append(addresses_in(self._header))
