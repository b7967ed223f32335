"""How a port may reach its card, below a fake sysfs root."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from ringline.pipeline.configuration.config import Config, PortConfig
from ringline.pipeline.configuration.machine_checks import remarks_here
from ringline.pipeline.ports.create import create_port
from ringline.pipeline.ports.ixgbe.card import X540
from ringline.pipeline.ports.ixgbe.port import IxgbePort
from ringline.pipeline.ports.pci import groups, sysfs, uio, vfio
from ringline.pipeline.ports.pci.sysfs import PciDevice
from ringline.pipeline.ports.pci.taken import TakenCard, check_access
from ringline.shm.errors import EnvironmentLacks

ADDRESS, OTHER = "0000:03:00.0", "0000:03:00.1"
CONFIG = PortConfig("wan", f"pci:{ADDRESS}")
PHYSICAL = replace(CONFIG, dma="physical")


def device(root: Path, address: str = ADDRESS, driver: str = "") -> PciDevice:
    """An 82599 that is there as below /sys: no model offers it."""
    folder = root / "bus" / "pci" / "devices" / address
    folder.mkdir(parents=True)
    for name, text in (("vendor", "0x8086"), ("device", "0x10fb"), ("class", "0x020000")):
        (folder / name).write_text(text + "\n")
    (folder / "resource0").write_bytes(bytes(0x20000))
    if driver:
        drivers = folder.parents[1] / "drivers" / driver
        drivers.mkdir(parents=True, exist_ok=True)
        (folder / "driver").symlink_to(drivers)
    made = PciDevice(address, root)
    made.real = True
    return made


def group(root: Path, *devices: PciDevice, kind: str = "DMA") -> None:
    folder = root / "kernel" / "iommu_groups" / "7"
    (folder / "devices").mkdir(parents=True)
    (folder / "type").write_text(kind + "\n")
    for each in devices:
        (each.folder / "iommu_group").symlink_to(folder)
        (folder / "devices" / each.address).symlink_to(each.folder)


def refused(of: PciDevice, config: PortConfig = CONFIG) -> str:
    with pytest.raises(EnvironmentLacks) as caught:
        check_access(of, config)
    return str(caught.value)


def test_a_card_without_vfio_is_refused_unless_physical_memory_is_asked_for(tmp_path: Path) -> None:
    card = device(tmp_path, driver="uio_pci_generic")
    assert refused(card) == (
        f"port.wan: PCI device {ADDRESS} has the driver uio_pci_generic, so nothing would keep it "
        "from the memory of other programs: switch on the IOMMU in the firmware (VT-d or AMD-Vi) "
        'and with intel_iommu=on in the kernel\'s command line, or set dma = "physical"'
    )
    check_access(card, PHYSICAL)
    group(tmp_path, card)
    assert f"bind it to VFIO (ringline bind {ADDRESS})" in refused(card)


def test_the_device_file_of_uio_is_open_while_the_card_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it is closed, the kernel stops the card."""
    monkeypatch.setattr(uio, "NODES", tmp_path)
    card = device(tmp_path, driver=uio.DRIVER)
    (card.folder / "config").write_bytes(bytes(64))

    def is_open() -> bool:
        links = Path("/proc/self/fd").iterdir()
        return any(os.path.realpath(link) == str(tmp_path / "uio3") for link in links)

    for words in (r"uio has no device: bind the card again .*--driver uio_pci", "No such file"):
        with pytest.raises(EnvironmentLacks, match=words):
            TakenCard().take(card, 0x20000, PHYSICAL)
        (card.folder / "uio" / "uio3").mkdir(parents=True, exist_ok=True)
    (tmp_path / "uio3").touch()
    bar = TakenCard().take(card, 0x20000, PHYSICAL)
    assert is_open()
    bar.close()
    assert not is_open()


def test_without_an_iommu_the_way_out_is_not_vfio(tmp_path: Path) -> None:
    """It needs an IOMMU, and would lead back here."""
    card = device(tmp_path, driver="ixgbe")
    bind = f"ringline bind {ADDRESS} --driver uio_pci_generic"
    assert refused(card, PHYSICAL) == (
        f"PCI device {ADDRESS} belongs to its kernel driver ixgbe; give the card to "
        f"ringline ({bind})"
    )
    group(tmp_path, card)
    assert refused(card).endswith(f"give the card to ringline (ringline bind {ADDRESS})")


def test_physical_memory_is_said_before_the_run() -> None:
    assert remarks_here(Config(ports=(CONFIG,))) == []
    [remark] = remarks_here(Config(ports=(PHYSICAL,)))
    assert remark.startswith('port.wan: dma = "physical": no IOMMU keeps the card from')


def test_physical_addresses_behind_an_iommu_are_refused(tmp_path: Path) -> None:
    card = device(tmp_path)
    group(tmp_path, card)
    assert 'stops physical addresses: remove dma = "physical"' in refused(card, PHYSICAL)
    (card.folder / "iommu_group" / "type").write_text("identity\n")  # iommu=pt
    check_access(card, PHYSICAL)
    (card.folder / "iommu_group" / "type").unlink()  # Linux before 5.11
    assert groups.translates(card)


@pytest.mark.parametrize("grouped", [True, False])
def test_a_card_of_vfio_is_refused_where_addresses_are_physical(
    tmp_path: Path, grouped: bool
) -> None:
    """With iommu=pt, or with VFIO's mode without an IOMMU."""
    card = device(tmp_path, driver="vfio-pci")
    if grouped:
        group(tmp_path, card, kind="identity")
    assert refused(card, PHYSICAL) == (
        f"port.wan: PCI device {ADDRESS} is bound to vfio-pci, which gives no way to physical "
        f'addresses: remove dma = "physical", or give the card back (ringline unbind {ADDRESS})'
    )
    with pytest.raises(EnvironmentLacks, match="bound to vfio-pci"):
        TakenCard().take(card, 0x20000, PHYSICAL)


