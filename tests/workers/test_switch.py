"""The bundled plugin `switch`, frame by frame. tests/e2e/test_switch.py lets real hosts use it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ringline.shm.errors import PluginError
from ringline.workers.plugins import switch as module
from ringline.workers.testing import DROP, Frame, Run, run_plugin

pytestmark = pytest.mark.timeout(600)  # the first test compiles the plugin
SWITCH = "ringline.workers.plugins.switch:switch"
SECOND = 1_000_000_000
BROADCAST = b"\xff" * 6
REASONS = {"reserved": 0, "same_port": 0, "bad_frame": 0}


def mac(number: int) -> bytes:
    return b"\x02\0\0\0" + number.to_bytes(2, "big")


def frame(target: bytes, source: bytes, port: int, at: float = 0, **keys: Any) -> Frame:
    tag = keys.pop("tag", b"")
    data = (target + source + tag + b"\x08\x00").ljust(keys.pop("length", 60), b"\xaa")
    return Frame(data, port, time=int(at * SECOND), **keys)


def tag(vlan: int, priority: int = 0) -> bytes:
    return b"\x81\x00" + (priority << 13 | vlan).to_bytes(2, "big")


def switched(*frames: Frame, ports: int = 3, blanks: int = 64, **options: Any) -> Run:
    return run_plugin(SWITCH, frames, ports=ports, blanks=blanks, options=options, batch=1)


def test_unknown_broadcast_and_multicast_go_to_all_other_ports() -> None:
    for target in (mac(9), BROADCAST, b"\x01\0\x5e\0\0\x01", b"\x33\x33\0\0\0\x01"):
        for port, others in ((0, [1, 2, 3]), (1, [0, 2, 3]), (3, [0, 1, 2])):
            sent = frame(target, mac(1), port, length=65)
            run = switched(sent, ports=4)
            assert [run[0].verdict, *(copy.verdict for copy in run.created)] == others
            assert all(copy.frame == sent.data for copy in [run[0], *run.created])


def test_a_learned_target_gets_its_frames_alone() -> None:
    run = switched(frame(BROADCAST, mac(1), 0), frame(mac(1), mac(2), 2), frame(mac(2), mac(1), 0))
    assert [result.verdict for result in run] == [1, 0, 2]
    assert len(run.created) == 1
    named = {name: run.named[name] for name in ("learned", "moved", "flooded", "stations")}
    assert named == {"learned": 2, "moved": 0, "flooded": 1, "stations": 2}


def test_a_station_that_moves_is_followed() -> None:
    run = switched(
        frame(BROADCAST, mac(1), 0),
        frame(BROADCAST, mac(1), 2, 1),
        frame(mac(1), mac(2), 1, 1),
    )
    assert run[2].verdict == 2
    assert run.named["moved"] == 1


def test_a_silent_station_is_forgotten() -> None:
    def learned(seconds: float) -> int:
        run = switched(
            frame(BROADCAST, mac(1), 0), frame(mac(1), mac(2), 1, seconds), ports=2, age=5
        )
        flooded: int = run.named["flooded"]
        return 2 - flooded

    assert learned(4.9) == 1
    assert learned(5.1) == 0


def test_the_tick_frees_the_lines_of_silent_stations() -> None:
    frames = [frame(BROADCAST, mac(1 + n), 0) for n in range(50)]
    run = switched(*frames, frame(BROADCAST, mac(99), 1, 400), frame(BROADCAST, mac(99), 1, 402))
    assert run.named["stations"] == 1


def test_a_frame_never_goes_back_to_its_port() -> None:
    run = switched(frame(BROADCAST, mac(1), 0), frame(mac(1), mac(2), 0))
    assert (run[1].reason, run.drops["same_port"]) == ("same_port", 1)


@pytest.mark.parametrize("last", [0, 3, 15])
def test_reserved_addresses_are_not_forwarded(last: int) -> None:
    run = switched(frame(bytes.fromhex("0180c20000") + bytes([last]), mac(1), 0))
    assert run.drops == REASONS | {"reserved": 1}
    assert not run.created
    assert switched(frame(bytes.fromhex("0180c2000010"), mac(1), 0))[0].verdict == 1


@pytest.mark.parametrize(
    "wrong",
    [frame(mac(1), bytes(6), 0), frame(mac(1), BROADCAST, 0), Frame(mac(1) + mac(2) + b"\x08\0")],
)
def test_bad_frames_are_dropped_and_teach_nothing(wrong: Frame) -> None:
    run = switched(wrong)
    assert run.drops == REASONS | {"bad_frame": 1}
    assert run.named["learned"] == 0


def test_each_vlan_has_its_own_stations() -> None:
    run = switched(
        frame(BROADCAST, mac(1), 0, tag=tag(5)),
        frame(mac(1), mac(2), 1, tag=tag(6)),  # nobody there: flooded
        frame(mac(1), mac(2), 1, tag=tag(5, 3)),
        frame(mac(1), mac(2), 1),  # without a tag: flooded
        frame(mac(1), mac(2), 1, vlan_tci=5),  # a tag that the card took away
    )
    assert [result.verdict for result in run] == [1, 0, 0, 0, 0]
    assert [copy.verdict for copy in run.created] == [2, 2, 2]
    # The priority tag is no VLAN.
    run = switched(frame(BROADCAST, mac(1), 0), frame(mac(1), mac(2), 1, tag=tag(0, 7)))
    assert run.named["flooded"] == 1


def test_copies_have_the_tag_that_the_card_took_away() -> None:
    sent = frame(BROADCAST, mac(1), 0, vlan_tci=0x6005)
    run = switched(sent)
    assert run[0].vlan_tci == 0x6005
    assert run[0].frame == sent.data
    assert run.created[0].frame == sent.data[:12] + b"\x81\x00\x60\x05" + sent.data[12:]
    # 1518 bytes and a tag are too long to be sent.
    run = switched(frame(BROADCAST, mac(1), 0, vlan_tci=5, length=1515))
    assert (run.created, run.named["without_blank"]) == ([], 1)


def test_copies_without_a_blank_are_counted_and_told() -> None:
    run = switched(frame(BROADCAST, mac(1), 0), ports=4, blanks=1)
    assert [run[0].verdict, *(copy.verdict for copy in run.created)] == [1, 2]
    assert run.named["without_blank"] == 1
    assert [line for line in run.log if "1 copy of flooded frames found no blank" in line[1]]


def test_a_full_group_of_lines_is_counted_and_its_frames_are_flooded() -> None:
    groups: dict[int, list[int]] = {}
    for number in range(1, 4000):
        key = int.from_bytes(mac(number), "big") << 16
        groups.setdefault(int(module.group_of(key, 256)), []).append(number)
    same = max(groups.values(), key=len)[: module.LINES + 1]
    assert len(same) == module.LINES + 1
    run = switched(*(frame(BROADCAST, mac(n), 0) for n in same), stations=64)
    assert (run.named["learned"], run.named["table_full"]) == (module.LINES, 1)
    # When those are silent for too long, their lines are free again.
    later = (frame(BROADCAST, mac(n), 0, 0 if n != same[-1] else 301) for n in same)
    assert switched(*later, stations=64).named["table_full"] == 0


def test_the_newest_entry_of_all_workers_wins() -> None:
    """As `all_` of two workers: the station moved, and the second one heard it there."""
    parts = np.zeros((2, 256, 2), np.int64)
    counters: dict[str, Any] = dict.fromkeys(
        ("learned", "moved", "table_full", "flooded", "without_blank"), np.zeros(1, np.int64)
    )

    def state(worker: int) -> module.State:
        return module.State(
            parts[worker], parts, 10 * SECOND, 128, 129, 130, told=np.zeros(1, np.int64), **counters
        )

    key = int.from_bytes(mac(1), "big") << 16 | 7 << 4
    assert module.find(state(0), key, 0) == -1
    module.learn(state(0), key | 1, 5 * SECOND)
    for worker in (0, 1):
        assert module.find(state(worker), key, 6 * SECOND) == 1
    module.learn(state(1), key | 2, 7 * SECOND)
    for worker in (0, 1):
        assert module.find(state(worker), key, 8 * SECOND) == 2
        assert module.find(state(worker), key, 16 * SECOND) == 2
        assert module.find(state(worker), key, 18 * SECOND) == -1
    module.learn(state(0), key | 1, 9 * SECOND)  # and back
    assert module.find(state(1), key, 9 * SECOND) == 1


@pytest.mark.parametrize(
    ("ports", "options", "words"),
    [
        (1, {}, "a switch needs at least two ports"),
        (2, {"stations": 100}, "stations must be a power of two, such as 4096, not 100"),
        (2, {"stations": 32}, '"stations" must be at least 64'),
        (2, {"stations": 1 << 21}, '"stations" must be at most 1048576'),
        (2, {"age": 0.5}, '"age" must be at least 1'),
        (2, {"age": "long"}, '"age" must be a number'),
        (2, {"stations": 1 << 20}, "set state = "),
    ],
)
def test_wrong_options_are_refused(ports: int, options: dict[str, Any], words: str) -> None:
    with pytest.raises(PluginError, match=words):
        run_plugin(SWITCH, [bytes(60)], ports=ports, options=options, state=4 << 20)


def test_two_ports_need_no_blanks() -> None:
    run = switched(frame(BROADCAST, mac(1), 1), ports=2, blanks=0)
    assert run[0].verdict == 0
    assert DROP not in [result.verdict for result in run]
