"""The processor time and the memory of a process (proc(5), /proc/PID/stat and statm)."""

from __future__ import annotations

import os

_TICKS = os.sysconf("SC_CLK_TCK")  # per second
_PAGE = os.sysconf("SC_PAGE_SIZE")  # bytes


def usage_of(pid: int) -> tuple[float, int] | None:
    """(processor time, user and system, in seconds; memory in RAM, in bytes) of a process.

    None when there is no such process. Memory that several processes map counts for each.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name of the program comes in brackets and may hold any character.
            fields = file.read().rpartition(b")")[2].split()
        with open(f"/proc/{pid}/statm", "rb") as file:
            pages = int(file.read().split()[1])
        return (int(fields[11]) + int(fields[12])) / _TICKS, pages * _PAGE
    except (OSError, IndexError, ValueError):
        return None
