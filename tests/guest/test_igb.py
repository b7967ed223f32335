"""ringline drives QEMU's 82576 over VFIO, in a guest with an IOMMU.

Both the card and Linux's driver of it were written by others. The card needs a newer QEMU than
Debian 12 has, and is behind a port of PCI Express of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from . import gigabit
from .booted import booted, without
from .cards import card
from .kernel import Missing
from .machine import Guest, qemu
from .test_vfio_ixgbe import Bench, only_proof

DEVICES = ("0000:01:00.0", "0000:02:00.0")

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with booted(lambda: Guest([card("igb")] * 2, iommu=True, hugepages=64)) as guest:
        made = Bench(guest, guest.cables, DEVICES)
        made.bind("vfio-pci", "DMA")
        yield made


def test_frames_pass_between_an_82574_and_an_82576(
    record_property: Callable[[str, object], None],
) -> None:
    """One guest for both drivers: this is the sample. Frames pass, a link goes down and up, and a
    card is unplugged. Without the QEMU that has an 82576, there are two 82574Ls, and then the test
    is skipped."""
    other, missing = card("igb"), None
    try:
        qemu([other])
    except Missing as error:
        other, missing = card("e1000e", express=True), error
    with booted(lambda: Guest([card("e1000e"), other], iommu=True, hugepages=64)) as guest:
        mixed = Bench(guest, guest.cables, ("0000:00:10.0", "0000:01:00.0"))
        mixed.bind("vfio-pci", "DMA")
        gigabit.pass_both_ways(mixed, 2000, record=record_property)
        gigabit.lose_a_link_and_a_card(mixed)
    if missing is not None:
        without(missing, tried="frames have passed between two 82574Ls")


@only_proof
def test_frames_pass_both_ways_over_vfio(bench: Bench) -> None:
    gigabit.pass_both_ways(bench, 20_000)


@only_proof
@pytest.mark.parametrize("queues", [2, 4])
def test_filters_queues_and_tags(bench: Bench, queues: int) -> None:
    gigabit.pass_with_filters_queues_and_tags(bench, queues, udp_ports=True)


@only_proof
def test_a_promiscuous_port_gets_everything(bench: Bench) -> None:
    gigabit.pass_everything_with_tags_in_place(bench)


@only_proof
def test_a_link_is_lost_and_found(bench: Bench) -> None:
    gigabit.lose_the_link_and_find_it(bench)


@only_proof
def test_a_doorbell_is_rung_once_for_a_burst(
    bench: Bench, record_property: Callable[[str, object], None]
) -> None:
    gigabit.ring_once_for_a_burst(bench, {"rx": "0xc018", "tx": "0xe018"}, record_property)


@only_proof
def test_a_card_starts_twenty_times(bench: Bench) -> None:
    gigabit.start_again_and_again(bench)
