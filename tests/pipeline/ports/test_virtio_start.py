"""A virtio-net device that breaks the rules while it is started."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from ringline.pipeline._pipeline import ffi
from ringline.pipeline.ports.virtio import port
from ringline.pipeline.ports.virtio.capabilities import Structure
from ringline.pipeline.ports.virtio.card import Card
from ringline.pipeline.ports.virtio.initialisation import STEPS, place_control_queue
from ringline.shm.errors import ConfigurationError, HardwareError

from .fake_virtio import (
    DEVICE,
    HASH_REPORT,
    LINK,
    MAC,
    MAC_ADDR,
    MQ,
    NOTIFY,
    PLAIN,
    RSS,
    RX_EXTRA,
    RX_MODE,
    VERSION_1,
    VLAN,
    FakeDevice,
    FakeVirtio,
)
from .port_harness import RIGHT

Make = Callable[..., FakeVirtio]


@pytest.fixture
def make(instance: Callable[[], str]) -> Iterator[Make]:
    """Makes a port over a device with these features."""
    with ExitStack() as stack:

        def made(offered: int = PLAIN, *, pairs: int = 1, **config: Any) -> FakeVirtio:
            device = FakeDevice(offered, pairs)
            return stack.enter_context(FakeVirtio(instance(), device, **config))

        yield made


@pytest.mark.parametrize(("most", "entries"), [(0, 0), (1, 1), (3, 2)])
def test_a_device_with_too_short_a_table_is_refused(make: Make, most: int, entries: int) -> None:
    card = make(PLAIN | MQ | RSS, pairs=4, queues=3, buffers=1024)
    card.device.words[DEVICE + 18] = most
    with pytest.raises(HardwareError, match=f"takes has {entries} entries, too few for 3"):
        card.start()


def test_the_answer_to_one_command_is_not_that_to_the_next(make: Make) -> None:
    """A device that returns a command and writes no answer has not carried it out."""
    card = make()
    card.device.answered = 1
    with pytest.raises(HardwareError, match=r"answers 255 \(command 0\.1"):
        card.start()
    assert len(card.device.commands) == 2


@pytest.mark.parametrize(("place", "multiplier"), [(64, 4), (0xFFFF, 1 << 16), (1, 3)])
@pytest.mark.parametrize("queue", [0, 1, 2])
def test_a_doorbell_outside_of_its_structure_or_at_an_odd_offset_is_refused(
    make: Make, place: int, multiplier: int, queue: int
) -> None:
    card = make()
    card.device.doorbells = {0: 0, 1: 0, 2: 0, queue: place}
    card.port._card._notify = Structure(4, NOTIFY, 256, multiplier)
    words = f"doorbell of queue {queue} is at byte {place * multiplier} "
    with pytest.raises(HardwareError, match=words):
        card.start()
    card.port.stop()
    assert card.residuals() == RIGHT


def test_without_a_control_queue_no_feature_is_accepted_that_needs_it(make: Make) -> None:
    needing = MAC_ADDR | RX_MODE | VLAN | RX_EXTRA | MQ | HASH_REPORT | RSS
    card = make(VERSION_1 | MAC | LINK | needing, promiscuous=True).start()
    assert card.device.accepted == VERSION_1 | MAC | LINK
    card.port.stop()
    with pytest.raises(ConfigurationError, match="has 1 pair of queues, not 2; set queues = 1"):
        make(VERSION_1 | MAC | LINK | needing, queues=2, buffers=1024).start()


@pytest.mark.parametrize("pairs", [1, 0x8000, 0xFFFF])
def test_a_number_of_queues_that_cannot_be_is_refused(make: Make, pairs: int) -> None:
    """The second time that the driver reads it; the first, the device says 2."""
    card = make(PLAIN | MQ, pairs=2, queues=2, buffers=1024)
    steps = [_lies(pairs) if step is place_control_queue else step for step in STEPS]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(port.VirtioPort, "steps", steps)
        with pytest.raises(HardwareError, match=f"has {pairs} pairs of queues, .* {2 * pairs}; "):
            card.start()
    card.port.stop()
    assert card.residuals() == RIGHT


def _lies(pairs: int) -> Callable[[Card], None]:
    def step(card: Card) -> None:
        ffi.memmove(card._access.words + DEVICE + 8, pairs.to_bytes(2, "little"), 2)  # type: ignore[attr-defined]
        place_control_queue(card)

    return step


def test_no_pair_of_queues_is_one(make: Make) -> None:
    card = make(PLAIN | MQ, pairs=2, queues=2, buffers=1024)
    ffi.memmove(card.device.words + DEVICE + 8, bytes(2), 2)
    with pytest.raises(ConfigurationError, match="has 1 pair of queues, not 2; set queues = 1"):
        card.start()
