"""Sentences for the log when the link of a port goes up or down, or gets another speed.

A link that flaps must not fill the log: a port has BURST sentences at once, and one more every
INTERVAL seconds. A change that has to wait for its sentence is counted there, and the state that a
sentence says is always the newest.

Guarantees (tests in tests/pipeline/ports/test_link_log.py):
 - each change is told once, with the port, the state and the speed (test_each_change_is_told)
 - a link that flaps is told now and then, and its last state in the end
   (test_a_link_that_flaps_is_told_now_and_then)
"""

from __future__ import annotations

from dataclasses import dataclass

from ringline.shm.messages import LinkReport

BURST = 4  # sentences
INTERVAL = 15.0  # seconds


@dataclass
class _Port:
    told: LinkReport
    seen: LinkReport
    changes: int = 0  # that no sentence has told
    free_at: float = 0.0  # when all BURST sentences are there again


class LinkLog:
    """The links of the ports of a run, as they were told. Not thread-safe."""

    def __init__(self) -> None:
        self._ports: dict[str, _Port] = {}

    def look(self, name: str, link: LinkReport, now: float) -> str:
        """What to say about the port `name`, whose link is `link` at the time `now` in seconds; ""
        for nothing. The first state of a port is not told."""
        port = self._ports.setdefault(name, _Port(link, link))
        port.changes += link != port.seen
        port.seen = link
        if not port.changes or port.free_at - now > (BURST - 1) * INTERVAL:
            return ""
        changes, unchanged = port.changes, link == port.told
        port.told, port.changes = link, 0
        port.free_at = max(port.free_at, now) + INTERVAL
        again = " again" if unchanged else ""
        flaps = f", after {changes} changes since the last such line" if changes > 1 else ""
        return f"port {name}: the link is {_words(link)}{again}{flaps}"


def _words(link: LinkReport) -> str:
    if not link["up"]:
        return "down"
    return f"up, {link['mbps']} Mbit/s" if link["mbps"] else "up"
