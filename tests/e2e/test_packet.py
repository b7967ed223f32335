"""Ports on packet sockets: a copy of the traffic of an interface, and frames sent to it.

The kernel, ping, iperf3 and tcpdump are the judges. Every run ends with balanced books.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ringline.workers.captures.captures import CaptureReader, Tally

from .operator_harness import Operator
from .test_xdp import CHUNK, MIXED, Forwarding, captured
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
    run,
    wait_until,
)

SHORTEST = 60  # bytes: the simulated card pads the frames that it records
BOTH = port("a", "packet") + "\n" + port("b", "packet") + "\n"


@pytest.fixture
def veths(request: pytest.FixtureRequest) -> Iterator[Veths]:
    needs("ping", "iperf3", "ethtool", "tcpdump")
    with contextlib.closing(Veths(getattr(request, "param", 1))) as made:
        yield made


@pytest.fixture
def forwarding(operator: Operator, veths: Veths) -> Callable[[str], Forwarding]:
    return lambda text: Forwarding(operator, veths, text)


def without_long_frames(veths: Veths) -> None:
    """The hosts cut TCP into segments themselves. They still leave out its checksum."""
    for side in "ab":
        veths.host(side, "ethtool", "-K", "eth0", "tso", "off", "gso", "off")


def recording(path: Path, **keys: Any) -> str:
    """What arrives at interface a is recorded at a simulated card."""
    sim = f'[port.sim]\ndevice = "sim:82599"\nwire = {{ record = "{path}" }}\n'
    return port("a", "packet", **keys) + "\n" + sim


def recorded(path: Path) -> list[bytes]:
    with CaptureReader(Tally(str(path), to_cut=True)) as reader:
        return [bytes(frame.data) for frame in reader]


def client(veths: Veths, *options: str) -> dict[str, Any]:
    """iperf3 from host a to host b."""
    server = veths.start("b", "iperf3", "-s", "-1")
    wait_until(lambda: "5201" in veths.host("b", "ss", "-ltn"), "the server")
    said = veths.host("a", "iperf3", "-c", "10.77.0.2", "-t", "1", "--json", *options)
    server.communicate(timeout=TIMEOUT)
    end: dict[str, Any] = json.loads(said)["end"]
    return end


def test_ping_and_tcp_go_from_one_interface_to_the_other(
    veths: Veths, forwarding: Callable[[str], Forwarding]
) -> None:
    """TCP arrives with a partial checksum; tcpdump finds it complete on the other side."""
    without_long_frames(veths)
    text = port("a", "packet", rx_descriptors=2048, outgoing=False, qdisc_bypass=True)
    run_ = forwarding(text + "\n" + port("b", "packet", rx_descriptors=2048, outgoing=False))
    with run_.running():
        assert " 0% packet loss" in veths.host("a", "ping", "-c", "5", "-i", "0.2", "10.77.0.2")
        assert " 0% packet loss" in veths.host("a", "ping", "-c", "5", "-i", "0.2", "fd77::2")
        said = veths.start(
            "b", "tcpdump", "-l", "-i", "eth0", "-Q", "in", "-nvv", "-c", "200", "tcp"
        )
        assert client(veths, "-b", "20M")["sum_received"]["bytes"] > 100_000
        assert client(veths, "-b", "20M", "-R", "-P", "4")["sum_received"]["bytes"] > 100_000
        told, _ = said.communicate(timeout=TIMEOUT)
        status = run_.status()
    assert told.count("(correct)") > 50
    assert "incorrect" not in told
    assert status["ports"]["a"]["attached"] == "packet sockets, a copy of the traffic"
    for side in "ab":
        shown = run_.report["ports"][side]
        assert shown["received"]["packets"] > 100
        assert shown["card_drops"]["oversize"] == 0


def test_a_capture_is_recorded_byte_for_byte(
    veths: Veths, forwarding: Callable[[str], Forwarding], tmp_path: Path
) -> None:
    """Also frames with a VLAN tag, which the kernel takes out."""
    record, sent = tmp_path / "record.pcap", []
    source = veths.wire("a")
    run_ = forwarding(recording(record, rx_descriptors=4096))
    with run_.running(), CaptureReader(Tally(str(MIXED))) as reader:
        for packet in reader:
            frame = bytes(packet.data)
            if len(sent) % 2:
                frame = frame[:12] + b"\x81\x00\x61\x23" + frame[12:]
            if not 17 <= len(frame) <= 1514 + 4 * (len(sent) % 2) or frame.startswith(b"\x33\x33"):
                continue
            source.send(frame)
            sent.append(frame.ljust(SHORTEST, b"\0"))
            if len(sent) == CHUNK:
                break
    assert [each for each in recorded(record) if not each.startswith(b"\x33\x33")] == sent


def quiet(ringline: Forwarding) -> bool:
    """No frame came for half a second. One that comes after the end has begun is not received."""
    before = ringline.status()["ports"]["a"]["received"]["packets"]
    time.sleep(0.5)
    return bool(before == ringline.status()["ports"]["a"]["received"]["packets"])


def test_the_frames_are_those_that_tcpdump_sees(
    veths: Veths, forwarding: Callable[[str], Forwarding], tmp_path: Path
) -> None:
    """Both directions at an interface that this machine uses, and the kernel keeps its traffic."""
    without_long_frames(veths)
    run(*Veths.within(veths.middle), "ethtool", "-K", "va", "tx", "off", "tso", "off", "gso", "off")
    ip("-n", veths.middle, "addr", "add", "10.77.0.9/24", "dev", "va")
    veths.host("a", "ethtool", "-K", "eth0", "tx", "off")
    record = tmp_path / "record.pcap"
    with captured(veths, tmp_path / "dump.pcap", "a", "inout") as dump:
        ringline = forwarding(recording(record, rx_descriptors=4096))
        with ringline.running():
            said = veths.host("a", "ping", "-c", "3", "-i", "0.2", "-s", "1000", "10.77.0.9")
            assert " 0% packet loss" in said
            server = veths.start("a", "iperf3", "-s", "-1")
            wait_until(lambda: "5201" in veths.host("a", "ss", "-ltn"), "the server")
            within = Veths.within(veths.middle)
            run(*within, "iperf3", "-c", "10.77.0.1", "-t", "1", "-b", "10M")
            server.communicate(timeout=TIMEOUT)
            wait_until(lambda: quiet(ringline), "the last frame")
        seen = [frame for frame in recorded(record) if not frame.startswith(b"\x33\x33")]
        assert len(seen) > 500
        wait_until(lambda: len(dump()) >= len(seen), "what tcpdump writes")
        assert sorted(frame.ljust(SHORTEST, b"\0") for frame in dump()) == sorted(seen)


def test_frames_that_this_machine_sends_can_be_left_out(
    veths: Veths, forwarding: Callable[[str], Forwarding], tmp_path: Path
) -> None:
    record, wire = tmp_path / "record.pcap", veths.wire("a")
    with forwarding(recording(record, outgoing=False)).running():
        with entered(veths.middle):
            own = wire_in_the_middle()
        for frame in numbered(range(20), flow=1):
            own.send(frame)
        own.close()
        for frame in numbered(range(20), flow=2):
            wire.send(frame)
    flows = [number_of(frame)[0] for frame in recorded(record) if is_numbered(frame)]
    assert flows == [2] * 20


def wire_in_the_middle() -> socket.socket:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    made.bind(("va", 0))
    return made


QUEUE = """
from ringline.workers.api import VLAN

