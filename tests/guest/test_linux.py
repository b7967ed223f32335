"""Linux at both ends of ringline: a bridge between two cards, and between a card and a TAP of the
kernel that has an address there.

The cards are QEMU's 82574L behind an IOMMU; the kernels at the other ends of their cables are this
machine's, in network namespaces.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from .booted import PROOF, booted
from .cards import card
from .hosts import RECEIVE, SEND, Host, host
from .machine import Guest
from .test_vfio_ixgbe import START, Bench, only_proof

DEVICES = ("0000:00:10.0", "0000:00:11.0")
LEFT, RIGHT, TWIN = "10.79.0.1", "10.79.0.2", "10.79.0.3"
FILE_BYTES = 20_000_000 if PROOF else 2_000_000
SECONDS = 5 if PROOF else 1
PINGS = ("-c", "50" if PROOF else "10", "-i", "0.05")
TAP = """
name = "vfio"
metrics.listen = "off"
memory.hugepages = "require"
worker.plugin = "forward"
port.wan.device = "pci:0000:00:10.0"
port.twin.device = "tap:twin"
"""
# The kernel keeps its address on the TAP, as it had it on the card.
ADDRESS = f"""
ip addr add {TWIN}/24 dev twin
ip link set twin up
until grep -q 1 /sys/class/net/twin/carrier; do sleep 0.1; done
"""
REFUSED = 'name = "vfio"\nport.wan.device = "pci:0000:00:10.0"\nport.lan.device = "tap:refused"\n'

pytestmark = pytest.mark.timeout(1800)


@dataclass(kw_only=True)
class Linux(Bench):
    """`left` is at the other end of the first card's cable, `right` at that of the second's."""

    left: Host
    right: Host


@pytest.fixture(scope="module")
def bench() -> Iterator[Linux]:
    with host(f"{LEFT}/24") as left, host(f"{RIGHT}/24") as right:
        cards = [card("e1000e", left), card("e1000e", right)]
        with booted(lambda: Guest(cards, modules=["tun"], iommu=True, hugepages=64)) as guest:
            left.come_up()
            right.come_up()
            yield Linux(guest, guest.cables, DEVICES, left=left, right=right)


def test_a_refused_start_leaves_the_card_to_its_kernel(bench: Linux) -> None:
    """While the kernel's driver answers pings: none is lost, and the configuration space is the
    same. The first test: later ones give the cards to ringline."""
    guest = bench.guest
    guest.checked(f"ip addr add {TWIN}/24 dev eth0; ip link set eth0 up")
    bench.left.reach(TWIN)
    look = f"od -An -tx1 /sys/bus/pci/devices/{DEVICES[0]}/config"
    before = guest.checked(look)
    guest.checked(f"echo {shlex.quote(REFUSED)} > /tmp/refused.toml")
    pinging = ("ping", "-i", "0.1", "-W", "20", TWIN)
    with bench.left.started(pinging, "icmp_seq=3 ") as pings:
        for command in ("run", "check"):
            result = guest.run(f"ringline {command} /tmp/refused.toml")
            assert result.code == 3, result
            assert f"{DEVICES[0]} is in use by its kernel driver e1000e: eth0" in result.output
        result = guest.run(f"ringline bind {DEVICES[0]}")
        assert f"{DEVICES[0]} is in use: eth0 is up" in result.output
        assert guest.checked(look) == before
        pings.wait_for(f"icmp_seq={len(pings.said().splitlines()) + 3} ")
        said = pings.end(2)
    assert " 0% packet loss" in said, said
    link = f"basename $(readlink /sys/bus/pci/devices/{DEVICES[0]}/driver)"
    assert guest.checked(link) == "e1000e\n"
    guest.checked("ip addr flush dev eth0; ip link set eth0 down; ! ip link show refused")


@only_proof
def test_ringline_is_a_bridge_between_two_cards(bench: Linux) -> None:
    bench.bind("vfio-pci", "DMA")
    bench.start()
    left, right = bench.left, bench.right
    left.reach(RIGHT)
    left.pings(RIGHT, *PINGS)
    left.pings(RIGHT, *PINGS, "-s", "1472")
    with right.iperf_server():
        for way in ((), ("-R",)):
            is_a_rate(left.run("iperf3", "-c", RIGHT, "-t", str(SECONDS), *way))
    with right.receiver() as receiver:
        sent = left.send_file(RIGHT, FILE_BYTES)
        assert receiver.end().endswith(sent)
    report = bench.stop()
    is_well(report)
    for port in report["ports"].values():
        assert port["card"]["rx_packets"] == port["received"]["packets"]
        assert port["card"]["tx_packets"] == port["transmitted"]["packets"]


@only_proof
def test_the_kernel_has_a_twin_of_the_card(bench: Linux) -> None:
    """Its address is on a TAP, and ringline joins that with the card."""
    guest, left = bench.guest, bench.left
    bench.bind("vfio-pci", "DMA")
    guest.checked(f"echo {shlex.quote(TAP)} > /tmp/vfio.toml")
    guest.checked(START)
    guest.checked(ADDRESS)
    left.reach(TWIN)
    left.pings(TWIN, *PINGS)
    guest.checked(
        "iperf3 -s --forceflush > /tmp/iperf 2>&1 &"
        "until grep -q listening /tmp/iperf; do sleep 0.1; done"
    )
    for way in ((), ("-R",)):
        is_a_rate(left.run("iperf3", "-c", TWIN, "-t", str(SECONDS), *way))
    guest.checked(
        f"{sys.executable} -c {shlex.quote(RECEIVE)} {TWIN} > /tmp/file 2>&1 &"
        "until grep -q listening /tmp/file; do sleep 0.1; done"
    )
    sent = left.send_file(TWIN, FILE_BYTES)
    guest.checked(f"until grep -q {shlex.quote(sent.strip())} /tmp/file; do sleep 0.1; done")
    with left.receiver() as receiver:
        sent = guest.checked(f"{sys.executable} -c {shlex.quote(SEND)} {LEFT} {FILE_BYTES}")
        assert receiver.end().endswith(sent)
    guest.checked("kill $(pidof iperf3)")
    is_well(bench.stop())


def is_a_rate(said: str) -> None:
    """iperf3 has measured a rate at the receiver."""
    assert re.search(r"\d [KMG]bits/sec.*receiver", said), said


def is_well(report: dict[str, Any]) -> None:
    for name, port in report["ports"].items():
        assert not port["faults"], (name, port["faults"])
        assert port["forwarded"] > 0
