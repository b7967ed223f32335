"""What QEMU's monitor does to the cards of a guest."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from .booted import booted
from .cards import card
from .machine import Guest, Hung
from .monitor import Monitor, Refused

SECONDS = 60.0
UP = "ip link set eth0 up; until grep -q 1 /sys/class/net/eth0/carrier; do sleep 0.1; done"
# Asks the card: QEMU 7 gives its driver no interrupt for a change of the link.
LINK = 'until ethtool -d eth0 | grep -q "Link up: *{} config"; do sleep 0.1; done'

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def guest() -> Iterator[Guest]:
    with booted(lambda: Guest([card("e1000e", express=True)])) as made:
        yield made


def test_a_cable_is_pulled_and_plugged_in(guest: Guest) -> None:
    guest.checked(UP)
    guest.set_link(0, up=False)
    guest.checked(LINK.format("no link"))
    guest.set_link(0, up=True)
    guest.checked(LINK.format("link"))


def test_what_a_driver_writes_is_noted(guest: Guest) -> None:
    """82574 datasheet: the tail of transmit queue 0 is 0x3818. The kernel writes it for each frame
    that it sends."""
    guest.checked(UP)
    with guest.traced("e1000e_core_write") as lines:
        guest.checked("ping -c 3 -i 0.2 -w 1 -q -I eth0 ff02::1 || true")
    tails = [line for line in lines if "register 0x3818," in line]
    assert len(tails) >= 3, lines
    assert all(line.split()[0].endswith("e1000e_core_write") for line in lines)
    guest.checked("ip link set eth0 down")
    with guest.traced("e1000e_core_write") as lines:
        guest.checked("true")
    assert lines == []


def test_a_card_is_unplugged_and_plugged_in(guest: Guest) -> None:
    """It has its cable again: the kernel says something on an interface that comes up."""
    guest.unplug(0)
    assert guest.run("ls /sys/class/net/eth0").code != 0
    with pytest.raises(Refused, match="device_del: Device 'card0' not found"):
        guest.unplug(0)
    guest.plug(0)
    guest.checked("until [ -e /sys/class/net/eth0 ]; do sleep 0.1; done")
    before = len(guest.cables[0].frames())
    guest.checked(UP)
    assert guest.cables[0].wait_for(before + 1, SECONDS)


def test_a_card_that_the_guest_keeps_is_named(guest: Guest) -> None:
    """The last test of this guest: its kernel cannot answer any more."""
    guest.monitor.execute("stop")
    with pytest.raises(Hung, match="the guest did not let card 0 go within 1 s"):
        guest.unplug(0, 1)


@pytest.fixture
def qemu() -> Iterator[tuple[Monitor, socket.socket]]:
    """A monitor, and the socket of what stands for QEMU."""
    near, far = socket.socketpair()
    with near, far:
        far.sendall(b'{"QMP": {}}\n{"return": {}}\n')
        yield Monitor(near), far


def say(far: socket.socket, *messages: object) -> None:
    far.sendall(b"".join(json.dumps(each).encode() + b"\n" for each in messages))


def test_a_refused_command_says_why(qemu: tuple[Monitor, socket.socket]) -> None:
    monitor, far = qemu
    say(far, {"error": {"class": "GenericError", "desc": "there is no such thing"}})
    with pytest.raises(Refused, match="set_link: there is no such thing"):
        monitor.execute("set_link", {"name": "nothing", "up": True})
    asked = [json.loads(line) for line in far.recv(4096).splitlines()]
    assert asked[1] == {"execute": "set_link", "arguments": {"name": "nothing", "up": True}}
    far.close()
    with pytest.raises(EOFError):
        monitor.wait_for("STOP", 1)


def test_an_event_is_waited_for_until_a_deadline(qemu: tuple[Monitor, socket.socket]) -> None:
    monitor, far = qemu
    first, second = ({"event": "GONE", "data": {"device": name}} for name in ("one", "two"))
    say(far, first, {"return": 7}, {"event": "STOP"}, second)
    assert monitor.execute("query") == 7
    assert monitor.wait_for("GONE", 1, device="two") == {"device": "two"}
    assert monitor.wait_for("STOP", 1) == {}
    with pytest.raises(TimeoutError):
        monitor.wait_for("GONE", 0.1, device="two")
    assert monitor.wait_for("GONE", 1) == {"device": "one"}
