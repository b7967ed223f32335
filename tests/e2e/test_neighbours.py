"""Ports on bonds, bridges and VLANs and on what belongs to them: what comes, and what is said.

Where the kernel has no bonds or VLANs, tests/guest/test_kinds.py runs this file in a guest.
"""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from .operator_harness import Operator
from .veth_harness import (
    TIMEOUT,
    Veths,
    arrive,
    entered,
    ip,
    is_numbered,
    needs,
    needs_kind,
    numbered,
    port,
    receive,
    wait_until,
)
from .xdp_harness import started, status

VLAN = "link add link {0} name {0}.5 type vlan id 5"


def on(name: str, device: str, **keys: str) -> str:
    """The table of a port on any interface in the middle."""
    lines = [f"[port.{name}]", f'device = "{device}"', *(f'{k} = "{v}"' for k, v in keys.items())]
    return "\n".join([*lines, ""])


def ended(operator: Operator, process: object) -> str:
    """What a run that ends well has said."""
    process.terminate()  # type: ignore[attr-defined]
    _, errors = process.communicate(timeout=TIMEOUT)  # type: ignore[attr-defined]
    assert process.returncode == 0, errors  # type: ignore[attr-defined]
    return str(errors)


def test_a_vlan_of_the_hosts_passes(operator: Operator, veths: Veths) -> None:
    """A VLAN interface leaves its tag beside the frame, where AF_XDP does not see it, unless the
    interface below it says that it cannot do so."""
    needs("ethtool", "ping")
    needs_kind(veths, "vlan")
    veths.without_offload()
    for number, (side, host) in enumerate(veths.hosts.items(), start=1):
        ip(
            "-n",
            host,
            *VLAN.format("eth0").split(),
        )
        ip("-n", host, "addr", "add", f"10.78.0.{number}/24", "dev", "eth0.5")
        veths.host(side, "ethtool", "-K", "eth0", "txvlan", "off")
        ip("-n", host, "link", "set", "eth0.5", "up")
    with started(operator, veths) as (process, _):
        said = veths.host("a", "ping", "-c", "3", "-i", "0.1", "-W", "30", "10.78.0.2")
        assert " 0% packet loss" in said
        wire = veths.wire("b")
        veths.host("a", "ping", "-c", "1", "-W", "30", "10.78.0.2")
        assert receive(wire, lambda frame: frame[12:14] == b"\x08\x00", 1), "tcpdump takes tags off"
        ended(operator, process)


def test_a_bond_is_used_by_generic_xdp(operator: Operator, veths: Veths) -> None:
    needs_kind(veths, "bond")
    bond = "link add bond0 numrxqueues 1 numtxqueues 1 type bond mode active-backup"
    ip("-n", veths.middle, *bond.split())
    ip("-n", veths.middle, "link", "set", "va", "down")
    ip("-n", veths.middle, "link", "set", "va", "master", "bond0")
    for name in ("bond0", "va"):
        ip("-n", veths.middle, "link", "set", name, "up")
    source, target = veths.wire("a"), veths.wire("b")
    with started(operator, veths, text=on("a", "xdp:bond0") + port("b") + "\n") as (process, _):
        found = status(operator.name)["ports"]
        assert found["a"]["attached"] == "generic XDP, copy"
        wait_until(lambda: status(operator.name)["ports"]["a"]["link"]["up"], "the link")
        arrive(source, target)
        arrive(target, source)
        assert "port a: bond0 is a bond, whose frames come by generic XDP only" in ended(
            operator, process
        )


