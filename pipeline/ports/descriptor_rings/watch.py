"""Whether a card does its work: it takes what is posted, and writes what it accepts.

A card that the IOMMU stops, or that hangs, says nothing: its registers answer, and its link is up.
So the driver looks once a second. A card makes no progress when the card completes none of the
transmit descriptors that it has, or when it counts frames, as accepted or as dropped for want of a
descriptor, and writes none of them to memory. It drops them when it has used up its descriptors and
written none back; it drops them as well while we take none, but then the next descriptor is
written. A card that makes no progress in LOOKS looks one after the other has stopped. All that is
read for this are the statistics, which are read once a second anyway.

Guarantees (tests in tests/pipeline/ports/test_card_watch.py):
 - a card that stops is noticed, and one that waits for us or for its link is not
   (test_a_card_that_sends_nothing_has_stopped, test_a_card_that_receives_nothing_has_stopped,
   test_a_card_that_used_up_its_descriptors_has_stopped, test_a_card_that_waits_has_not_stopped)
"""

from __future__ import annotations

from typing import Any

LOOKS = 5
_DD = 1  # of a receive descriptor, upper word: the card has written it
GONE = 0xFFFFFFFF  # what a read gives that no device answers


class Watch:
    """The looks at one card. `c` is cdata `struct rl_card *`."""

    def __init__(self, c: Any, queues: int) -> None:
        self._c, self._queues = c, queues
        self._sending = [0] * queues  # looks one after the other without progress
        self._receiving = 0
        self._clean = [-1] * queues
        self._next = [-1] * queues
        self._arrived = 0

    def look(self, arrived: int, *, up: bool) -> str:
        """What the card does not do, or "". `arrived` is how many frames it has counted, accepted
        and dropped ones, `up` whether its link is up."""
        for queue in range(self._queues):
            ring = self._c.tx[queue]
            stuck = up and ring.clean != ring.next and ring.clean == self._clean[queue]
            self._sending[queue] = self._sending[queue] + 1 if stuck else 0
            self._clean[queue] = ring.clean
            if self._sending[queue] >= LOOKS:
                return f"it sends nothing of what transmit queue {queue} has"
        rings = [self._c.rx[queue] for queue in range(self._queues)]
        at = [ring.next for ring in rings]
        written = any(ring.descriptors[ring.next].upper & _DD for ring in rings)
        stuck = arrived > self._arrived and at == self._next and not written
        self._receiving = self._receiving + 1 if stuck else 0
        self._next, self._arrived = at, arrived
        if self._receiving >= LOOKS:
            return "frames arrive, and it writes none of them to memory"
        return ""
