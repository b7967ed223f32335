"""`ringline devices`, `bind` and `unbind`, below a fake sysfs root; tests/guest has real ones."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringline.pipeline.commands import cli
from ringline.pipeline.configuration import deadlines
from ringline.pipeline.ports.pci import binding
from ringline.pipeline.ports.pci.sysfs import PciDevice
from ringline.shm.errors import EnvironmentLacks

ADDRESS = "0000:03:00.0"
NOBODY = 65534  # a user ID


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RINGLINE_SYSFS", str(tmp_path))
    monkeypatch.setattr(binding, "NOTES", tmp_path / "notes")
    (tmp_path / "bus" / "pci" / "drivers" / "vfio-pci").mkdir(parents=True)
    (tmp_path / "bus" / "pci" / "devices").mkdir()
    return tmp_path


def card(
    root: Path, address: str = ADDRESS, number: int = 0x10FB, driver: str = "", group: str = ""
) -> Path:
    folder = root / "bus" / "pci" / "devices" / address
    folder.mkdir()
    for name, text in (("vendor", "0x8086"), ("device", f"{number:#x}"), ("class", "0x020000")):
        (folder / name).write_text(text + "\n")
    (folder / "driver_override").write_text("(null)\n")
    if driver:
        (root / "bus" / "pci" / "drivers" / driver).mkdir(exist_ok=True)
        (folder / "driver").symlink_to(root / "bus" / "pci" / "drivers" / driver)
    if group:
        devices = root / "kernel" / "iommu_groups" / group / "devices"
        devices.mkdir(parents=True, exist_ok=True)
        (folder / "iommu_group").symlink_to(devices.parent)
        (devices / address).symlink_to(folder)
    return folder


def listed(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, str]]:
    assert cli.main(["devices", "--json"]) == 0
    return {each["address"]: each for each in json.loads(capsys.readouterr().out)["devices"]}


def test_each_card_says_whether_it_is_usable(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card(root, "0000:01:00.0", driver="vfio-pci", group="1")
    card(root, "0000:02:00.0", driver="ixgbe", group="2")
    card(root, "0000:03:00.0", number=0x1533, driver="igb", group="3")
    card(root, "0000:04:00.0", number=0x10F9, driver="vfio-pci", group="4")
    card(root, "0000:05:00.0")
    card(root, "0000:06:00.0", driver="vfio-pci", group="6")
    card(root, "0000:06:00.1", number=0x1533, driver="igb", group="6")
    card(root, "0000:07:00.0", driver="uio_pci_generic")
    card(root, "0000:08:00.0", number=0x1528, driver="ixgbe", group="8")
    card(root, "0000:09:00.0", number=0x1528)
    shown = {address: (each["usable"], each["why"]) for address, each in listed(capsys).items()}
    assert shown["0000:01:00.0"] == ("yes", "")
    assert shown["0000:02:00.0"] == ("no", "bind it to VFIO (ringline bind 0000:02:00.0)")
    assert shown["0000:03:00.0"] == ("no", "there is no driver here for this card (an Intel I210)")
    needs = "a port needs unproved = true, for it was never tried on one"
    assert shown["0000:04:00.0"] == ("unproved", needs)
    assert shown["0000:05:00.0"][0] == "physical"
    assert "ringline bind 0000:05:00.0 --driver uio_pci_generic" in shown["0000:05:00.0"][1]
    assert shown["0000:07:00.0"][0] == "physical"
    assert shown["0000:07:00.0"][1].endswith("the kernel stops it when ringline ends")
    for address, usable in (("0000:08:00.0", "no"), ("0000:09:00.0", "physical")):
        assert shown[address][0] == usable
        assert shown[address][1].endswith(f"; {needs}")
    assert shown["0000:06:00.0"][0] == "no"
    assert "shares the IOMMU group 6 with 0000:06:00.1" in shown["0000:06:00.0"][1]
    assert cli.main(["devices"]) == 0
    assert "0000:01:00.0  8086:10fb  Intel 82599 (SFI, SFP+)" in capsys.readouterr().out


IFF_UP, DOWN = "0x1003", "0x1002"


@pytest.mark.parametrize(
    ("files", "link"),
    [
        ({"flags": IFF_UP, "carrier": "1", "speed": "10000"}, "eth7 up 10000 Mbit/s"),
        ({"flags": IFF_UP, "carrier": "1", "speed": "-1"}, "eth7 up"),
        ({"flags": IFF_UP, "carrier": "1"}, "eth7 up"),
        ({"flags": IFF_UP, "carrier": "0", "speed": "-1"}, "eth7 no link"),
        ({"flags": IFF_UP}, "eth7 no link"),
        ({"flags": DOWN, "carrier": "1"}, "eth7 down"),
    ],
)
def test_the_link_is_that_of_the_wire(
    root: Path, capsys: pytest.CaptureFixture[str], files: dict[str, str], link: str
) -> None:
    """An interface that is up may have no cable. Of one that is down, the kernel does not say."""
    interface = card(root, driver="ixgbe", group="1") / "net" / "eth7"
    interface.mkdir(parents=True)
    for name, text in files.items():
        (interface / name).write_text(text + "\n")
    assert listed(capsys)[ADDRESS]["link"] == link


@pytest.mark.parametrize(("node", "shown"), [("1", "1"), ("-1", "-"), (None, "-")])
def test_the_numa_node_is_that_of_the_slot(
    root: Path, capsys: pytest.CaptureFixture[str], node: str | None, shown: str
) -> None:
    folder = card(root, driver="ixgbe", group="1")
    if node is not None:
        (folder / "numa_node").write_text(node + "\n")
    assert listed(capsys)[ADDRESS]["numa"] == shown


def test_a_machine_without_cards_says_so(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["devices"]) == 0
    assert capsys.readouterr().out == "this machine has no network card on PCI\n"


def test_each_refusal_to_bind_is_a_sentence(root: Path) -> None:
    folder = card(root, driver="ixgbe")
    device = PciDevice(ADDRESS, root)
    with pytest.raises(EnvironmentLacks, match="has no IOMMU group: switch on the IOMMU"):
        binding.bind(device)
    with pytest.raises(EnvironmentLacks, match="is bound to ixgbe, not to vfio-pci"):
        binding.unbind(device)
    (folder / "iommu_group").mkdir()
    (root / "bus" / "pci" / "drivers" / "vfio-pci").rmdir()
    with pytest.raises(EnvironmentLacks, match="has no driver vfio-pci: load it"):
        binding.bind(device)
    assert not (root / "notes").exists()


@contextlib.contextmanager
def another_user() -> Iterator[None]:
    """Without the rights of root, if this process has them."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(before)


