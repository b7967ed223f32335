"""The kernel's hugepages: where they are mounted, and how many are free."""

from __future__ import annotations

import os

MOUNTS = "/proc/self/mounts"
POOLS = "/sys/kernel/mm/hugepages"
STANDARD = "/dev/hugepages"  # where systemd mounts a hugetlbfs

_UNITS = {"K": 1 << 10, "M": 1 << 20}


def mounts() -> list[tuple[str, int]]:
    """Every mounted hugetlbfs as (path, page size in bytes)."""
    found = []
    with open(MOUNTS, encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            _, path, kind, options, *_ = line.split(" ")
            if kind != "hugetlbfs":
                continue
            # The kernel writes a blank in a path as an octal escape.
            path = path.replace("\\040", " ")
            for option in options.split(","):
                key, _, value = option.partition("=")
                if key == "pagesize":
                    found.append((path, int(value[:-1]) * _UNITS[value[-1]]))
    return found


def mount_standard() -> list[tuple[str, int]]:
    """Mount a hugetlbfs at the usual place, STANDARD; returns all mounts, as `mounts` does.

    Returns nothing for other users than root, and when no pages of the default size are
    reserved: only reserved pages show that the operator wants them to be used. The mount stays,
    like one that the system makes at boot.
    """
    if os.geteuid() != 0 or not pool(default_size(), "nr_hugepages"):
        return []
    import subprocess  # workers import this module but never call this function

    try:
        os.makedirs(STANDARD, exist_ok=True)
        command = ["mount", "-t", "hugetlbfs", "none", STANDARD]
        subprocess.run(command, capture_output=True, check=False, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return mounts()


def default_size() -> int:
    """The default hugepage size in bytes, which `vm.nr_hugepages` reserves."""
    with open("/proc/meminfo", encoding="ascii") as file:
        return next((int(line.split()[1]) << 10 for line in file if "Hugepagesize" in line), 0)


def pool(page_size: int, what: str) -> int:
    """A number of the pool of `page_size` bytes per page: `what` is `nr_hugepages`,
    `free_hugepages` or `resv_hugepages`. 0 when the kernel has no such pool."""
    try:
        with open(f"{POOLS}/hugepages-{page_size >> 10}kB/{what}", encoding="ascii") as file:
            return int(file.read())
    except FileNotFoundError:
        return 0


def available(page_size: int) -> int:
    """Pages of this size that are neither used nor reserved for another mapping."""
    return pool(page_size, "free_hugepages") - pool(page_size, "resv_hugepages")


def how_to_reserve(page_size: int, count: int) -> str:
    """The command that sets the size of the pool to `count` pages."""
    if page_size == default_size():
        return f"sysctl -w vm.nr_hugepages={count}"
    return f"echo {count} > {POOLS}/hugepages-{page_size >> 10}kB/nr_hugepages"


def size_text(size: int) -> str:
    """A page size as text: 2 MiB, 1 GiB."""
    for unit, shift in (("GiB", 30), ("MiB", 20)):
        if size >> shift:
            return f"{size >> shift} {unit}"
    return f"{size >> 10} KiB"
