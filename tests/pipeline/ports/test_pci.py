"""PCI devices below a fake sysfs root that the tests make."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ringline.pipeline.configuration.config import PortConfig
from ringline.pipeline.ports.create import create_port
from ringline.pipeline.ports.pci import users
from ringline.pipeline.ports.pci.sysfs import PciDevice, stop_dma
from ringline.shm.errors import ConfigurationError, EnvironmentLacks

ADDRESS = "0000:03:00.0"
BAR_BYTES = 0x20000


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """The folder of an 82599 without a kernel driver."""
    folder = tmp_path / "bus" / "pci" / "devices" / ADDRESS
    folder.mkdir(parents=True)
    (folder / "vendor").write_text("0x8086\n")
    (folder / "device").write_text("0x10fb\n")
    (folder / "class").write_text("0x020000\n")
    (folder / "config").write_bytes(bytes(4) + b"\x40\x01" + bytes(58))
    (folder / "resource0").write_bytes(bytes(BAR_BYTES))
    return folder


def bind(device: Path, driver: str, interface: str, **files: str) -> None:
    drivers = device.parent.parent / "drivers" / driver
    drivers.mkdir(parents=True)
    (device / "driver").symlink_to(drivers)
    (device / "net" / interface).mkdir(parents=True)
    for name, text in files.items():
        (device / "net" / interface / name).write_text(text + "\n")


def test_a_missing_device_is_an_error_that_lists_the_present_ones(
    device: Path, tmp_path: Path
) -> None:
    with pytest.raises(EnvironmentLacks) as caught:
        PciDevice("0000:99:00.0", tmp_path)
    assert "0000:99:00.0" in str(caught.value)
    assert ADDRESS in str(caught.value)


def test_devices_of_which_only_links_are_there_are_not_listed(device: Path, tmp_path: Path) -> None:
    """As in a container that has /sys/bus and not /sys/devices, or while devices are removed."""
    for number in range(3):
        (device.parent / f"0000:04:00.{number}").symlink_to("../../../devices/gone")
    (device.parent / "0000:05:00.0").mkdir()
    for address in ("0000:04:00.1", "0000:99:00.0"):
        with pytest.raises(EnvironmentLacks, match=f"no PCI device {address} .*: {ADDRESS}$"):
            PciDevice(address, tmp_path)


def test_without_proc_nobody_knows_who_has_a_card(
    device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (device / "iommu_group").symlink_to(tmp_path)
    (tmp_path / "proc").mkdir()
    for proc in ("proc", "none"):
        monkeypatch.setattr(users, "PROC", str(tmp_path / proc))
        with pytest.raises(EnvironmentLacks, match="not mounted here, so it is not known who uses"):
            PciDevice(ADDRESS, tmp_path).check_unused()


def test_no_pci_at_all(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentLacks, match="there are: none"):
        PciDevice(ADDRESS, tmp_path)


def test_the_domain_may_be_left_out(device: Path, tmp_path: Path) -> None:
    assert PciDevice("03:00.0", tmp_path).identity == (0x8086, 0x10FB)


@pytest.mark.parametrize(
    "files", [{"flags": "0x1003", "operstate": "down"}, {"operstate": "up"}], ids=["flags", "state"]
)
def test_an_interface_that_is_up_is_refused_by_name(
    device: Path, tmp_path: Path, files: dict[str, str]
) -> None:
    bind(device, "ixgbe", "eth7", **files)
    with pytest.raises(EnvironmentLacks) as caught:
        PciDevice(ADDRESS, tmp_path).check_unused()
    for part in (ADDRESS, "ixgbe", "eth7", "ip link set eth7 down"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "files", [{"flags": "0x1002", "operstate": "up"}, {"operstate": "down"}, {}]
)
def test_a_driver_whose_interface_is_down_is_refused_by_name(
    device: Path, tmp_path: Path, files: dict[str, str]
) -> None:
    bind(device, "ixgbe", "eth7", **files)
    with pytest.raises(EnvironmentLacks) as caught:
        PciDevice(ADDRESS, tmp_path).check_unused()
    assert str(caught.value) == (
        f"PCI device {ADDRESS} belongs to its kernel driver ixgbe; give the card to "
        f"ringline (ringline bind {ADDRESS})"
    )


@pytest.mark.parametrize("driver", ["vfio-pci", "uio_pci_generic", "igb_uio"])
def test_a_driver_that_hands_the_device_over_is_accepted(
    device: Path, tmp_path: Path, driver: str
) -> None:
    bind(device, driver, "none")
    PciDevice(ADDRESS, tmp_path).take(BAR_BYTES).close()


@pytest.mark.parametrize("kind", ["uio", "vfio-dev", "iommu_group"])
def test_a_device_that_another_process_has_through_such_a_driver_is_refused(
    device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """For example a virtual machine: it does not lock the registers."""
    monkeypatch.setenv("RINGLINE_SYSFS", str(tmp_path))
    PciDevice(ADDRESS, tmp_path).set_bus_mastering(True)
    before = (device / "config").read_bytes()
    group = tmp_path / "null"  # stands for the number of a group: a device file in /dev
    if kind == "iommu_group":
        group.mkdir()
        (device / "iommu_group").symlink_to(group)
    else:
        (device / kind / "uio9null").mkdir(parents=True)
    node = {
        "uio": "/dev/uio9null",
        "vfio-dev": "/dev/vfio/devices/uio9null",
        "iommu_group": "/dev/vfio/null",
    }[kind]
    readlink, opened = os.readlink, tmp_path / "opened"  # by no other process of the machine
    opened.touch()
    monkeypatch.setattr(
        os, "readlink", lambda path: node if readlink(path) == str(opened) else readlink(path)
    )
    PciDevice(ADDRESS, tmp_path).take(BAR_BYTES).close()
    with (
        opened.open("rb") as zero,
        subprocess.Popen(["sleep", "60"], stdin=zero) as other,
    ):
        zero.close()
        with pytest.raises(EnvironmentLacks, match=rf"in use by process {other.pid}; stop"):
            PciDevice(ADDRESS, tmp_path).take(BAR_BYTES)
        assert f"belongs to process {other.pid} now" in stop_dma(ADDRESS)
        other.kill()
    assert (device / "config").read_bytes() == before


def test_an_interface_without_a_driver_has_one_all_the_same(device: Path, tmp_path: Path) -> None:
    (device / "net" / "eth7").mkdir(parents=True)
    with pytest.raises(EnvironmentLacks, match=r"kernel driver \(unknown\).*lspci -k"):
        PciDevice(ADDRESS, tmp_path).take(BAR_BYTES)


def test_a_driver_that_comes_during_the_checks_is_refused(
    device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first check finds no driver, and then one is bound."""
    checked = []

    def check(self: PciDevice) -> None:
        checked.append(self)
        if len(checked) == 1:
            bind(device, "ixgbe", "eth7")
        else:
            original(self)

    original = PciDevice.check_unused
    monkeypatch.setattr(PciDevice, "check_unused", check)
    with pytest.raises(EnvironmentLacks, match="kernel driver ixgbe"):
        PciDevice(ADDRESS, tmp_path).take(BAR_BYTES)
    (device / "driver").unlink()
    (device / "net" / "eth7").rmdir()
    (device / "net").rmdir()
    PciDevice(ADDRESS, tmp_path).take(BAR_BYTES).close()  # its lock was released