@pytest.mark.parametrize("place", ["notes", "driver_override"])
def test_without_root_a_card_stays_and_the_remedy_is_said(
    monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    with tempfile.TemporaryDirectory() as name:  # other users cannot enter `tmp_path`
        root = Path(name)
        root.chmod(0o755)
        (root / "bus" / "pci" / "drivers" / "vfio-pci").mkdir(parents=True)
        (root / "bus" / "pci" / "devices").mkdir()
        folder = card(root, driver="ixgbe", group="1")
        (folder / "driver_override").chmod(0o444)
        notes = root / "notes"
        notes.mkdir()
        notes.chmod(0o555 if place == "notes" else 0o777)
        monkeypatch.setattr(binding, "NOTES", notes)
        where = notes if place == "notes" else folder / "driver_override"
        with pytest.raises(EnvironmentLacks) as refused, another_user():
            binding.bind(PciDevice(ADDRESS, root))
        assert str(refused.value) == f"cannot write to {where}: Permission denied; run as root"
        assert PciDevice(ADDRESS, root).driver == "ixgbe"
        assert (folder / "driver_override").read_text() == "(null)\n"
        assert list(notes.iterdir()) == []


def test_a_disk_is_not_taken_from_its_driver(root: Path) -> None:
    folder = card(root, driver="ahci", group="1")
    (folder / "class").write_text("0x010601\n")
    with pytest.raises(EnvironmentLacks, match="is no network card, so it keeps what it has"):
        binding.bind(PciDevice(ADDRESS, root), force=True)


def test_a_card_that_cannot_be_read_does_not_hide_the_others(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card(root, "0000:01:00.0")
    (card(root, "0000:02:00.0") / "vendor").write_text("?\n")
    card(root, "0000:03:00.0")
    (card(root, "0000:04:00.0") / "class").unlink()
    shown = listed(capsys)
    assert [shown[f"0000:0{n}:00.0"]["usable"] for n in (1, 3)] == ["physical"] * 2
    for broken in ("0000:02:00.0", "0000:04:00.0"):
        assert shown[broken]["usable"] == "no"
        assert shown[broken]["why"].startswith("it cannot be read: ")


@pytest.mark.parametrize("command", ["bind", "unbind"])
@pytest.mark.parametrize(
    "address",
    [
        *("", "eth0", "all", ".", "..", "../../../etc", "8086:10fb", "0000:03:00", "03:00.8"),
        *("0000:3:0.0", "0000:03:00.0/", "0000:03:00.0 ", "0000:03:00.0\n", "0000:0g:00.0"),
        *("pci:", "pci:eth0", "0000:03:20.0", "0:03:00.0", "xdp:eth0", "0000:03:00.0,0000:04:00.0"),
    ],
)
def test_what_is_no_address_is_refused(
    root: Path, capsys: pytest.CaptureFixture[str], command: str, address: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([command, address])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert f"must be a PCI address such as 0000:03:00.0, not {address!r} (ringline devices" in said


@pytest.mark.parametrize("address", ["03:00.0", "pci:0000:03:00.0", "0000:03:00.0"])
def test_an_address_may_be_written_in_three_ways(
    root: Path, capsys: pytest.CaptureFixture[str], address: str
) -> None:
    card(root, driver="vfio-pci", group="1")
    assert cli.main(["bind", address]) == 0
    assert "PCI device 0000:03:00.0 is bound to vfio-pci already" in capsys.readouterr().out


def test_a_card_that_vfio_takes_again_is_not_given_back(root: Path) -> None:
    """Nothing moves in a fake sysfs, as if vfio-pci knew the ID of the card."""
    card(root, driver="vfio-pci", group="1")
    device = PciDevice(ADDRESS, root)
    device.real = True
    with pytest.raises(EnvironmentLacks, match=r"again: .* run: echo 8086 10fb > .*/remove_id"):
        binding.unbind(device)


def test_a_card_that_vfio_does_not_take_keeps_what_it_had(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing moves in a fake sysfs, so vfio-pci never has the card."""
    monkeypatch.setattr(deadlines, "BOUND", 0.0)
    folder = card(root, driver="ixgbe", group="1")
    with pytest.raises(EnvironmentLacks, match="cannot be bound to vfio-pci"):
        binding.bind(PciDevice(ADDRESS, root))
    assert (folder / "driver_override").read_text() == "\n"
    assert (root / "bus" / "pci" / "drivers_probe").read_text() == ADDRESS
    assert list((root / "notes").iterdir()) == []


def test_uio_is_for_cards_without_an_iommu(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "BOUND", 0.0)
    card(root, driver="ixgbe", group="1")
    device = PciDevice(ADDRESS, root)
    with pytest.raises(EnvironmentLacks, match="behind an IOMMU, which stops the physical addr"):
        binding.bind(device, binding.UIO)
    card(root, "0000:04:00.0", driver="vfio-pci")
    with pytest.raises(
        EnvironmentLacks, match=r"bound to vfio-pci: give it back first \(ringline u"
    ):
        binding.bind(PciDevice("0000:04:00.0", root), binding.UIO)
    folder = card(root, "0000:05:00.0", driver="ixgbe")
    device = PciDevice("0000:05:00.0", root)
    with pytest.raises(
        EnvironmentLacks, match=r"no driver uio_pci_generic: load it \(modprobe uio"
    ):
        binding.bind(device, binding.UIO)
    (root / "bus" / "pci" / "drivers" / binding.UIO).mkdir()
    with pytest.raises(EnvironmentLacks, match="cannot be bound to uio_pci_generic"):
        binding.bind(device, binding.UIO)
    assert (root / "bus" / "pci" / "drivers_probe").read_text() == "0000:05:00.0"
    (folder / "driver").unlink()
    (folder / "driver").symlink_to(root / "bus" / "pci" / "drivers" / binding.UIO)
    assert binding.bind(device, binding.UIO).endswith("is bound to uio_pci_generic already")


def test_a_card_that_is_bound_stays(root: Path) -> None:
    card(root, driver="vfio-pci", group="1")
    assert binding.bind(PciDevice(ADDRESS, root)).endswith("is bound to vfio-pci already")
