"""Jumbo frames through whole runs: what the simulated card sends is what arrived, byte by byte."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ringline.workers.captures.captures import CaptureWriter, read_capture

pytestmark = pytest.mark.slow

PROOF = os.environ.get("RINGLINE_PROOF") == "1"
TIMEOUT = 120  # until a command counts as hanging
EDGES = (60, 1514, 1518, 1519, 2047, 2048, 2049, 4092, 4096, 8191, 8192, 8999, 9000, 9014)
LENGTHS = range(60, 9015) if PROOF else EDGES
TOO_LONG = (9015, 9018, 16000)
TAG = b"\x81\x00\x00\x07"

PLUGINS = """
from ringline.workers.api import DROP, create, packet_function, resize


@packet_function
def compiled(frame, meta):
    for at in range(14, meta.length):
        frame[at] ^= 0xFF
    return meta.port


class Batch:
    def process(self, batch):
        for packet in batch:
            packet.data[14:] = bytes(byte ^ 0xFF for byte in packet.data[14:])
            packet.verdict = packet.port


@packet_function
def longer(frame, meta):
    '''Frames of up to 1514 bytes become as long as a port sends, or one byte more.'''
    if meta.length > 1514:
        return DROP
    more = meta.frame_max - meta.length + (1 if meta.length == 1514 else 0)
    frame = resize(meta, 0, more)
    frame[meta.length - more:] = 7
    return meta.port


@packet_function
def copies(frame, meta):
    copy = create(meta, meta.length, meta.port)
    copy[:] = frame
    return DROP


class Copies:
    def process(self, batch):
        for packet in batch:
            assert batch.create(bytes(packet.data), packet.port)
"""


def frame(length: int, tag: bytes = b"") -> bytes:
    head = b"\x02\0\0\0\0\1\x02\0\0\0\0\2" + tag + b"\x88\xb5"
    return head + bytes((length + at) % 251 for at in range(length - len(head)))


def written(path: Path, frames: Sequence[bytes]) -> Path:
    with CaptureWriter(path) as writer:
        for at, each in enumerate(frames):
            writer.write(each, at * 1000)
    return path


def turned(data: bytes) -> bytes:
    return data[:14] + bytes(byte ^ 0xFF for byte in data[14:])


@pytest.fixture
def run(tmp_path: Path, instance: Callable[[], str]) -> Callable[..., dict[str, Any]]:
    """Run `ringline run`, and return its report; the recordings are in the folder of the test."""
    (tmp_path / "mine.py").write_text(PLUGINS)

    def run(*words: str, code: int = 0) -> dict[str, Any]:
        command = ["ringline", "run", *words, "--report", "report.json", "--name", instance()]
        ended = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=TIMEOUT, cwd=tmp_path
        )
        assert ended.returncode == code, ended.stdout + ended.stderr
        told: dict[str, Any] = json.loads((tmp_path / "report.json").read_text())
        return {**told, "said": ended.stdout + ended.stderr}

    return run


def recorded(path: Path) -> list[bytes]:
    return [bytes(each) for each in read_capture(path).frames]


@pytest.mark.parametrize("plugin", ["forward", "./mine.py:compiled", "./mine.py:Batch"])
def test_frames_of_every_length_come_back_whole(
    run: Callable[..., dict[str, Any]], tmp_path: Path, plugin: str
) -> None:
    fit = [frame(length) for length in LENGTHS] + [frame(length + 4, TAG) for length in LENGTHS]
    written(tmp_path / "in.pcap", [*fit, *(frame(length) for length in TOO_LONG)])
    told = run(
        *(plugin, "--mtu", "9000", "--replay", "in.pcap", "--record", "out.pcap", "--queues", "1")
    )
    expected = fit if plugin == "forward" else [turned(each) for each in fit]
    assert recorded(tmp_path / "out.pcap") == expected
    assert "of 11,200 bytes" in told["said"]
    port = told["ports"]["wan"]
    assert port["card_drops"]["oversize"] == len(TOO_LONG)
    assert sum(queue["rx_bytes"] for queue in port["queues"]) == sum(map(len, fit))


@pytest.mark.parametrize("plugin", ["./mine.py:copies", "./mine.py:Copies"])
def test_a_plugin_creates_jumbo_frames(
    run: Callable[..., dict[str, Any]], tmp_path: Path, plugin: str
) -> None:
    fit = [frame(length) for length in EDGES]
    written(tmp_path / "in.pcap", fit)
    words = ("--mtu", "9000", "--replay", "in.pcap", "--record", "out.pcap", "--queues", "1")
    run(plugin, "--blanks", "64", *words)
    assert recorded(tmp_path / "out.pcap") == fit


def test_a_plugin_makes_a_frame_as_long_as_the_port_sends_and_no_longer(
    run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    written(tmp_path / "in.pcap", [frame(60), frame(1513), frame(1514)])
    words = ("--replay", "in.pcap", "--record", "out.pcap", "--queues", "1")
    for mtu in (1500, 4000, 9000, 9216) if PROOF else (9000,):
        told = run("./mine.py:longer", "--mtu", str(mtu), *words)
        assert [len(each) for each in recorded(tmp_path / "out.pcap")] == [mtu + 18] * 2
        assert f"the frame is longer than {mtu + 18} bytes" in told["said"]


@pytest.mark.parametrize("process", [False, True], ids=["inside", "process"])
def test_a_jumbo_frame_does_not_leave_by_a_port_without(
    tmp_path: Path, instance: Callable[[], str], process: bool
) -> None:
    """The frame is counted, and those that fit go on."""
    frames = [frame(length) for length in EDGES]
    written(tmp_path / "in.pcap", frames)
    (tmp_path / "two.toml").write_text(
        f"""
        name = "{instance()}"
        worker.plugin = "forward"
        worker.options.map = {{ wan = "lan" }}
        metrics.listen = "off"
        [port.wan]
        device = "sim:82599"
        process = {str(process).lower()}
        mtu = 9000
        wire = {{ replay = "in.pcap" }}
        [port.lan]
        device = "sim:82599"
        wire = {{ record = "out.pcap" }}
        """
    )
    ended = subprocess.run(
        ["ringline", "run", "two.toml", "--report", "report.json"],
        check=False,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        cwd=tmp_path,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    short = [each for each in frames if len(each) <= 1518]
    assert recorded(tmp_path / "out.pcap") == short
    told = json.loads((tmp_path / "report.json").read_text())
    queues = told["ports"]["wan"]["queues"]
    assert sum(queue["drop_tx_too_long"] for queue in queues) == len(frames) - len(short)


def test_try_takes_jumbo_frames_as_a_run_does(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGINS)
    fit = [frame(length) for length in EDGES]
    written(tmp_path / "in.pcap", [*fit, frame(9015)])

    def attempt(*words: str) -> str:
        return subprocess.run(
            ["ringline", "try", "./mine.py:compiled", "in.pcap", "-w", "out.pcap", *words],
            check=True,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            cwd=tmp_path,
        ).stdout

    assert "left out 1 frames" in attempt("--mtu", "9000")
    assert recorded(tmp_path / "out.pcap") == [turned(each) for each in fit]
    assert f"left out {len(EDGES) - 1} frames" in attempt()
    assert recorded(tmp_path / "out.pcap") == [turned(each) for each in fit if len(each) <= 1514]
