"""Ports on network interfaces of the kernel: hosts in namespaces talk through ringline.

The kernel, ping, iperf3 and tcpdump are the judges. Every run ends with balanced books.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ringline.workers.captures.captures import CaptureReader, CaptureWriter, Tally

from .operator_harness import HEAD, Operator
from .veth_harness import (
    TIMEOUT,
    Veths,
    entered,
    is_numbered,
    needs,
    number_of,
    numbered,
    port,
    receive,
    send_file,
    wait_until,
)
from .xdp_harness import is_running, status

MIXED = Path(__file__).resolve().parents[1] / "data" / "mixed.pcap"
PROOF = os.environ.get("RINGLINE_PROOF") == "1"
CAPTURED = 1_000_000 if PROOF else 1000  # frames of a capture: it is read again and again
CHUNK = 200  # frames: a veth has room for 256 while nobody takes them
FLOWS = 4
FRAMES = 1_000_000 if PROOF else 100_000


@pytest.fixture
def veths(request: pytest.FixtureRequest) -> Iterator[Veths]:
    needs("ping", "iperf3", "ethtool")
    with contextlib.closing(Veths(getattr(request, "param", 1))) as made:
        yield made


class Forwarding:
    """A run of ringline between the two hosts, and its report."""

    def __init__(self, operator: Operator, veths: Veths, text: str) -> None:
        self._operator, self._veths = operator, veths
        self._config = operator.write(HEAD + text)
        self._path = operator.folder / "report.json"
        self.report: dict[str, Any] = {}
        self.errors = ""

    @contextlib.contextmanager
    def running(self) -> Iterator[subprocess.Popen[str]]:
        """Run until the end of the block; check exit code and books."""
        within = Veths.within(self._veths.middle)
        with self._operator.started(
            "run", self._config, "--report", self._path, within=within
        ) as process:
            wait_until(lambda: is_running(process, self._operator.name), "the run")
            yield process
            process.terminate()
            _, self.errors = process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0, self.errors
        self.report = json.loads(self._path.read_text())
        assert not any(self.report["balance"].values()), self.report["balance"]

    def status(self) -> dict[str, Any]:
        return status(self._operator.name)


@pytest.fixture
def forwarding(operator: Operator, veths: Veths) -> Callable[[str], Forwarding]:
    return lambda text: Forwarding(operator, veths, text)


def both(**keys: Any) -> str:
    return port("a", **keys) + "\n" + port("b", **keys) + "\n"


def test_a_file_arrives_unchanged_when_the_port_writes_the_checksums(
    veths: Veths, forwarding: Callable[[str], Forwarding], tmp_path: Path
) -> None:
    """TCP of the hosts comes without: see tests/e2e/test_traffic_matrix.py for hosts that compute
    them."""
    with forwarding(both(rx_descriptors=2048, fix_checksums=True)).running():
        send_file(veths, "10.77.0.2", tmp_path / "content", 100_000_000 if PROOF else 8_000_000)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("veths", [1, 2], indirect=True)
def test_numbered_frames_arrive_once_and_in_order(
    veths: Veths, forwarding: Callable[[str], Forwarding], request: Any
) -> None:
    """And the counters of the kernel are those of ringline: packets and bytes."""
    queues = request.node.callspec.params["veths"]
    frames = FRAMES if queues == 1 or PROOF else FRAMES // 5
    veths.silence()
    source, target = veths.wire("a"), veths.wire("b")
    run = forwarding(both(queues=queues, rx_descriptors=4096))
    with run.running():
        before = {side: veths.counters(side) for side in "ab"}
        for begin in range(0, frames, CHUNK):
            share = CHUNK // FLOWS
            numbers = range(begin // FLOWS, begin // FLOWS + share)
            sent = [list(numbered(numbers, flow)) for flow in range(FLOWS)]
            for each in zip(*sent, strict=True):
                for frame in each:
                    source.send(frame)
            arrived = receive(target, is_numbered, CHUNK, TIMEOUT)
            for flow, expected in enumerate(sent):
                assert [frame for frame in arrived if number_of(frame)[0] == flow] == expected
        assert not receive(target, is_numbered, 1, 0.1)
    after = {side: veths.counters(side) for side in "ab"}
    took, gave = run.report["ports"]["a"], run.report["ports"]["b"]
    # A veth counts the bytes of a frame that it gives to a program without the Ethernet header.
    for said, side, way, header in (
        (took["received"], "a", "rx", 14),
        (gave["transmitted"], "b", "tx", 0),
    ):
        packets, size = (
            after[side][way][what] - before[side][way][what] for what in ("packets", "bytes")
        )
        assert said == {"packets": packets, "bytes": size + header * packets}
        assert packets == frames
    assert not any(took["card_drops"].values())
    assert not any(took["drops"].values())


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


def test_a_tag_stays_in_the_frame_or_is_inserted(
    veths: Veths, forwarding: Callable[[str], Forwarding], operator: Operator, tmp_path: Path
) -> None:
    """tcpdump is the judge: to a packet socket the kernel gives a frame without its tag."""
    operator.write(TAG, "tag.py")
    source = veths.wire("a")
    frame = next(numbered([7], length=100))
    with_tag = frame[:12] + bytes.fromhex("81000123") + frame[12:]
    text = both() + '[worker]\nplugin = "./tag.py:Tag"\n'
    with forwarding(text).running(), captured(veths, tmp_path / "out.pcap") as capture:
        source.send(with_tag)
        source.send(frame)
        wait_until(lambda: len(capture()) == 2, "the frames")
    inserted = frame[:12] + bytes.fromhex("81000456") + frame[12:]
    assert capture() == [with_tag, inserted]


@contextlib.contextmanager
def captured(
    veths: Veths, path: Path, side: str = "b", way: str = "in"
) -> Iterator[Callable[[], list[bytes]]]:
    """tcpdump writes what arrives at a host; gives a function that reads the frames so far,
    without those that the kernels of the hosts send by themselves."""
    needs("tcpdump")
    command = ["tcpdump", "-Z", "root", "-i", "eth0", "-Q", way, "-U", "-w", str(path)]
    process = veths.start(side, *command)
    assert process.stdout is not None
    while "listening on" not in process.stdout.readline():
        assert process.poll() is None

    def read() -> list[bytes]:
        with CaptureReader(Tally(str(path), to_cut=True)) as reader:
            frames = [bytes(packet.data) for packet in reader]
        return [frame for frame in frames if not frame.startswith(b"\x33\x33")]

    yield read
    process.terminate()
    process.communicate(timeout=TIMEOUT)


def test_a_capture_arrives_byte_for_byte(
    veths: Veths, forwarding: Callable[[str], Forwarding], tmp_path: Path
) -> None:
    replayed(MIXED, veths, forwarding, tmp_path)


def test_a_real_capture_arrives_byte_for_byte(
    veths: Veths,
    forwarding: Callable[[str], Forwarding],
    tmp_path: Path,
    real_capture: Path,
) -> None:
    replayed(real_capture, veths, forwarding, tmp_path)


def replayed(
    path: Path, veths: Veths, forwarding: Callable[[str], Forwarding], folder: Path
) -> None:
    source = veths.wire("a")
    sent = []
    with (
        forwarding(both(rx_descriptors=4096)).running(),
        captured(veths, folder / "out.pcap") as capture,
        CaptureReader(Tally(str(path))) as reader,
    ):
        for packet in reader:
            frame = bytes(packet.data)
            if not 17 <= len(frame) <= 1514 or frame.startswith(b"\x33\x33"):
                continue
            source.send(frame)
            sent.append(frame)
            if len(sent) % CHUNK == 0:
                wait_until(lambda: len(capture()) >= len(sent), "their arrival")
            if len(sent) == CAPTURED:
                break
        wait_until(lambda: len(capture()) >= len(sent), "their arrival")
    assert capture() == sent


def test_other_frames_stay_with_the_kernel(
    veths: Veths, forwarding: Callable[[str], Forwarding]
) -> None:
    """`take` has UDP port 5000; ping to the interface itself is answered by the kernel."""
    for side, host in veths.hosts.items():
        number = {"a": 1, "b": 2}[side]
        veths.host(side, "ip", "addr", "add", f"10.78.{number}.1/24", "dev", "eth0")
        with entered(veths.middle):
            subprocess.run(
                ["ip", "addr", "add", f"10.78.{number}.254/24", "dev", f"v{side}"], check=True
            )
        assert host
    source, target = veths.wire("a"), veths.wire("b")
    take = 'take = [{ protocol = "udp", port = 5000 }]\n'
    text = port("a") + "\n" + take + port("b") + "\n" + take
    run = forwarding(text)
    with run.running():
        said = veths.host("a", "ping", "-c", "3", "-i", "0.2", "10.78.1.254")
        assert " 0% packet loss" in said
        for frame in [*numbered([1], flow=1), *numbered([2], flow=0)]:
            source.send(frame)
        arrived = receive(target, is_numbered, 2)
    assert [number_of(frame) for frame in arrived] == [(0, 2)]
    assert run.report["ports"]["a"]["received"]["packets"] == 1


def test_overload_has_a_reason_for_every_missing_frame(
    veths: Veths, forwarding: Callable[[str], Forwarding], operator: Operator
) -> None:
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
    veths.silence()
    source = veths.wire("a")
    run = forwarding(port("a", rx_descriptors=64) + '\n[worker]\nplugin = "./slow.py:Slow"\n')
    with run.running():
        before = veths.counters("a")
        for frame in numbered(range(20_000)):
            source.send(frame)
    after, found = veths.counters("a"), run.report["ports"]["a"]
    came = after["rx"]["packets"] - before["rx"]["packets"]
    assert found["card_drops"]["no_descriptor"] > 0
    assert came == found["received"]["packets"] + sum(found["card_drops"].values())
    assert found["received"]["packets"] == found["drops"]["plugin"]


@pytest.mark.parametrize("options", [{"busy_poll_us": 20}, {"hash": "software"}])
def test_an_option_changes_no_traffic(
    veths: Veths, forwarding: Callable[[str], Forwarding], options: dict[str, Any]
) -> None:
    source, target = veths.wire("a"), veths.wire("b")
    with forwarding(both(**options)).running():
        for frame in numbered(range(100)):
            source.send(frame)
        arrived = receive(target, is_numbered, 100)
    assert [number_of(frame)[1] for frame in arrived] == list(range(100))


def test_an_interface_and_a_simulated_card_work_in_one_instance(
    veths: Veths, forwarding: Callable[[str], Forwarding], tmp_path: Path
) -> None:
    record, replay = tmp_path / "record.pcap", tmp_path / "replay.pcap"
    with CaptureWriter(str(replay)) as writer:
        for frame in numbered(range(50), flow=1):
            writer.write(frame)
    text = (
        port("a")
        + f"""
[port.sim]
device = "sim:82599"
wire = {{ replay = "{replay}", repeat = 1, record = "{record}" }}
"""
    )
    wire = veths.wire("a")
    run = forwarding(text)
    with run.running():
        for frame in numbered(range(50)):
            wire.send(frame)
        arrived = receive(wire, is_numbered, 50)
        wait_until(
            lambda: run.status()["ports"]["sim"]["transmitted"]["packets"] >= 50, "50 packets"
        )
    assert [number_of(frame) for frame in arrived] == [(1, number) for number in range(50)]
    with CaptureReader(Tally(str(record))) as reader:
        frames = [bytes(frame.data) for frame in reader]
    assert [number_of(frame) for frame in frames if is_numbered(frame)] == [
        (0, number) for number in range(50)
    ]
