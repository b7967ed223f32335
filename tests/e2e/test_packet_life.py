"""Ports on packet sockets while processes die and interfaces change; errors leave nothing."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringline.pipeline.configuration.config import PacketConfig, PortConfig
from ringline.pipeline.ports.interfaces import interface
from ringline.pipeline.ports.packet import sockets
from ringline.pipeline.ports.packet.sockets import PacketAttachment
from ringline.shm.errors import EnvironmentLacks

from . import xdp_harness
from .operator_harness import HEAD, Operator
from .run_harness import alive, kill
from .test_xdp_life import WITHOUT_RIGHTS
from .veth_harness import (
    TIMEOUT,
    Veths,
    arrive,
    entered,
    ip,
    is_numbered,
    needs,
    numbered,
    port,
    receive,
    wait_until,
)
from .xdp_harness import RESTART, child, status, traffic

BOTH = port("a", "packet") + "\n" + port("b", "packet") + "\n" + RESTART
CONFIG = PortConfig("wan", "packet:va", queues=2, packet=PacketConfig())


@pytest.fixture
def veths() -> Iterator[Veths]:
    needs("setpriv")
    with contextlib.closing(Veths()) as made:
        yield made


def started(
    operator: Operator, veths: Veths
) -> contextlib.AbstractContextManager[tuple[subprocess.Popen[str], Path]]:
    return xdp_harness.started(operator, veths, text=BOTH)


def promiscuity(veths: Veths) -> int:
    shown = json.loads(ip("-n", veths.middle, "-d", "-j", "link", "show", "va"))
    return int(shown[0]["promiscuity"])


def test_a_worker_and_then_the_driver_are_killed(operator: Operator, veths: Veths) -> None:
    target = veths.wire("b")
    with traffic(veths), started(operator, veths) as (process, report):
        before = status(operator.name)["workers"][0]
        kill(before["pid"])
        wait_until(
            lambda: (
                (now := status(operator.name)["workers"][0])["up"]
                and now["generation"] > before["generation"]
            ),
            "a successor",
        )
        assert receive(target, is_numbered, 100)
        kill(child(process, "pipeline.driver"))
        _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 4
    assert "the driver was ended by SIGKILL" in errors
    found = json.loads(report.read_text())
    assert not any(found["balance"].values()), found["balance"]
    assert promiscuity(veths) == 0


def test_after_sigkill_of_the_supervisor_nothing_is_left(operator: Operator, veths: Veths) -> None:
    with traffic(veths), started(operator, veths) as (process, _):
        driver = child(process, "pipeline.driver")
        assert promiscuity(veths) == 1
        process.kill()
        process.communicate(timeout=TIMEOUT)
        wait_until(lambda: promiscuity(veths) == 0, "the end of the membership")
        wait_until(lambda: not alive(driver), "the end of the driver", 10.0)
        operator.run("cleanup", operator.name)


def test_the_driver_needs_no_privilege(operator: Operator, veths: Veths) -> None:
    """And the supervisor none but CAP_NET_RAW."""
    config = operator.write(HEAD + BOTH)
    source, target = veths.wire("a"), veths.wire("b")
    only = ["setpriv", "--bounding-set=-all,+net_raw,+setpcap"]
    process = subprocess.Popen(
        [*Veths.within(veths.middle), *only, sys.executable, "-c", WITHOUT_RIGHTS, str(config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: status(operator.name).get("state") == "running", "the run")
        driver = child(process, "pipeline.driver")
        rights = re.search(r"CapEff:\s*(\w+)", Path(f"/proc/{driver}/status").read_text())
        assert rights is not None
        assert int(rights[1], 16) == 0
        for frame in numbered(range(50)):
            source.send(frame)
        assert len(receive(target, is_numbered, 50)) == 50
    finally:
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=TIMEOUT)
    assert out.strip() == "all well", errors


def test_an_interface_that_goes_down_and_up_works_again(operator: Operator, veths: Veths) -> None:
    source, target = veths.wire("a"), veths.wire("b")
    with started(operator, veths) as (process, report):
        for side, frames in (("b", 10), ("a", 0)):
            ip("-n", veths.middle, "link", "set", f"v{side}", "down")
            wait_until(lambda side=side: not link(operator, side), "no link")
            for frame in numbered(range(frames)):
                source.send(frame)
            wait_until(
                lambda: status(operator.name)["ports"]["a"]["drops"]["tx_down"] >= 10, "their drop"
            )
            ip("-n", veths.middle, "link", "set", f"v{side}", "up")
            wait_until(lambda side=side: link(operator, side), "a link")
            for frame in numbered(range(10)):
                source.send(frame)
            assert len(receive(target, is_numbered, 10)) == 10
        process.terminate()
        process.communicate(timeout=TIMEOUT)
    assert not any(json.loads(report.read_text())["balance"].values())


def link(operator: Operator, side: str) -> bool:
    return bool(status(operator.name)["ports"][side]["link"]["up"])


def test_an_interface_that_is_made_again_is_used_again(operator: Operator, veths: Veths) -> None:
    source, host = veths.wire("a"), veths.hosts["b"]
    with started(operator, veths) as (process, report):
        ip("-n", veths.middle, "link", "del", "vb")
        wait_until(lambda: not link(operator, "b"), "no link")
        for frame in numbered(range(10)):
            source.send(frame)
        wait_until(lambda: status(operator.name)["ports"]["a"]["drops"]["tx_down"] > 0, "a drop")
        pair = ["link", "add", "vb", "type", "veth", "peer", "name", "eth0", "netns", host]
        ip("-n", veths.middle, *pair)
        ip("-n", host, "link", "set", "eth0", "up")
        ip("-n", veths.middle, "link", "set", "vb", "up")
        wait_until(lambda: link(operator, "b"), "a link")
        target = veths.wire("b")
        arrive(source, target)
        for frame in numbered(range(10), flow=1):
            target.send(frame)
        back = receive(source, lambda frame: is_numbered(frame) and frame[35] == 0x89, 10)
        assert len(back) == 10
        process.terminate()
        process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0
    assert not any(json.loads(report.read_text())["balance"].values())


def test_an_interface_that_is_moved_and_comes_back_is_used_again(
    operator: Operator, veths: Veths
) -> None:
    """It keeps its number, and the kernel has unbound the sockets."""
    source = veths.wire("a")
    with started(operator, veths) as (process, report):
        ip("-n", veths.middle, "link", "set", "vb", "netns", veths.hosts["a"])
        wait_until(lambda: not link(operator, "b"), "no link")
        ip("-n", veths.hosts["a"], "link", "set", "vb", "netns", veths.middle)
        ip("-n", veths.middle, "link", "set", "vb", "up")
        wait_until(lambda: link(operator, "b"), "a link")
        target = veths.wire("b")
        arrive(source, target)
        process.terminate()
        process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0
    assert not any(json.loads(report.read_text())["balance"].values())


def test_an_interface_that_is_away_for_a_moment_is_used_again(
    operator: Operator, veths: Veths
) -> None:
    source, target, elsewhere = veths.wire("a"), veths.wire("b"), veths.hosts["a"]
    with started(operator, veths) as (process, _):
        ip("-n", veths.middle, "link", "set", "vb", "netns", elsewhere)
        ip("-n", elsewhere, "link", "set", "vb", "netns", veths.middle)
        ip("-n", veths.middle, "link", "set", "vb", "up")
        arrive(source, target)
        process.terminate()
        process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0


def test_the_kernel_keeps_its_traffic(operator: Operator, veths: Veths) -> None:
    """A port that takes traffic would refuse the default route and the member of a bridge."""
    ip("-n", veths.middle, "addr", "add", "10.77.0.9/24", "dev", "va")
    ip("-n", veths.middle, "route", "add", "default", "via", "10.77.0.1", "dev", "va")
    ip("-n", veths.middle, "link", "add", "br0", "type", "bridge")
    ip("-n", veths.middle, "link", "set", "vb", "master", "br0")
    with started(operator, veths) as (process, _):
        said = veths.host("a", "ping", "-c", "3", "-i", "0.2", "10.77.0.9")
        assert " 0% packet loss" in said
        process.terminate()
        process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0


def test_bad_input_gets_one_sentence(operator: Operator, veths: Veths) -> None:
    ip("-n", veths.middle, "tuntap", "add", "mode", "tun", "tun0")
    within = Veths.within(veths.middle)
    for device, more, sentence in (
        ("packet:nope", [], "there is no network interface nope here"),
        ("packet:tun0", [], "tun0 carries no Ethernet frames (it has no MAC address of 6 bytes)"),
        (
            "packet:va",
            ["setpriv", "--bounding-set=-net_raw"],
            "va cannot be opened: this process lacks CAP_NET_RAW",
        ),
    ):
        config = operator.write(f'{HEAD}[port.wan]\ndevice = "{device}"\n')
        for command in ("run", "check"):
            assert sentence in operator.refused(3, command, config, within=[*within, *more])


def test_a_port_that_cannot_be_opened_leaves_nothing(
    veths: Veths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step fails once; then no descriptor is open."""

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "a test")

    with entered(veths.middle):
        before = os.listdir("/proc/self/fd")
        for place, name in (
            (sockets, "_filter"),
            (PacketAttachment, "_share"),
            (interface, "promiscuous"),
        ):
            with monkeypatch.context() as patch:
                patch.setattr(place, name, fail)
                with pytest.raises(EnvironmentLacks, match=r"port\.wan\.device: va.*a test"):
                    PacketAttachment(CONFIG)
            assert os.listdir("/proc/self/fd") == before, name


