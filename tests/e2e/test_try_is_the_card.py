"""`ringline try` does what a run does: the same frames, in the same order, byte by byte.

Each test gives a capture and a plugin to `ringline try -w`, and to a run with one queue that
replays and records. The plugin Witness writes what the card reported of a packet into its frame.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ringline.workers.captures.captures import read_capture

pytestmark = pytest.mark.slow

DATA = Path(__file__).parents[1] / "data"
SAMPLES = sorted(DATA.glob("*.pcap*"))
PROOF = os.environ.get("RINGLINE_PROOF") == "1"
TIMEOUT = 120  # until a command counts as hanging

BUNDLED = [
    "forward",
    "drop",
    "mac_swap",
    "mac_swap_compiled",
    "mac_swap_columns",
    "mac_swap_batch",
    "flow_stats",
]

PLUGINS = """
from ringline.workers.api import DROP, VLAN, packet_function, set_field


@packet_function
def witness(frame, meta):
    set_field(frame, 0, 4, meta.rss_hash)
    set_field(frame, 4, 2, meta.vlan_tci)
    set_field(frame, 6, 2, meta.length)
    frame[8] = meta.flags
    frame[9] = meta.port
    frame[10] = meta.ports
    frame[11] = meta.queue
    return meta.port


class Resizes:
    '''Every length from 0 to 1532 and more, with and without a tag: most of them are refused.'''

    def __init__(self):
        self.count = 0

    def process(self, batch):
        for packet in batch:
            self.count += 1
            length = (10, 16, 17, 40, 56, 59, 60, 1514, 1515, 1518, 1519, 1600)[self.count % 12]
            packet.resize(0, length - packet.length)
            packet.data[:] = bytes(n % 251 for n in range(length))
            if self.count % 3 == 0:
                packet.flags |= VLAN
                packet.vlan_tci = self.count
            packet.verdict = packet.port


class Creates:
    def process(self, batch):
        for packet in batch:
            packet.verdict = DROP
            batch.create(bytes(packet.data[:40]), packet.port)
