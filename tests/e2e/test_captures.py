"""Captures through the whole pipeline, by the command line only.

The frames that a simulated card transmits are recorded and compared with the replayed ones:
the same frames, each the same number of times, in order within a flow. A flow is the frames
with equal RSS input. The counts of the report, the device model and the recording must agree.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ringline.workers.captures.captures import read_capture
from ringline.workers.captures.headers import ETHERNET_MAX_UNTAGGED, ETHERNET_MIN

from ..packet_headers import TYPE_VLAN, rss_input

pytestmark = pytest.mark.slow

DATA = Path(__file__).parents[1] / "data"
SAMPLES = sorted(DATA.glob("*.pcap*"))
PROOF = os.environ.get("RINGLINE_PROOF") == "1"
QUEUES = (1, 2, 4)
TIMEOUT = 120  # until a run counts as hanging

Frame = bytes
Run = Callable[..., "Result"]


@dataclass(frozen=True)
class Result:
    """One port of a run that exited with 0."""

    report: dict[str, Any]
    port: dict[str, Any]
    recorded: list[Frame]

    @property
    def lane_drops(self) -> int:
        """Packets that were received and dropped, for any reason."""
        return sum(
            number
            for queue in self.port["queues"]
            for name, number in queue.items()
            if name.startswith("drop_")
        )


@pytest.fixture
def run_ports(tmp_path: Path, instance: Callable[[], str]) -> Callable[..., dict[str, Result]]:
    """Run simulated cards: run_ports({name: wire}, queues, plugin, more) -> {name: Result}."""

    def run(
        wires: dict[str, str], queues: int, plugin: str = "forward", more: str = ""
    ) -> dict[str, Result]:
        config, report = tmp_path / "config.toml", tmp_path / "report.json"
        lines = [f'name = "{instance()}"', f'worker.plugin = "{plugin}"', 'metrics.listen = "off"']
        for name, wire in wires.items():
            lines += [f"[port.{name}]", 'device = "sim:82599"', f"queues = {queues}", more]
            lines += [f'wire = {{ {wire}, record = "{tmp_path / name}.pcap" }}']
        config.write_text("\n".join(lines))
        ended = subprocess.run(
            ["ringline", "run", str(config), "--report", str(report)],
            check=False,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        assert ended.returncode == 0, f"exit code {ended.returncode}\n{ended.stdout}{ended.stderr}"
        told = json.loads(report.read_text())
        return {
            name: Result(told, told["ports"][name], frames_of(tmp_path / f"{name}.pcap"))
            for name in wires
        }

    return run


@pytest.fixture
def run(run_ports: Callable[..., dict[str, Result]]) -> Run:
    """Run one simulated card: run(wire, queues, plugin, more) -> Result."""

    def run(wire: str, *settings: Any) -> Result:
        return run_ports({"wan": wire}, *settings)["wan"]

    return run


def frames_of(capture: Path) -> list[Frame]:
    return [bytes(frame) for frame in read_capture(capture).frames]


def replayed(capture: Path) -> list[Frame]:
    """The frames of a capture as a sending card puts them on the wire."""
    return [frame.ljust(ETHERNET_MIN, b"\0") for frame in frames_of(capture)]


def fits(frame: Frame) -> bool:
    """Whether a card with jumbo frames off takes a frame."""
    tagged = int.from_bytes(frame[12:14], "big") == TYPE_VLAN
    return len(frame) <= ETHERNET_MAX_UNTAGGED + 4 * tagged


def swapped(frame: Frame) -> Frame:
    return frame[6:12] + frame[:6] + frame[12:]


def by_rss_input(frames: list[Frame]) -> dict[bytes, list[Frame]]:
    flows: dict[bytes, list[Frame]] = {}
    for frame in frames:
        flows.setdefault(rss_input(frame), []).append(frame)
    return flows


def check_frames(recorded: list[Frame], expected: list[Frame]) -> None:
    """Check that both have the same frames, each the same number of times, flows in order."""
    missing = Counter(expected) - Counter(recorded)
    extra = Counter(recorded) - Counter(expected)
    assert not missing, f"{missing.total()} of {len(expected)} frames are missing"
    assert not extra, f"{extra.total()} recorded frames were not replayed"
    assert by_rss_input(recorded) == by_rss_input(expected), "a flow is out of order"


def check_balance(result: Result) -> None:
    """Check that every residual is 0 and that all buffers are free at the end."""
    balance = result.report["balance"]
    assert not any(balance.values()), balance
    assert {"buffers", "scan_missing", "scan_duplicates"} <= balance.keys()
    holders = result.report["buffers"]
    assert all(number == 0 for holder, number in holders.items() if holder != "free"), holders


def check_books(result: Result, expected: list[Frame], refused: int = 0) -> None:
    """Check that report, model and recording agree and that no packet was lost.

    `refused` frames were too long for the card.
    """
    port, wire = result.port, result.port["wire"]
    packets, size = len(expected), sum(map(len, expected))
    check_balance(result)
    assert port["faults"] == []
    assert port["received"] == {"packets": packets, "bytes": size}
    assert port["transmitted"] == {"packets": packets, "bytes": size}
    assert port["forwarded"] == packets
    assert port["in_flight"] == 0
    assert result.lane_drops == 0
    assert wire["offered"] == packets + refused
    assert wire["delivered"] == wire["transmitted"] == wire["recorded"] == packets
    assert wire["delivered_bytes"] == wire["transmitted_bytes"] == size
    dropped = {name: number for name, number in wire.items() if name.startswith("dropped_")}
    assert dropped.pop("dropped_oversize") == refused
    assert not any(dropped.values()), dropped
    drops = dict(port["card_drops"])
    assert drops.pop("oversize") == refused
    assert not any(drops.values()), drops
    assert sum(worker["counters"]["packets"] for worker in result.report["workers"]) == packets
    assert sum(worker["counters"]["forwarded"] for worker in result.report["workers"]) == packets


def check_capture(run: Run, capture: Path, queues: int, plugin: str = "forward") -> None:
    """Replay one capture without a rate limit, and check frames and books."""
    result = run(f'replay = "{capture}"', queues, plugin)
    frames = replayed(capture)
    accepted = [frame for frame in frames if fits(frame)]
    expected = [swapped(frame) for frame in accepted] if plugin == "mac_swap" else accepted
    check_frames(result.recorded, expected)
    check_books(result, expected, refused=len(frames) - len(accepted))


@pytest.mark.parametrize("queues", QUEUES)
@pytest.mark.parametrize("capture", SAMPLES, ids=lambda path: path.name)
def test_own_recordings_come_out_as_they_went_in(run: Run, capture: Path, queues: int) -> None:
    check_capture(run, capture, queues)


@pytest.mark.parametrize("plugin", ["forward", "mac_swap"])
def test_real_captures_come_out_as_they_went_in(run: Run, real_capture: Path, plugin: str) -> None:
    """Each capture runs with every number of queues in proof mode, otherwise with one."""
    chosen = QUEUES if PROOF else (QUEUES[len(real_capture.name + plugin) % len(QUEUES)],)
    for queues in chosen:
        check_capture(run, real_capture, queues, plugin)


@pytest.mark.parametrize("queues", QUEUES if PROOF else (2,))
def test_addresses_are_swapped_and_nothing_else(run: Run, queues: int) -> None:
    for capture in SAMPLES:
        check_capture(run, capture, queues, "mac_swap")


def test_repeats_are_all_carried(run: Run) -> None:
    capture = DATA / "mixed.pcap"
    result = run(f'replay = "{capture}", repeat = 50', 2)
    expected = replayed(capture) * 50
    check_frames(result.recorded, expected)
    check_books(result, expected)


@pytest.mark.parametrize("queues", [1, 2])
def test_a_paced_replay_carries_every_frame(run: Run, queues: int) -> None:
    """So slowly that a busy machine keeps up: the capture's 194 frames take 0.2 ms."""
    result = run(
        f'replay = "{DATA / "mixed.pcap"}", pace = "captured", speed = 0.001, repeat = 3', queues
    )
    expected = replayed(DATA / "mixed.pcap") * 3
    check_frames(result.recorded, expected)
    check_books(result, expected)