def test_why_rings_cannot_be_made_is_told(veths: Veths, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(socket.socket):
        def setsockopt(self, level: int, option: int, *value: object) -> None:  # type: ignore[override]
            if (level, option) == (263, 5):
                raise OSError(errno.ENOMEM, "out of memory")
            super().setsockopt(level, option, *value)  # type: ignore[call-overload]

    monkeypatch.setattr(socket, "socket", Refusing)
    with (
        entered(veths.middle),
        pytest.raises(EnvironmentLacks, match=r"no memory for rings of 2048 KiB; set fewer rx_"),
    ):
        PacketAttachment(CONFIG)


def test_an_interface_that_is_down_can_be_shared_or_the_sentence_says_why(
    veths: Veths, monkeypatch: pytest.MonkeyPatch
) -> None:
    ip("-n", veths.middle, "link", "set", "va", "down")

    class Old(socket.socket):  # as before Linux 6.13
        def setsockopt(self, level: int, option: int, *value: object) -> None:  # type: ignore[override]
            if (level, option) == (263, 18):
                raise OSError(errno.EINVAL, "Invalid argument")
            super().setsockopt(level, option, *value)  # type: ignore[call-overload]

    with entered(veths.middle):
        monkeypatch.setattr(socket, "socket", Old)
        with pytest.raises(EnvironmentLacks, match=r"it is down, and before Linux 6\.13"):
            PacketAttachment(CONFIG)
