"""The rights that opening AF_XDP sockets needs; what this process lacks, by name."""

from __future__ import annotations

import resource

# capabilities(7): numbers of linux/capability.h
_NEEDED = {
    "CAP_NET_ADMIN": 12,
    "CAP_NET_RAW": 13,
    "CAP_BPF": 39,
}
_IPC_LOCK, SYS_ADMIN = 14, 21


def effective(status: str = "/proc/self/status") -> int:
    """The effective capabilities of this process, one bit each."""
    with open(status, encoding="ascii", errors="replace") as lines:
        for line in lines:
            if line.startswith("CapEff:"):
                return int(line.split()[1], 16)
    return 0


def missing(packet_bytes: int, capabilities: int | None = None) -> list[str]:
    """What a port on AF_XDP needs and this process lacks, as ends of a sentence.

    `packet_bytes` is the size of packet memory, which the kernel locks.
    """
    have = effective() if capabilities is None else capabilities
    lacking = [
        name
        for name, number in _NEEDED.items()
        if not have >> number & 1 and not (name == "CAP_BPF" and have >> SYS_ADMIN & 1)
    ]
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    if not have >> _IPC_LOCK & 1 and limit != resource.RLIM_INFINITY and limit < packet_bytes:
        lacking.append(
            f"a limit of locked memory of {packet_bytes >> 10} KiB (ulimit -l; it is "
            f"{limit >> 10} KiB), or CAP_IPC_LOCK"
        )
    return lacking
