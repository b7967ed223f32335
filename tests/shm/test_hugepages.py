"""Hugepages: when memory is on them, and the messages when it is not.

Tests with `real_hugepages` reserve and mount real ones; they need root. The others use
`fake_mount`: a normal folder in place of the hugetlbfs mount, to test the choice.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cffi import FFI

from ringline.shm import hugepages
from ringline.shm._shm import lib
from ringline.shm.errors import EnvironmentLacks, UsageError
from ringline.shm.packets import DescriptorMemory, PacketMemory
from ringline.shm.segments import remove_stale, segments_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# They compare the free hugepages of the machine before and after.
pytestmark = pytest.mark.alone

HEADER = lib.RL_HEADER_BYTES
STRIDE = lib.RL_BUFFER_STRIDE
MIB = 1 << 20
CLONE_NEWNS = 0x20000  # sched.h; in Python's `os` since 3.12


@pytest.fixture
def own_mounts() -> Iterator[None]:
    """A mount namespace for the test and its children; its mounts end with the test."""
    ffi = FFI()
    ffi.cdef("int unshare(int flags); int setns(int fd, int flags);")
    c_library = ffi.dlopen(None)
    with open("/proc/self/ns/mnt", "rb") as before:
        if c_library.unshare(CLONE_NEWNS) != 0:
            pytest.skip("needs root to mount hugepages for itself alone")
        try:
            subprocess.run(["mount", "--make-rprivate", "/"], check=True)
            yield
        finally:
            assert c_library.setns(before.fileno(), CLONE_NEWNS) == 0


@pytest.fixture
def real_hugepages(tmp_path: Path, own_mounts: None) -> Iterator[int]:
    """A hugetlbfs with 8 free pages of 2 MiB; needs root. Yields the page size in bytes."""
    pool = Path(hugepages.POOLS, "hugepages-2048kB", "nr_hugepages")
    if not pool.exists():
        pytest.skip("hugepages of 2 MiB are missing in this kernel")
    before = int(pool.read_text())
    missing = 8 - hugepages.available(2 * MIB)
    mount = tmp_path / "huge pages"
    mount.mkdir()
    try:
        if missing > 0:
            pool.write_text(str(before + missing))
        command = ["mount", "-t", "hugetlbfs", "-o", "pagesize=2M", "none", str(mount)]
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
        if mounted.returncode != 0 or hugepages.available(2 * MIB) < 8:
            pytest.skip(f"hugepages are missing: none can be reserved or mounted: {mounted.stderr}")
        yield 2 * MIB
    finally:
        pool.write_text(str(before))


@pytest.fixture
def fake_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Makes a folder that ringline takes for a hugetlbfs mount, with the given pool."""

    def make(free: int, total: int, page_kib: int = 2048, folder: str = "huge") -> Path:
        mount = tmp_path / folder
        mount.mkdir(exist_ok=True)
        table = tmp_path / "mounts"
        with table.open("a") as file:
            file.write(f"none {mount} hugetlbfs rw,relatime,pagesize={page_kib >> 10}M 0 0\n")
        pool = tmp_path / "pools" / f"hugepages-{page_kib}kB"
        pool.mkdir(parents=True)
        for name, value in [
            ("free_hugepages", free),
            ("nr_hugepages", total),
            ("resv_hugepages", 0),
        ]:
            (pool / name).write_text(f"{value}\n")
        monkeypatch.setattr(hugepages, "MOUNTS", str(table))
        monkeypatch.setattr(hugepages, "POOLS", str(tmp_path / "pools"))
        return mount

    return make


def test_auto_takes_hugepages_when_there_are_enough(
    instance: Callable[[], str], fake_mount: Callable[..., Path]
) -> None:
    mount = fake_mount(free=3, total=8)
    name = instance()
    with PacketMemory.create(name, 2000) as memory:
        assert memory.segment.path == f"{mount}/ringline.{name}.packets"
        assert segments_of(name) == [memory.segment.path]
        # 3000 buffers need a fourth page.
        with PacketMemory.create(instance(), 3000) as other:
            assert other.segment.path.startswith("/dev/shm/")
    assert segments_of(name) == []


