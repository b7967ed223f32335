"""The sentences about links that change."""

from __future__ import annotations

from ringline.pipeline.ports.link_log import BURST, INTERVAL, LinkLog
from ringline.shm.messages import LinkReport

DOWN: LinkReport = {"up": False, "mbps": 0}


def up(mbps: int) -> LinkReport:
    return {"up": True, "mbps": mbps}


def test_each_change_is_told() -> None:
    """Once, for the port that has changed; the first state of a port is no change."""
    log = LinkLog()
    assert log.look("a", up(10000), 0.0) == log.look("b", DOWN, 0.0) == ""
    assert log.look("a", DOWN, 1.0) == "port a: the link is down"
    assert log.look("b", DOWN, 1.0) == log.look("a", DOWN, 2.0) == ""
    assert log.look("a", up(10000), 3.0) == "port a: the link is up, 10000 Mbit/s"
    assert log.look("a", up(1000), 4.0) == "port a: the link is up, 1000 Mbit/s"
    assert log.look("b", up(0), 4.0) == "port b: the link is up"


def test_a_link_that_flaps_is_told_now_and_then() -> None:
    """An hour with a change each second has few lines, the next port has its own, and the last
    state is told."""
    log = LinkLog()
    log.look("a", DOWN, 0.0)
    log.look("b", DOWN, 0.0)
    said = [log.look("a", up(1000) if now % 2 else DOWN, now) for now in range(1, 3600)]
    lines = [each for each in said if each]
    assert lines[:2] == ["port a: the link is up, 1000 Mbit/s", "port a: the link is down"]
    assert BURST + 3600 / INTERVAL - 2 <= len(lines) <= BURST + 3600 / INTERVAL + 1
    assert ", after 15 changes since the last such line" in lines[-1]
    assert log.look("b", up(0), 3600) == "port b: the link is up"
    log.look("a", DOWN, 3600)
    later = [log.look("a", DOWN, now) for now in range(3601, 3700)]
    [last] = filter(None, later)
    assert last.startswith("port a: the link is down")


def test_a_change_and_back_again_is_told() -> None:
    log = LinkLog()
    log.look("a", up(0), 0.0)
    for n in range(BURST):
        assert log.look("a", up(0) if n % 2 else DOWN, 0.0)
    assert log.look("a", DOWN, 1.0) == log.look("a", up(0), 2.0) == ""
    assert log.look("a", up(0), INTERVAL) == (
        "port a: the link is up again, after 2 changes since the last such line"
    )
    assert log.look("a", up(0), 2 * INTERVAL) == ""
