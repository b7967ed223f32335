"""The receive interrupt of an 82599: how often it comes, and that none comes of a card that failed.

The model keeps EITR as the datasheet has it [7.3.2.1.1]: after a message, the next one of the
vector waits for the rest of the interval. So what is counted here is what the driver has written.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise

import pytest

from ringline.pipeline._pipeline import ffi
from ringline.pipeline.ports.ixgbe import initialisation

from .bare_82599 import table
from .model_card import ModelCard
from .port_harness import FRAME
from .test_ixgbe_failed import FakeTaken

EITR = 0x0820
UNIT_US = 2  # of its interval
INTERVAL_MOST = 0x1FF
FRAMES = 1000
SECONDS = 30.0


def test_an_interval_of_10_us_is_configured(instance: Callable[[], str]) -> None:
    with ModelCard(instance()) as card:
        card.port.wakes = True
        card.start()
        assert UNIT_US * (card.sim.read32(EITR) >> 3 & 0x1FF) == 10


def test_interrupts_of_paced_frames_keep_the_interval(
    instance: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the longest interval, 1.022 ms, of frames that come each 20 us: no more interrupts than
    intervals. The last frames are not forgotten: their interrupt comes when the interval is over.
    """
    monkeypatch.setattr(initialisation, "INTERVAL_10_US", INTERVAL_MOST)
    seen: list[tuple[float, float]] = []  # of each interrupt: not before, and not after
    with ModelCard(instance()) as card:
        card.port.wakes = True
        card.start()
        card.sim.load(table([FRAME] * FRAMES), rate_mpps=0.05)
        owed, looked = False, time.monotonic()
        end = looked + SECONDS
        while owed or not card.sim.finished:
            assert looked < end, "the interrupt of the last frames has not come"
            card.c_port.arm(card.c_port)
            count, began, looked = card.port.events(steps=1), looked, time.monotonic()
            seen += [(began, looked)] * count
            refs = card.rx_burst()
            owed = count == 0 and (owed or bool(refs))
            card.tx_burst([card.held(ref, 0) for ref in refs])
            card.reclaim()
    gaps = [later[1] - earlier[0] for earlier, later in pairwise(seen)]
    assert min(gaps) * 1e6 >= UNIT_US * INTERVAL_MOST
    took = seen[-1][1] - seen[0][0]
    assert len(seen) - 1 <= took * 1e6 / (UNIT_US * INTERVAL_MOST)


def test_without_an_interval_each_frame_has_its_interrupt(instance: Callable[[], str]) -> None:
    """So the test above sees what EITR does."""
    with ModelCard(instance()) as card:
        card.port.wakes = True
        card.port.registers.ignored = {EITR}
        card.start()
        for _ in range(50):
            card.c_port.arm(card.c_port)
            card.port.follow()
            card.carry([FRAME], steps=4)
            assert card.port.events(steps=1) == 1


def test_a_card_that_failed_wakes_nobody(instance: Callable[[], str]) -> None:
    """Its eventfd will be closed, and another file may get the number."""
    with ModelCard(instance()) as card:
        card.port.wakes, card.port._taken = True, FakeTaken()
        card.start()
        assert card.c_port.event == card.port.eventfd >= 0
        card.port._taken.wanted = "the kernel takes it back"
        assert card.port.examine()
        assert card.c_port.event == -1
        card.port.unmask = ffi.new("uint32_t *")
        card.c_port.arm(card.c_port)
        assert card.port.unmask[0] == 0
