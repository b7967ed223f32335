"""Interfaces that a port on AF_XDP cannot use, and what it does instead; errors leave nothing."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from ringline.pipeline.configuration.config import PortConfig, XdpConfig
from ringline.pipeline.ports.interfaces import interface
from ringline.pipeline.ports.xdp import bpf, sockets
from ringline.pipeline.ports.xdp.sockets import XdpAttachment
from ringline.shm.errors import EnvironmentLacks
from ringline.shm.packets import PacketMemory

from .operator_harness import HEAD, Operator
from .veth_harness import (
    TIMEOUT,
    Veths,
    entered,
    ip,
    needs,
    needs_kind,
    port,
    receive,
)
from .xdp_harness import started


class Bad(NamedTuple):
    """A configuration that is refused. `before` are arguments of `ip` in the middle; `attempt`:
    only an attempt shows it, so `check` does not."""

    sentence: str
    port: str = 'device = "xdp:va"'
    before: Sequence[str] = ()
    attempt: bool = False
    code: int = 3
    environment: Mapping[str, str | None] = {}


SSH = {"SSH_CONNECTION": "10.79.0.1 50000 10.79.0.2 22"}
BAD = {
    "missing": Bad("there is no network interface nope here", 'device = "xdp:nope"'),
    "elsewhere": Bad("if it is in another network namespace (", 'device = "xdp:eth0"'),
    "loopback": Bad("lo is the loopback interface", 'device = "xdp:lo"'),
    "mtu": Bad(
        "va has an MTU of 9000 bytes, and a packet buffer has room for an MTU of at most 1500",
        before=["link set va mtu 9000"],
    ),
    "queues": Bad(
        "va receives on 1 queue, and the port has 2; set queues = 1: it has at most 1",
        'device = "xdp:va"\nqueues = 2',
    ),
    "zero-copy": Bad(
        "va does not work without copies", 'device = "xdp:va"\nmode = "zero-copy"', attempt=True
    ),
    "default route": Bad(
        "va carries the default route of this machine", before=["route add default dev va"]
    ),
    "session": Bad(
        "va carries your ssh session (10.79.0.1 to 10.79.0.2), which would hang",
        before=["addr add 10.79.0.2/24 dev va"],
        environment=SSH,
    ),
    "session in take": Bad(
        "va carries your ssh session",
        'device = "xdp:va"\ntake = [ { protocol = "tcp" } ]',
        before=["addr add 10.79.0.2/24 dev va"],
        environment=SSH,
    ),
    "bridge": Bad(
        "va belongs to a bridge, which would get no more frames from it",
        before=["link add br0 type bridge", "link set va master br0"],
    ),
    "bond": Bad(
        "va belongs to a bond, which would get no more frames from it",
        before=["link add bond0 type bond", "link set va down", "link set va master bond0"],
    ),
    "bond itself": Bad(
        "bond0 is a bond, from which native XDP gets no frames; set attach = ",
        'device = "xdp:bond0"\nattach = "native"',
        before=["link add bond0 type bond"],
    ),
    "vlan": Bad(
        "va.5 is a VLAN of another interface; name that interface",
        'device = "xdp:va.5"',
        before=["link add link va name va.5 type vlan id 5"],
    ),
    "nothing agrees": Bad(
        "port.wan.take[0]: no frame agrees: only TCP and UDP have ports",
        'device = "xdp:va"\ntake = [ { protocol = "icmp", port = 80 } ]',
        code=2,
    ),
    "twice": Bad(
        "port.lan: uses the card of port wan (xdp:va)",
        'device = "xdp:va"\n[port.lan]\ndevice = "xdp:va"',
        code=2,
    ),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("command", ["run", "check"])
def test_bad_input_gets_one_sentence_and_leaves_nothing(
    operator: Operator, veths: Veths, case: str, command: str
) -> None:
    bad = BAD[case]
    if command == "check" and bad.attempt:
        return
    kind = case.partition(" ")[0]
    if kind in ("bond", "vlan"):
        needs_kind(veths, kind)
    for arguments in bad.before:
        ip("-n", veths.middle, *arguments.split())
    config = operator.write(f"{HEAD}[port.wan]\n{bad.port}\n")
    within = Veths.within(veths.middle)
    said = operator.refused(bad.code, command, config, within=within, environment=bad.environment)
    assert bad.sentence in said
    assert not veths.attached("a")


@pytest.mark.parametrize("leaving", ['take = [ { protocol = "udp" } ]', "force = true"])
def test_the_guard_lets_a_port_begin_that_leaves_the_session_or_is_forced(
    operator: Operator, veths: Veths, leaving: str
) -> None:
    ip("-n", veths.middle, "addr", "add", "10.79.0.2/24", "dev", "va")
    ip("-n", veths.middle, "route", "add", "default", "via", "10.79.0.1")
    config = operator.write(f"{HEAD}{port('a')}\n{leaving}\n")
    within = Veths.within(veths.middle)
    ended = operator.run("run", config, "--for", "0.3", within=within, environment=SSH)
    assert ended.code == 0, ended


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_second_program_on_an_interface_is_refused_by_its_number(
    operator: Operator, veths: Veths, command: str, tmp_path: Path
) -> None:
    with started(operator, veths) as (process, _):
        other = Operator(tmp_path, lambda: f"{operator.name}x")
        config = other.write(HEAD + port("a"), "other.toml")
        said = other.refused(3, command, config, within=Veths.within(veths.middle))
        assert re.search(r"va has an XDP program already \(number \d+, native\)", said)
        process.terminate()
        process.communicate(timeout=TIMEOUT)


def test_missing_rights_are_named(operator: Operator, veths: Veths) -> None:
    needs("setpriv")
    config = operator.write(HEAD + port("a"))
    within = [*Veths.within(veths.middle), "setpriv", "--bounding-set=-net_admin,-net_raw"]
    for command in ("run", "check"):
        said = operator.refused(3, command, config, within=within)
        assert "this process lacks CAP_NET_ADMIN and CAP_NET_RAW" in said
    within = [*Veths.within(veths.middle), "prlimit", "--memlock=65536"]
    within += ["setpriv", "--bounding-set=-ipc_lock"]
    said = [operator.refused(3, command, config, within=within) for command in ("run", "check")]
    limits = [re.search(r"a limit of locked memory of \d+ KiB", each) for each in said]
    assert limits[0], said
    assert limits[1], said
    assert limits[0][0] == limits[1][0]


def test_the_rights_that_are_named_are_enough(operator: Operator, veths: Veths) -> None:
    needs("setpriv")
    config = operator.write(HEAD + port("a"))
    kept = "-all,+net_admin,+net_raw,+bpf,+ipc_lock"
    within = [*Veths.within(veths.middle), "setpriv", f"--bounding-set={kept}"]
    ended = operator.run("run", config, "--for", "1", within=within)
    assert ended.code == 0, ended


def test_an_interface_that_receives_through_the_port_is_named(
    operator: Operator, veths: Veths
) -> None:
    needs_kind(veths, "macvlan")
    ip("-n", veths.middle, "link", "add", "link", "va", "name", "over", "type", "macvlan")
    config = operator.write(HEAD + port("a") + "\n" + port("b"))
    ended = operator.run("run", config, "--for", "0.3", within=Veths.within(veths.middle))
    assert ended.code == 0
    assert "port a: over receives through va, and gets no frame that the port takes" in ended.errors
    assert "receives through vb" not in ended.errors
    ip("-n", veths.middle, "link", "set", "over", "up")
    ip("-n", veths.middle, "route", "add", "default", "dev", "over")
    refused = operator.refused(3, "check", config, within=Veths.within(veths.middle))
    assert "over, which receives through va, carries the default route of this machine" in refused


REMOVING = """
import subprocess

