"""The rights that opening AF_XDP sockets needs; what this process lacks, by name."""

from __future__ import annotations

import resource

from ringline.pipeline.ports.interfaces.capabilities import (
    BPF,
    IPC_LOCK,
    NET_ADMIN,
    NET_RAW,
    SYS_ADMIN,
    effective,
)

_NEEDED = {"CAP_NET_ADMIN": NET_ADMIN, "CAP_NET_RAW": NET_RAW, "CAP_BPF": BPF}


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
    if not have >> IPC_LOCK & 1 and limit != resource.RLIM_INFINITY and limit < packet_bytes:
        lacking.append(
            f"a limit of locked memory of {packet_bytes >> 10} KiB (ulimit -l; it is "
            f"{limit >> 10} KiB), or CAP_IPC_LOCK"
        )
    return lacking
