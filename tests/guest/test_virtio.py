"""ringline drives QEMU's virtio-net over VFIO, in a guest with an IOMMU.

Both the device and Linux's driver of it were written by others.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .booted import booted
from .cards import card
from .exchange import exchange
from .machine import Guest
from .test_vfio_ixgbe import PROOF, Bench, check, numbered, only_proof

DEVICES = ("0000:00:10.0", "0000:00:11.0")
FRAMES = 20_000 if PROOF else 3000

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with booted(lambda: Guest([card("virtio-net-mapped")] * 2, iommu=True, hugepages=64)) as guest:
        made = Bench(guest, guest.cables, DEVICES)
        made.bind("vfio-pci", "DMA")
        yield made


def test_frames_pass_both_ways_over_vfio(bench: Bench) -> None:
    """All of them, once, in order, as they were: of 60 to 1514 bytes."""
    bench.start()
    one, other = bench.cards
    frames = list(numbered(FRAMES))
    ways = [frames, frames[::-1]]
    found = exchange((one, other, ways[0]), (other, one, ways[1]))
    report = bench.stop()
    assert [len(each) for each in found] == [len(frames)] * 2
    assert found == ways
    check(bench, len(frames), report)
    assert "DMAR: [DMA" not in bench.guest.checked("dmesg"), "the IOMMU has stopped the card"


@only_proof
def test_a_card_starts_twenty_times(bench: Bench) -> None:
    one, other = bench.cards
    frames = list(numbered(100))
    for _ in range(20):
        bench.start()
        assert exchange((one, other, frames), (other, one, frames)) == [frames, frames]
        check(bench, len(frames), bench.stop())