def test_a_compressed_capture_is_replayed_like_the_plain_one(run: Run, tmp_path: Path) -> None:
    packed = tmp_path / "in.bin"
    packed.write_bytes(gzip.compress((DATA / "mixed.pcap").read_bytes()))
    result = run(f'replay = "{packed}"', 2)
    expected = replayed(DATA / "mixed.pcap")
    check_frames(result.recorded, expected)
    check_books(result, expected)


def test_a_capture_that_is_cut_short_is_played_on_request(run: Run, tmp_path: Path) -> None:
    cut = tmp_path / "cut.pcap"
    cut.write_bytes((DATA / "mixed.pcap").read_bytes()[:5000])
    result = run(f'replay = "{cut}", cut = "play", repeat = 2', 1)
    expected = replayed(DATA / "mixed.pcap")[:15] * 2
    check_frames(result.recorded, expected)
    check_books(result, expected)


def test_stripped_tags_are_put_back(run: Run) -> None:
    capture = DATA / "mixed.pcap"
    result = run(f'replay = "{capture}"', 2, "forward", "vlan_strip = true")
    check_frames(result.recorded, replayed(capture))
    check_balance(result)
    size = sum(map(len, result.recorded))
    tags = sum(frame[12:14] == b"\x81\x00" for frame in result.recorded)
    assert tags > 0
    assert result.port["wire"]["transmitted_bytes"] == size
    assert result.port["received"]["bytes"] == size - 4 * tags