def test_registers_that_a_driver_of_the_kernel_uses(
    device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel with IO_STRICT_DEVMEM refuses with EINVAL."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr("ringline.pipeline.ports.pci.sysfs.mmap.mmap", refuse)
    with pytest.raises(EnvironmentLacks, match=r"resource0 cannot be mapped.*/proc/iomem"):
        PciDevice(ADDRESS, tmp_path).take(BAR_BYTES)


def test_taking_writes_nothing_and_bus_mastering_is_separate_from_memory_space(
    device: Path, tmp_path: Path
) -> None:
    pci = PciDevice(ADDRESS, tmp_path)
    assert (device / "config").read_bytes()[4:6] == b"\x40\x01"  # no driver has used it
    pci.take(BAR_BYTES).close()
    assert (device / "config").read_bytes()[4:6] == b"\x40\x01"
    pci.enable_memory()
    assert (device / "config").read_bytes()[4:6] == b"\x42\x01"
    pci.set_bus_mastering(True)
    assert (device / "config").read_bytes()[4:6] == b"\x46\x01"
    pci.set_bus_mastering(False)
    assert (device / "config").read_bytes()[4:6] == b"\x42\x01"


def test_dma_can_be_stopped_by_another_process(
    device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RINGLINE_SYSFS", str(tmp_path))
    PciDevice(ADDRESS, tmp_path).set_bus_mastering(True)
    assert stop_dma(ADDRESS) == ""
    assert not (device / "config").read_bytes()[4] & 4
    assert "is gone" in stop_dma("0000:99:00.0")


def test_dma_of_a_card_that_somebody_else_has_goes_on(
    device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RINGLINE_SYSFS", str(tmp_path))
    PciDevice(ADDRESS, tmp_path).set_bus_mastering(True)
    before = (device / "config").read_bytes()
    bar = PciDevice(ADDRESS, tmp_path).take(BAR_BYTES)
    assert f"belongs to process {os.getpid()} now" in stop_dma(ADDRESS, patience=0.0)
    bar.close()
    bind(device, "ixgbe", "eth7")
    assert "belongs to the kernel driver ixgbe now" in stop_dma(ADDRESS)
    assert (device / "config").read_bytes() == before


def test_dma_is_stopped_while_our_own_driver_hangs(
    device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child that hangs in the kernel keeps its lock, even after SIGKILL."""
    monkeypatch.setenv("RINGLINE_SYSFS", str(tmp_path))
    PciDevice(ADDRESS, tmp_path).set_bus_mastering(True)
    code = "import fcntl,sys; f=open(sys.argv[1]); fcntl.flock(f,2); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(device / "resource0")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert stop_dma(ADDRESS, patience=0.0) == ""
        child.kill()
    assert not (device / "config").read_bytes()[4] & 4


def test_a_bar_is_the_file_itself(device: Path, tmp_path: Path) -> None:
    bar = PciDevice(ADDRESS, tmp_path).take(BAR_BYTES)
    try:
        bar.write32(0x18, 0x01020304)
        assert (device / "resource0").read_bytes()[0x18:0x1C] == b"\x04\x03\x02\x01"
        assert bar.read32(0x18) == 0x01020304
        bar.pointer(0x1C)[0] = 7
        assert bar.read32(0x1C) == 7
    finally:
        bar.close()


def test_a_bar_that_is_too_small_is_an_error_with_both_sizes(device: Path, tmp_path: Path) -> None:
    (device / "resource0").write_bytes(bytes(4096))
    with pytest.raises(EnvironmentLacks, match=r"4096 bytes.*131072"):
        PciDevice(ADDRESS, tmp_path).take(BAR_BYTES)


def test_a_bar_that_is_missing_is_named(device: Path, tmp_path: Path) -> None:
    (device / "resource0").unlink()
    with pytest.raises(EnvironmentLacks, match="resource0: No such file"):
        PciDevice(ADDRESS, tmp_path).take(BAR_BYTES)


def test_two_drivers_cannot_have_one_card(device: Path, tmp_path: Path) -> None:
    bar = PciDevice(ADDRESS, tmp_path).take(BAR_BYTES)
    with pytest.raises(EnvironmentLacks, match="another instance"):
        PciDevice(ADDRESS, tmp_path).take(BAR_BYTES)
    bar.close()
    PciDevice(ADDRESS, tmp_path).take(BAR_BYTES).close()
    with pytest.raises(AttributeError):
        bar.read32(0)


def test_the_driver_is_chosen_by_pci_id(device: Path, tmp_path: Path) -> None:
    port = create_port(PortConfig("wan", f"pci:{ADDRESS}"), 0, tmp_path)
    assert type(port).__name__ == "IxgbePort"
    (device / "device").write_text("0x10d3\n")
    port = create_port(PortConfig("wan", f"pci:{ADDRESS}", queues=2), 0, tmp_path)
    assert type(port).__name__ == "E1000ePort"
    with pytest.raises(ConfigurationError, match=r"must be 1 to 2 queues, not 3: .* 82574L"):
        create_port(PortConfig("wan", f"pci:{ADDRESS}", queues=3), 0, tmp_path)
    (device / "device").write_text("0x10c9\n")
    port = create_port(PortConfig("wan", f"pci:{ADDRESS}", queues=16), 0, tmp_path)
    assert type(port).__name__ == "IgbPort"
    (device / "device").write_text("0x1526\n")
    with pytest.raises(EnvironmentLacks, match=r"an Intel 82576 .*: the driver igb should"):
        create_port(PortConfig("wan", f"pci:{ADDRESS}"), 0, tmp_path)
    (device / "device").write_text("0x1572\n")
    with pytest.raises(EnvironmentLacks, match=r"port\.wan.*8086:1572.*8086:10fb"):
        create_port(PortConfig("wan", f"pci:{ADDRESS}"), 0, tmp_path)


def test_an_id_that_is_not_a_number_is_an_error(device: Path, tmp_path: Path) -> None:
    (device / "vendor").write_text("\n")
    with pytest.raises(EnvironmentLacks, match="vendor does not hold"):
        create_port(PortConfig("wan", f"pci:{ADDRESS}"), 0, tmp_path)


def test_an_unknown_device_string_is_an_error_that_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"port\.wan\.device.*'e1000'.*sim:82599"):
        create_port(PortConfig("wan", "e1000"), 0, tmp_path)


def test_more_queues_than_the_card_has_are_refused(device: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"port\.wan\.queues.*16 queues, not 17"):
        create_port(PortConfig("wan", f"pci:{ADDRESS}", queues=17), 0, tmp_path)


def test_a_device_that_was_removed_is_noticed(device: Path, tmp_path: Path) -> None:
    """A device that does not answer reads as all ones; the kernel ends the file of a device that it
    has removed, and reads are errors."""
    (device / "config").write_bytes(b"\x86\x80" + bytes(62))
    bar = PciDevice(ADDRESS, tmp_path).take(BAR_BYTES)
    assert not bar.gone()
    (device / "config").write_bytes(b"\xff" * 64)
    assert bar.gone()
    assert bar.configuration is not None
    bar.configuration.close()
    ends = os.pipe()  # which cannot be read at an offset
    bar.configuration = os.fdopen(ends[0], "rb", buffering=0)
    assert bar.gone()
    bar.close()
    os.close(ends[1])
