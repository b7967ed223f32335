"""A machine for `ringline doctor`: a folder with files of the kernel; every line is well in it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from ringline.pipeline.commands.doctor import doctor
from ringline.pipeline.commands.doctor.findings import Finding
from ringline.pipeline.commands.doctor.machine import Machine

CARD = "0000:01:00.0"
GROUP = "sys/kernel/iommu_groups/1"
CPU = "sys/devices/system/cpu"
NODES = "sys/devices/system/node"
POOL = "sys/kernel/mm/hugepages/hugepages-2048kB"
WELL = {
    f"sys/bus/pci/devices/{CARD}/numa_node": "0",
    f"{GROUP}/type": "DMA",
    "sys/class/iommu/dmar0/x": "",
    "sys/firmware/acpi/tables/DMAR": "",
    "sys/module/vfio_iommu_type1/parameters/dma_entry_limit": "65535",
    "sys/kernel/security/lockdown": "[none] integrity confidentiality",
    f"{POOL}/nr_hugepages": "64",
    f"{POOL}/free_hugepages": "60",
    f"{POOL}/resv_hugepages": "2",
    f"{NODES}/online": "0",
    f"{NODES}/node0/cpulist": "0-3",
    f"{NODES}/node0/distance": "10",
    f"{NODES}/node0/hugepages/hugepages-2048kB/nr_hugepages": "64",
    f"{NODES}/node0/hugepages/hugepages-2048kB/free_hugepages": "60",
    f"{CPU}/isolated": "1-3",
    f"{CPU}/nohz_full": "1-3",
    **{f"{CPU}/cpu{cpu}/cpufreq/scaling_governor": "performance" for cpu in range(4)},
    "sys/fs/cgroup/cpu.max": "max 100000",
    "proc/self/cgroup": "0::/ringline.slice/edge.service",
    "proc/self/uid_map": "         0          0 4294967295",
    "proc/self/mounts": "none /dev/hugepages hugetlbfs rw,pagesize=2M 0 0",
    "proc/meminfo": "MemTotal: 16 kB\nHugepagesize:    2048 kB",
    "proc/cmdline": "quiet intel_iommu=on",
    "dev/vfio/1": "",
    "dev/vfio/vfio": "",
}
ALL = (1 << 41) - 1  # capabilities


def put(root: Path, files: Mapping[str, str | None]) -> None:
    """Write the files below `root`; None removes one, or a folder."""
    for name, text in files.items():
        path = root / name
        if text is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def card(
    root: Path,
    address: str = CARD,
    number: int = 0x10FB,
    driver: str = "vfio-pci",
    group: str = "1",
) -> Path:
    pci = root / "sys" / "bus" / "pci"
    prefix = f"sys/bus/pci/devices/{address}"
    for name, text in (("vendor", "0x8086"), ("device", f"{number:#x}"), ("class", "0x020000")):
        put(root, {f"{prefix}/{name}": text})
    folder = root / prefix
    if driver:
        (pci / "drivers" / driver).mkdir(parents=True, exist_ok=True)
        (folder / "driver").symlink_to(pci / "drivers" / driver)
    if group:
        of_group = root / "sys" / "kernel" / "iommu_groups" / group
        (of_group / "devices").mkdir(parents=True, exist_ok=True)
        (of_group / "devices" / address).symlink_to(folder)
        (folder / "iommu_group").symlink_to(of_group)
    return folder


def well(tmp_path: Path) -> Machine:
    """The machine below `tmp_path`."""
    put(tmp_path, WELL)
    card(tmp_path)
    return Machine(
        sys=tmp_path / "sys",
        proc=tmp_path / "proc",
        dev=tmp_path / "dev",
        cpus=(0, 1, 2, 3),
        memlock=-1,
        nofile=(1024, 4096),
        capabilities=ALL,
        xdp=0,
        release="6.18.44",
        user=0,
    )


def of_line(machine: Machine, name: str) -> list[Finding]:
    return [finding for line, finding in doctor.examine(machine) if line == name]
