"""The capabilities of this process: capabilities(7), numbers of linux/capability.h."""

from __future__ import annotations

NET_ADMIN, NET_RAW, IPC_LOCK, SYS_ADMIN, BPF = 12, 13, 14, 21, 39


def effective(status: str = "/proc/self/status") -> int:
    """The effective capabilities of this process, one bit each."""
    with open(status, encoding="ascii", errors="replace") as lines:
        for line in lines:
            if line.startswith("CapEff:"):
                return int(line.split()[1], 16)
    return 0


def has(number: int) -> bool:
    """Whether this process has the capability with this number."""
    return bool(effective() >> number & 1)