"""


@dataclass(frozen=True)
class Outcome:
    """The frames that were sent, the file without its times, and why others were refused."""

    frames: list[bytes]
    timeless: bytes
    refused: dict[str, int]
    sentences: str


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    path = tmp_path / "plugins.py"
    path.write_text(PLUGINS)
    return path


def command(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    ended = subprocess.run(
        ["ringline", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert ended.returncode == code, f"{ended.returncode}\n{ended.stdout}{ended.stderr}"
    return ended


def frames_of(path: Path) -> list[bytes]:
    return [bytes(frame) for frame in read_capture(path).frames]


def timeless(path: Path) -> bytes:
    """A pcap file of ringline, with 0 for every time stamp."""
    data = bytearray(path.read_bytes())
    at = 24  # the file header; each packet has 8 bytes of time, and then twice its length
    while at < len(data):
        data[at : at + 8] = bytes(8)
        at += 16 + int.from_bytes(data[at + 8 : at + 12], "little")
    return bytes(data)


def tried(folder: Path, plugin: str, capture: Path, *options: str, code: int = 0) -> Outcome:
    out = folder / "tried.pcap"
    ended = command("try", plugin, capture, "-w", out, *options, code=code)
    refused = {}
    for line in ended.stdout.splitlines():
        if line.startswith("  refused "):
            number, cause = line.partition(": ")[0].removeprefix("  refused ").split(", ")
            refused[cause] = int(number.replace(",", ""))
    return Outcome(frames_of(out), timeless(out), refused, ended.stderr)


@pytest.fixture
def run(tmp_path: Path, instance: Callable[[], str]) -> Callable[..., Outcome]:
    """Run a plugin on a replayed capture: run(plugin, capture, more) -> Outcome."""

    def run_(plugin: str, capture: Path, port: str = "", worker: str = "") -> Outcome:
        config, report = tmp_path / "config.toml", tmp_path / "report.json"
        record = tmp_path / "recorded.pcap"
        config.write_text(
            f'name = "{instance()}"\nmetrics.listen = "off"\n'
            f'[worker]\nplugin = "{plugin}"\n{worker}\n'
            f'[port.port]\ndevice = "sim:82599"\n{port}\n'
            f'wire = {{ replay = "{capture}", record = "{record}" }}\n'
        )
        ended = command("run", config, "--report", report)
        told: dict[str, Any] = json.loads(report.read_text())
        causes = told["workers"][0]["bad_references"]
        refused = {cause: number for cause, number in causes.items() if number}
        assert sum(refused.values()) == told["workers"][0]["errors"]["reference"]
        return Outcome(frames_of(record), timeless(record), refused, ended.stderr)

    return run_


def check_same(folder: Path, run: Callable[..., Outcome], plugin: str, capture: Path) -> None:
    by_try, by_run = tried(folder, plugin, capture), run(plugin, capture)
    assert by_try.frames == by_run.frames
    assert by_try.timeless == by_run.timeless


@pytest.mark.parametrize("plugin", BUNDLED)
@pytest.mark.parametrize("capture", SAMPLES, ids=lambda path: path.name)
def test_try_writes_what_a_run_records(
    tmp_path: Path, run: Callable[..., Outcome], capture: Path, plugin: str
) -> None:
    check_same(tmp_path, run, plugin, capture)


def test_try_writes_what_a_run_records_of_a_real_capture(
    tmp_path: Path, run: Callable[..., Outcome], plugins: Path, real_capture: Path
) -> None:
    """Every bundled plugin in proof mode, otherwise one; and what the card reports."""
    some = BUNDLED if PROOF else [BUNDLED[len(real_capture.name) % len(BUNDLED)]]
    for plugin in (*some, f"{plugins}:witness"):
        check_same(tmp_path, run, plugin, real_capture)


SETTINGS = {
    "as they are by default": ("", ()),
    "with another key": ('rss_key = "symmetric"', ("--rss-key", "symmetric")),
    "with its own key": (f'rss_key = "{"5a" * 40}"', ("--rss-key", "5a" * 40)),
    "with tags removed": ("vlan_strip = true", ("--vlan-strip",)),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_plugin_sees_the_same_flags_hashes_and_tags(
    tmp_path: Path, run: Callable[..., Outcome], plugins: Path, setting: str
) -> None:
    port, options = SETTINGS[setting]
    for capture in (DATA / "mixed.pcap", DATA / "oversize.pcap"):
        seen = tried(tmp_path, f"{plugins}:witness", capture, *options).frames
        assert seen == run(f"{plugins}:witness", capture, port).frames
        if capture.name == "mixed.pcap":
            assert len({frame[:4] for frame in seen}) > 4, "hardly any hashes"
            assert len({frame[8] for frame in seen}) > 2, "hardly any flags"
            tags = {int.from_bytes(frame[4:6], "big") for frame in seen}
            assert (len(tags) > 1) == (setting == "with tags removed")


def test_what_the_driver_refuses_try_refuses_by_the_same_name(
    tmp_path: Path, run: Callable[..., Outcome], plugins: Path
) -> None:
    plugin, capture = f"{plugins}:Resizes", DATA / "mixed.pcap"
    by_try, by_run = tried(tmp_path, plugin, capture, code=2), run(plugin, capture)
    assert by_try.frames == by_run.frames
    assert by_try.refused == by_run.refused
    assert set(by_run.refused) == {"too_long", "too_short"}
    for cause in by_run.refused:
        [told] = [line for line in by_run.sentences.splitlines() if f"refused, {cause}: " in line]
        assert f"plugin {plugin}: " in told
    assert re.search(
        r"frame \d+: a frame of 1\d+ bytes cannot be sent: .* longer", by_try.sentences
    )
    assert "frame 1: a frame of 16 bytes cannot be sent: the frame is short" in by_try.sentences


def test_created_packets_are_those_of_a_run(
    tmp_path: Path, run: Callable[..., Outcome], plugins: Path
) -> None:
    """In a run the first batches may come before the blanks, so some packets are not created."""
    plugin, capture = f"{plugins}:Creates", DATA / "mixed.pcap"
    left = iter(tried(tmp_path, plugin, capture).frames)
    recorded = run(plugin, capture, worker="blanks = 512").frames
    assert recorded
    assert all(any(frame == other for other in left) for frame in recorded)
    assert tried(tmp_path, plugin, capture, "--blanks", "0").frames == []
    assert run(plugin, capture).frames == []
