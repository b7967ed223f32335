"""What VFIO needs, in a guest: cards behind the IOMMU that QEMU emulates."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator

import pytest

from .booted import PROOF, booted
from .cards import card
from .machine import Guest

ADDRESS = "0000:00:10.0"
DEVICE = f"/sys/bus/pci/devices/{ADDRESS}"
SECONDS = 60.0

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def guest() -> Iterator[Guest]:
    with booted(lambda: Guest([card("e1000e")], iommu=True)) as made:
        yield made


def test_a_card_of_a_guest_has_an_iommu_group_of_its_own(guest: Guest) -> None:
    group = f"/sys/bus/pci/devices/{ADDRESS}/iommu_group"
    assert guest.checked(f"ls {group}/devices").split() == [ADDRESS]
    assert guest.checked(f"cat {group}/type") in ("DMA\n", "DMA-FQ\n")
    # Only the addresses of interrupts are reserved: a card may use all others.
    regions = guest.checked(f"cat {group}/reserved_regions").splitlines()
    assert [line.split()[2] for line in regions] == ["msi"]
    assert guest.checked("ls /dev/vfio/vfio").strip() == "/dev/vfio/vfio"


@pytest.mark.skipif(not PROOF, reason="needs RINGLINE_PROOF=1: it takes 20 s")
def test_doctor_says_what_the_kernel_has(guest: Guest) -> None:
    told = json.loads(guest.run("ringline doctor --json").output)
    lines = {each["line"]: each for each in told["lines"]}
    groups = len(guest.checked("ls /sys/kernel/iommu_groups").split())
    assert lines["iommu"]["mark"] == "ok"
    assert lines["iommu"]["figures"] == {"groups": groups, "translated": groups}
    assert lines["vfio"]["mark"] == "ok"
    assert lines["mappings"]["figures"] == {"allowed": 65535, "needed": 2}
    assert f"{ADDRESS}, Intel 82574L (8086:10d3), has the driver e1000e" in lines["card"]["found"]
    assert lines["xdp"]["mark"] == "ok"


@pytest.mark.skipif(not PROOF, reason="needs RINGLINE_PROOF=1: it takes 15 s")
def test_a_card_that_is_in_use_is_not_bound(guest: Guest) -> None:
    guest.checked("ip addr add 10.9.9.1/24 dev eth0; ip link set eth0 up")
    result = guest.run(f"ringline bind {ADDRESS}")
    assert result.code == 3
    assert f"{ADDRESS} is in use: eth0 is up, eth0 has the addresses 10.9.9.1" in result.output
    assert guest.checked(f"basename $(readlink {DEVICE}/driver)") == "e1000e\n"
    [line] = [each for each in guest.checked("ringline devices").splitlines() if "10d3" in each]
    assert line.split()[:5] == [ADDRESS, "8086:10d3", "Intel", "82574L", "e1000e"]
    said = guest.checked(f"ringline bind {ADDRESS} --force")
    assert said.startswith(f"PCI device {ADDRESS} is bound to vfio-pci; it was bound to e1000e; ")
    assert "lost: eth0 is up" in said
    assert guest.checked(f"ringline unbind {ADDRESS}").endswith("is bound to e1000e\n")


BIND_AGAIN = """
import sys
from pathlib import Path
from ringline.pipeline.ports.pci import binding
from ringline.pipeline.ports.pci.sysfs import PciDevice
card = PciDevice(sys.argv[1], Path("/sys"))
for _ in range(int(sys.argv[2])):
    assert card.driver == "e1000e"
    binding.bind(card)
    assert card.driver == "vfio-pci"
    binding.unbind(card)
assert card.driver == "e1000e"
"""


def test_a_card_is_bound_and_unbound(guest: Guest) -> None:
    """And then it works: the kernel sends its first frames when the interface comes up."""
    assert "vfio-pci" in guest.checked(f"ringline bind {ADDRESS}")
    assert guest.checked(f"basename $(readlink {DEVICE}/driver)") == "vfio-pci\n"
    assert guest.checked(f"ringline unbind {ADDRESS}").endswith("is bound to e1000e\n")
    again = 49 if PROOF else 2  # in one process: the start of a command takes long in a guest
    guest.checked(f"python -c {shlex.quote(BIND_AGAIN)} {ADDRESS} {again}")
    assert guest.checked(f"cat {DEVICE}/driver_override").strip() == "(null)"
    assert guest.run(f"ringline unbind {ADDRESS}").code == 3
    before = len(guest.cables[0].frames())
    guest.checked("ip link set eth0 up")
    assert guest.cables[0].wait_for(before + 1, SECONDS)
    guest.checked("ip link set eth0 down")


PROGRAM = """
import mmap, os, sys, time
from pathlib import Path
from ringline.pipeline.configuration.config import PortConfig
from ringline.pipeline.ports.pci.sysfs import PciDevice
from ringline.pipeline.ports.pci.taken import check_access
from ringline.pipeline.ports.pci.vfio import Container, Region, VfioDevice
from ringline.pipeline._pipeline import ffi
from ringline.shm.errors import EnvironmentLacks
card = PciDevice("ADDRESS", Path("/sys"))
memory = mmap.mmap(-1, 1 << 20)
here = int(ffi.cast("uintptr_t", ffi.from_buffer(memory)))

def refused(act):
    try:
        act()
    except EnvironmentLacks as error:
        return str(error)
    raise SystemExit("it was not refused")

def opened(iova=0x100000000, least=0x20000):
    container = Container([Region(0x10000000, here, 4096), Region(iova, here + 4096, 8192)])
    try:
        return VfioDevice(card, container, least), container
    except EnvironmentLacks:
        container.close()
        raise
