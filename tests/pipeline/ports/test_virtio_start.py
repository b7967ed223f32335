"""A virtio-net device that breaks the rules while it is started."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from ringline.pipeline.ports.virtio.capabilities import Structure
from ringline.shm.errors import HardwareError

from .fake_virtio import DEVICE, MQ, NOTIFY, PLAIN, RSS, FakeDevice, FakeVirtio
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