class Removing:
    def setup(self, worker):
        subprocess.run(["ip", "link", "del", "va"], check=False)

    def process(self, batch):
        pass
"""


def test_an_interface_that_is_removed_during_the_start_is_named_or_awaited(
    operator: Operator, veths: Veths
) -> None:
    """It depends on whether the driver has it by then."""
    operator.write(REMOVING, "removing.py")
    config = operator.write(HEAD + port("a") + '\n[worker]\nplugin = "./removing.py:Removing"\n')
    report = operator.folder / "report.json"
    within = Veths.within(veths.middle)
    ended = operator.run("run", config, "--for", "0.5", "--report", report, within=within)
    found = json.loads(report.read_text())
    if ended.code == 3:
        assert ended.last.startswith("port.a.device: va was removed during the start; start")
    else:
        assert ended.code == 0, ended
        assert not found["ports"]["a"]["link"]["up"]
    assert not any(found["balance"].values()), found["balance"]


def test_zero_copy_is_left_with_a_sentence(operator: Operator, veths: Veths) -> None:
    config = operator.write(HEAD + port("a", mode="auto"))
    ended = operator.run("run", config, "--for", "1", within=Veths.within(veths.middle))
    assert ended.code == 0
    assert "va is used in copy mode, because zero-copy does not work" in ended.errors


def test_generic_xdp_is_used_when_the_driver_refuses_native(operator: Operator) -> None:
    """A veth refuses a program when its other end has more queues for sending."""
    needs("ethtool")
    with contextlib.closing(Veths(queues=1, far=2)) as veths:
        within = Veths.within(veths.middle)
        config = operator.write(HEAD + port("a"))
        ended = operator.run("run", config, "--for", "0.5", within=within)
        assert ended.code == 0
        assert "va uses generic XDP, which is slower (native XDP: " in ended.errors
        assert "generic XDP, copy, queues 1" in ended.errors
        config = operator.write(HEAD + port("a", attach="native"), "native.toml")
        said = operator.refused(3, "run", config, within=within)
        assert "no program can be attached (native XDP: " in said


def test_the_start_test_of_zero_copy_sends_a_frame(
    veths: Veths, instance: Callable[[], str]
) -> None:
    """It works in copy mode too. Of an interface that is down, no frame is reported as sent."""
    target = veths.wire("a")
    config = PortConfig("wan", "xdp:va", xdp=XdpConfig())
    with entered(veths.middle), PacketMemory.create(instance(), 64) as packets:
        attachment = XdpAttachment(config, packets)
        queue = sockets.ffi.new("struct rl_xdp_queue *")
        sizes = config.rx_descriptors, config.tx_descriptors
        mapped = sockets.rings.SocketRings(attachment.descriptors[0], queue, *sizes)
        try:
            attachment._probe([queue])
            (frame,) = receive(target, lambda frame: frame[12:14] == b"\x88\xb5", 1)
            assert frame[:6] == frame[6:12]
            ip("-n", veths.middle, "link", "set", "va", "down")
            with pytest.raises(TimeoutError, match=r"a frame on queue 0 was not sent within"):
                attachment._probe([queue])
        finally:
            mapped.close()
            attachment.close()


def test_a_port_that_cannot_be_opened_leaves_nothing(
    veths: Veths, instance: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step fails once; then no program is attached, and no descriptor is open."""

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "a test")

    steps = [
        (bpf, "create_socket_map"),
        (bpf, "load_program"),
        (bpf, "attach"),
        (sockets, "_new_socket"),
        (interface, "promiscuous"),
    ]
    config = PortConfig("wan", "xdp:va", xdp=XdpConfig())
    with entered(veths.middle), PacketMemory.create(instance(), 64) as packets:
        before = os.listdir("/proc/self/fd")
        for place, name in steps:
            with monkeypatch.context() as patch:
                patch.setattr(place, name, fail)
                with pytest.raises(EnvironmentLacks, match=r"port\.wan\.device: va.*a test"):
                    XdpAttachment(config, packets)
            assert os.listdir("/proc/self/fd") == before, name
            assert not veths.attached("a")