""".replace("ADDRESS", ADDRESS)
BIND = f"""d=/sys/bus/pci/devices/{ADDRESS}
echo vfio-pci > $d/driver_override
[ ! -e $d/driver ] || echo {ADDRESS} > $d/driver/unbind
echo {ADDRESS} > /sys/bus/pci/drivers_probe
readlink $d/driver
"""


def python(guest: Guest, program: str) -> str:
    return guest.checked(f"python - <<'END'\n{PROGRAM}{program}\nEND")


def test_what_vfio_lacks_is_named(guest: Guest) -> None:
    """Before and after the card is bound to vfio-pci."""
    config = f'PortConfig("wan", "pci:{ADDRESS}"'
    said = python(guest, f"print(refused(lambda: check_access(card, {config}))))")
    belongs = f"PCI device {ADDRESS} belongs to its kernel driver e1000e; give the card"
    assert said.startswith(belongs)
    guest.checked(f"echo {ADDRESS} > /sys/bus/pci/devices/{ADDRESS}/driver/unbind")
    said = python(guest, f"print(refused(lambda: check_access(card, {config}))))")
    assert f"{ADDRESS} has no driver, so nothing would keep it from the memory of other" in said
    assert "vfio-pci" in guest.checked(BIND)
    program = f"""
check_access(card, {config}))
print(refused(lambda: check_access(card, {config}, dma="physical"))))
print(refused(lambda: opened(iova=1 << 40)))
print(refused(lambda: opened(least=1 << 20)))
limit = Path("/sys/module/vfio_iommu_type1/parameters/dma_entry_limit")
limit.write_text("1")
print(refused(opened))
limit.write_text("65535")
import resource
resource.setrlimit(resource.RLIMIT_MEMLOCK, (4096, 4096))
os.chmod("/dev/vfio/vfio", 0o666)
os.chmod(f"/dev/vfio/{{card.folder.joinpath('iommu_group').resolve().name}}", 0o666)
os.setuid(65534)
print(refused(opened))
"""
    lines = python(guest, program).splitlines()
    expected = (
        "is behind an IOMMU, which stops physical addresses",
        "the IOMMU does not translate the addresses 0x10000000000 to",
        "BAR 0 of PCI device 0000:00:10.0 has 131072 bytes; the registers of this card need",
        "VFIO allows fewer mappings than the 2 of a run; raise /sys/module/vfio_iommu_type1",
        "the limit of locked memory is 4 KiB, and 12 KiB are needed; raise it (ulimit -l",
    )
    for line, words in zip(lines, expected, strict=True):
        assert words in line


def test_registers_and_interrupts_of_a_card(guest: Guest) -> None:
    """82574 datasheet: IMS 0xD0, ICS 0xC8, IVAR 0xE4, CTRL_EXT 0x18; bit 20 is RXQ0."""
    guest.checked(BIND)
    program = """
device, container = opened()
device.enable_memory()
device.set_bus_mastering(True)
assert device.read_config(0, 4) == 0x10D38086
assert device.read_config(4, 2) & 6 == 6
assert device.interrupts() == 5
fds = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(device.interrupts())]
device.use_interrupts(fds)
device.bar.write32(0xE4, 8 | 2)
device.bar.write32(0xD0, 1 << 20)
device.bar.write32(0xC8, 1 << 20)
until = time.monotonic() + 20
while True:
    try:
        print("counted", os.eventfd_read(fds[2]))
        break
    except BlockingIOError:
        assert time.monotonic() < until, "no interrupt"
device.use_interrupts([])
print(refused(lambda: device.use_interrupts(fds * 2)))
device.bar.close()
container.close()
"""
    said = python(guest, program)
    assert "counted 1" in said
    assert "gets no 10 interrupts (it has 5)" in said


def test_a_killed_process_leaves_no_dma(guest: Guest) -> None:
    guest.checked(BIND)
    command = f"/sys/bus/pci/devices/{ADDRESS}/config"
    program = f"""
device, container = opened()
device.set_bus_mastering(True)
assert Path("{command}").read_bytes()[4] & 4
os.kill(os.getpid(), 9)
"""
    result = guest.run(f"python - <<'END'\n{PROGRAM}{program}\nEND")
    assert result.code == 128 + 9, result.output
    said = python(guest, f'print(Path("{command}").read_bytes()[4] & 4)')
    assert said == "0\n"


def test_a_wrong_address_is_stopped_and_the_kernel_says_so(guest: Guest) -> None:
    """82574 datasheet: TCTL 0x400, TDBAL 0x3800, TDLEN 0x3808, TDH 0x3810, TDT 0x3818. The card
    fetches a descriptor as soon as the tail moves."""
    guest.checked(BIND)
    program = """
device, container = opened()
device.enable_memory()
device.set_bus_mastering(True)
device.bar.write32(0x400, 2)
for register, value in ((0x3800, ADDRESS), (0x3804, 1), (0x3808, 4096), (0x3810, 0), (0x3818, 1)):
    device.bar.write32(register, value)
time.sleep(1)
device.bar.close()
container.close()
"""
    fault = "DMAR: [DMA Read NO_PASID] Request device [00:10.0] fault addr 0x1"
    python(guest, program.replace("ADDRESS", "0x1000"))  # inside the second region
    assert fault not in guest.checked("dmesg")
    python(guest, program.replace("ADDRESS", "0x40000000"))
    assert f"{fault}40000000" in guest.checked("dmesg")
