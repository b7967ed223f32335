"""Hosts whose interface is a TAP that ringline has made, in place of a veth pair.

    host "a": eth0 -- ringline in the middle -- vb ~~ eth0: host "b"

The TAP is made in the middle; then it is moved to its host, as people give a TAP to a container.
"""

from __future__ import annotations

import json
from typing import Any

from .veth_harness import SIDES, Veths, ip, wait_until


class Taps(Veths):
    """As `Veths`, with a TAP in place of the veth pair of each side in `taps`."""

    def __init__(self, taps: str = "ab", queues: int = 1) -> None:
        self.taps = taps
        super().__init__(queues)

    def _make(self, queues: int, far: int) -> None:
        super()._make(queues, far)
        for side in self.taps:
            ip("-n", self.middle, "link", "del", f"v{side}")

    def there(self, name: str) -> bool:
        """Whether the middle has this interface."""
        return any(each["ifname"] == name for each in self.links(self.middle))

    @staticmethod
    def links(namespace: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(ip("-n", namespace, "-j", "-d", "link", "show"))
        return found

    def has_interface(self, side: str) -> bool:
        """Whether the host has the interface that it was given."""
        return any(each["ifname"] == "eth0" for each in self.links(self.hosts[side]))

    def adopt(self, side: str) -> None:
        """Give the TAP of ringline to its host."""
        host, number = self.hosts[side], SIDES[side]
        wait_until(lambda: self.there(f"t{side}"), f"the TAP t{side}")
        ip("-n", self.middle, "link", "set", f"t{side}", "netns", host, "name", "eth0")
        ip("-n", host, "addr", "add", f"10.77.0.{number}/24", "dev", "eth0")
        ip("-n", host, "addr", "add", f"fd77::{number}/64", "dev", "eth0", "nodad")
        ip("-n", host, "link", "set", "eth0", "up")


def tap(side: str, **keys: Any) -> str:
    """The table of a port on a TAP."""
    lines = [f"[port.{side}]", f'device = "tap:t{side}"']
    return "\n".join([*lines, *(f"{key} = {json.dumps(value)}" for key, value in keys.items())])
