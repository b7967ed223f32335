"""Ports on bonds, bridges and VLANs and on what belongs to them: what comes, and what is said.

Bonds and VLANs are also in tests/guest/test_kinds.py: not every kernel has them.
"""

from __future__ import annotations

import subprocess
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
    numbered,
    port,
    receive,
    wait_until,
)
from .xdp_harness import started, status


def on(name: str, device: str) -> str:
    """The table of a port on any interface in the middle."""
    return f'[port.{name}]\ndevice = "{device}"\n'


def ended(process: subprocess.Popen[str]) -> str:
    """What a run that ends well has said."""
    process.terminate()
    _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, errors
    return errors


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
            ports = wait_until(lambda: status(operator.name).get("ports"), "an answer")
            return int(ports["wan"]["received"]["packets"])

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
        said = ended(process)
    copied = "a copy" if promiscuous else "none"
    assert f"wan: br0 is a bridge: the port gets the frames for this machine, and {copied}" in said


def test_a_member_is_copied_beside_its_master(operator: Operator, veths: Veths) -> None:
    ip("-n", veths.middle, "link", "add", "top", "type", "bridge")
    ip("-n", veths.middle, "link", "set", "va", "down")
    ip("-n", veths.middle, "link", "set", "va", "master", "top")
    for name in ("top", "va"):
        ip("-n", veths.middle, "link", "set", name, "up")
    text = on("a", "packet:va") + port("b") + "\n"
    with started(operator, veths, text=text) as (process, _):
        wait_until(lambda: status(operator.name)["ports"]["a"]["link"]["up"], "the link")
        arrive(veths.wire("a"), veths.wire("b"))
        said = ended(process)
    assert "port a: va belongs to a bridge, which gets the same frames, and none of" in said
