"""What the kernel says of its hugepages: where they are mounted, how many are free."""

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
            # A blank in a path is written as an octal escape.
            path = path.replace("\\040", " ")
            for option in options.split(","):
                key, _, value = option.partition("=")
                if key == "pagesize":
                    found.append((path, int(value[:-1]) * _UNITS[value[-1]]))
    return found


def mount_standard() -> list[tuple[str, int]]:
    """Mount a hugetlbfs where most systems have theirs since boot; then what `mounts` says.

    Only root can, and only where pages are reserved: whoever reserved them wants
    them used. The mount stays, as one that the system made would.
    """
    if os.geteuid() != 0 or not pool(default_size(), "nr_hugepages"):
        return []
    import subprocess  # workers import this module, and never come here

    try:
        os.makedirs(STANDARD, exist_ok=True)
        command = ["mount", "-t", "hugetlbfs", "none", STANDARD]
        subprocess.run(command, capture_output=True, check=False, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return mounts()


def default_size() -> int:
    """Bytes of a page of the default size, which `vm.nr_hugepages` reserves."""
    with open("/proc/meminfo", encoding="ascii") as file:
        return next((int(line.split()[1]) << 10 for line in file if "Hugepagesize" in line), 0)


def pool(page_size: int, what: str) -> int:
    """A number of the pool of pages of this size: `nr_hugepages`, `free_hugepages`,
    `resv_hugepages`. 0 where the kernel has no such pool."""
    try:
        with open(f"{POOLS}/hugepages-{page_size >> 10}kB/{what}", encoding="ascii") as file:
            return int(file.read())
    except FileNotFoundError:
        return 0


def available(page_size: int) -> int:
    """Pages of this size that are neither used nor promised to another mapping."""
    return pool(page_size, "free_hugepages") - pool(page_size, "resv_hugepages")


def how_to_reserve(page_size: int, count: int) -> str:
    """The command that makes the pool `count` pages large."""
    if page_size == default_size():
        return f"sysctl -w vm.nr_hugepages={count}"
    return f"echo {count} > {POOLS}/hugepages-{page_size >> 10}kB/nr_hugepages"


def size_text(size: int) -> str:
    """A page size as people say it: 2 MiB, 1 GiB."""
    for unit, shift in (("GiB", 30), ("MiB", 20)):
        if size >> shift:
            return f"{size >> shift} {unit}"
    return f"{size >> 10} KiB"