def test_a_group_that_a_kernel_driver_shares_is_refused_by_name(tmp_path: Path) -> None:
    card = device(tmp_path, driver="vfio-pci")
    other = device(tmp_path, OTHER, driver="ixgbe")
    assert f"PCI device {ADDRESS} has no IOMMU group" in refused(card)
    group(tmp_path, card, other)
    (other.folder / "net" / "eth7").mkdir(parents=True)
    said = refused(card)
    assert (
        f"shares the IOMMU group 7 with {OTHER}, which the kernel driver ixgbe uses (eth7)" in said
    )
    assert f"ringline bind {OTHER}" in said
    (other.folder / "driver").unlink()
    check_access(card, CONFIG)
    (other.folder / "driver").symlink_to(tmp_path / "drivers" / "pcieport")
    (tmp_path / "drivers" / "pcieport").mkdir(parents=True)
    check_access(card, CONFIG)


def test_a_relative_is_refused_unless_the_port_asks_for_it(tmp_path: Path) -> None:
    card = device(tmp_path)
    (card.folder / "device").write_text("0x1528\n")
    with pytest.raises(EnvironmentLacks, match=r"Intel X540 \(8086:1528\).*never tried.*unproved"):
        create_port(CONFIG, 0, tmp_path)
    port = create_port(replace(CONFIG, unproved=True), 0, tmp_path)
    assert isinstance(port, IxgbePort)
    assert port.device_id == X540


def test_a_card_that_looks_like_ours_is_named(tmp_path: Path) -> None:
    card = device(tmp_path)
    (card.folder / "device").write_text("0x10ed\n")
    with pytest.raises(EnvironmentLacks) as caught:
        create_port(CONFIG, 0, tmp_path)
    said = f"PCI device {ADDRESS} is 8086:10ed (a virtual function of an Intel 82599), for which"
    assert said in str(caught.value)


def test_a_locked_down_kernel_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lockdown").write_text("none [integrity] confidentiality\n")
    monkeypatch.setattr(sysfs, "LOCKDOWN", tmp_path / "lockdown")

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(sysfs.mmap, "mmap", refuse)
    with pytest.raises(EnvironmentLacks, match=r"locked down \(integrity.*VFIO stays allowed"):
        device(tmp_path).take(0x20000)
    (tmp_path / "lockdown").write_text("[none] integrity confidentiality\n")
    assert sysfs.lockdown() == ""


def test_a_kernel_without_vfio_and_a_group_without_permission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vfio, "NODES", tmp_path / "vfio")
    card = device(tmp_path, driver="vfio-pci")
    group(tmp_path, card)
    container = vfio.Container([])
    with pytest.raises(EnvironmentLacks, match=r"vfio/vfio: No such file.*modprobe vfio-pci"):
        container.device(card)
    for number, words in (
        (errno.EACCES, "run as root, or give this user"),
        (errno.EBUSY, "another process has the card"),
    ):

        def refuse(*_: object, number: int = number) -> int:
            raise OSError(number, "no")

        monkeypatch.setattr(vfio.os, "open", refuse)
        with pytest.raises(EnvironmentLacks, match=words):
            container.device(card)
    container.close()


@pytest.mark.parametrize(
    ("request_", "number", "words"),
    [
        ("_CHECK_EXTENSION", 0, "modprobe vfio_iommu_type1"),
        ("_GROUP_GET_STATUS", 0, "is not viable: a kernel driver uses another device"),
        ("_GROUP_SET_CONTAINER", errno.EINVAL, "behind an IOMMU of another kind"),
        ("_SET_IOMMU", errno.EPERM, "does not remap interrupts.*allow_unsafe_interrupts"),
        ("_SET_IOMMU", errno.ENODEV, "modprobe vfio_iommu_type1"),
        ("_GROUP_GET_DEVICE_FD", errno.ENODEV, "was it removed"),
        ("_GET_API_VERSION", errno.ENOTTY, "vfio/vfio does not answer as VFIO does: no"),
        ("_GROUP_GET_STATUS", errno.ENODEV, "does not know the IOMMU group of PCI device 0000:03"),
        ("_IOMMU_GET_INFO", errno.ENODEV, "does not say which addresses the IOMMU translates"),
        ("_DEVICE_GET_REGION_INFO", errno.ENODEV, "0000:03:00.0 does not answer: no; was it remov"),
    ],
)
def test_each_refusal_of_vfio_is_a_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request_: str,
    number: int,
    words: str,
) -> None:
    """The kernel's answers are made up here: 1 to a question, and no error, but for one request."""
    (tmp_path / "vfio").mkdir()
    for name in ("vfio", "7"):
        (tmp_path / "vfio" / name).touch()
    monkeypatch.setattr(vfio, "NODES", tmp_path / "vfio")

    def answer(_: int, request: int, argument: object = 0, *rest: object) -> int:
        bad = request == getattr(vfio, request_)
        if bad and number:
            raise OSError(number, "no")
        if request == vfio._GROUP_GET_STATUS and not bad:
            assert isinstance(argument, bytearray)
            argument[4] = 1
        return 1 if request == vfio._CHECK_EXTENSION and not bad else 0

    monkeypatch.setattr(vfio.fcntl, "ioctl", answer)
    card = device(tmp_path, driver="vfio-pci")
    group(tmp_path, card)
    container = vfio.Container([])
    with pytest.raises(EnvironmentLacks, match=words):
        vfio.VfioDevice(card, container, 4096)
    container.close()
