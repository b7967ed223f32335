"""ringline drives QEMU's 82574L over VFIO, in a guest with an IOMMU.

Both the card and Linux's driver of it were written by others. Here is QEMU 7 of Debian 12; the
sample, with fewer frames, is in test_igb.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from ringline.shm.packets import DESCRIPTORS_BASE

from . import gigabit
from .booted import booted
from .cards import card
from .machine import Guest
from .test_vfio_ixgbe import ALONE, WRONG_RINGS, Bench, only_proof

DEVICES = ("0000:00:10.0", "0000:00:11.0")

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with booted(lambda: Guest([card("e1000e")] * 2, iommu=True, hugepages=64)) as guest:
        made = Bench(guest, guest.cables, DEVICES)
        made.bind("vfio-pci", "DMA")
        yield made


@only_proof
def test_frames_pass_both_ways_over_vfio(bench: Bench) -> None:
    gigabit.pass_both_ways(bench, 20_000)


@only_proof
def test_filters_queues_and_tags(bench: Bench) -> None:
    gigabit.pass_with_filters_queues_and_tags(bench, queues=2, udp_ports=False)


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
    gigabit.ring_once_for_a_burst(bench, {"rx": "0x2818", "tx": "0x3818"}, record_property)


@only_proof
def test_frames_pass_both_ways_with_physical_addresses(bench: Bench) -> None:
    """The IOMMU is told to translate nothing, so addresses are physical. That without an IOMMU,
    through uio_pci_generic, is in test_uio.py."""
    bench.bind("none", "identity")  # not the kernel's driver
    try:
        gigabit.pass_both_ways(bench, 20_000, 'dma = "physical"')
    finally:
        bench.bind("vfio-pci", "DMA")


@only_proof
def test_a_wrong_address_is_stopped_named_by_the_kernel_and_the_port_fails(bench: Bench) -> None:
    """Of the transmit rings: the card reads no descriptor, and completes none."""
    bench.guest.checked("dmesg --clear")
    bench.start_with(WRONG_RINGS, ALONE)
    bench.cards[0].send(b"\xff" * 60)
    bench.wait_for("port wan has failed: it sends nothing of what transmit queue 0 has")
    report = bench.stop()
    said = bench.guest.checked("dmesg")
    bench.guest.checked("dmesg --clear")  # other tests look for it
    wrong = f"{DESCRIPTORS_BASE | 1 << 32:#x}".removesuffix("0000")
    assert f"DMAR: [DMA Read NO_PASID] Request device [00:10.0] fault addr {wrong}" in said
    assert report["ports"]["wan"]["received"]["packets"] == 1
    assert report["ports"]["lan"]["faults"] == []
    assert bench.masters() == [False, False]


@only_proof
def test_a_card_starts_twenty_times(bench: Bench) -> None:
    gigabit.start_again_and_again(bench)
