"""`ringline doctor`: what each line finds on a machine that is well, and with one thing changed."""

from __future__ import annotations

import errno
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from ringline.pipeline.commands.doctor import doctor
from ringline.pipeline.commands.doctor.findings import HINT, OK, PROBLEM
from ringline.pipeline.commands.doctor.machine import Machine

from .fake_machine import ALL, CARD, CPU, GROUP, NODES, POOL, of_line, put, well

NONE: dict[str, str | None] = {}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return well(tmp_path)


def test_a_machine_that_is_well(machine: Machine) -> None:
    lines = list(doctor.examine(machine))
    assert [(name, it.mark, it.remedy) for name, it in lines] == [
        (name, OK, "") for name, _ in doctor.TABLE
    ]
    told = dict(lines)
    assert told["card"].found == (
        "0000:01:00.0, Intel 82599 (SFI, SFP+) (8086:10fb), has the driver vfio-pci; a port "
        "pci:0000:01:00.0 can use it"
    )
    assert told["iommu"].found == (
        "it is on (dmar0): 1 group, of which it translates the addresses of 1"
    )
    assert "65,535 mappings (dma_entry_limit); a run needs 2" in told["mappings"].found
    assert told["hugepages"].found == (
        "of 2 MiB, 64 are reserved and 58 free (node 0: 60 of 64 free)"
    )
    assert told["cpus"].found == (
        "this process may use 4 CPUs (0-3): one for the driver, 3 for workers"
    )
    text = doctor.as_text(lines).splitlines()
    assert text[0].startswith("ok       card       0000:01:00.0")
    assert text[-1] == "all well"


LIMITED = {"memlock": 64 << 10, "capabilities": 1 << 12}  # CAP_NET_ADMIN alone
OTHER_NODE = {
    f"{NODES}/node1/cpulist": "4-7",
    f"{NODES}/node1/distance": "21 10",
    f"{NODES}/node0/distance": "10 21",
}


