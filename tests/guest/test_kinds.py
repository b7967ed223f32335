"""What needs modules that the kernel of this machine may lack: netem, VLANs and bonds."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator

import pytest

from .booted import PROOF, booted
from .machine import Guest

# Four hosts: a and b have a VLAN, whose tag is in the frames; c is behind a bond.
HOSTS = """set -e
for side in a b c d; do
    ip netns add $side
    ip link add v$side numrxqueues 1 numtxqueues 1 type veth peer name eth0 netns $side
    echo 1 > /proc/sys/net/ipv6/conf/v$side/disable_ipv6
done
ip link add bond7 numrxqueues 1 numtxqueues 1 type bond mode active-backup
echo 1 > /proc/sys/net/ipv6/conf/bond7/disable_ipv6
ip link set vc master bond7
for each in bond7 va vb vc vd; do ip link set $each up; done
for side in a b c d; do ip -n $side link set eth0 up; done
for side in a b; do
    ip netns exec $side ethtool -K eth0 tx off txvlan off > /dev/null
    ip -n $side link add link eth0 name eth0.5 type vlan id 5
    ip -n $side link set eth0.5 up
done
ip -n a addr add 10.78.0.1/24 dev eth0.5
ip -n b addr add 10.78.0.2/24 dev eth0.5
ip -n c addr add 10.79.0.1/24 dev eth0
ip -n d addr add 10.79.0.2/24 dev eth0
ip link add link va name va.9 type vlan id 9
"""
CONFIG = """
name = "guest"
metrics.listen = "off"
memory.hugepages = "off"
port.a.device = "xdp:va"
port.b.device = "xdp:vb"
port.c.device = "xdp:bond7"
port.d.device = "xdp:vd"
"""
# Each of these is refused, with the sentence.
REFUSED = {
    'port.a.device = "xdp:vc"': "vc belongs to a bond, which would get no more frames from it",
    'port.a.device = "xdp:va.9"': "va.9 is a VLAN of another interface; name that interface",
    'port.a = { device = "xdp:bond7", attach = "native" }': "bond7 is a bond, from which native",
}
START = """
ringline run /tmp/kinds.toml --report /tmp/report.json > /tmp/said 2>&1 & echo $! > /tmp/pid
until grep -q state=running /tmp/said; do
    kill -0 $(cat /tmp/pid) || { cat /tmp/said; exit 1; }
    sleep 0.5
done
"""
STOP = """kill $(cat /tmp/pid)
while kill -0 $(cat /tmp/pid) 2> /dev/null; do sleep 0.2; done
cat /tmp/report.json"""

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not PROOF, reason="needs RINGLINE_PROOF=1: it takes minutes"),
]


@pytest.fixture(scope="module")
def guest() -> Iterator[Guest]:
    modules = ["sch_netem", "8021q", "bonding", "bridge"]
    with booted(lambda: Guest(modules=modules)) as made:
        made.checked("ip link set lo up")
        yield made


def test_vlans_and_bonds(guest: Guest) -> None:
    guest.checked(HOSTS)
    guest.checked(f"echo {shlex.quote(CONFIG)} > /tmp/kinds.toml")
    guest.checked(START)
    for host, address in (("a", "10.78.0.2"), ("c", "10.79.0.2")):
        pings = guest.checked(f"ip netns exec {host} ping -c 5 -i 0.2 -W 30 {address}")
        assert " 0% packet loss" in pings
    said = guest.checked("cat /tmp/said")
    assert "port c: bond7 is a bond, whose frames come by generic XDP only" in said
    assert "port a: va.9 receives through va, and gets no frame that the port takes" in said
    report = json.loads(guest.checked(STOP))
    assert report["exit"]["code"] == 0, report["exit"]
    assert not any(report["balance"].values()), report["balance"]
    assert report["ports"]["c"]["attached"] == "generic XDP, copy"
    assert report["ports"]["a"]["attached"] == "native XDP, copy"


@pytest.mark.parametrize("ports", REFUSED)
def test_what_xdp_refuses(guest: Guest, ports: str) -> None:
    """After the test before, which makes the interfaces."""
    guest.checked(f"echo {shlex.quote(ports)} > /tmp/refused.toml")
    result = guest.run("ringline check /tmp/refused.toml")
    assert result.code == 3, result
    assert REFUSED[ports] in result.output


def test_a_wire_loses_delays_and_slows_down(guest: Guest) -> None:
    """The end-to-end tests pass here; only that of a kernel without netem is skipped."""
    command = "python -m pytest -q -rs -p no:cacheprovider tests/e2e/test_lab_wire.py"
    said = guest.checked(command, deadline=1500)
    assert "3 passed, 1 skipped" in said, said
    assert "needs a kernel without netem" in said, said
