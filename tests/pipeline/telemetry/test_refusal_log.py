"""The sentences about refused references."""

from __future__ import annotations

from collections.abc import Callable

from ringline.pipeline.telemetry.refusal_log import RefusalLog

from ..idle_instance import idle_instance


def test_each_cause_is_told_once(instance: Callable[[], str]) -> None:
    with idle_instance(instance()) as idle:
        log = RefusalLog(idle.sources)
        assert list(log.news()) == []
        idle.books.slots[1].refusals.too_long = 3
        [told] = log.news()
        plugin = idle.sources.workers[1].plugin
        assert told.startswith(
            f"worker 1: plugin {plugin}: 3 packets refused, too_long: the frame is longer than 1518"
        )
        idle.books.slots[1].refusals.too_long = 9
        assert list(log.news()) == []
        idle.books.slots[1].refusals.no_port = 1
        idle.books.slots[0].refusals.too_long = 1
        first, second = log.news()
        assert first.startswith("worker 0: ")
        assert (
            "1 packet refused, no_port: the verdict is neither a port, DROP nor a drop reason"
            in second
        )
        assert idle.take().workers[1].refusals["too_long"] == 9
