"""What the lines of `ringline doctor` look at: the kernel's files, and the rights of this process.

All of it is read once or when a line asks for it, and nothing is changed. A test gives other
folders and numbers.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ringline.pipeline.commands.doctor.findings import LOOK_FURTHER, Unreadable
from ringline.pipeline.ports.interfaces.capabilities import NET_ADMIN, effective
from ringline.pipeline.ports.pci.known import CARDS
from ringline.pipeline.ports.pci.sysfs import PciDevice, devices_folder, sysfs_root
from ringline.shm.errors import EnvironmentLacks, reason_of

AF_XDP = 44  # linux/socket.h; Python before 3.14 does not name it
WHOLE_MACHINE = ["0", "0", str((1 << 32) - 1)]  # /proc/self/uid_map: user_namespaces(7)


@dataclass(frozen=True)
class Machine:
    """`sys`, `proc` and `dev` are the folders of these names. `cpus` are those that this process
    may use. `memlock` is its limit of locked memory in bytes, `nofile` its soft and its hard limit
    of open files; -1: no limit. `capabilities` are effective, one bit each. `xdp` is the error of
    opening a socket of AF_XDP, 0 without one. `release` is that of the kernel, `user` the number of
    the user."""

    sys: Path
    proc: Path
    dev: Path
    cpus: tuple[int, ...]
    memlock: int
    nofile: tuple[int, int]
    capabilities: int
    xdp: int
    release: str
    user: int

    def sysfs(self, name: str) -> Path:
        """A path below `sys`. Raises Unreadable when the first folder on the way is not there."""
        first = self.sys / Path(name).parts[0]
        if not first.is_dir():
            raise Unreadable(f"there is no {first}", "mount sysfs (mount -t sysfs none /sys)")
        return self.sys / name

    def has(self, capability: int) -> bool:
        """Whether this process has the capability with this number."""
        return bool(self.capabilities >> capability & 1)

    @cached_property
    def confined(self) -> bool:
        """Whether this process is in a user namespace of its own: root is not root of the machine
        there."""
        lines = read(self.proc / "self" / "uid_map").splitlines()
        return bool(lines) and [line.split() for line in lines] != [WHOLE_MACHINE]

    @cached_property
    def network_cards(self) -> list[PciDevice]:
        """The network cards on PCI, without those that cannot be read."""
        found = []
        for path in sorted(devices_folder(self.sys).glob("*")):
            with contextlib.suppress(EnvironmentLacks):
                device = PciDevice(path.name, self.sys)
                if device.network:
                    found.append(device)
        return found

    @cached_property
    def own_cards(self) -> list[PciDevice]:
        """The cards for which there is a driver here."""
        found = []
        for device in self.network_cards:
            with contextlib.suppress(EnvironmentLacks):
                if device.identity in CARDS:
                    found.append(device)
        return found

    @cached_property
    def opens_cards(self) -> bool:
        """Whether this process seems to be meant for real cards and interfaces: it has rights on
        the network, or somebody has given a card to VFIO."""
        return self.has(NET_ADMIN) or any(device.driver == "vfio-pci" for device in self.own_cards)


def this_machine() -> Machine:
    """The machine on which this process runs."""
    return Machine(
        sys=sysfs_root(),
        proc=Path("/proc"),
        dev=Path("/dev"),
        cpus=tuple(sorted(os.sched_getaffinity(0))),
        memlock=resource.getrlimit(resource.RLIMIT_MEMLOCK)[0],
        nofile=resource.getrlimit(resource.RLIMIT_NOFILE),
        capabilities=effective(),
        xdp=_error_of_xdp(),
        release=os.uname().release,
        user=os.geteuid(),
    )


def _error_of_xdp() -> int:
    try:
        socket.socket(AF_XDP, socket.SOCK_RAW).close()
    except OSError as error:
        return error.errno or -1
    return 0


def read(path: Path) -> str:
    """The text of a file, without blanks around it; "" when there is none. Raises Unreadable."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        raise unreadable(path, error) from None


def number(path: Path) -> int:
    """The number in a file; 0 when there is none. Raises Unreadable."""
    text = read(path) or "0"
    try:
        return int(text)
    except ValueError:
        raise Unreadable(f"{path} does not hold a number") from None


def names(folder: Path) -> list[str]:
    """What is in a folder, in the order of the numbers in the names; nothing when there is none.
    Raises Unreadable."""
    try:
        found = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise unreadable(folder, error) from None
    return sorted(found, key=lambda name: (int("0" + "".join(filter(str.isdigit, name))), name))


def unreadable(path: Path, error: OSError) -> Unreadable:
    """The sentence about a path that cannot be read."""
    remedy = "run as root" if isinstance(error, PermissionError) else LOOK_FURTHER
    return Unreadable(f"{path} cannot be read: {reason_of(error)}", remedy)


def cpus_in(text: str) -> list[int]:
    """The CPUs of a list as the kernel writes it: `0-3,8`. `(null)` is an empty list."""
    found: list[int] = []
    for part in text.replace("(null)", "").split(","):
        first, _, last = part.strip().partition("-")
        if first:
            found += range(int(first), int(last or first) + 1)
    return found


def cpu_list(cpus: Iterable[int]) -> str:
    """CPUs as the kernel writes a list of them: `0-3,8`."""
    spans: list[list[int]] = []
    for cpu in sorted(set(cpus)):
        if spans and cpu == spans[-1][1] + 1:
            spans[-1][1] = cpu
        else:
            spans.append([cpu, cpu])
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in spans)
