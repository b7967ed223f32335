"""One sentence for the log when the driver begins to refuse what a worker returns.

The packets are counted as `bad_reference`; without a sentence the author of the plugin would see
that packets are lost, and not that they are too long
(tests/pipeline/telemetry/test_refusal_log.py: test_each_cause_is_told_once).
"""

from __future__ import annotations

from collections.abc import Iterator

from ringline.pipeline.telemetry.observe import Sources
from ringline.shm import counters
from ringline.shm.refusals import words


class RefusalLog:
    """The refusals in the books of `sources` that were not told yet."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._told: set[tuple[int, str]] = set()  # queue of the worker, cause

    def news(self) -> Iterator[str]:
        """A sentence for each worker and cause, once in a run."""
        books = self._sources.lane.at("struct rl_lane_segment *")
        for worker in self._sources.workers:
            for cause, number in counters.read(books.slots[worker.queue].refusals).items():
                if number and (worker.queue, cause) not in self._told:
                    self._told.add((worker.queue, cause))
                    packets = "1 packet" if number == 1 else f"{number} packets"
                    yield (
                        f"worker {worker.queue}: plugin {worker.plugin}: {packets} refused, "
                        f"{cause}: {words(cause, self._sources.frame_max)}; later ones are only "
                        f"counted (bad_reference)"
                    )
