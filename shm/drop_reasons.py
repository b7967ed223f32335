"""The names of ringline's own drop reasons. A plugin cannot name a reason of its own like one of
them: each lost packet has one reason (README, "Drop reasons").
"""

from __future__ import annotations

from ringline.shm.counters import field_names

_NAMED = "drop_named"  # the array of counters for the reasons of a plugin

# Counted by the lane, in the order of struct rl_queue_counters.
OF_THE_LANE = tuple(
    name.removeprefix("drop_")
    for name in field_names("struct rl_queue_counters")
    if name.startswith("drop_") and name != _NAMED
)
# Counted by the card.
OF_THE_CARD = ("no_descriptor", "missed", "oversize", "runt", "crc")
BUILT_IN = frozenset(OF_THE_LANE + OF_THE_CARD)
