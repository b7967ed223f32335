"""Zero-copy on kernels and cards that have it: virtio-net and igb on a newer kernel, and ixgbe on
the simulated 82599. One run serves all cards of a guest, also those that do not have it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from . import kernel as kernels
from . import newer_kernel
from .booted import PROOF, booted
from .cards import End, card
from .kernel import Kernel
from .machine import Guest
from .served import served_card
from .traffic import Run, bring_up, counts, pass_frames, start, stop

FRAMES = 2000

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not PROOF, reason="needs RINGLINE_PROOF=1: QEMU 11 is a big download"),
]


@contextlib.contextmanager
def on_guest(
    kernel: Callable[[], Kernel],
    folder: Path,
    cards: Sequence[str],
    served: int,
    ports: dict[str, str],
) -> Iterator[Run]:
    """A run that has forwarded FRAMES frames from each card to its neighbour; the last cards are
    `served` ones of the model 82599."""
    with contextlib.ExitStack() as stack:
        places = [folder / str(number) for number in range(served)]
        for place in places:
            place.mkdir()
        made = [stack.enter_context(served_card(place)) for place in places]
        guest = stack.enter_context(
            booted(
                lambda: Guest(
                    [card(name) for name in cards],
                    modules=["ixgbe"],
                    served=[path for path, _ in made],
                    using=kernel(),
                )
            )
        )
        bring_up(guest, list(ports))
        ends: list[End] = [*guest.cables, *(end for _, end in made)]
        run = start(guest, ports)
        for left, right in zip(ends[::2], ends[1::2], strict=True):
            pass_frames(left, right, FRAMES)
            pass_frames(right, left, FRAMES)
        stop(guest, run)
        yield run


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    cards = ["virtio-net-mapped:2", "virtio-net:2", "igb", "e1000e"]
    two = 'queues = 2\nchannels = "set"\n'
    ports = {
        "eth0": two + 'mode = "zero-copy"',
        "eth1": two + 'mode = "auto"',
        "eth2": 'mode = "zero-copy"',
        "eth3": 'mode = "auto"',
        "eth4": 'mode = "zero-copy"',
        "eth5": 'mode = "auto"',
    }
    folder = tmp_path_factory.mktemp("newer")
    with on_guest(newer_kernel.kernel, folder, cards, 2, ports) as run:
        yield run


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """On Debian 12, where the sockets are bound a second time."""
    ports = {"eth0": 'mode = "zero-copy"', "eth1": 'mode = "auto"'}
    folder = tmp_path_factory.mktemp("older")
    with on_guest(kernels.kernel, folder, [], 2, ports) as run:
        yield run


def is_zero_copy(run: Run, name: str, driver: str, queues: int) -> None:
    assert f"{name}, driver {driver}: native XDP, zero-copy, queues {queues}" in run.said
    port = run.report["ports"][name]
    assert port["attached"] == "native XDP, zero-copy"
    assert port["received"]["packets"] == port["transmitted"]["packets"] == FRAMES
    each = counts(run, name)[:queues]
    assert sum(each) == FRAMES
    assert all(each), each


def test_virtio_net_with_two_queues(newer: Run) -> None:
    is_zero_copy(newer, "eth0", "virtio_net", 2)


def test_igb(newer: Run) -> None:
    """With less than 2048 bytes of a chunk for the card, it cuts frames of more than 1024 bytes."""
    is_zero_copy(newer, "eth2", "igb", 1)


@pytest.mark.parametrize("name", ["eth4", "eth5"])
def test_ixgbe(newer: Run, name: str) -> None:
    is_zero_copy(newer, name, "ixgbe", 1)


@pytest.mark.parametrize("name", ["eth0", "eth1"])
def test_ixgbe_on_an_older_kernel(older: Run, name: str) -> None:
    is_zero_copy(older, name, "ixgbe", 1)


@pytest.mark.parametrize(
    ("name", "attached", "why"),
    [
        (
            "eth1",
            "native XDP, copy",
            "its device does not use the addresses of an IOMMU (VIRTIO_F_ACCESS_PLATFORM), and "
            "virtio_net needs that; in QEMU iommu_platform=on does it",
        ),
        ("eth3", "generic XDP, copy", "its driver has no zero-copy mode in this kernel ("),
    ],
)
def test_where_zero_copy_does_not_work_auto_copies(
    newer: Run, name: str, attached: str, why: str
) -> None:
    assert f"{name} is used in copy mode, because zero-copy does not work: {why}" in newer.said
    port = newer.report["ports"][name]
    assert port["attached"] == attached
    assert port["received"]["packets"] == port["transmitted"]["packets"] == FRAMES
