"""The unit of deploy/ under systemd as process 1 of a guest, on two 82574L of QEMU."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .booted import booted
from .cards import card
from .exchange import exchange, flood
from .machine import ROOT, Guest
from .test_vfio_ixgbe import CONFIG, PATTERN, Bench, numbered, only_proof

DEVICES = ("0000:00:10.0", "0000:00:11.0")
FRAMES = 300
# What the unit tells its reader to set, and a file in place of the journal.
LOCAL = f"""[Service]
Environment=PATH={Path(sys.executable).parent}:/usr/bin:/bin
StandardError=append:/run/said
"""
INSTALL = f"""set -e
cp {ROOT}/deploy/ringline@.service /etc/systemd/system
mkdir -p /etc/systemd/system/ringline@edge.service.d /etc/ringline
echo {shlex.quote(LOCAL)} > /etc/systemd/system/ringline@edge.service.d/local.conf
systemctl daemon-reload"""
START = ": > /run/said; systemctl start ringline@edge || { cat /run/said; exit 1; }"
SHOW = "systemctl show --value -p {} ringline@edge"
RESTARTED = (
    f"until [ $({SHOW.format('NRestarts')}) -gt {{}} ] && systemctl -q is-active ringline@edge; "
    "do sleep 0.5; done"
)
# The service stays as its last end leaves it.
NO_RESTART = """d=/etc/systemd/system/ringline@edge.service.d
printf "[Service]\\nRestart=no\\n" > $d/once.conf
systemctl daemon-reload"""

pytestmark = [pytest.mark.timeout(1800), only_proof]


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    def make() -> Guest:
        return Guest([card("e1000e")] * 2, iommu=True, hugepages=64, systemd=True)

    with booted(make) as guest:
        assert guest.checked("cat /proc/1/comm") == "systemd\n"
        guest.checked(INSTALL)
        yield Bench(guest, guest.cables, DEVICES)


def configure(bench: Bench, *, physical: bool) -> None:
    bench.bind("none" if physical else "vfio-pci", "identity" if physical else "DMA")
    text = CONFIG + "".join(
        f'[port.{name}]\ndevice = "pci:{at}"\n' + ('dma = "physical"\n' if physical else "")
        for name, at in zip(("wan", "lan"), DEVICES, strict=True)
    )
    bench.guest.checked(f"echo {shlex.quote(text)} > /etc/ringline/edge.toml")


def pass_frames(bench: Bench) -> None:
    one, other = bench.cards
    frames = list(numbered(FRAMES))
    assert exchange((one, other, frames), (other, one, frames)) == [frames, frames]


@pytest.mark.parametrize("access", ["vfio", "physical"])
def test_the_unit_starts_stops_and_survives_the_kill_of_its_supervisor(
    bench: Bench, access: str
) -> None:
    """systemd takes the start as done when frames pass. After SIGKILL of the supervisor it kills
    the driver at once, which then cannot stop its cards. The unit stops them before memory is free,
    and starts again."""
    guest = bench.guest
    configure(bench, physical=access == "physical")
    guest.checked(START)
    pass_frames(bench)
    restarts = int(guest.checked(SHOW.format("NRestarts")))
    with flood(bench.cards, b"\x5a" * 1514):
        guest.checked(f"kill -9 $({SHOW.format('MainPID')})")
        guest.checked(RESTARTED.format(restarts))
    said = guest.checked("cat /run/said")
    for device in DEVICES if access == "physical" else ():
        assert f"DMA of PCI device {device} was stopped" in said
    pass_frames(bench)
    guest.checked("systemctl stop ringline@edge")
    assert guest.checked(SHOW.format("Result")) == "success\n"
    assert '"reason": "all well"' in guest.checked("cat /var/lib/ringline/edge.json")
    assert bench.masters() == [False, False]
    assert guest.checked("ls /dev/shm /dev/hugepages | grep ringline || true") == ""
    assert guest.checked("tail -n 1 /run/said").endswith("nothing was left\n")


def test_without_restart_nothing_is_written_to_memory_that_the_unit_freed(bench: Bench) -> None:
    """With physical addresses, where only the unit stops the cards."""
    guest = bench.guest
    configure(bench, physical=True)
    guest.checked(f"{NO_RESTART}\n{START}")
    with flood(bench.cards, b"\x5a" * 1514):
        guest.checked(
            f"kill -9 $({SHOW.format('MainPID')});"
            f"until [ $({SHOW.format('ActiveState')}) = failed ]; do sleep 0.2; done"
        )
        assert bench.masters() == [False, False]
        said = guest.checked(f"python -c {shlex.quote(PATTERN)} 3")
    assert said == "64 hugepages, 0 wrong pages\n"