@pytest.mark.parametrize("promiscuous", [False, True])
def test_a_bridge_gives_what_is_for_this_machine(
    operator: Operator, veths: Veths, promiscuous: bool
) -> None:
    """Broadcasts come to the bridge, too; what it forwards from one of its ports to another comes
    only if it is promiscuous, once it has learnt where the receiver is."""
    ip("-n", veths.middle, "link", "add", "br0", "type", "bridge")
    for name in ("va", "vb"):
        ip("-n", veths.middle, "link", "set", name, "master", "br0")
    with entered(veths.middle):
        Path("/proc/sys/net/ipv6/conf/br0/disable_ipv6").write_text("1")
    ip("-n", veths.middle, "link", "set", "br0", "up")
    veths.silence()
    source, target = veths.wire("a"), veths.wire("b")
    wan = on("wan", "xdp:br0") + f"promiscuous = {str(promiscuous).lower()}\n"
    with started(operator, veths, text=wan + '[worker]\nplugin = "drop"\n') as (process, _):

        def received() -> int:
            return int(status(operator.name)["ports"]["wan"]["received"]["packets"])

        def broadcast() -> int:
            """Returns how many frames have come, once this one has."""
            before = received()
            target.send(bytes.fromhex("ffffffffffff02000000000288b5").ljust(60, b"\0"))
            wait_until(lambda: received() > before, "a broadcast")
            return received()

        before = broadcast()
        for frame in numbered(range(10)):
            source.send(frame)
        assert len(receive(target, is_numbered, 10)) == 10
        if promiscuous:
            wait_until(lambda: received() == before + 10, "their copies")
        assert broadcast() == before + (11 if promiscuous else 1)
        said = ended(operator, process)
    copied = "a copy" if promiscuous else "none"
    assert f"wan: br0 is a bridge: the port gets the frames for this machine, and {copied}" in said


@pytest.mark.parametrize("kind", ["bridge", "bond"])
def test_a_member_is_copied_beside_its_master(operator: Operator, veths: Veths, kind: str) -> None:
    needs_kind(veths, kind)
    ip("-n", veths.middle, "link", "add", "top", "type", kind)
    ip("-n", veths.middle, "link", "set", "va", "down")
    ip("-n", veths.middle, "link", "set", "va", "master", "top")
    for name in ("top", "va"):
        ip("-n", veths.middle, "link", "set", name, "up")
    text = on("a", "packet:va") + port("b") + "\n"
    with started(operator, veths, text=text) as (process, _):
        wait_until(lambda: status(operator.name)["ports"]["a"]["link"]["up"], "the link")
        arrive(veths.wire("a"), veths.wire("b"))
        said = ended(operator, process)
    assert f"port a: va belongs to a {kind}, which gets the same frames, and none of" in said


def test_a_vlan_is_copied_without_its_tag(operator: Operator, veths: Veths) -> None:
    """And what is sent to it gets the tag. Below, both have it."""
    needs_kind(veths, "vlan")
    ip(
        "-n",
        veths.middle,
        *VLAN.format("va").split(),
    )
    ip("-n", veths.middle, "link", "set", "va.5", "up")
    source, target = veths.wire("a"), veths.wire("b")
    source.setsockopt(263, 8, 1)  # PACKET_AUXDATA has the tag, which the kernel takes off
    tag = bytes.fromhex("81000005")
    text = on("a", "packet:va.5") + port("b") + "\n"
    with started(operator, veths, text=text) as (process, _):

        def tagged_arrive() -> bool:
            for frame in numbered(range(10)):
                source.send(frame[:12] + tag + frame[12:])
            return len(receive(target, is_numbered, 10)) == 10

        wait_until(tagged_arrive, "their arrival")
        for frame in numbered([77], flow=1):
            target.send(frame)
        assert (5, 77) in tags_of(source)
        said = ended(operator, process)
    assert "port a: va.5 is a VLAN: its frames come without their tag, and those" in said


def tags_of(wire: socket.socket) -> set[tuple[int, int]]:
    """VLAN and number of frames that arrive, until nothing comes for a while."""
    found = set()
    wire.settimeout(2.0)
    while True:
        try:
            frame, more, _, address = wire.recvmsg(2048, 256)
        except TimeoutError:
            return found
        if address[2] == socket.PACKET_OUTGOING or not is_numbered(frame) or not more:
            continue
        # struct tpacket_auxdata: status, len, snaplen, mac, net, vlan_tci, vlan_tpid
        vlan = int.from_bytes(more[0][2][16:18], "little") & 0xFFF
        found.add((vlan, int.from_bytes(frame[42:50], "big")))
