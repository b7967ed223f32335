"""Which interfaces a port on packet sockets can use, and what it says of long frames."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Callable

import pytest

from ringline.pipeline._pipeline import ffi
from ringline.pipeline.configuration.config import PacketConfig, PortConfig
from ringline.pipeline.ports.interfaces import capabilities, ethtool, interface
from ringline.pipeline.ports.packet import checks
from ringline.pipeline.ports.packet.port import PacketPort
from ringline.shm.errors import Bug, EnvironmentLacks

from .test_interfaces import GOOD

CONFIG = PortConfig("wan", "packet:eth9", packet=PacketConfig())


@pytest.fixture
def having(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the changes of the interface, the capabilities and the offloads."""

    def have(rights: int = -1, on: tuple[str, ...] = (), **changes: object) -> None:
        seen = dataclasses.replace(GOOD, **changes)  # type: ignore[arg-type]
        monkeypatch.setattr(interface, "find", lambda name: seen)
        monkeypatch.setattr(capabilities, "effective", lambda: rights)
        monkeypatch.setattr(ethtool, "offloads", lambda name, word: word in on)

    return have


@pytest.mark.parametrize(
    "changes",
    [
        {"loopback": True, "mtu": 65536},
        {"mtu": 9000},
        {"above": "bridge"},
        {"kind": "vlan"},
        {"program": 5, "program_mode": "native"},
        {"up": False},
    ],
)
def test_what_a_copy_does_not_disturb_is_no_obstacle(
    having: Callable[..., None], changes: dict[str, object]
) -> None:
    having(**changes)
    assert checks.check(CONFIG).name == "eth9"


def test_an_interface_without_ethernet_is_refused(having: Callable[..., None]) -> None:
    having(mac="")
    with pytest.raises(EnvironmentLacks, match=r"^port\.wan\.device: eth9 carries no Ethernet"):
        checks.check(CONFIG)


def test_the_missing_right_is_named(having: Callable[..., None]) -> None:
    having(rights=~(1 << 13))
    with pytest.raises(EnvironmentLacks, match="this process lacks CAP_NET_RAW; run as root"):
        checks.check(CONFIG)


def test_long_frames_are_told(having: Callable[..., None]) -> None:
    having()
    assert checks.long_frames(CONFIG, GOOD) == []
    long = dataclasses.replace(GOOD, mtu=9000)
    (said,) = checks.long_frames(CONFIG, long)
    assert "eth9 has an MTU of 9000 bytes; to have none, run: ip link set dev eth9 mtu 1500" in said
    having(on=("gro", "tso"))
    (said,) = checks.long_frames(CONFIG, GOOD)
    assert said.endswith("run: ethtool -K eth9 gro off tso off")
    arriving = dataclasses.replace(CONFIG, packet=PacketConfig(outgoing=False))
    (said,) = checks.long_frames(arriving, GOOD)
    assert said.endswith("run: ethtool -K eth9 gro off")
    having()
    (said,) = checks.long_frames(CONFIG, dataclasses.replace(GOOD, kind="veth"))
    assert said.endswith("run: ethtool -K NAME tso off gso off where TCP is sent to it")


def test_offloads_are_those_of_the_kernel() -> None:
    for word in ("gro", "lro", "tso", "gso"):
        assert isinstance(ethtool.offloads("lo", word), bool)
        assert not ethtool.offloads("no-such-one", word)
    assert interface.mtu(socket.if_nametoindex("lo")) > 0
    assert interface.mtu(1 << 30) == 0


def test_an_interface_that_is_removed_during_the_start_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(interface, "find", lambda name: None)
    port = PacketPort(CONFIG, 0)
    with pytest.raises(EnvironmentLacks, match=r"port\.wan\.device: eth9 was removed"):
        port.open(ffi.NULL, None, None)  # type: ignore[arg-type]
    with pytest.raises(Bug, match="has 1 queues, not 0"):
        port.use_sockets([])
    port.close()
