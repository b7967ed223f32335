"""The driver of two cards is killed in mid traffic, alone and together with the supervisor: nothing
reaches memory that is free then."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import pytest

from .booted import booted
from .cards import card
from .exchange import flood
from .machine import Guest
from .served import NO_DMA
from .test_vfio_ixgbe import PATTERN, Bench, only_proof, two_served_cards

DEVICES = ("0000:00:10.0", "0000:00:11.0")
ACCESS = {"vfio": ("vfio-pci", "DMA", ""), "physical": ("none", "identity", 'dma = "physical"')}
DRIVER = "$(pgrep -f '[-]m ringline.pipeline.driver.process')"
MOVING = 'until grep -q "tx_mpps=0.0*[1-9]" /tmp/said; do sleep 0.2; done'
ENDED = """for p in {}; do
    while kill -0 $p 2> /dev/null && ! grep -q "State:.Z" /proc/$p/status; do sleep 0.2; done
done"""

pytestmark = [pytest.mark.timeout(1800), only_proof]


@pytest.fixture(scope="module", params=["82574L", "82599"])
def bench(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    if request.param == "82599":
        with two_served_cards(tmp_path_factory) as made:
            for each in made.cards:
                each.may_refuse.append(NO_DMA)
            yield made
        return
    with booted(lambda: Guest([card("e1000e")] * 2, iommu=True, hugepages=64)) as guest:
        yield Bench(guest, guest.cables, DEVICES)


def look_for_writes(bench: Bench) -> str:
    return bench.guest.checked(f"python -c {shlex.quote(PATTERN)} 3")


def kill(bench: Bench, *who: str) -> None:
    """Kill these processes at once while frames pass, and wait until the run has ended."""
    bench.guest.checked(
        f"{MOVING}; all=$(cat /tmp/pid; pgrep -f '[-]m ringline'); kill -9 {' '.join(who)};"
        + ENDED.format("$all")
    )


@pytest.mark.parametrize("access", ACCESS)
def test_a_killed_driver_leaves_no_dma_into_freed_memory(bench: Bench, access: str) -> None:
    """The supervisor lives: without VFIO, it stops the cards."""
    driver, kind, keys = ACCESS[access]
    bench.bind(driver, kind)
    bench.start(keys)
    with flood(bench.cards, b"\x5a" * 1514):
        kill(bench, DRIVER)
        assert bench.masters() == [False, False]
        assert look_for_writes(bench) == "64 hugepages, 0 wrong pages\n"
    assert "the driver was ended by SIGKILL" in bench.guest.checked("cat /tmp/said")


@pytest.mark.parametrize("access", ACCESS)
def test_a_killed_run_leaves_no_dma_into_freed_memory(bench: Bench, access: str) -> None:
    """Nobody lives. Without VFIO, the cards go on and write into packet memory, which is not free
    before `ringline cleanup`, or the next start, has stopped them."""
    driver, kind, keys = ACCESS[access]
    physical = access == "physical"
    bench.bind(driver, kind)
    bench.start(keys)
    with flood(bench.cards, b"\x5a" * 1514):
        kill(bench, "$(cat /tmp/pid)", DRIVER)
        assert bench.masters() == [physical, physical]
        said = look_for_writes(bench)
        assert said.endswith(" hugepages, 0 wrong pages\n")
        assert int(said.split()[0]) < 64, "the memory of the run is not free"
        said = bench.guest.checked("ringline cleanup vfio")
        for device in bench.devices if physical else ():
            assert f"DMA of PCI device {device} was stopped" in said
        assert bench.masters() == [False, False]
        assert look_for_writes(bench) == "64 hugepages, 0 wrong pages\n"
