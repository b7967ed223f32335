"""The lines about processors: how many there are, who else runs on them, their clock, and how far
they are from the cards.

The files are described in the kernel's Documentation/ABI/testing/sysfs-devices-system-cpu and
ABI/stable/sysfs-devices-node, cpu.max in admin-guide/cgroup-v2.rst. A distance is that of ACPI's
SLIT: 10 is the node itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ringline.pipeline.commands.doctor.findings import HINT, OK, Figure, Finding
from ringline.pipeline.commands.doctor.machine import Machine, cpu_list, cpus_in, names, read
from ringline.pipeline.ports.pci.sysfs import PciDevice
from ringline.shm.text import counted

LINE = "in the kernel's command line"


def cpus(machine: Machine) -> Iterator[Finding]:
    """How many CPUs this process may use, and for how much of the time."""
    count = len(machine.cpus)
    found = f"this process may use {counted(count, 'CPU')} ({cpu_list(machine.cpus)})"
    share = _share(machine)
    figures = {"cpus": count, "quota_cpus": share}
    if share is not None and share < count:
        yield Finding(
            HINT,
            f"{found}, but only for the time of {share:g} (cpu.max of its cgroup); then all of its "
            "processes are stopped for some ms",
            "give it whole CPUs instead (--cpuset-cpus of the container, AllowedCPUs= of the "
            "service)",
            figures,
        )
    elif count == 1:
        yield Finding(
            HINT,
            f"{found}, which the driver and the workers share",
            "give it one for the driver and one for each queue (taskset, AllowedCPUs=, "
            "--cpuset-cpus)",
            figures,
        )
    else:
        yield Finding(OK, f"{found}: one for the driver, {count - 1} for workers", figures=figures)


def _share(machine: Machine) -> float | None:
    """The CPUs for whose time the cgroup of this process, or one above it, may run; None without a
    limit. Only cgroups of version 2 are looked at."""
    top = machine.sys / "fs" / "cgroup"
    own = [
        line.removeprefix("0::/")
        for line in read(machine.proc / "self" / "cgroup").splitlines()
        if line.startswith("0::/")
    ]
    inner = top.joinpath(*own)
    shares = []
    for folder in (inner, *inner.parents):
        quota, _, period = read(folder / "cpu.max").partition(" ")
        if quota.isdigit() and period.isdigit():
            shares.append(int(quota) / int(period))
        if folder == top:
            break
    return min(shares, default=None)


def isolation(machine: Machine) -> Iterator[Finding]:
    """Whether other programs and the clock's tick stay away from CPUs. Not necessary."""
    folder = machine.sysfs("devices/system/cpu")
    isolated, tickless = (cpus_in(read(folder / name)) for name in ("isolated", "nohz_full"))
    figures = {"isolated": cpu_list(isolated), "nohz_full": cpu_list(tickless)}
    if not isolated:
        spare = cpu_list(machine.cpus[1:])
        yield Finding(
            HINT,
            "no CPU is isolated, so other programs may delay packets; isolation is not necessary",
            f"for steady delays, set isolcpus={spare} nohz_full={spare} {LINE}, and driver.cpu and "
            "worker.cpus to these CPUs"
            if len(machine.cpus) > 2
            else "it needs more than two CPUs",
            figures,
        )
        return
    found = f"CPU {cpu_list(isolated)} is isolated"
    outside = cpu_list(set(isolated) - set(machine.cpus))
    ticking = cpu_list(set(isolated) - set(tickless))
    if outside:
        yield Finding(
            HINT,
            f"{found}, but this process may not use CPU {outside}",
            f"start ringline with taskset -c {cpu_list({*machine.cpus, *isolated})} (CPUAffinity= "
            "of the service), and set driver.cpu and worker.cpus",
            figures,
        )
    elif ticking:
        yield Finding(
            HINT,
            f"{found}, but the tick of the clock interrupts CPU {ticking}",
            f"set nohz_full={cpu_list(isolated)} {LINE}",
            figures,
        )
    else:
        yield Finding(OK, f"{found}, without a tick of the clock", figures=figures)


def governor(machine: Machine) -> Iterator[Finding]:
    """Which governor chooses the clock of the CPUs that this process may use."""
    folder = machine.sysfs("devices/system/cpu")
    chosen = Counter(
        name
        for cpu in machine.cpus
        if (name := read(folder / f"cpu{cpu}" / "cpufreq" / "scaling_governor"))
    )
    if not chosen:
        yield Finding(OK, "the kernel does not change the clock of the CPUs here (no cpufreq)")
        return
    told = ", ".join(f"{name} ({counted(count, 'CPU')})" for name, count in chosen.items())
    slow = set(chosen) - {"performance"}
    yield Finding(
        HINT if slow else OK,
        f"the governor is {told}" + ("; after a pause, CPUs begin slowly" if slow else ""),
        "cpupower frequency-set -g performance" if slow else "",
        dict(chosen),
    )


def numa(machine: Machine) -> Iterator[Finding]:
    """How far each network card is from the CPUs that this process may use."""
    folder = machine.sysfs("devices/system") / "node"
    nodes = [int(name[4:]) for name in names(folder) if name[4:].isdigit()]
    placed = [card for card in machine.network_cards if card.numa_node is not None]
    if len(nodes) < 2 or not placed:
        yield Finding(
            OK,
            "this machine has one NUMA node: all CPUs are near all cards"
            if len(nodes) < 2
            else f"this machine has {len(nodes)} NUMA nodes; it names that of no network card",
            figures={"nodes": len(nodes)},
        )
        return
    places = {node: set(cpus_in(read(folder / f"node{node}" / "cpulist"))) for node in nodes}
    for card in placed:
        row = read(folder / f"node{card.numa_node}" / "distance").split()
        yield _distance(machine, card, places, dict(zip(nodes, map(int, row), strict=False)))


def _distance(
    machine: Machine, card: PciDevice, places: dict[int, set[int]], distances: dict[int, int]
) -> Finding:
    usable = set(machine.cpus)
    home = card.numa_node
    assert home is not None
    near = places.get(home, set())
    far = {node: cpu_list(cpus & usable) for node, cpus in places.items() if node != home}
    away = "; ".join(
        f"CPU {cpus} on node {node}, at distance {distances.get(node, '?')}"
        for node, cpus in far.items()
        if cpus
    )
    found = f"{card.address} is on node {home}"
    if near & usable:
        found += f", as CPU {cpu_list(near & usable)}, at distance {distances.get(home, 10)}"
    figures: dict[str, Figure] = {
        "node": home,
        "distances": {str(node): it for node, it in distances.items()},
    }
    if not away:
        return Finding(OK, found, figures=figures)
    remedy = (
        f"set driver.cpu and worker.cpus to CPUs of {cpu_list(near & usable)}"
        if near & usable
        else f"let ringline use CPUs of {cpu_list(near)} (taskset, AllowedCPUs=, --cpuset-cpus)"
        if near
        else "put the card into a slot of a node with CPUs"
    )
    return Finding(HINT, f"{found}; this process may use {away}", remedy, figures)
