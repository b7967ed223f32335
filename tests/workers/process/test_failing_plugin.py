"""A worker whose plugin fails while it is made ready, or slowly."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ringline.workers.process import exits
from ringline.workers.process.process import FAILING_PACKETS, FAILING_SECONDS

if TYPE_CHECKING:
    from tests.workers.conftest import WorkerHarness

PluginFile = Callable[..., str]

ODD_CLASS = """
class Odd(type):
    def __getattr__(self, name):
        raise RuntimeError("no luck")

class Plugin(metaclass=Odd):
    def process(self, batch): ...
"""


def test_an_exception_of_the_plugin_at_any_place_is_a_sentence(
    worker: WorkerHarness, plugin_file: PluginFile
) -> None:
    """ringline looks up `options` in the class, and the class raises."""
    path = plugin_file(ODD_CLASS)
    worker.start(f"{path}:Plugin")
    event = worker.event("failed")
    assert event["error"]["type"] == "PluginError"
    assert event["error"]["message"].endswith(f": RuntimeError: no luck ({path}, line 4)")


SLOW_START = """
import time

class Plugin:
    def setup(self, worker):
        time.sleep({seconds})
    def process(self, batch):
        raise ValueError("no luck")
"""


def test_the_time_of_the_preparation_is_no_time_of_failures(
    worker: WorkerHarness, plugin_file: PluginFile
) -> None:
    """A function that compiles for 5 s was said to have failed for 5 s at its first packets."""
    worker.serve(f"{plugin_file(SLOW_START.format(seconds=FAILING_SECONDS + 0.2))}:Plugin")
    for _ in range(FAILING_PACKETS // 500 + 1):
        worker.push([(n % 64, 192, 60, n, 0, 0, 0) for n in range(500)])
        worker.take(500)
    time.sleep(0.3)  # some turns
    assert worker.stop() == exits.STOPPED
