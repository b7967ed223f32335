"""The lines that the plugin of a worker writes into the log of the run (`worker.log`).

A worker is not trusted: it may send anything as often as it can. So its lines are cut, escaped and
counted here once more (tests/pipeline/telemetry/test_plugin_log.py:
test_a_worker_can_say_neither_too_much_nor_too_long_lines, test_control_characters_are_escaped).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ringline.shm.bucket import Bucket
from ringline.shm.text import printable

# Somewhat more than a worker allows its plugin, so that here no line of an honest one is left out.
BURST = 40  # lines at once
PER_SECOND = 4.0
LINE_MAX = 2500  # characters: those of a worker's line, each escaped
LEVELS = ("info", "warning", "error")


class PluginLog:
    """The log of `worker`, which runs `plugin`; `announce` tells the operator a sentence."""

    def __init__(self, worker: str, plugin: str, announce: Callable[[str], None]) -> None:
        self._head = f"{worker}: plugin {plugin}"
        self._announce = announce
        self._bucket = Bucket(BURST, PER_SECOND)
        self._left_out = 0

    def note(self, message: Mapping[str, Any], now: float) -> None:
        """Announce a LogLine; `now` is in seconds. What is no LogLine is ignored."""
        level, line = message.get("level"), message.get("line")
        if level not in LEVELS or not isinstance(line, str):
            return
        if not self._bucket.take(now):
            self._left_out += 1
            return
        self.end()
        self._announce(f"{self._head}: {level}: {printable(line[:LINE_MAX])}")

    def end(self) -> None:
        """Tell how many lines were left out, if any."""
        if self._left_out:
            self._announce(f"{self._head}: {self._left_out} lines were left out: too many")
            self._left_out = 0
