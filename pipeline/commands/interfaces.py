"""`ringline interfaces`: the network interfaces of the kernel, and which of them a port can use."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from dataclasses import asdict, dataclass

from ringline.pipeline.ports.interfaces import guard, netlink
from ringline.pipeline.ports.interfaces.interface import (
    Interface,
    all_of_them,
    not_ethernet,
    objection,
    occupied,
)
from ringline.pipeline.ports.xdp.rights import missing
from ringline.shm.text import printable

COLUMNS = ("interface", "driver", "state", "channels", "mtu", "XDP", "attached", "usable")


@dataclass(frozen=True)
class Row:
    """An interface. `driver` is the kernel driver or the kind of a virtual interface; `channels`
    are its RX queues; `mtu` is in bytes; `xdp` is generic, native or zero-copy, each with those
    before it, or unknown; `attached` is the mode of an XDP program that is attached, or no;
    `usable` are the kinds of port that can use it; `why` says why xdp cannot, "" when it can."""

    interface: str
    driver: str
    state: str
    channels: int
    mtu: int
    xdp: str
    attached: str
    usable: tuple[str, ...]
    why: str


def interfaces(given: Namespace) -> str:
    """The interfaces of this network namespace, as text or, with --json, as JSON."""
    rows = [row_of(found) for found in all_of_them()]
    lacking = missing(0)
    if given.json:
        return json.dumps({"interfaces": [asdict(row) for row in rows], "missing_rights": lacking})
    cells: list[tuple[str, ...]] = [COLUMNS]
    for row in rows:
        *shown, usable, _ = asdict(row).values()
        cells.append((*map(printable, map(str, shown)), ", ".join(usable) or "no"))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in cells]
    lines += [printable(row.why) for row in rows if row.why]
    if any(row.xdp == "unknown" for row in rows):
        lines.append(
            f"this kernel ({os.uname().release}) does not say what drivers do with XDP (Linux 6.3 "
            "and later do); a port uses native XDP if the driver can, and says so at its start"
        )
    if lacking:
        lines.append(f"this process lacks {' and '.join(lacking)}, which a port xdp:NAME needs")
    return "\n".join(lines)


def row_of(found: Interface) -> Row:
    """What the kernel says of an interface, and which ports can use it."""
    why = objection(found) or occupied(found) or guard.cut_off(found, ())
    copied = () if not_ethernet(found) else ("packet",)
    return Row(
        interface=found.name,
        driver=found.driver or found.kind or "unknown",
        state="down" if not found.up else "up" if found.running else "no link",
        channels=found.queues,
        mtu=found.mtu,
        xdp=_xdp(netlink.xdp_features(found.number)),
        attached=(found.program_mode or "yes") if found.program else "no",
        usable=copied if why else ("xdp", *copied),
        why=why,
    )


def _xdp(features: int | None) -> str:
    if features is None:
        return "unknown"
    if features & netlink.XDP_ZERO_COPY:
        return "zero-copy"
    return "native" if features & netlink.XDP_REDIRECT else "generic"
