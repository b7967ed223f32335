"""What is lost with the card of an interface."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ringline.pipeline.ports.interfaces import carries
from ringline.pipeline.ports.interfaces.carries import carried, is_up
from ringline.pipeline.ports.pci.sysfs import PciDevice
from ringline.shm.errors import EnvironmentLacks

ADDRESS = "0000:03:00.0"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a network namespace")


def folder(root: Path, name: str, **files: str) -> Path:
    made = root / "class" / name
    made.mkdir(parents=True)
    for file, text in files.items():
        (made / file).write_text(text + "\n")
    return made


def put_on(upper: Path, lower: Path, *, owns: bool = False) -> None:
    (lower / f"upper_{upper.name}").symlink_to(upper)
    if owns:
        (lower / "master").symlink_to(upper)


def test_an_interface_that_does_nothing_carries_nothing(tmp_path: Path) -> None:
    assert carried(folder(tmp_path, "eth7", flags="0x1003", operstate="up")) == []


@pytest.mark.parametrize(
    ("files", "up"),
    [
        ({"flags": "0x1003", "operstate": "down"}, True),
        ({"flags": "0x1002", "operstate": "up"}, False),
        ({"operstate": "up"}, True),
        ({}, False),
    ],
)
def test_an_interface_is_up_when_its_driver_uses_the_card(
    tmp_path: Path, files: dict[str, str], up: bool
) -> None:
    assert is_up(folder(tmp_path, "eth7", **files)) is up


def test_what_is_on_top_counts_too(tmp_path: Path) -> None:
    """A VLAN on a bond on a card, and a bridge that owns the VLAN."""
    eth7, bond0 = folder(tmp_path, "eth7"), folder(tmp_path, "bond0")
    vlan, bridge = folder(tmp_path, "bond0.5"), folder(tmp_path, "br0")
    put_on(bond0, eth7, owns=True)
    put_on(vlan, bond0)
    put_on(bridge, vlan, owns=True)
    assert carried(eth7) == [
        "eth7 belongs to bond0",
        "bond0.5 receives through bond0",
        "bond0.5 belongs to br0",
    ]


COMMANDS = """
ip link set lo up
ip link add eth7 type veth peer name peer
ip link set eth7 up; ip link set peer up
ip link add br0 type bridge; ip link set br0 up; ip link set eth7 master br0
ip addr add 10.78.0.2/24 dev br0
ip route add default via 10.78.0.1
"""
PROGRAM = """
import os
from pathlib import Path
from ringline.pipeline.ports.interfaces import carries
carries.MOUNTS = Path("mounts")
os.environ["SSH_CONNECTION"] = "10.78.0.77 40000 10.78.0.2 22"
for part in carries.carried(Path("/sys/class/net/eth7")):
    print(part)
"""


@needs_root
def test_a_file_system_over_the_network_is_named(tmp_path: Path) -> None:
    """With the bridge that has the address, the route and the session. /sys of the kernel shows the
    interfaces of the namespace in which it is mounted."""
    (tmp_path / "mounts").write_text(
        "10.78.0.9:/root / nfs ro,vers=3,addr=10.78.0.9 0 0\n"
        "10.78.0.9:/data /data nfs4 rw,clientaddr=10.78.0.2,addr=10.78.0.9 0 0\n"
        "127.0.0.1:/here /here nfs rw,addr=127.0.0.1 0 0\n"
        "tmpfs /tmp tmpfs rw 0 0\n"
    )
    mount = "mount -t sysfs none /sys\n"
    (tmp_path / "program").write_text(PROGRAM)
    line = ["unshare", "--net", "--mount", "sh", "-ec"]
    done = subprocess.run(
        [*line, f"{mount}{COMMANDS}\nexec {sys.executable} program"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[0] == "eth7 belongs to br0"
    for part in (
        "br0 carries the default route through 10.78.0.1",
        "br0 carries your ssh session from 10.78.0.77",
        "br0 carries the root file system, which is on 10.78.0.9",
        "br0 carries the file system at /data, which is on 10.78.0.9",
    ):
        assert part in said
    assert any(part.startswith("br0 has the addresses 10.78.0.2") for part in said)
    assert not [part for part in said if "/here" in part]


def card(root: Path, name: str = "") -> PciDevice:
    made = root / "bus" / "pci" / "devices" / ADDRESS
    made.mkdir(parents=True)
    for file, text in (("vendor", "0x8086"), ("device", "0x10fb"), ("class", "0x020000")):
        (made / file).write_text(text + "\n")
    driver = made.parents[1] / "drivers" / "ixgbe"
    driver.mkdir(parents=True)
    (made / "driver").symlink_to(driver)
    if name:
        (made / "net" / name).mkdir(parents=True)
    return PciDevice(ADDRESS, root)


def test_a_card_that_carries_something_is_refused_with_what_would_be_lost(tmp_path: Path) -> None:
    device = card(tmp_path, "eth7")
    put_on(folder(tmp_path, "bond0"), device.interfaces[0], owns=True)
    with pytest.raises(EnvironmentLacks) as caught:
        device.check_unused()
    assert str(caught.value) == (
        f"PCI device {ADDRESS} is in use by its kernel driver ixgbe: eth7 belongs to bond0; all "
        "that would be lost: use another card, or give up this one "
        f"(ringline bind {ADDRESS} --force)"
    )


def test_a_card_whose_interface_is_elsewhere_counts_as_in_use(tmp_path: Path) -> None:
    device = card(tmp_path)
    device.real = True
    assert device.lost == (
        "its kernel driver ixgbe shows no interface here, and may have it in another network "
        "namespace (a container)"
    )


def test_a_card_without_a_kernel_driver_carries_nothing(tmp_path: Path) -> None:
    device = card(tmp_path)
    (device.folder / "driver").unlink()
    assert device.lost == ""
    assert carries.MOUNTS.exists()