def test_auto_takes_the_smallest_pages_with_room(
    instance: Callable[[], str], fake_mount: Callable[..., Path]
) -> None:
    big = fake_mount(free=2, total=2, page_kib=1 << 20, folder="big")
    small = fake_mount(free=2, total=2, folder="small")
    for buffers, mount in [(100, small), (3000, big)]:
        with PacketMemory.create(instance(), buffers) as memory:
            assert memory.segment.path.startswith(str(mount))


def test_off_takes_none(instance: Callable[[], str], fake_mount: Callable[..., Path]) -> None:
    fake_mount(free=3, total=8)
    with PacketMemory.create(instance(), 10, hugepages="off") as memory:
        assert memory.segment.path.startswith("/dev/shm/")
    with pytest.raises(UsageError, match="must be 'auto', 'require' or 'off'"):
        PacketMemory.create(instance(), 10, hugepages="never")


def test_require_says_how_many_are_needed_and_how_to_get_them(
    instance: Callable[[], str], fake_mount: Callable[..., Path]
) -> None:
    fake_mount(free=2, total=5)
    name = instance()
    with pytest.raises(EnvironmentLacks) as refused:
        PacketMemory.create(name, 10_000, hugepages="require")
    assert str(refused.value) == (
        'hugepages = "require", but 11 hugepages of 2 MiB are needed and 2 of 5 are free '
        "(sysctl -w vm.nr_hugepages=14; ringline doctor says how many a whole run needs)"
    )
    assert segments_of(name) == []


def test_require_says_how_to_reserve_pages_of_another_size(
    instance: Callable[[], str], fake_mount: Callable[..., Path]
) -> None:
    fake_mount(free=0, total=0, page_kib=1 << 20)
    with pytest.raises(EnvironmentLacks, match="1 hugepages of 1 GiB are needed") as refused:
        PacketMemory.create(instance(), 10, hugepages="require")
    assert f"echo 1 > {hugepages.POOLS}/hugepages-1048576kB/nr_hugepages" in str(refused.value)