class Queue:
    def setup(self, worker):
        self.queue = worker.queue

    def process(self, batch):
        for packet in batch:
            packet.verdict = 1
            packet.flags |= VLAN
            packet.vlan_tci = 100 + self.queue
"""


def test_each_flow_stays_on_one_queue(veths: Veths, operator: Operator, tmp_path: Path) -> None:
    operator.write(QUEUE, "queue.py")
    record, wire = tmp_path / "record.pcap", veths.wire("a")
    text = recording(record, queues=2)
    text += 'queues = 2\n[worker]\nplugin = "./queue.py:Queue"\n'
    run_ = Forwarding(operator, veths, text)
    with run_.running():
        for number in range(10):
            for flow in range(16):
                for frame in numbered([number], flow=flow):
                    wire.send(frame)
        # A frame that arrives after the end has begun is not received.
        wait_until(lambda: run_.status()["ports"]["a"]["received"]["packets"] >= 160, "all frames")
    found: dict[int, list[tuple[int, int]]] = {}
    for frame in recorded(record):
        untagged = frame[:12] + frame[16:]
        if is_numbered(untagged):
            flow, number = number_of(untagged)
            found.setdefault(flow, []).append((frame[15], number))
    assert sorted(found) == list(range(16))
    moved = {flow: rows for flow, rows in found.items() if len({queue for queue, _ in rows}) > 1}
    assert not moved, (f"{moved}", run_.errors, run_.report["ports"]["a"])
    for rows in found.values():
        assert [number for _, number in rows] == list(range(10)), (found, run_.report)
    assert {rows[0][0] for rows in found.values()} == {100, 101}


def test_frames_that_tcp_merged_are_counted(
    veths: Veths, forwarding: Callable[[str], Forwarding], tmp_path: Path
) -> None:
    """Every frame of the interface is received or has a reason; both directions count."""
    ip("-n", veths.middle, "addr", "add", "10.77.0.9/24", "dev", "va")
    record = tmp_path / "record.pcap"
    run_ = forwarding(recording(record, rx_descriptors=4096))
    with run_.running():
        before = veths.counters("a")
        server = veths.start("a", "iperf3", "-s", "-1")
        wait_until(lambda: "5201" in veths.host("a", "ss", "-ltn"), "the server")
        within = Veths.within(veths.middle)
        run(*within, "iperf3", "-c", "10.77.0.1", "-t", "1", "-b", "100M")
        server.communicate(timeout=TIMEOUT)
        after = veths.counters("a")
    shown = run_.report["ports"]["a"]
    assert shown["card_drops"]["oversize"] > 10
    frames = sum(after[way]["packets"] - before[way]["packets"] for way in ("rx", "tx"))
    counted = shown["received"]["packets"] + sum(shown["card_drops"].values())
    assert counted == pytest.approx(frames, abs=20)
    assert "TCP may come to va in frames of up to 64 KiB" in run_.errors
    assert all(len(frame) <= 1518 for frame in recorded(record))


def test_overload_has_a_reason_for_every_missing_frame(
    veths: Veths, operator: Operator, forwarding: Callable[[str], Forwarding]
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
    source = veths.wire("a")
    text = port("a", "packet", rx_descriptors=64) + '\n[worker]\nplugin = "./slow.py:Slow"\n'
    run_ = forwarding(text)
    with run_.running():
        for frame in numbered(range(20_000)):
            source.send(frame)
    found = run_.report["ports"]["a"]
    missing = 20_000 - found["received"]["packets"]
    assert missing > 0
    assert found["card_drops"]["no_descriptor"] == pytest.approx(missing, abs=20)


def test_a_congested_interface_loses_nothing(
    veths: Veths, forwarding: Callable[[str], Forwarding]
) -> None:
    """The queueing discipline refuses frames (ENOBUFS); they are offered again."""
    needs("tc")
    slow = ["tbf", "rate", "2mbit", "burst", "2k", "limit", "4k"]
    run(*Veths.within(veths.middle), "tc", "qdisc", "add", "dev", "vb", "root", *slow)
    source, target = veths.wire("a"), veths.wire("b")
    run_ = forwarding(BOTH)
    with run_.running():
        for frame in numbered(range(400)):
            source.send(frame)
        arrived = receive(target, is_numbered, 400)
    assert [number_of(frame)[1] for frame in arrived] == list(range(400))
    shown = run(*Veths.within(veths.middle), "tc", "-s", "qdisc", "show", "dev", "vb")
    assert "dropped 0" not in shown


def test_a_frame_that_the_output_never_sends_is_counted(
    veths: Veths, forwarding: Callable[[str], Forwarding]
) -> None:
    source, target = veths.wire("a"), veths.wire("b")
    run_ = forwarding(BOTH)
    with run_.running():
        for mtu in (1000, 900):  # during the run, too
            ip("-n", veths.middle, "link", "set", "vb", "mtu", str(mtu))
            for number in range(10):
                for frame in numbered([number], length=1014 if number % 2 else 100):
                    source.send(frame)
            wanted = 10 if mtu == 1000 else 5
            assert len(receive(target, is_numbered, wanted)) == wanted
        wait_until(lambda: run_.status()["ports"]["a"]["drops"]["tx_too_long"] == 5, "their drop")
    assert run_.report["ports"]["a"]["drops"]["tx_too_long"] == 5
