"""The lines about memory and limits: hugepages, locked memory, open files.

The pools of hugepages and their share of each NUMA node are described in the kernel's
admin-guide/mm/hugetlbpage.rst, limits in getrlimit(2). The kernel counts locked memory against the
limit unless the process has CAP_IPC_LOCK outside of every user namespace.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ringline.pipeline.commands.doctor.findings import HINT, OK, PROBLEM, Finding
from ringline.pipeline.commands.doctor.machine import Machine, names, number, read
from ringline.pipeline.configuration.config import QUEUES_MAX, Config, PortConfig, WorkerConfig
from ringline.pipeline.ports.interfaces.capabilities import IPC_LOCK
from ringline.shm.hugepages import POOLS, size_text
from ringline.shm.packets import PacketMemory
from ringline.shm.text import counted

# Open files of the supervisor, which has the most: in any run, and for each worker. It had 121 with
# 16 workers.
FILES, FILES_OF_A_WORKER = 64, 8


@dataclass(frozen=True)
class Pool:
    """Hugepages of `size` bytes: those reserved, and those that nobody uses or has claimed; of each
    NUMA node, both without claims, since the kernel counts those for the machine only."""

    size: int
    total: int
    free: int
    nodes: dict[int, tuple[int, int]]

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"hugepages-{self.size >> 10}kB"


def hugepages(machine: Machine) -> Iterator[Finding]:
    """Hugepages that are reserved and free, on each NUMA node too."""
    usual = _usual_size(machine)
    pools = [pool for pool in _pools(machine) if pool.total or pool.size == usual]
    if not pools:
        yield Finding(HINT, "this kernel has no hugepages", "use a kernel with CONFIG_HUGETLBFS")
        return
    found, figures = "; ".join(map(_described, pools)), _figures(pools)
    for look in (_too_few, _none_near, _not_mounted):
        what, remedy = look(machine, pools)
        if what:
            yield Finding(HINT, f"{found}; {what}", remedy, figures)
            return
    yield Finding(OK, found, figures=figures)


def _too_few(machine: Machine, pools: list[Pool]) -> tuple[str, str]:
    """Why no pool is enough for a run, and what to do."""
    queues = _queues(machine)
    if any(pool.free >= _pages(pool, queues) for pool in pools):
        return "", ""
    pool = pools[0]
    needed = _pages(pool, queues)
    count = pool.total + needed - pool.free
    command = (
        f"sysctl -w vm.nr_hugepages={count}"
        if pool.size == _usual_size(machine)
        else f"echo {count} > {POOLS}/{pool.name}/nr_hugepages"
    )
    return (
        f"a run on one port with {counted(queues, 'queue')} needs {needed}",
        f"reserve them ({command}); without, ringline uses ordinary pages, which is slower",
    )


def _none_near(machine: Machine, pools: list[Pool]) -> tuple[str, str]:
    """Which node with a card has no free page, and what to do."""
    pool = pools[0]
    for card in machine.own_cards:
        node = card.numa_node
        if node is None or any(each.nodes.get(node, (0, 1))[1] for each in pools):
            continue
        count = pool.nodes.get(node, (0, 0))[0] + _pages(pool, _queues(machine))
        return (
            f"node {node}, which has the card {card.address}, has none free",
            f"reserve some there (echo {count} > /sys/devices/system/node/node{node}/hugepages/"
            f"{pool.name}/nr_hugepages)",
        )
    return "", ""


def _not_mounted(machine: Machine, pools: list[Pool]) -> tuple[str, str]:
    """Why this user gets no page, and what to do. For root, ringline mounts a hugetlbfs itself."""
    if not machine.user or " hugetlbfs " in read(machine.proc / "self" / "mounts"):
        return "", ""
    return (
        "no hugetlbfs is mounted, so this user cannot have them",
        f"as root: mount -t hugetlbfs -o uid={machine.user},mode=0700,pagesize="
        f"{pools[0].size >> 20}M none DIRECTORY",
    )


def locked(machine: Machine) -> Iterator[Finding]:
    """The limit of locked memory, against what cards and AF_XDP lock."""
    queues = _queues(machine)
    needed = packet_bytes(queues)
    run = f"a run on one port with {counted(queues, 'queue')} locks {needed >> 10:,} KiB"
    figures = {"limit_bytes": machine.memlock, "needed_bytes": needed}
    if machine.memlock < 0:
        yield Finding(OK, f"there is no limit; {run}", figures=figures)
        return
    limit = f"the limit is {machine.memlock >> 10:,} KiB"
    if machine.has(IPC_LOCK) and not machine.confined:
        yield Finding(OK, f"{limit}, but does not count with CAP_IPC_LOCK; {run}", figures=figures)
    elif machine.memlock >= needed:
        yield Finding(OK, f"{limit}; {run}", figures=figures)
    else:
        yield Finding(
            PROBLEM if machine.opens_cards else HINT,
            f"{limit}; {run}, which a port pci: or xdp: needs",
            "raise it (ulimit -l unlimited, LimitMEMLOCK=infinity of the service, "
            "--ulimit memlock=-1 of the container)",
            figures,
        )


def files(machine: Machine) -> Iterator[Finding]:
    """The limit of open files, against what the largest run opens."""
    soft, hard = machine.nofile
    queues = _queues(machine)
    needed, most = (FILES + FILES_OF_A_WORKER * count for count in (queues, QUEUES_MAX))
    limit = "no limit" if soft < 0 else f"{soft:,}"
    found = (
        f"the limit is {limit}; a run with {counted(queues, 'queue')} opens fewer than {needed}, "
        f"one with {QUEUES_MAX} fewer than {most}"
    )
    figures = {"limit": soft, "hard_limit": hard, "needed": needed}
    if soft < 0 or soft >= needed:
        yield Finding(OK, found, figures=figures)
        return
    up = "" if hard < 0 or hard >= needed else f" (as root: the hard limit is {hard:,})"
    yield Finding(
        PROBLEM,
        found,
        f"raise it (ulimit -n {most}{up}, or LimitNOFILE= of the service)",
        figures,
    )


def packet_bytes(queues: int) -> int:
    """Bytes of packet memory of a run on one card, with defaults."""
    port = PortConfig("port", "pci:0000:00:00.0", queues=queues)
    config = Config(ports=(port,), workers=(WorkerConfig(),) * queues)
    return PacketMemory.bytes_of(config.buffers, config.buffer_units)


def _queues(machine: Machine) -> int:
    """The queues of a run that names none."""
    return min(max(len(machine.cpus) - 1, 1), QUEUES_MAX)


def _pages(pool: Pool, queues: int) -> int:
    """The pages of a pool that a run needs: packet memory, and one for descriptors."""
    return -(-packet_bytes(queues) // pool.size) + 1


def _usual_size(machine: Machine) -> int:
    """The size in bytes of the pages that vm.nr_hugepages reserves; 0 without hugepages."""
    lines = read(machine.proc / "meminfo").splitlines()
    sizes = [int(line.split()[1]) << 10 for line in lines if line.startswith("Hugepagesize:")]
    return sizes[0] if sizes else 0


def _pools(machine: Machine) -> Iterator[Pool]:
    nodes = machine.sys / "devices" / "system" / "node"
    folder = machine.sysfs("kernel") / "mm" / "hugepages"
    for name in names(folder):
        pool = folder / name
        shares = {}
        for node in names(nodes):
            share = nodes / node / "hugepages" / name
            if share.is_dir():
                shares[int(node.removeprefix("node"))] = (
                    number(share / "nr_hugepages"),
                    number(share / "free_hugepages"),
                )
        yield Pool(
            size=int("".join(filter(str.isdigit, name))) << 10,
            total=number(pool / "nr_hugepages"),
            free=number(pool / "free_hugepages") - number(pool / "resv_hugepages"),
            nodes=shares,
        )


def _figures(pools: list[Pool]) -> dict[str, dict[str, int]]:
    found = {}
    for pool in pools:
        found[size_text(pool.size)] = {"reserved": pool.total, "free": pool.free}
        for node, (total, free) in pool.nodes.items():
            found[f"{size_text(pool.size)}, node {node}"] = {"reserved": total, "free": free}
    return found


def _described(pool: Pool) -> str:
    shares = ", ".join(
        f"node {node}: {free} of {total} free" for node, (total, free) in pool.nodes.items()
    )
    return f"of {size_text(pool.size)}, {pool.total} are reserved and {pool.free} free" + (
        f" ({shares})" if pool.total and shares else ""
    )
