"""The cable of a card is pulled, and the card itself, while ringline drives it: an 82574L of QEMU,
over VFIO and with physical addresses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from . import newer_kernel
from .booted import booted
from .cards import card
from .exchange import exchange
from .machine import Guest
from .test_vfio_ixgbe import ALONE, Bench, numbered, only_proof

DEVICES = ("0000:01:00.0", "0000:02:00.0")
FRAMES = 1000
LAST_LINE = 'until tail -n 1 /tmp/said | grep -q "lan.link_mbits={} "; do sleep 0.2; done'
# The driver that gets the cards, the kind of address, keys of the ports, and what the port says
# when its card is gone. The driver "none" does not exist.
ACCESS = {
    "vfio": ("vfio-pci", "DMA", "", "the kernel takes it back: it is being removed, or unbound"),
    "physical": (
        "none",
        "identity",
        'dma = "physical"',
        "the machine does not have the card any more: it was removed",
    ),
}

pytestmark = [pytest.mark.timeout(1800), only_proof]


@pytest.fixture(scope="module", params=["this kernel", "newer kernel"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    def make() -> Guest:
        kernel = newer_kernel.kernel() if request.param == "newer kernel" else None
        return Guest([card("e1000e", express=True)] * 2, iommu=True, hugepages=64, using=kernel)

    with booted(make) as guest:
        yield Bench(guest, guest.cables, DEVICES)


def pass_alone(bench: Bench) -> None:
    """Each card sends back what it receives: all of it, in order, as it was."""
    wan, lan = bench.cards
    frames = list(numbered(FRAMES))
    assert exchange((wan, wan, frames), (lan, lan, frames)) == [frames, frames]


@pytest.mark.parametrize("access", ACCESS)
def test_a_port_goes_on_when_its_link_comes_again(bench: Bench, access: str) -> None:
    driver, kind, keys, _ = ACCESS[access]
    bench.bind(driver, kind)
    bench.start(keys, ALONE)
    pass_alone(bench)
    for _ in range(3):
        bench.guest.set_link(1, up=False)
        bench.guest.checked(LAST_LINE.format(0))
        bench.guest.set_link(1, up=True)
        bench.guest.checked(LAST_LINE.format(1000))
        pass_alone(bench)
    report = bench.stop()
    assert [port["forwarded"] for port in report["ports"].values()] == [4 * FRAMES] * 2
    assert [port["faults"] for port in report["ports"].values()] == [[], []]


@pytest.mark.parametrize("access", ACCESS)
def test_a_card_that_is_unplugged_fails_by_name_and_the_rest_runs(
    bench: Bench, access: str
) -> None:
    """Then it is plugged in again, and the next run has it."""
    driver, kind, keys, why = ACCESS[access]
    bench.bind(driver, kind)
    bench.start(keys, ALONE)
    pass_alone(bench)
    bench.guest.unplug(1)
    bench.wait_for(f"port lan has failed: {why}")
    wan, frames = bench.cards[0], list(numbered(FRAMES))
    assert exchange((wan, wan, frames)) == [frames]
    report = bench.stop()
    assert report["ports"]["wan"]["forwarded"] == 2 * FRAMES
    assert report["ports"]["lan"]["forwarded"] == FRAMES
    assert report["ports"]["wan"]["faults"] == []
    [fault] = report["ports"]["lan"]["faults"]
    assert fault.startswith(f"the port has failed: {why}")
    bench.guest.plug(1)
    bench.guest.checked(f"until [ -e /sys/bus/pci/devices/{DEVICES[1]} ]; do sleep 0.1; done")
    bench.bind(driver, kind)
    bench.start(keys, ALONE)
    pass_alone(bench)
    bench.stop()
    assert bench.masters() == [False, False]
