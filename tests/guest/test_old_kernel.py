"""Ports on network interfaces, on the kernel of a Debian guest: for Debian 12 that is Linux 6.1.

Each test here boots or starts much, which takes long in a guest: one run serves a virtio-net card
and a veth pair at once.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from typing import Any

import pytest

from .booted import booted
from .cards import card
from .machine import Guest

PROOF = os.environ.get("RINGLINE_PROOF") == "1"
FRAMES = 5000 if PROOF else 200
CHUNK = 200
SILENCE = 60.0  # seconds without a frame, after which the rest counts as lost
CONFIG = """
name = "guest"
metrics.listen = "off"
memory.hugepages = "off"
[worker]
plugin = "forward"
"""
# Two hosts in namespaces, joined by ringline over veth pairs; the middle says nothing itself.
HOSTS = """set -e
for side in a b; do
    ip netns add $side
    ip link add v$side numrxqueues 1 numtxqueues 1 type veth peer name eth0 netns $side
    echo 1 > /proc/sys/net/ipv6/conf/v$side/disable_ipv6
    ip link set v$side up
    ip -n $side link set eth0 up
done
ip -n a addr add 10.77.0.1/24 dev eth0
ip -n b addr add 10.77.0.2/24 dev eth0
"""
UP = "echo 1 > /proc/sys/net/ipv6/conf/{0}/disable_ipv6 && ip link set {0} up"
# Ends when the run is ready, or has ended too early.
START = """
ringline run /tmp/guest.toml --report /tmp/report.json > /tmp/said 2>&1 & echo $! > /tmp/pid
until grep -q state=running /tmp/said; do
    kill -0 $(cat /tmp/pid) || { cat /tmp/said; exit 1; }
    sleep 0.5
done
"""
STOP = """kill $(cat /tmp/pid)
while kill -0 $(cat /tmp/pid) 2> /dev/null; do sleep 0.2; done
cat /tmp/report.json"""

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def guest() -> Iterator[Guest]:
    with booted(lambda: Guest([card("virtio-net"), card("virtio-net")])) as made:
        made.checked(" && ".join(UP.format(each) for each in ("eth0", "eth1")))
        yield made


def numbered(numbers: range) -> Iterator[bytes]:
    """Frames for nobody, with a number; the EtherType is one for local experiments (IEEE 802)."""
    for number in numbers:
        yield bytes.fromhex("02000000000202000000000188b5") + number.to_bytes(46, "big")


def is_numbered(frame: bytes) -> bool:
    return frame[:14] == bytes.fromhex("02000000000202000000000188b5")


def pass_frames(guest: Guest) -> None:
    """Frames that arrive at the first card leave by the second: all of them, once, in order."""
    came, left = guest.cables
    expected = list(numbered(range(FRAMES)))
    found: list[bytes] = []
    for begin in range(0, FRAMES, CHUNK):
        for frame in expected[begin : begin + CHUNK]:
            came.send(frame)
        found = left.wait_for(begin + CHUNK, SILENCE, is_numbered)
    assert found == expected


def start(guest: Guest, devices: dict[str, str]) -> None:
    ports = "".join(f'[port.{name}]\ndevice = "xdp:{at}"\n' for name, at in devices.items())
    guest.checked(f"echo {shlex.quote(CONFIG + ports)} > /tmp/guest.toml")
    guest.checked(START)


def stop(guest: Guest) -> dict[str, Any]:
    """Stop the run. Returns its report, in which everything must be well."""
    report: dict[str, Any] = json.loads(guest.checked(STOP))
    assert report["exit"]["code"] == 0, report["exit"]
    assert not any(report["balance"].values()), report["balance"]
    assert "prog/xdp" not in guest.checked("ip -d link"), "a program is attached"
    return report


def test_interfaces_says_what_the_kernel_does_not_say(guest: Guest) -> None:
    said = guest.checked("ringline interfaces")
    rows = {words[0]: words for line in said.splitlines() if (words := line.split())}
    assert rows["eth0"][1:3] == ["virtio_net", "up"]
    assert rows["eth0"][-2:] == ["xdp,", "packet"]
    unknown = guest.kernel.version < (6, 3)
    assert (rows["eth0"][5] == "unknown") == unknown
    assert ("does not say what drivers do with XDP" in said) == unknown


def test_a_run_on_virtio_net_and_on_veth(guest: Guest) -> None:
    """Linux before 6.4 maps the rings of a socket only before it is bound."""
    guest.checked(HOSTS)
    start(guest, {"n0": "eth0", "n1": "eth1", "a": "va", "b": "vb"})
    pass_frames(guest)
    pings = guest.checked("ip netns exec a ping -c 5 -i 0.2 10.77.0.2")
    assert " 0% packet loss" in pings
    report = stop(guest)
    for port in report["ports"].values():
        assert port["attached"] == "native XDP, copy"
    assert report["ports"]["n0"]["forwarded"] == FRAMES
    assert report["ports"]["a"]["forwarded"] >= 5


@pytest.mark.skipif(not PROOF, reason="needs RINGLINE_PROOF=1: it takes a minute")
def test_check_and_a_mode_that_the_driver_does_not_have(guest: Guest) -> None:
    text = CONFIG + '[port.n0]\ndevice = "xdp:eth0"\nmode = "zero-copy"\n'
    guest.checked(f"echo {shlex.quote(text)} > /tmp/zero.toml")
    assert "all well" in guest.checked("ringline check /tmp/zero.toml")
    result = guest.run("ringline run /tmp/zero.toml")
    assert result.code != 0
    assert "does not work without copies" in result.output
    assert "Traceback" not in result.output
    assert "prog/xdp" not in guest.checked("ip -d link")
