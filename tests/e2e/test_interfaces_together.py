"""Two ports on one interface, interfaces that are renamed, and a TAP that others use."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ringline.pipeline.ports.tap import tun

from . import tap_harness
from .operator_harness import Operator
from .tap_harness import Taps
from .test_gone_again import STATISTICS, has_link, make_again, stopped
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
from .xdp_harness import child, started, status

PROOF = os.environ.get("RINGLINE_PROOF") == "1"
WAITS = "its interface is gone from this network namespace; the port waits for one with the name "
SEGMENTS = 20_000 if PROOF else 200
KINDS = ["xdp", "packet"] if PROOF else ["xdp"]


@pytest.fixture
def taps() -> Iterator[Taps]:
    needs()
    with contextlib.closing(Taps("a")) as made:
        yield made


def ended(process: subprocess.Popen[str], report: Path) -> tuple[str, dict[str, Any]]:
    """End the run. Returns what it said, and its report."""
    process.terminate()
    _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, errors
    found: dict[str, Any] = json.loads(report.read_text())
    assert not any(found["balance"].values()), found["balance"]
    return errors, found


@pytest.mark.parametrize("take", ["", 'take = [ { protocol = "tcp" } ]'], ids=["all", "tcp"])
def test_a_copy_beside_a_port_that_takes_frames(
    operator: Operator, veths: Veths, take: str
) -> None:
    """A sentence says which frames the copy has: those that the other port leaves."""
    veths.silence()
    probe = '[port.probe]\ndevice = "packet:va"\n[worker]\nplugin = "drop"\n'
    text = f"{port('a')}\n{take}\n{probe}"
    with started(operator, veths, text=text) as (process, report):
        wire = veths.wire("a")
        for frame in numbered(range(100)):  # UDP
            wire.send(frame)
        taker = "probe" if take else "a"
        wait_until(
            lambda: status(operator.name)["ports"][taker]["received"]["packets"] == 100, "frames"
        )
        said, found = ended(process, report)
    counts = {name: each["received"]["packets"] for name, each in found["ports"].items()}
    assert counts == {"a": 0 if take else 100, "probe": 100 if take else 0}
    assert "port probe gets no copy of the frames that port a takes from va or sends there" in said
    assert ("take is not set, so port a takes all" in said) == (not take)


@pytest.mark.parametrize("kind", KINDS)
def test_a_renamed_interface_that_is_removed_is_waited_for_with_the_name_of_the_configuration(
    operator: Operator, veths: Veths, kind: str
) -> None:
    text = port("a", kind) + "\n" + port("b", kind)
    with started(operator, veths, text=text) as (process, report):
        for _ in range(2):
            ip("-n", veths.middle, "link", "set", "vb", "name", "other")
            arrive(veths.wire("a"), veths.wire("b"))
            ip("-n", veths.middle, "link", "del", "other")
            wait_until(lambda: not has_link(operator), "no link")
            time.sleep(STATISTICS)  # the supervisor has looked
            make_again(veths)
            wait_until(lambda: has_link(operator), "a link")
            arrive(veths.wire("a"), veths.wire("b"))
        said, _ = ended(process, report)
    assert said.count(f"port b: {WAITS}vb") == 2, said


@pytest.mark.parametrize("kind", KINDS)
def test_an_interface_that_is_renamed_while_its_sockets_are_made_again(
    operator: Operator, veths: Veths, kind: str
) -> None:
    """The driver does not find it. It is used when it has its name again."""
    text = port("a", kind) + "\n" + port("b", kind)
    with started(operator, veths, text=text) as (process, report):
        driver = child(process, "pipeline.driver")
        ip("-n", veths.middle, "link", "del", "vb")
        wait_until(lambda: not has_link(operator), "no link")
        with contextlib.ExitStack() as stack:
            with stopped(process.pid):
                time.sleep(STATISTICS)  # they wait for the supervisor, which then looks for vb
                stack.enter_context(stopped(driver))
                make_again(veths)
            path = Path(f"/proc/{process.pid}/net/packet")
            lines = len(path.read_text().splitlines())
            wait_until(
                lambda: (
                    veths.attached("b")
                    if kind == "xdp"
                    else len(path.read_text().splitlines()) > lines
                ),
                "new sockets",
            )
            ip("-n", veths.middle, "link", "set", "vb", "name", "other")
        time.sleep(STATISTICS)
        assert process.poll() is None
        ip("-n", veths.middle, "link", "set", "other", "name", "vb")
        ip("-n", veths.middle, "link", "set", "vb", "up")
        wait_until(lambda: has_link(operator), "a link")
        arrive(veths.wire("a"), veths.wire("b"))
        assert child(process, "pipeline.driver") == driver
        ended(process, report)


TAP_AND_VETH = tap_harness.tap("a") + "\n" + port("b")


def linked(operator: Operator) -> bool:
    told = status(operator.name)
    return bool(told) and bool(told["ports"]["a"]["link"]["up"])


def test_a_renamed_tap_works_on_and_is_made_again_with_the_name_of_the_configuration(
    operator: Operator, taps: Taps
) -> None:
    with started(operator, taps, text=TAP_AND_VETH) as (process, report):
        wait_until(lambda: taps.there("ta"), "the TAP")
        for _ in range(2):
            ip("-n", taps.middle, "link", "set", "ta", "down")
            ip("-n", taps.middle, "link", "set", "ta", "name", "other")
            ip("-n", taps.middle, "link", "set", "other", "netns", taps.hosts["a"], "name", "eth0")
            ip("-n", taps.hosts["a"], "link", "set", "eth0", "up")
            wait_until(lambda: linked(operator), "a link")
            arrive(taps.wire("a"), taps.wire("b"))
            ip("-n", taps.hosts["a"], "link", "del", "eth0")
            wait_until(lambda: taps.there("ta"), "the TAP again")
        said, _ = ended(process, report)
    assert said.count("port a: ta: TAP, made here, queues 1") == 3, said
    assert not taps.there("ta")


def test_a_renamed_tap_of_somebody_else_is_waited_for_with_the_name_of_the_configuration(
    operator: Operator, taps: Taps
) -> None:
    """And one that another program has opened meanwhile is waited for until that ends."""
    middle = taps.middle

    def make() -> None:
        ip("-n", middle, "tuntap", "add", "ta", "mode", "tap")

    make()
    with started(operator, taps, text=TAP_AND_VETH) as (process, report):
        ip("-n", middle, "link", "set", "ta", "name", "other")
        ip("-n", middle, "link", "set", "other", "up")
        wait_until(lambda: linked(operator), "a link")
        ip("-n", middle, "link", "del", "other")
        wait_until(lambda: not linked(operator), "no link")
        time.sleep(STATISTICS)
        with stopped(process.pid), entered(middle):
            make()
            fd = tun.open_queue("ta", multi_queue=False, make=False)
        time.sleep(2 * STATISTICS)
        assert not linked(operator)
        os.close(fd)
        ip("-n", middle, "link", "set", "ta", "up")
        wait_until(lambda: linked(operator), "a link")
        said, _ = ended(process, report)
    assert said.count(f"port a: {WAITS}ta") == 1, said
    assert "ta is in use by another program" in said
    assert taps.there("ta")


def merged() -> bytes:
    """One segment of TCP with 60,000 bytes, which the kernel would cut only where it is sent: with
    its struct virtio_net_hdr (linux/virtio_net.h)."""
    content = bytes(60_000)
    head = struct.pack("=BBHHHH", 1, 1, 54, 1448, 34, 16)  # checksum needed, TCPv4
    ip4 = bytes.fromhex("4500") + (40 + len(content)).to_bytes(2, "big")
    ip4 += bytes.fromhex("0000400040060000") + bytes([10, 77, 0, 1, 10, 77, 0, 2])
    tcp = bytes.fromhex("1388000900000000000000005010ffff00000000")
    ethernet = bytes.fromhex("0200000000030200000000010800")
    return head + ethernet + ip4 + tcp + content


def test_a_flood_of_merged_segments_is_counted_by_name_and_passes_nothing_else_by(
    operator: Operator, veths: Veths
) -> None:
    """Each is oversize, exactly; the frames between them arrive."""
    veths.silence()
    text = port("a", "packet", rx_descriptors=4096) + "\n" + port("b", "packet")
    source, target = veths.wire("a"), veths.wire("b")
    big = veths.wire("a")
    big.setsockopt(263, 15, 1)  # SOL_PACKET, PACKET_VNET_HDR
    big.setsockopt(1, 32, 1 << 24)  # SOL_SOCKET, SO_SNDBUFFORCE
    segment = merged()
    with started(operator, veths, text=text) as (process, report):
        arrived = 0
        for begin in range(0, SEGMENTS, 50):
            for number in range(begin, begin + 50):
                big.send(segment)
                for frame in numbered([number]):
                    source.send(frame)
            arrived += len(receive(target, is_numbered, 50))
        _, found = ended(process, report)
    shown = found["ports"]["a"]
    assert arrived == SEGMENTS
    assert shown["card_drops"]["oversize"] == SEGMENTS
    assert shown["received"]["packets"] == SEGMENTS