def test_require_without_a_mount_says_so(
    instance: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mounts").write_text("proc /proc proc rw 0 0\n")
    monkeypatch.setattr(hugepages, "MOUNTS", str(tmp_path / "mounts"))
    monkeypatch.setattr(hugepages, "POOLS", str(tmp_path))  # no pool, no mount
    with pytest.raises(EnvironmentLacks, match="mount -t hugetlbfs none /dev/hugepages"):
        PacketMemory.create(instance(), 10, hugepages="require")
    with PacketMemory.create(instance(), 10) as memory:
        assert not memory.hugepages


def test_reserved_pages_are_used_without_a_mount(
    instance: Callable[[], str],
    real_hugepages: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for mount, _ in hugepages.mounts():
        subprocess.run(["umount", mount], check=True)
    monkeypatch.setattr(hugepages, "STANDARD", str(tmp_path / "standard"))
    with PacketMemory.create(instance(), 100) as memory:
        assert memory.segment.path.startswith(str(tmp_path / "standard"))
        assert memory.page_size == real_hugepages
        assert memory.segment.remark == ""


def test_reserved_pages_that_are_too_few_are_reported(
    instance: Callable[[], str], fake_mount: Callable[..., Path]
) -> None:
    fake_mount(free=1, total=8)
    with PacketMemory.create(instance(), 2000) as memory:
        assert "3 hugepages of 2 MiB are needed and 1 of 8 are free" in memory.segment.remark


def test_a_mount_that_is_not_writable_is_not_used(
    instance: Callable[[], str], fake_mount: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    mount = fake_mount(free=8, total=8)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with PacketMemory.create(instance(), 10) as memory:
        assert memory.segment.path.startswith("/dev/shm/")
    with pytest.raises(EnvironmentLacks, match=f"{mount} is not writable for user") as refused:
        PacketMemory.create(instance(), 10, hugepages="require")
    assert "mount -t hugetlbfs -o uid=" in str(refused.value)


def test_a_mount_where_others_can_replace_files_is_not_used(
    instance: Callable[[], str], fake_mount: Callable[..., Path]
) -> None:
    mount = fake_mount(free=8, total=8)
    mount.chmod(0o777)
    with PacketMemory.create(instance(), 10) as memory:
        assert memory.segment.path.startswith("/dev/shm/")
        assert f"{mount} can be written by other users" in memory.segment.remark
    mount.chmod(0o1777)
    with PacketMemory.create(instance(), 10) as memory:
        assert memory.segment.path.startswith(str(mount))


def test_auto_falls_back_when_the_pages_were_taken_meanwhile(
    instance: Callable[[], str], real_hugepages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Another process took the pages after they were counted.
    monkeypatch.setattr(hugepages, "available", lambda page_size: 1 << 20)
    name = instance()
    too_many = (hugepages.pool(real_hugepages, "nr_hugepages") + 1) * real_hugepages // STRIDE
    with PacketMemory.create(name, too_many) as memory:
        assert not memory.hugepages
    with pytest.raises(EnvironmentLacks, match="is too full for"):
        PacketMemory.create(name, too_many, hugepages="require")
    assert segments_of(name) == []


def test_hugepages_hold_buffers_at_physical_addresses(
    instance: Callable[[], str], real_hugepages: int
) -> None:
    free = hugepages.pool(real_hugepages, "free_hugepages")
    name = instance()
    with PacketMemory.create(name, 2000, hugepages="require") as memory:
        assert (memory.page_size, memory.hugepages, memory.buffers) == (real_hugepages, True, 2000)
        assert memory.segment.size == 3 * real_hugepages
        assert hugepages.pool(real_hugepages, "free_hugepages") == free - 3
        other = PacketMemory.attach(memory.segment.share(), 2000)
        assert (other.page_size, other.buffers) == (real_hugepages, 2000)
        there = other.device_addresses("physical")
        assert there.page_shift == 21
        assert len(set(there.page_bus)) == 3
        assert all(address and address % real_hugepages == 0 for address in there.page_bus)
        assert there.unusable == [
            (real_hugepages - HEADER) // STRIDE,
            (2 * real_hugepages - HEADER) // STRIDE,
        ]
        other.close()
    assert hugepages.pool(real_hugepages, "free_hugepages") == free, "all pages are free again"


def test_descriptor_rings_find_room_in_one_hugepage(
    instance: Callable[[], str], real_hugepages: int
) -> None:
    with DescriptorMemory.create(instance(), 3 * MIB, hugepages="require") as memory:
        there = memory.device_addresses("physical")
        offsets = [memory.allocate(600_000)[1] for _ in range(4)]
        for offset in offsets:
            assert there.of(offset + 599_999) == there.of(offset) + 599_999
        assert offsets[3] == 2 * MIB, "the fourth would cross a page boundary"


def test_hugepages_of_a_dead_owner_are_freed(
    instance: Callable[[], str], real_hugepages: int
) -> None:
    free = hugepages.pool(real_hugepages, "free_hugepages")
    name = instance()
    code = (
        "import os, signal, sys\n"
        "from ringline.shm.packets import DescriptorMemory\n"
        "memory = DescriptorMemory.create(sys.argv[1], 5 << 20, hugepages='require')\n"
        "memory.segment.set_pci(['0000:03:00.0'])\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, name], check=False, timeout=60)
    assert done.returncode == -9
    assert hugepages.pool(real_hugepages, "free_hugepages") == free - 3
    stopped: list[str] = []
    removed = remove_stale(name, stopped.append)
    assert [Path(path).name for path in removed] == [f"ringline.{name}.descriptors"]
    assert stopped == ["0000:03:00.0"]
    assert hugepages.pool(real_hugepages, "free_hugepages") == free
