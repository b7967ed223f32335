"""Ports on TAP interfaces: the kernel, ping, iperf3 and tcpdump are the judges."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ringline.workers.captures.captures import CaptureReader, Tally

from .operator_harness import HEAD, Operator
from .tap_harness import Taps, tap
from .veth_harness import (
    TIMEOUT,
    Veths,
    entered,
    ip,
    is_numbered,
    needs,
    number_of,
    numbered,
    port,
    receive,
    wait_until,
)
from .xdp_harness import status

MIXED = Path(__file__).resolve().parents[1] / "data" / "mixed.pcap"
PROOF = os.environ.get("RINGLINE_PROOF") == "1"
ALL = [(taps, queues) for taps in ("ab", "a", "b") for queues in (1, 2)]
FRAMES = 200_000 if PROOF else 2000
CAPTURED = 1000  # frames of a capture: it is read again and again


def all_linked(found: dict[str, Any]) -> bool:
    return "ports" in found and all(port["link"]["up"] for port in found["ports"].values())


@contextlib.contextmanager
def running(operator: Operator, hosts: Taps, text: str) -> Iterator[dict[str, Any]]:
    """Run ringline in the middle, with its TAPs at their hosts, until the end of the block. The
    dictionary gets the report; the books must balance.

    A TAP that moves to another namespace is down for a moment, and the driver looks at links once
    a second.
    """
    path = operator.folder / "report.json"
    config = operator.write(HEAD + text)
    report: dict[str, Any] = {}
    within = Veths.within(hosts.middle)
    with operator.started("run", config, "--report", path, within=within) as process:
        wait_until(lambda: status(operator.name).get("state") == "running", "the run")
        for side in hosts.taps:
            hosts.adopt(side)
        wait_until(lambda: all_linked(status(operator.name)), "the links")
        yield report
        process.terminate()
        _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, errors
    report |= json.loads(path.read_text())
    assert not any(report["balance"].values()), report["balance"]


@pytest.mark.parametrize(("taps", "queues"), ALL if PROOF else [("ab", 2), ("a", 1)])
def test_ping_and_tcp_work_through_ringline(operator: Operator, taps: str, queues: int) -> None:
    """Between two TAPs, and between a TAP and an interface through AF_XDP. Without offload at the
    veth, every TCP checksum on the way must be right."""
    needs("ping", "iperf3", "ethtool", "tcpdump")
    with contextlib.closing(Taps(taps, queues)) as hosts:
        keys = {"queues": queues, "rx_descriptors": 2048}
        ports = [tap(side, **keys) if side in taps else port(side, **keys) for side in "ab"]
        with running(operator, hosts, "\n".join(ports)) as report:
            for side in set("ab") - set(taps):
                hosts.host(side, "ethtool", "-K", "eth0", "tx", "off")
            hosts.host("a", "ping", "-c", "1", "-w", "30", "10.77.0.2")  # both links are seen
            for address in ("10.77.0.2", "fd77::2"):
                said = hosts.host("a", "ping", "-c", "3", "-i", "0.2", "-W", "5", address)
                assert " 0% packet loss" in said
            check_checksums(hosts)
        for side in taps:
            assert report["ports"][side]["attached"] == "TAP, made here"
        assert all(report["ports"][side]["received"]["packets"] > 200 for side in "ab")
        assert not any(report["ports"][side]["card_drops"]["crc"] for side in "ab")
        assert not any(hosts.has_interface(side) for side in taps)


def check_checksums(hosts: Taps) -> None:
    """iperf3 in both directions, while tcpdump looks at the checksums at both hosts."""
    dumps = [
        hosts.start(side, "tcpdump", "-i", "eth0", "-Q", "in", "-nn", "-vv", "-c", "200", "tcp")
        for side in "ab"
    ]
    said: list[str] = ["", ""]

    def read(at: int) -> None:
        said[at] = dumps[at].communicate(timeout=TIMEOUT)[0]

    for dump in dumps:
        assert dump.stdout is not None
        while "listening on" not in dump.stdout.readline():
            assert dump.poll() is None
    readers = [threading.Thread(target=read, args=[at]) for at in range(2)]
    for reader in readers:
        reader.start()
    for more in ([], ["-R", "-P", "2"], ["-6"]):
        server = hosts.start("b", "iperf3", "-s", "-1")
        wait_until(lambda: "5201" in hosts.host("b", "ss", "-ltn"), "the server")
        address = "fd77::2" if more == ["-6"] else "10.77.0.2"
        result = hosts.host("a", "iperf3", "-c", address, "-n", "1M", "--json", *more)
        assert json.loads(result)["end"]["sum_received"]["bytes"] > 100_000
        server.communicate(timeout=TIMEOUT)
    for dump, reader in zip(dumps, readers, strict=True):
        dump.terminate()
        reader.join()
    assert all("(correct)" in each for each in said)
    assert not any("incorrect" in each for each in said)


TAG = """
from ringline.workers.api import VLAN

class Tag:
    def process(self, batch):
        for packet in batch:
            packet.verdict = 1 - packet.port
            if packet.data[12:14] != b"\\x81\\x00":
                packet.flags |= VLAN
                packet.vlan_tci = 0x0456
