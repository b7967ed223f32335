"""Network interfaces of the kernel: what is known of them, and which no port can use."""

from __future__ import annotations

import dataclasses
import socket
from pathlib import Path

import pytest

from ringline.pipeline.configuration.config import PortConfig, XdpConfig
from ringline.pipeline.ports.interfaces import ethtool, interface, netlink
from ringline.pipeline.ports.xdp import checks, rights
from ringline.shm.errors import EnvironmentLacks

GOOD = interface.Interface(
    name="eth9",
    number=9,
    up=True,
    running=True,
    loopback=False,
    mac="02:00:00:00:00:01",
    mtu=1500,
    kind="",
    driver="ice",
    above="",
    queues=4,
    channels=ethtool.Channels(0, 0, 8, 0, 0, 4),
    program=0,
    program_mode="",
)
PORT = PortConfig("wan", "xdp:eth9", queues=4, xdp=XdpConfig())
ALL = (1 << 41) - 1


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> interface.Interface:
    monkeypatch.setattr(rights, "effective", lambda: ALL)
    return GOOD


def refused(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], config: PortConfig = PORT
) -> str:
    seen = dataclasses.replace(GOOD, **changes)  # type: ignore[arg-type]
    monkeypatch.setattr(interface, "find", lambda name: seen)
    with pytest.raises(EnvironmentLacks) as error:
        checks.check(config, 1 << 20)
    return str(error.value)


def test_the_loopback_interface_is_described() -> None:
    seen = interface.find("lo")
    assert seen is not None
    assert (seen.name, seen.loopback, seen.mac) == ("lo", True, "00:00:00:00:00:00")
    assert seen.number == socket.if_nametoindex("lo")
    assert interface.state(seen.number)[0]
    assert interface.find("no-such-one") is None
    assert interface.state(1 << 30) == (False, False)
    assert ethtool.speed("no-such-one") == 0
    assert ethtool.channels("no-such-one") is None
    assert ethtool.driver("no-such-one") == ""
    assert not ethtool.computes_checksums("no-such-one")


def test_links_lists_every_interface() -> None:
    names = {data[netlink.NAME].rstrip(b"\0").decode() for _, _, data in netlink.links()}
    assert names == {name for _, name in socket.if_nameindex()}


def test_damaged_attributes_end_the_list() -> None:
    assert netlink.attributes(b"\x05\0\x01\0A\0\0\0\x02\0\x02\0") == {1: b"A"}


def test_a_good_interface_is_accepted(
    found: interface.Interface, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interface, "find", lambda name: found)
    assert checks.check(PORT, 1 << 20) is found


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"loopback": True}, "is the loopback interface"),
        ({"mac": ""}, "carries no Ethernet frames"),
        (
            {"mtu": 9000},
            "MTU of 9000 bytes, and a packet buffer has room for an MTU of at most 1500",
        ),
        ({"above": "bond"}, "belongs to a bond, which would get no more frames from it"),
        ({"above": "bridge"}, "ip link set dev eth9 nomaster"),
        ({"kind": "vlan"}, "is a VLAN of another interface"),
        (
            {"program": 77, "program_mode": "native"},
            "has an XDP program already (number 77, native)",
        ),
        ({"queues": 2}, "receives on 2 queues, and the port has 4; set queues = 2, or channels"),
        ({"queues": 2}, "ethtool -L eth9 combined 4"),
        (
            {"queues": 2, "channels": ethtool.Channels(4, 4, 0, 2, 2, 0)},
            "ethtool -L eth9 rx 4 tx 4",
        ),
        (
            {"queues": 2, "channels": ethtool.Channels(2, 2, 0, 2, 2, 0)},
            "set queues = 2: it has at most 2",
        ),
        ({"queues": 1, "channels": None}, "cannot change its 1 queue, and the port has 4"),
    ],
)
def test_an_interface_that_cannot_be_used_is_named(
    found: interface.Interface,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, object],
    sentence: str,
) -> None:
    said = refused(monkeypatch, changes)
    assert said.startswith("port.wan.")
    assert sentence in said


def test_an_interface_elsewhere_is_looked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(interface, "NETWORK_NAMESPACES", tmp_path / "none")
    with pytest.raises(EnvironmentLacks, match=r"no network interface nope here \(ip link shows"):
        interface.resolve("wan", "nope")
    (tmp_path / "blue").touch()
    monkeypatch.setattr(interface, "NETWORK_NAMESPACES", tmp_path)
    with pytest.raises(EnvironmentLacks, match=r"another network namespace \(blue\), run ringline"):
        interface.resolve("wan", "nope")


def test_what_a_process_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    everything = ALL
    assert rights.missing(1 << 40, everything) == []
    bits = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13}
    for name, bit in bits.items():
        assert rights.missing(0, everything & ~(1 << bit)) == [name]
    assert rights.missing(0, everything & ~(1 << 39)) == []  # CAP_SYS_ADMIN is enough
    assert rights.missing(0, everything & ~(1 << 39) & ~(1 << 21)) == ["CAP_BPF"]
    monkeypatch.setattr(rights.resource, "getrlimit", lambda _: (65536, 65536))
    (lacking,) = rights.missing(1 << 20, everything & ~(1 << 14))
    assert lacking.startswith("a limit of locked memory of 1024 KiB (ulimit -l; it is 64 KiB)")


def test_what_to_do_about_a_missing_right_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rights, "effective", lambda: ALL & ~(1 << 13))
    told = "eth9 cannot be opened: this process lacks CAP_NET_RAW; run as root, or give it what"
    assert told in refused(monkeypatch, {})


def test_an_interface_without_a_link_is_told_at_the_start() -> None:
    assert interface.without_link(GOOD) == []
    (down,) = interface.without_link(dataclasses.replace(GOOD, up=False, running=False))
    assert down.endswith("until you run: ip link set dev eth9 up")
    (alone,) = interface.without_link(dataclasses.replace(GOOD, running=False))
    assert alone.startswith("eth9 has no link")


def test_channels_that_are_set_keep_the_kind() -> None:
    combined = checks.wanted_channels(GOOD, PORT)
    assert combined == ethtool.Channels(0, 0, 0, 0, 0, 4)
    apart = dataclasses.replace(GOOD, channels=ethtool.Channels(8, 8, 0, 2, 2, 0))
    assert checks.wanted_channels(apart, PORT) == ethtool.Channels(0, 0, 0, 4, 4, 0)