@pytest.mark.parametrize(
    ("line", "files", "changes", "mark", "words"),
    [
        ("iommu", {f"{GROUP}/type": "identity"}, {}, OK, "1 uses physical addresses (iommu=pt)"),
        ("iommu", {f"{GROUP}/type": None}, {}, OK, "1 group, of which it translates"),
        (
            "iommu",
            {f"{GROUP}/name": "vfio-noiommu"},
            {},
            PROBLEM,
            "the firmware offers one (Intel VT-d, ACPI table DMAR)* add intel_iommu=on",
        ),
        (
            "iommu",
            {GROUP: None, "sys/firmware/acpi/tables/DMAR": None},
            {},
            PROBLEM,
            "no device is in an IOMMU group; the kernel's command line says intel_iommu=on",
        ),
        (
            "iommu",
            {
                GROUP: None,
                "sys/firmware/acpi/tables/DMAR": None,
                "sys/firmware/acpi/tables/APIC": "",
            },
            {},
            PROBLEM,
            "the firmware offers none * switch on VT-d or AMD-Vi in the firmware",
        ),
        (
            "iommu",
            {
                GROUP: None,
                "sys/firmware/acpi/tables/DMAR": None,
                "sys/firmware/acpi/tables/IVRS": "",
                "proc/cmdline": "amd_iommu=off quiet",
            },
            {},
            PROBLEM,
            "(AMD-Vi, ACPI table IVRS); the kernel's command line says amd_iommu=off* take amd_io",
        ),
        (
            "iommu",
            {GROUP: None, f"sys/bus/pci/devices/{CARD}": None},
            {},
            HINT,
            "only a port pci: needs one",
        ),
        (
            "iommu",
            {f"sys/bus/pci/devices/{CARD}/iommu_group": None},
            {},
            PROBLEM,
            "in none of them is 0000:01:00.0* another slot",
        ),
        ("vfio", {"sys/bus/pci/drivers/vfio-pci": None}, {}, PROBLEM, "modprobe vfio-pci"),
        (
            "vfio",
            {"sys/bus/pci/drivers/vfio-pci": None, f"sys/bus/pci/devices/{CARD}": None},
            {},
            HINT,
            "only a port pci: needs it",
        ),
        ("vfio", {"dev/vfio/1": None}, {}, PROBLEM, "but there is no */dev/vfio/1 here*--device"),
        (
            "mappings",
            {"sys/module/vfio_iommu_type1/parameters/dma_entry_limit": "1"},
            {},
            PROBLEM,
            "a run 1 mappings * a run needs 2* echo 65535 > ",
        ),
        ("mappings", {"sys/module/vfio_iommu_type1": None}, {}, OK, "not known before the module"),
        (
            "mappings",
            {"sys/module/vfio_iommu_type1/parameters": None, "sys/module/vfio_iommu_type1/x": ""},
            {},
            OK,
            "does not limit the mappings",
        ),
        (
            "lockdown",
            {"sys/kernel/security/lockdown": "none [integrity] confidentiality"},
            {},
            HINT,
            "locked down (integrity, as with Secure Boot)*through an IOMMU and VFIO",
        ),
        (
            "lockdown",
            {"sys/kernel/security/lockdown": "none [integrity] confidentiality", GROUP: None},
            {},
            PROBLEM,
            "locked down (integrity",
        ),
        ("lockdown", {"sys/kernel/security": None}, {}, HINT, "is empty*mount -t securityfs"),
        (
            "lockdown",
            {"sys/kernel/security/lockdown": None, "sys/kernel/security/lsm": "x"},
            {},
            OK,
            "is not locked down",
        ),
        ("xdp", NONE, {"xdp": errno.EAFNOSUPPORT}, PROBLEM, "has no AF_XDP*CONFIG_XDP_SOCKETS"),
        ("xdp", NONE, {"xdp": errno.EMFILE}, HINT, "Too many open files"),
        ("xdp", NONE, {"release": "5.4.0-1"}, PROBLEM, "Linux 5.4.0-1 is too old*5.9"),
        (
            "xdp",
            NONE,
            {"release": "5.10.0"},
            OK,
            "without busy_poll_us and a way to ask what a driver does with XDP",
        ),
        ("xdp", NONE, {"release": "6.1"}, OK, "without a way to ask what a driver does with XDP"),
        (
            "xdp",
            NONE,
            {"xdp": errno.EPERM, "capabilities": 0},
            HINT,
            "lacks CAP_NET_ADMIN and CAP_NET_RAW and CAP_BPF*run as root",
        ),
        (
            "xdp",
            {"proc/self/uid_map": "0 100000 65536"},
            {},
            HINT,
            "lacks the rights of root outside of its user namespace",
        ),
        (
            "hugepages",
            {
                f"{POOL}/nr_hugepages": "0",
                f"{POOL}/free_hugepages": "0",
                f"{POOL}/resv_hugepages": "0",
            },
            {},
            HINT,
            "of 2 MiB, 0 are reserved and 0 free; * 3 queues needs *vm.nr_hugepages=",
        ),
        ("hugepages", {f"{POOL}/free_hugepages": "2"}, {}, HINT, "64 are reserved and 0 free"),
        (
            "hugepages",
            {
                "sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages": "4",
                "sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages": "3",
            },
            {},
            OK,
            "; of 1 GiB, 4 are reserved and 3 free",
        ),
        (
            "hugepages",
            {f"{NODES}/node0/hugepages/hugepages-2048kB/free_hugepages": "0"},
            {},
            HINT,
            "node 0, which has the card 0000:01:00.0, has none free*/sys/devices/system/node/node0",
        ),
        (
            "hugepages",
            {"proc/self/mounts": "none / tmpfs rw 0 0"},
            {"user": 1000},
            HINT,
            "no hugetlbfs is mounted*uid=1000",
        ),
        ("hugepages", {"sys/kernel/mm": None, "proc/meminfo": ""}, {}, HINT, "CONFIG_HUGETLBFS"),
        ("memlock", NONE, LIMITED, PROBLEM, "the limit is 64 KiB*LimitMEMLOCK=infinity"),
        ("memlock", NONE, {**LIMITED, "memlock": 1 << 30}, OK, "the limit is 1,048,576 KiB"),
        ("memlock", NONE, {**LIMITED, "capabilities": ALL}, OK, "does not count with CAP_IPC_LOCK"),
        (
            "memlock",
            {"proc/self/uid_map": "0 100000 65536"},
            {**LIMITED, "capabilities": ALL},
            PROBLEM,
            "the limit is 64 KiB",
        ),
        ("memlock", NONE, {**LIMITED, "capabilities": 0}, PROBLEM, "the limit is 64 KiB"),
        (
            "memlock",
            {f"sys/bus/pci/devices/{CARD}": None},
            {**LIMITED, "capabilities": 0},
            HINT,
            "the limit is 64 KiB",
        ),
        ("nofile", NONE, {"nofile": (64, 4096)}, PROBLEM, "the limit is 64;*ulimit -n *,"),
        ("nofile", NONE, {"nofile": (64, 64)}, PROBLEM, "as root: the hard limit is 64"),
        ("nofile", NONE, {"nofile": (-1, -1)}, OK, "the limit is no limit"),
        (
            "cpus",
            {"sys/fs/cgroup/ringline.slice/cpu.max": "150000 100000"},
            {},
            HINT,
            "only for the time of 1.5 *--cpuset-cpus",
        ),
        ("cpus", NONE, {"cpus": (2,)}, HINT, "1 CPU (2), which the driver and the workers share"),
        (
            "isolation",
            {f"{CPU}/isolated": ""},
            {},
            HINT,
            "not necessary*isolcpus=1-3 nohz_full=1-3",
        ),
        ("isolation", {f"{CPU}/isolated": ""}, {"cpus": (0, 1)}, HINT, "more than two CPUs"),
        ("isolation", NONE, {"cpus": (0, 1)}, HINT, "may not use CPU 2-3*taskset -c 0-3"),
        ("isolation", {f"{CPU}/nohz_full": "(null)"}, {}, HINT, "interrupts CPU 1-3*nohz_full=1-3"),
        (
            "governor",
            {f"{CPU}/cpu2/cpufreq/scaling_governor": "powersave"},
            {},
            HINT,
            "performance (3 CPUs), powersave (1 CPU)*cpupower",
        ),
        ("governor", {f"{CPU}/cpu{cpu}": None for cpu in range(4)}, {}, OK, "no cpufreq"),
        ("numa", OTHER_NODE, {}, OK, "0000:01:00.0 is on node 0, as CPU 0-3, at distance 10"),
        (
            "numa",
            OTHER_NODE,
            {"cpus": tuple(range(8))},
            HINT,
            "may use CPU 4-7 on node 1, at distance 21. To do: set driver.cpu * CPUs of 0-3",
        ),
        (
            "numa",
            OTHER_NODE,
            {"cpus": (4, 5)},
            HINT,
            "CPU 4-5 on node 1, at distance 21. To do: let ringline use CPUs of 0-3",
        ),
        (
            "numa",
            {**OTHER_NODE, f"{NODES}/node0/cpulist": ""},
            {"cpus": (4,)},
            HINT,
            "a slot of a node with CPUs",
        ),
        (
            "numa",
            {**OTHER_NODE, f"sys/bus/pci/devices/{CARD}/numa_node": "-1"},
            {},
            OK,
            "2 NUMA nodes; it names that of no network card",
        ),
    ],
)
def test_what_each_line_finds(
    machine: Machine,
    tmp_path: Path,
    line: str,
    files: dict[str, str | None],
    changes: dict[str, Any],
    mark: str,
    words: str,
) -> None:
    put(tmp_path, files)
    (found,) = of_line(replace(machine, **changes), line)
    text = doctor.as_text([(line, found)])
    # A * in `words` stands for anything.
    assert found.mark == mark, text
    assert bool(found.remedy) == (mark != OK), text
    assert fnmatchcase(text, f"*{words}*"), text
