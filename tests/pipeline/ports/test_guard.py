"""A port does not take an interface that carries the machine, unless that traffic is left out."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from ringline.pipeline.configuration.config import Match
from ringline.pipeline.ports.interfaces import guard, interface, netlink

HEAD4 = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"
DEFAULT4 = HEAD4 + "eth9 00000000 0100000A 0003 0 0 0 00000000 0 0 0\n"
LOCAL4 = HEAD4 + "eth9 0000000A 00000000 0001 0 0 0 00FFFFFF 0 0 0\n"
ZERO, GATEWAY6 = "0" * 32, "fe80" + "0" * 27 + "1"
DEFAULT6 = f"{ZERO} 00 {ZERO} 00 {GATEWAY6} 00000400 00000001 00000000 00000003 eth9\n"
NOWHERE6 = f"{ZERO} 00 {ZERO} 00 {ZERO} ffffffff 00000001 00000000 00200200 eth9\n"
SSH = {"SSH_CONNECTION": "192.0.2.9 50000 192.0.2.1 22"}

VXLAN = Match(protocol=17, port=4789)


@pytest.fixture(autouse=True)
def _routes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("ROUTES4", "ROUTES6"):
        monkeypatch.setattr(guard, name, tmp_path / name)
    (tmp_path / "ROUTES4").write_text(LOCAL4)


def check(take: list[Match], environment: dict[str, str] | None = None) -> str:
    return guard.objection("eth9", take, environment or {}, lambda _: {"192.0.2.1"})


@pytest.mark.parametrize(
    ("file", "text", "gateway"),
    [
        ("ROUTES4", DEFAULT4, "10.0.0.1"),
        ("ROUTES4", LOCAL4, ""),
        ("ROUTES4", DEFAULT4.replace("eth9", "eth8"), ""),
        ("ROUTES6", DEFAULT6, "fe80::1"),
        ("ROUTES6", NOWHERE6, ""),
        ("ROUTES6", DEFAULT6.replace("eth9", "eth8"), ""),
    ],
)
def test_a_default_route_is_found(tmp_path: Path, file: str, text: str, gateway: str) -> None:
    (tmp_path / file).write_text(text)
    assert list(guard.default_routes("eth9")) == [gateway] * bool(gateway)
    said = check([])
    assert bool(said) == bool(gateway)
    if gateway:
        assert f"carries the default route of this machine (through {gateway})" in said


@pytest.mark.parametrize(
    ("take", "refused"),
    [
        ([VXLAN], False),
        ([Match(prefix="198.51.100.0/24")], False),
        ([Match(ethertype=0x88CC)], False),
        ([VXLAN, Match(ethertype=0x0800)], True),
        ([Match(ethertype=0x0806)], True),
        ([Match(prefix="0.0.0.0/0")], True),
    ],
)
def test_take_may_leave_the_default_route_alone(
    tmp_path: Path, take: list[Match], refused: bool
) -> None:
    (tmp_path / "ROUTES4").write_text(DEFAULT4)
    assert bool(check(take)) == refused


@pytest.mark.parametrize(
    ("take", "refused"),
    [
        ([VXLAN], False),
        ([Match(ethertype=0x0806)], False),
        ([Match(ethertype=0x0800)], False),
        ([Match(ethertype=0x86DD)], True),
        ([Match(prefix="::/0")], True),
        ([Match(prefix="2001:db8::/32")], False),
        ([Match(protocol=58)], True),
        ([Match(ethertype=0x0800, protocol=58)], False),
        ([Match(prefix="ff00::/8")], True),
        ([Match(prefix="fe80::1/128")], True),
        ([Match(prefix="fe80::/10", protocol=17)], False),
    ],
)
def test_take_may_leave_the_default_route_of_ipv6_alone(
    tmp_path: Path, take: list[Match], refused: bool
) -> None:
    """Also the frames that find the gateway: there is no ARP for IPv6."""
    (tmp_path / "ROUTES6").write_text(DEFAULT6)
    assert bool(check(take)) == refused
    (tmp_path / "ROUTES4").write_text(DEFAULT4)
    assert bool(check([Match(protocol=58)]))


@pytest.mark.parametrize(
    ("match", "refused"),
    [
        (Match(port=22), True),
        (Match(protocol=58), True),
        (Match(prefix="ff02::1:ff00:0/104"), True),
        (Match(ethertype=0x0806), False),
        (Match(protocol=17), False),
        (Match(prefix="2001:db8:1::/48", protocol=58), False),
    ],
)
def test_take_may_leave_a_session_over_ipv6_alone(match: Match, refused: bool) -> None:
    session = {"SSH_CONNECTION": "2001:db8::9 50000 2001:db8::1 22"}
    said = guard.objection("eth9", [match], session, lambda _: {"2001:db8::1"})
    assert bool(said) == refused


@pytest.mark.parametrize(
    ("take", "refused"),
    [
        ([], True),
        ([VXLAN], False),
        ([Match(port=22)], True),
        ([Match(port=23)], False),
        ([Match(protocol=6)], True),
        ([Match(ethertype=0x0806)], True),
        ([Match(ethertype=0x86DD)], False),
        ([Match(prefix="192.0.2.0/24", protocol=6)], True),
        ([Match(prefix="198.51.100.0/24")], False),
        ([Match(prefix="2001:db8::/32")], False),
    ],
)
def test_take_may_leave_the_session_alone(take: list[Match], refused: bool) -> None:
    said = check(take, SSH)
    assert bool(said) == refused
    if refused:
        assert "carries your ssh session (192.0.2.9 to 192.0.2.1), which would hang" in said


@pytest.mark.parametrize("text", ["", "nonsense", "a b c d", "192.0.2.9 50000 203.0.113.1 22"])
def test_a_session_elsewhere_is_no_reason(text: str) -> None:
    assert check([], {"SSH_CONNECTION": text}) == ""


def test_a_session_is_found_where_sudo_has_removed_it(tmp_path: Path) -> None:
    """In the nearest parent process that has one."""

    def process(pid: int, parent: int, environment: str) -> None:
        folder = tmp_path / str(pid)
        folder.mkdir()
        (folder / "stat").write_text(f"{pid} (a ) name) S {parent} 0 0")
        (folder / "environ").write_text(environment)

    process(os.getppid(), 70001, "SUDO_USER=me\0")
    process(70001, 70002, "")
    process(70002, 70003, "A=b\0SSH_CONNECTION=192.0.2.9 50000 192.0.2.1 22\0")
    process(70003, 0, "SSH_CONNECTION=x\0")
    assert guard.login({}, tmp_path)["SSH_CONNECTION"] == SSH["SSH_CONNECTION"]
    assert guard.login({"SSH_CONNECTION": "y"}, tmp_path) == {"SSH_CONNECTION": "y"}
    (tmp_path / "70002" / "environ").write_text("")
    (tmp_path / "70003" / "environ").unlink()
    assert "SSH_CONNECTION" not in guard.login({}, tmp_path)


def test_an_interface_that_receives_through_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ROUTES4").write_text(DEFAULT4)
    [loopback] = [each for each in interface.all_of_them() if each.loopback]
    below = dataclasses.replace(loopback, name="eth0")
    monkeypatch.setattr(interface, "on_top", lambda found: [("eth8", 8), ("eth9", 9)])
    assert guard.cut_off(below, []).startswith(
        "eth9, which receives through eth0, carries the default route of this machine"
    )
    assert guard.cut_off(below, [VXLAN]) == ""


def test_the_addresses_of_the_loopback_interface_are_found() -> None:
    found = netlink.link(name="lo")
    assert found is not None
    assert "127.0.0.1" in netlink.addresses(found[0])
