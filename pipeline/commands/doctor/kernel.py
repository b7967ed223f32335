"""The lines about the kernel: IOMMU, VFIO, lockdown, AF_XDP.

An IOMMU has groups in sysfs (the kernel's Documentation/ABI/testing/sysfs-kernel-iommu_groups). A
group that VFIO makes without an IOMMU is called vfio-noiommu. Firmware describes an IOMMU in an
ACPI table: DMAR for VT-d, IVRS for AMD-Vi. That of Arm, IORT, does not say whether there is one.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator

from ringline.pipeline.commands.doctor.findings import HINT, OK, PROBLEM, Finding, Unreadable
from ringline.pipeline.commands.doctor.machine import Machine, names, number, read
from ringline.pipeline.ports.pci import groups
from ringline.pipeline.ports.pci.sysfs import PciDevice
from ringline.pipeline.ports.pci.sysfs import lockdown as locked_down
from ringline.pipeline.ports.xdp import rights
from ringline.shm.errors import reason_of
from ringline.shm.text import counted

# ACPI table -> (what it describes, what the kernel's command line needs).
OFFERED = {
    "DMAR": ("Intel VT-d", "add intel_iommu=on to the kernel's command line"),
    "IVRS": ("AMD-Vi", "take amd_iommu=off and iommu=off from the kernel's command line"),
}
FIRMWARE = (
    "switch on VT-d or AMD-Vi in the firmware; a virtual machine gets an IOMMU from its host; then "
    "add intel_iommu=on to the kernel's command line (Intel)"
)
MAPPINGS = 2  # of one run: packet memory and descriptors (pipeline/driver/process.py)
# What AF_XDP lacks before a version of Linux -> whether ports need it.
SINCE = (
    ((5, 9), "what every port xdp: needs", True),
    ((5, 11), "busy_poll_us", False),
    ((6, 3), "a way to ask what a driver does with XDP", False),
)


def iommu(machine: Machine) -> Iterator[Finding]:
    """Whether an IOMMU is on, and what it translates."""
    folder = machine.sysfs("kernel/iommu_groups")
    kinds = [
        read(folder / name / "type")  # "" before Linux 5.11
        for name in names(folder)
        if read(folder / name / "name") != "vfio-noiommu"
    ]
    if not kinds:
        yield _iommu_off(machine)
        return
    direct = kinds.count("identity")
    units = ", ".join(names(machine.sys / "class" / "iommu"))
    found = (
        f"it is on{f' ({units})' if units else ''}: {counted(len(kinds), 'group')}, of which it "
        f"translates the addresses of {len(kinds) - direct}"
    )
    if direct:
        found += (
            f"; {direct} {'uses' if direct == 1 else 'use'} physical addresses (iommu=pt) until "
            "VFIO has the card"
        )
    figures = {"groups": len(kinds), "translated": len(kinds) - direct}
    outside = [card.address for card in machine.own_cards if not groups.group_of(card)]
    if outside:
        yield Finding(
            PROBLEM,
            f"{found}; in none of them is {', '.join(outside)}",
            'put the card into another slot, or set dma = "physical"',
            figures,
        )
        return
    yield Finding(OK, found, figures=figures)


def _iommu_off(machine: Machine) -> Finding:
    tables = names(machine.sys / "firmware" / "acpi" / "tables")
    table = next((name for name in OFFERED if name in tables), "")
    found, remedy = "it is off: no device is in an IOMMU group", FIRMWARE
    if table:
        what, remedy = OFFERED[table]
        found += f", although the firmware offers one ({what}, ACPI table {table})"
    elif tables and "IORT" not in tables:
        found += ", and the firmware offers none (no ACPI table DMAR or IVRS)"
    said = re.findall(r"(?:^| )((?:\w+_)?iommu=\S+)", read(machine.proc / "cmdline"))
    if said:
        found += f"; the kernel's command line says {' '.join(said)}"
    if machine.own_cards:
        remedy += '; without an IOMMU, a port pci: needs dma = "physical"'
    else:
        remedy = f"only a port pci: needs one: {remedy}"
    return Finding(_needed(machine), found, remedy, {"groups": 0, "translated": 0})


def vfio(machine: Machine) -> Iterator[Finding]:
    """Whether the kernel has vfio-pci, and what of VFIO it lets this process have."""
    if not (machine.sysfs("bus") / "pci" / "drivers" / "vfio-pci").is_dir():
        yield Finding(
            _needed(machine),
            "the kernel has no driver vfio-pci now",
            "load it (modprobe vfio-pci), in a container on its host; only a port pci: needs it",
        )
        return
    for card in machine.own_cards:
        if card.driver == "vfio-pci" and (finding := _node(machine, card)):
            yield finding
            return
    yield Finding(OK, "the kernel has the driver vfio-pci")


def _node(machine: Machine, card: PciDevice) -> Finding | None:
    """What is wrong with the file through which VFIO gives out a card that it has."""
    node = machine.dev / "vfio" / groups.group_of(card)
    what = f"vfio-pci has the card {card.address}, but"
    if not node.exists():
        return Finding(
            PROBLEM,
            f"{what} there is no {node} here",
            f"give it to the container (--device {node} --device {node.parent / 'vfio'})",
        )
    if not os.access(node, os.R_OK | os.W_OK):
        return Finding(
            HINT,
            f"{what} this user may not open {node}",
            "run as root, or give this user the file (chown)",
        )
    return None


def mappings(machine: Machine) -> Iterator[Finding]:
    """How many mappings VFIO allows a run (its container): dma_entry_limit of the module."""
    module = machine.sysfs("module") / "vfio_iommu_type1"
    limit = module / "parameters" / "dma_entry_limit"
    if not limit.exists():
        found = (
            "this kernel does not limit the mappings of VFIO (before Linux 5.1)"
            if module.is_dir()
            else "the limit is not known before the module vfio_iommu_type1 is loaded"
        )
        yield Finding(OK, f"{found}; a run needs {MAPPINGS}", figures={"needed": MAPPINGS})
        return
    most = number(limit)
    found = f"VFIO allows a run {most:,} mappings (dma_entry_limit); a run needs {MAPPINGS}"
    few = most < MAPPINGS
    yield Finding(
        _needed(machine) if few else OK,
        found,
        f"echo 65535 > {limit}" if few else "",
        {"allowed": most, "needed": MAPPINGS},
    )


def lockdown(machine: Machine) -> Iterator[Finding]:
    """Whether the kernel is locked down, as it is with Secure Boot: kernel_lockdown(7)."""
    folder = machine.sysfs("kernel") / "security"
    if not names(folder):
        raise Unreadable(
            f"{folder} is empty, so it cannot be read whether the kernel is locked down",
            f"as root, mount -t securityfs none {folder}",
        )
    read(folder / "lockdown")  # raises Unreadable
    mode = locked_down(folder / "lockdown")
    if not mode:
        yield Finding(OK, "the kernel is not locked down", figures={"mode": "none"})
        return
    yield Finding(
        HINT if names(machine.sys / "kernel" / "iommu_groups") else _needed(machine),
        f'the kernel is locked down ({mode}, as with Secure Boot): dma = "physical" and registers '
        "through /sys are forbidden, to root too",
        "use cards through an IOMMU and VFIO (ringline bind ADDRESS), or switch Secure Boot off",
        {"mode": mode},
    )


def xdp(machine: Machine) -> Iterator[Finding]:
    """Whether the kernel has AF_XDP, and whether this process may use it."""
    version = tuple(map(int, re.findall(r"\d+", machine.release)[:2]))
    figures = {"release": machine.release}
    here = f"Linux {machine.release}"
    if machine.xdp == errno.EAFNOSUPPORT:
        yield Finding(
            PROBLEM,
            f"{here} has no AF_XDP, so no interface can be a port xdp:",
            "use a kernel with CONFIG_XDP_SOCKETS; packet: and tap: work without",
            figures,
        )
        return
    if machine.xdp not in (0, errno.EPERM, errno.EACCES):
        error = OSError(machine.xdp, os.strerror(machine.xdp))
        raise Unreadable(f"no socket of AF_XDP can be opened: {reason_of(error)}")
    lacks = [(what, needed) for since, what, needed in SINCE if version < since]
    if any(needed for _, needed in lacks):
        yield Finding(
            PROBLEM, f"{here} is too old for ports xdp:", "use Linux 5.9 or newer", figures
        )
        return
    found = f"{here} has AF_XDP"
    if lacks:
        found += f", without {' and '.join(what for what, _ in lacks)}"
    rights_missing = rights.missing(0, machine.capabilities)
    if machine.confined:
        rights_missing = ["the rights of root outside of its user namespace"]
    if rights_missing:
        yield Finding(
            HINT,
            f"{found}; this process lacks {' and '.join(rights_missing)}, which a port xdp: needs",
            "run as root of the machine, or give the process what it lacks",
            figures,
        )
        return
    yield Finding(OK, found, figures=figures)


def _needed(machine: Machine) -> str:
    """The mark of what only a card on PCI needs."""
    return PROBLEM if machine.own_cards else HINT