"""


def test_a_tag_stays_in_the_frame_or_is_inserted(operator: Operator) -> None:
    """A packet socket gives a frame to a TAP, and tcpdump shows what another TAP got."""
    needs("tcpdump")
    operator.write(TAG, "tag.py")
    out = operator.folder / "out.pcap"
    text = tap("a") + "\n" + tap("b") + '\n[worker]\nplugin = "./tag.py:Tag"\n'
    frame = next(numbered([7], length=100))
    with_tag = frame[:12] + bytes.fromhex("81000123") + frame[12:]
    with contextlib.closing(Taps()) as hosts, running(operator, hosts, text):
        source = hosts.wire("a")
        with captured(hosts, hosts.hosts["b"], "eth0", out):
            source.send(with_tag)
            source.send(frame)
            wait_until(lambda: len(udp(out)) == 2, "the frames")
    assert udp(out) == [with_tag, frame[:12] + bytes.fromhex("81000456") + frame[12:]]


def udp(path: Path) -> list[bytes]:
    """Frames to the address of `numbered`."""
    return [frame for frame in frames(path) if frame.startswith(bytes.fromhex("020000000002"))]


@contextlib.contextmanager
def captured(hosts: Taps, namespace: str, name: str, out: Path) -> Iterator[None]:
    """tcpdump writes to `out` what arrives at an interface."""
    command = ["tcpdump", "-Z", "root", "-i", name, "-Q", "in", "-B", "65536", "-U"]
    dump = subprocess.Popen(
        [*Veths.within(namespace), *command, "-w", str(out)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    hosts.processes.append(dump)
    assert dump.stderr is not None
    while "listening on" not in dump.stderr.readline():
        assert dump.poll() is None
    yield
    dump.terminate()
    dump.communicate(timeout=TIMEOUT)


@contextlib.contextmanager
def existing(queues: int = 1) -> Iterator[Taps]:
    """A persistent TAP `keep` in the middle, as an operator makes it."""
    needs("tcpdump")
    with contextlib.closing(Taps("")) as hosts:
        words = ["multi_queue"] if queues > 1 else []
        ip("-n", hosts.middle, "tuntap", "add", "keep", "mode", "tap", *words)
        ip("-n", hosts.middle, "link", "set", "keep", "up")
        yield hosts


def replayed(path: Path, operator: Operator, queues: int) -> None:
    """A simulated card replays a capture to a TAP; tcpdump sees it byte for byte."""
    out = operator.folder / "out.pcap"
    text = f"""
[port.sim]
device = "sim:82599"
wire = {{ replay = "{path}", rate_mpps = 0.02, cut = "play" }}
[port.wan]
device = "tap:keep"
queues = {queues}
[worker.options]
map = {{ sim = "wan" }}
"""
    with existing(queues) as hosts:
        with CaptureReader(Tally(str(path), to_cut=True)) as reader:
            given = [bytes(packet.data) for packet in reader]
        # A simulated card sends at least 60 bytes, as every card does.
        given = [f.ljust(60, b"\0") for f in given if 17 <= len(f) <= 1518][:CAPTURED]
        with captured(hosts, hosts.middle, "keep", out), running(operator, hosts, text):
            wait_until(lambda: len(frames(out)) >= len(given), "what tcpdump has seen")
        assert frames(out)[: len(given)] == given
        assert hosts.there("keep")


def frames(path: Path) -> list[bytes]:
    with CaptureReader(Tally(str(path), to_cut=True)) as reader:
        return [bytes(packet.data) for packet in reader]


@pytest.mark.parametrize("queues", [1, 2] if PROOF else [2])
def test_a_replayed_capture_arrives_byte_for_byte(operator: Operator, queues: int) -> None:
    replayed(MIXED, operator, queues)


def test_a_real_capture_arrives_byte_for_byte_at_a_tap(
    operator: Operator, real_capture: Path
) -> None:
    replayed(real_capture, operator, 1)


def test_numbered_frames_arrive_once_and_in_order(operator: Operator) -> None:
    with contextlib.closing(Taps()) as hosts:
        text = tap("a", rx_descriptors=1024) + "\n" + tap("b")
        with running(operator, hosts, text) as report:
            source, target = hosts.wire("a"), hosts.wire("b")
            for number in range(0, FRAMES, 100):
                for frame in numbered(range(number, number + 100)):
                    source.send(frame)
                arrived = receive(target, is_numbered, 100)
                assert [number_of(f)[1] for f in arrived] == list(range(number, number + 100))
        assert report["ports"]["b"]["transmitted"]["packets"] >= FRAMES


def test_overload_is_counted_by_the_kernel(operator: Operator) -> None:
    """The frames that find no room in the queue of the TAP are `missed`, none is unaccounted."""
    operator.write(
        """
import time

class Slow:
    def process(self, batch):
        time.sleep(0.02)
        for packet in batch:
            packet.verdict = 255
""",
        "slow.py",
    )
    with contextlib.closing(Taps("")) as hosts:
        text = tap("a", rx_descriptors=64) + '\n[worker]\nplugin = "./slow.py:Slow"\n'
        with running(operator, hosts, text) as report:
            with entered(hosts.middle):
                source = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
                source.bind(("ta", 0))
            for frame in numbered(range(20_000)):
                source.send(frame)
            source.close()
            wait_until(
                lambda: status(operator.name)["ports"]["a"]["card_drops"]["missed"], "a loss"
            )
        found = report["ports"]["a"]
        missing = 20_000 - found["received"]["packets"]
        assert missing > 0
        # The last frames stay in the queue of the TAP.
        assert found["card_drops"]["missed"] == pytest.approx(missing, abs=64 + 40)
