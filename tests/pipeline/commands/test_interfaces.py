"""`ringline interfaces`."""

from __future__ import annotations

import dataclasses
import json

import pytest

from ringline.pipeline.commands import cli
from ringline.pipeline.commands.interfaces import COLUMNS, row_of
from ringline.pipeline.ports.interfaces import guard, interface, netlink
from ringline.pipeline.ports.interfaces.interface import Interface

VETH = Interface(
    name="v0",
    number=7,
    up=True,
    running=True,
    loopback=False,
    mac="02:00:00:00:00:01",
    mtu=1500,
    kind="veth",
    driver="veth",
    above="",
    queues=2,
    channels=None,
    program=0,
    program_mode="",
)


@pytest.fixture(autouse=True)
def nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netlink, "xdp_features", lambda number: None)
    monkeypatch.setattr(guard, "cut_off", lambda found, take: "")


@pytest.mark.parametrize(
    ("features", "expected"),
    [(None, "unknown"), (0, "generic"), (3, "native"), (0x4B, "zero-copy")],
)
def test_what_the_driver_does_with_xdp(
    monkeypatch: pytest.MonkeyPatch, features: int | None, expected: str
) -> None:
    monkeypatch.setattr(netlink, "xdp_features", {VETH.number: features}.get)
    assert row_of(VETH).xdp == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ""),
        ({"mtu": 9000}, "v0 has an MTU of 9000 bytes"),
        ({"program": 5, "program_mode": "native"}, "v0 has an XDP program already (number 5, nat"),
        ({"above": "bridge"}, "v0 belongs to a bridge"),
    ],
)
def test_why_xdp_cannot_use_it(changes: dict[str, object], expected: str) -> None:
    row = row_of(dataclasses.replace(VETH, **changes))  # type: ignore[arg-type]
    assert row.why.startswith(expected)
    assert row.usable == (("packet",) if expected else ("xdp", "packet"))


def test_no_port_can_use_what_has_no_ethernet() -> None:
    assert row_of(dataclasses.replace(VETH, mac="")).usable == ()


def test_the_guard_has_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "cut_off", lambda found, take: f"{found.name} carries you")
    assert row_of(VETH).why == "v0 carries you"


@pytest.mark.parametrize(
    ("up", "running", "state"),
    [(True, True, "up"), (True, False, "no link"), (False, False, "down")],
)
def test_states(up: bool, running: bool, state: str) -> None:
    assert row_of(dataclasses.replace(VETH, up=up, running=running)).state == state


def test_the_table_and_its_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["interfaces"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert tuple(head.split()) == COLUMNS
    loopback = next(line.split() for line in lines if line.startswith("lo "))
    assert loopback[-1] == "packet"
    assert any(line.startswith("lo is the loopback interface") for line in lines)
    assert cli.main(["interfaces", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    [usable] = [each["usable"] for each in told["interfaces"] if each["interface"] == "lo"]
    assert usable == ["packet"]
    assert isinstance(told["missing_rights"], list)


@pytest.mark.parametrize(("features", "said"), [(None, True), (3, False)])
def test_an_old_kernel_is_named(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    features: int | None,
    said: bool,
) -> None:
    monkeypatch.setattr(netlink, "xdp_features", lambda number: features)
    assert cli.main(["interfaces"]) == 0
    assert ("does not say what drivers do with XDP (Linux 6.3" in capsys.readouterr().out) == said


def test_a_terminal_gets_no_control_characters(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = dataclasses.replace(VETH, name="v\x1b[2J")
    monkeypatch.setattr("ringline.pipeline.commands.interfaces.all_of_them", lambda: [odd])
    assert cli.main(["interfaces"]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_the_kernel_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    [loopback] = [each for each in interface.all_of_them() if each.loopback]
    assert interface.find(loopback.name) == loopback
    features = netlink.xdp_features(loopback.number)
    assert features is None or features & netlink.XDP_ZERO_COPY == 0
    assert netlink.xdp_features(0x7FFFFFFF) is None