def test_two_ports_send_each_others_frames(
    run_ports: Callable[..., dict[str, Result]],
) -> None:
    wan, lan = DATA / "mixed.pcap", DATA / "sections.pcapng"
    results = run_ports({"wan": f'replay = "{wan}"', "lan": f'replay = "{lan}"'}, 2)
    check_frames(results["lan"].recorded, replayed(wan))
    check_frames(results["wan"].recorded, replayed(lan))
    for name, capture in (("wan", wan), ("lan", lan)):
        port = results[name].port
        check_balance(results[name])
        assert port["received"]["packets"] == port["forwarded"] == len(replayed(capture))


def test_a_rated_wire_loses_nothing_while_workers_get_ready(run: Run, tmp_path: Path) -> None:
    """2,000 packets/s for the second that the plugin needs: more than all rings hold."""
    plugin = tmp_path / "slow.py"
    plugin.write_text(
        "import time\n\n\nclass Slow:\n"
        "    def prepare(self, options):\n        time.sleep(1.0)\n\n"
        "    def process(self, batch):\n        batch.verdicts[:] = batch.ports\n"
    )
    result = run("flows = { packets = 3000 }, rate_mpps = 0.002", 1, f"{plugin}:Slow")
    check_balance(result)
    assert result.port["card_drops"]["no_descriptor"] == 0
    assert result.port["wire"]["transmitted"] == 3000


def test_flows_of_every_kind_are_carried(run: Run) -> None:
    flows = 'count = 64, sizes = "imix", ip = "mixed", protocol = "mixed", packets = 20000'
    result = run(f"flows = {{ {flows} }}", 4)
    check_books(result, result.recorded)
    assert len(result.recorded) == 20000
    assert len(by_rss_input(result.recorded)) == 64
    assert {len(frame) for frame in result.recorded} == {60, 62, 74, 590, 1514}
    received = [queue["rx_packets"] for queue in result.port["queues"][:4]]
    assert min(received) > 20000 / 4 / 4, f"flows are spread over queues as {received}"


@pytest.mark.parametrize("queues", QUEUES)
def test_overload_loses_packets_with_a_reason_only(run: Run, queues: int) -> None:
    """400 million packets/s arrive, several times what any machine carries."""
    packets = 5_000_000 if PROOF else 500_000
    result = run(f"flows = {{ packets = {packets} }}, rate_mpps = 400.0", queues)
    port, wire = result.port, result.port["wire"]
    check_balance(result)
    assert wire["offered"] == packets
    dropped = sum(number for name, number in wire.items() if name.startswith("dropped_"))
    assert dropped > 0, "no packet was dropped: the machine was not overloaded"
    assert wire["offered"] == wire["delivered"] + dropped
    assert wire["delivered"] == port["received"]["packets"]
    assert sum(port["card_drops"].values()) == dropped
    assert port["received"]["packets"] == port["forwarded"] + result.lane_drops
    assert port["forwarded"] == port["transmitted"]["packets"] == wire["transmitted"]
    assert wire["recorded"] == len(result.recorded) == wire["transmitted"]
