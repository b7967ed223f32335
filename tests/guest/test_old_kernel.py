"""Ports on network interfaces, on the kernel of a Debian guest: for Debian 12 that is Linux 6.1.

A start takes long in a guest: one run serves virtio-net cards with two queues, e1000e cards, whose
driver has no XDP, and veth pairs, all at once.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import pytest

from .booted import PROOF, booted
from .cards import card
from .machine import Guest
from .traffic import CONFIG, Run, bring_up, counts, pass_frames, start, stop

FRAMES = 5000 if PROOF else 200
TWO_QUEUES = 'queues = 2\nchannels = "set"'
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

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def guest() -> Iterator[Guest]:
    cards = [card(name) for name in ("virtio-net:2", "virtio-net:2", "e1000e", "e1000e")]
    with booted(lambda: Guest(cards)) as made:
        bring_up(made, ["eth0", "eth1", "eth2", "eth3"])
        yield made


@pytest.fixture(scope="module")
def run(guest: Guest) -> Run:
    """A run that has forwarded FRAMES frames from each card to its neighbour, and some pings."""
    guest.checked(HOSTS)
    keys = {"eth0": TWO_QUEUES, "eth1": TWO_QUEUES}
    made = start(guest, keys | dict.fromkeys(("eth2", "eth3", "va", "vb"), ""))
    assert channels(guest) == ["Combined:\t2", "Combined:\t2"]
    for came, left in ((0, 1), (1, 0), (2, 3), (3, 2)):
        pass_frames(guest.cables[came], guest.cables[left], FRAMES)
    pings = guest.checked("ip netns exec a ping -c 5 -i 0.2 10.77.0.2")
    assert " 0% packet loss" in pings
    stop(guest, made)
    return made


def channels(guest: Guest) -> list[str]:
    """How many channels each of the first two cards has now."""
    line = "for i in 0 1; do ethtool -l eth$i | grep Combined | tail -1; done"
    return guest.checked(line).splitlines()


def test_interfaces_says_what_the_kernel_does_not_say(guest: Guest) -> None:
    said = guest.checked("ringline interfaces")
    rows = {words[0]: words for line in said.splitlines() if (words := line.split())}
    assert rows["eth0"][1:3] == ["virtio_net", "up"]
    assert rows["eth2"][1:3] == ["e1000e", "up"]
    assert rows["eth0"][-2:] == ["xdp,", "packet"]
    unknown = guest.kernel.version < (6, 3)
    assert (rows["eth0"][5] == "unknown") == unknown
    assert ("does not say what drivers do with XDP" in said) == unknown


def test_two_channels_of_virtio_net_have_a_socket_each(guest: Guest, run: Run) -> None:
    for name in ("eth0", "eth1"):
        assert run.report["ports"][name]["attached"] == "native XDP, copy"
        assert f"{name}, driver virtio_net: native XDP, copy, queues 2" in run.said
        each = counts(run, name)
        assert sum(each) == FRAMES
        assert all(each), f"flows come to both queues of {name}: {each}"
    assert channels(guest) == ["Combined:\t1", "Combined:\t1"], "they are restored"


def test_a_driver_without_xdp_gets_generic_xdp(run: Run) -> None:
    for name in ("eth2", "eth3"):
        port = run.report["ports"][name]
        assert port["attached"] == "generic XDP, copy"
        assert port["received"]["packets"] == port["forwarded"] == FRAMES
        why = "native XDP: Operation not supported"
        assert f"{name} uses generic XDP, which is slower ({why})" in run.said


def test_pings_pass_between_veth_pairs(run: Run) -> None:
    """Linux before 6.4 maps the rings of a socket only before it is bound."""
    for name in ("va", "vb"):
        assert run.report["ports"][name]["attached"] == "native XDP, copy"
        assert run.report["ports"][name]["forwarded"] >= 5


@pytest.mark.skipif(not PROOF, reason="needs RINGLINE_PROOF=1: it takes a minute")
def test_check_and_a_mode_that_the_driver_does_not_have(guest: Guest) -> None:
    text = CONFIG + '[port.n0]\ndevice = "xdp:eth0"\nmode = "zero-copy"\n'
    guest.checked(f"echo {shlex.quote(text)} > /tmp/zero.toml")
    assert "all well" in guest.checked("ringline check /tmp/zero.toml")
    result = guest.run("ringline run /tmp/zero.toml")
    assert result.code != 0
    why = f"its driver has no zero-copy mode in this kernel ({guest.kernel.release})"
    assert f"does not work without copies: {why}" in result.output
    assert "Traceback" not in result.output
    assert "prog/xdp" not in guest.checked("ip -d link")
