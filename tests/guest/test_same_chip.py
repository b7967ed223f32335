"""ringline drives cards that have another device ID than those of the other tests, and the same
registers."""

from __future__ import annotations

import contextlib
import functools

import pytest

from .booted import booted
from .cards import card
from .exchange import exchange
from .machine import Guest
from .served import served_card
from .test_vfio_ixgbe import Bench, check, numbered, only_proof

OF_QEMU = ("0000:00:10.0", "0000:00:11.0")
FRAMES = 5000

pytestmark = [pytest.mark.timeout(1800), only_proof]


def pass_frames(bench: Bench, keys: str = "") -> None:
    """All frames, once, in order, both ways at once."""
    bench.start(keys)
    one, other = bench.cards
    frames = list(numbered(FRAMES))
    ways = [frames, frames[::-1]]
    assert exchange((one, other, ways[0]), (other, one, ways[1])) == ways
    check(bench, len(frames), bench.stop())


def test_frames_pass_on_an_82599_with_another_id(tmp_path_factory: pytest.TempPathFactory) -> None:
    """154d and 1557, on boards with a cage for a module: 82599_SFP_SF2 and 82599EN_SFP in Linux's
    ixgbe_type.h."""
    ids = ("154d", "1557")
    with contextlib.ExitStack() as stack:
        made = [
            stack.enter_context(served_card(tmp_path_factory.mktemp("card"), each)) for each in ids
        ]
        paths, ends = zip(*made, strict=True)
        make = functools.partial(Guest, iommu=True, hugepages=64, served=paths)
        guest = stack.enter_context(booted(make))
        bench = Bench(guest, ends)
        bench.bind("vfio-pci", "DMA")
        said = guest.checked("ringline devices")
        assert [said.count(f"8086:{each}") for each in ids] == [1, 1], said
        pass_frames(bench)


def test_frames_pass_on_a_transitional_virtio_net() -> None:
    """1af4:1000. QEMU gives such a device no way through an IOMMU (VIRTIO_F_ACCESS_PLATFORM)."""
    cards = [card("virtio-net-transitional")] * 2
    with booted(lambda: Guest(cards, modules=["uio_pci_generic"], hugepages=64)) as guest:
        bench = Bench(guest, guest.cables, OF_QEMU)
        for each in OF_QEMU:
            guest.checked(f"ringline bind {each} --driver uio_pci_generic")
        said = guest.checked("ringline devices")
        assert said.count("1af4:1000") == 2, said
        pass_frames(bench, 'dma = "physical"')
