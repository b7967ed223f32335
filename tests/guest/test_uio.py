"""ringline drives QEMU's 82574L without an IOMMU, handed over by uio_pci_generic."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import pytest

from .booted import booted
from .cards import card
from .exchange import exchange, flood
from .machine import Guest
from .test_vfio_ixgbe import FRAMES, Bench, check, numbered, only_proof

DEVICES = ("0000:00:10.0", "0000:00:11.0")
SECONDS = 60.0

pytestmark = [pytest.mark.timeout(1800), only_proof]


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    cards = [card("e1000e")] * 2
    modules = ["uio_pci_generic"]
    with booted(lambda: Guest(cards, modules=modules, hugepages=64)) as guest:
        yield Bench(guest, guest.cables, DEVICES)


def give(bench: Bench) -> None:
    for each in bench.devices:
        said = bench.guest.checked(f"ringline bind {each} --driver uio_pci_generic")
        assert f"{each} is bound to uio_pci_generic" in said


REFUSED = """
import sys
from pathlib import Path
from ringline.pipeline.ports.pci import binding
from ringline.pipeline.ports.pci.sysfs import PciDevice
from ringline.shm.errors import EnvironmentLacks
card = PciDevice(sys.argv[1], Path("/sys"))
try:
    binding.bind(card, "pcieport")
except EnvironmentLacks as error:
    assert "cannot be bound to pcieport" in str(error), error
else:
    raise AssertionError("pcieport drives bridges, and has a network card")
assert card.driver == "e1000e"
"""


def test_a_card_that_cannot_be_bound_has_its_driver_back(bench: Bench) -> None:
    """Before the other tests: the kernel still has the cards. And then the interface works."""
    bench.guest.checked(f"python -c {shlex.quote(REFUSED)} {DEVICES[0]}")
    before = len(bench.cards[0].frames())
    bench.guest.checked("ip link set eth0 up")
    assert bench.cards[0].wait_for(before + 1, SECONDS)
    bench.guest.checked("ip link set eth0 down")


def test_a_machine_without_an_iommu_is_told_what_it_can_do(bench: Bench) -> None:
    """Before the next tests: the kernel still has the cards."""
    guest = bench.guest
    result = guest.run(f"ringline bind {DEVICES[0]}")
    assert result.code == 3
    assert f"ringline bind {DEVICES[0]} --driver uio_pci_generic" in result.output
    give(bench)
    said = guest.checked("ringline devices")
    assert said.count("uio_pci_generic  0") + said.count("uio_pci_generic  -") == 2, said
    assert said.count("the kernel stops it when ringline ends") == 2, said
    with pytest.raises(AssertionError, match="has the driver uio_pci_generic, so nothing would"):
        bench.start()


def test_frames_pass_both_ways_over_uio(bench: Bench) -> None:
    """And then the cards have their drivers back, and work."""
    give(bench)
    bench.start('dma = "physical"')
    one, other = bench.cards
    frames = list(numbered(FRAMES))
    ways = [frames, frames[::-1]]
    assert exchange((one, other, ways[0]), (other, one, ways[1])) == ways
    assert 'dma = "physical": no IOMMU keeps' in bench.guest.checked("cat /tmp/said")
    check(bench, len(frames), bench.stop())
    for number, each in enumerate(bench.devices):
        assert bench.guest.checked(f"ringline unbind {each}").endswith("is bound to e1000e\n")
        before = len(bench.cards[number].frames())
        bench.guest.checked(f"ip link set eth{number} up")
        assert bench.cards[number].wait_for(before + 1, SECONDS)
        bench.guest.checked(f"ip link set eth{number} down")


def test_a_killed_driver_leaves_no_dma(bench: Bench) -> None:
    """Also when the supervisor is killed with it: then the kernel alone stops the cards."""
    give(bench)
    bench.start('dma = "physical"')
    with flood(bench.cards, b"\x5a" * 1514):
        bench.guest.checked('until grep -q "tx_mpps=0.0*[1-9]" /tmp/said; do sleep 0.2; done')
        assert bench.masters() == [True, True]
        bench.guest.checked(
            "kill -9 $(cat /tmp/pid) $(pgrep -f [r]ingline.pipeline.driver.process)"
        )
        for each in bench.devices:
            command = f"/sys/bus/pci/devices/{each}/config"
            bench.guest.checked(
                f"while [ $(($(od -An -tu1 -j4 -N1 {command}) & 4)) != 0 ]; do sleep 0.1; done"
            )
