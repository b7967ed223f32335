"""`ringline bind` and `unbind` that do not end: what becomes of the card."""

from __future__ import annotations

from pathlib import Path

import pytest

from ringline.pipeline.configuration import deadlines
from ringline.pipeline.ports.pci import binding
from ringline.pipeline.ports.pci.sysfs import PciDevice
from ringline.shm.errors import EnvironmentLacks

ADDRESS = "0000:03:00.0"


class Kernel:
    """A fake sysfs with one card of the kernel driver ixgbe. It moves the card as the kernel does.

    loaded: the drivers that take it; changed by the test.
    """

    def __init__(self, root: Path) -> None:
        self.loaded = {"ixgbe", "vfio-pci"}
        self._drivers = root / "bus" / "pci" / "drivers"
        self.folder = root / "bus" / "pci" / "devices" / ADDRESS
        for path in (self.folder, self._drivers / "ixgbe", self._drivers / "vfio-pci"):
            path.mkdir(parents=True)
        for name, text in (("vendor", "0x8086"), ("device", "0x10fb"), ("class", "0x020000")):
            (self.folder / name).write_text(text)
        (self.folder / "driver_override").write_text("(null)\n")
        group = root / "kernel" / "iommu_groups" / "1"
        (group / "devices").mkdir(parents=True)
        (group / "devices" / ADDRESS).symlink_to(self.folder)
        (self.folder / "iommu_group").symlink_to(group)
        self._bind("ixgbe")
        self.device = PciDevice(ADDRESS, root)

    def _bind(self, driver: str) -> None:
        (self.folder / "driver").symlink_to(self._drivers / driver)

    def write(self, path: Path, text: str) -> None:
        """In place of a write to sysfs."""
        path.write_text(text)
        if path.name == "unbind":
            (self.folder / "driver").unlink()
        elif path.name == "drivers_probe":
            wanted = self.override or "ixgbe"
            if wanted in self.loaded and not self.device.driver:
                self._bind(wanted)

    @property
    def override(self) -> str:
        """The driver that the card must get; "" for any."""
        return (self.folder / "driver_override").read_text().strip().replace("(null)", "")

    def kill_a_bind(self) -> None:
        """Leave the card as a `bind` that was killed while it waited for vfio-pci."""
        self.write(self.folder / "driver_override", "vfio-pci\n")
        self.write(self.folder / "driver" / "unbind", ADDRESS)
        binding.NOTES.mkdir()
        (binding.NOTES / ADDRESS).write_text("ixgbe\n\n")

    def check_given_back(self) -> None:
        """The card is as before `bind`, and nothing is noted."""
        assert (self.device.driver, self.override) == ("ixgbe", "")
        assert list(binding.NOTES.iterdir()) == []


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel(tmp_path)
    monkeypatch.setattr(binding, "NOTES", tmp_path / "notes")
    monkeypatch.setattr(binding, "_write", made.write)
    monkeypatch.setattr(deadlines, "BOUND", 0.0)
    return made


def test_a_card_goes_and_comes_back(kernel: Kernel) -> None:
    assert binding.bind(kernel.device).endswith("is bound to vfio-pci; it was bound to ixgbe")
    assert kernel.device.driver == "vfio-pci"
    assert binding.unbind(kernel.device).endswith("is bound to ixgbe")
    kernel.check_given_back()
    with pytest.raises(EnvironmentLacks, match=r"is bound to ixgbe, .* nothing to give back"):
        binding.unbind(kernel.device)


def test_ctrl_c_gives_the_card_back(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    kernel.loaded.remove("vfio-pci")
    monkeypatch.setattr(deadlines, "BOUND", 60.0)
    monkeypatch.setattr(binding.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        binding.bind(kernel.device)
    kernel.check_given_back()


def test_a_card_that_could_not_be_changed_is_not_noted(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container: /sys cannot be written, and so the card has what it had."""

    def refuse(path: Path, text: str) -> None:
        raise EnvironmentLacks(f"cannot write to {path}")

    monkeypatch.setattr(binding, "_write", refuse)
    with pytest.raises(EnvironmentLacks, match=r"cannot write to .*driver_override"):
        binding.bind(kernel.device)
    kernel.check_given_back()


def test_a_bind_that_was_killed_is_undone(kernel: Kernel) -> None:
    kernel.kill_a_bind()
    assert binding.unbind(kernel.device).endswith("is bound to ixgbe")
    kernel.check_given_back()


def test_a_bind_that_was_killed_before_it_moved_the_card_is_undone(kernel: Kernel) -> None:
    kernel.kill_a_bind()
    kernel.write(kernel.folder / "driver_override", "\n")
    kernel.write(kernel.folder.parent.parent / "drivers_probe", ADDRESS)
    kernel.write(kernel.folder / "driver_override", "vfio-pci\n")
    assert binding.unbind(kernel.device).endswith("is bound to ixgbe")
    kernel.check_given_back()


@pytest.mark.parametrize("is_moved", [True, False])
def test_a_bind_after_one_that_was_killed_knows_the_first_driver(
    kernel: Kernel, is_moved: bool
) -> None:
    kernel.kill_a_bind()
    if not is_moved:
        kernel.loaded.remove("vfio-pci")
        with pytest.raises(EnvironmentLacks, match="cannot be bound to vfio-pci"):
            binding.bind(kernel.device)
        kernel.check_given_back()
        return
    assert binding.bind(kernel.device).endswith("is bound to vfio-pci; it was bound to ixgbe")
    binding.unbind(kernel.device)
    kernel.check_given_back()


def test_a_card_whose_driver_did_not_come_can_be_given_back(kernel: Kernel) -> None:
    binding.bind(kernel.device)
    kernel.loaded.remove("ixgbe")
    for _ in range(2):
        with pytest.raises(EnvironmentLacks, match="cannot be bound to ixgbe"):
            binding.unbind(kernel.device)
    kernel.loaded.add("ixgbe")
    binding.unbind(kernel.device)
    kernel.check_given_back()


def test_a_card_that_neither_driver_takes_is_not_forgotten(kernel: Kernel) -> None:
    kernel.loaded.clear()
    with pytest.raises(EnvironmentLacks, match="cannot be bound to vfio-pci"):
        binding.bind(kernel.device)
    assert kernel.device.driver == ""
    kernel.loaded.add("ixgbe")
    binding.unbind(kernel.device)
    kernel.check_given_back()


def test_a_note_of_another_driver_is_replaced(kernel: Kernel) -> None:
    binding.NOTES.mkdir()
    (binding.NOTES / ADDRESS).write_text("igb\n\n")
    with pytest.raises(EnvironmentLacks, match=r"is bound to ixgbe, .* nothing to give back"):
        binding.unbind(kernel.device)
    binding.bind(kernel.device)
    binding.unbind(kernel.device)
    kernel.check_given_back()
