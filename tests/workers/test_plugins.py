"""The plugins that come with ringline."""

from __future__ import annotations

import ipaddress
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringline.shm.errors import PluginError
from ringline.workers.captures.captures import read_capture
from ringline.workers.plugins import flow_stats as fs
from ringline.workers.plugins.flow_key import PROTOCOLS
from ringline.workers.testing import DROP, Frame, run_plugin
from ringline.workers.tiers import loading
from ringline.workers.tiers.tier import Context
from ringline.workers.trials.harness import BATCH, Harness, named_values
from ringline.workers.worker import Worker

MODULE = "ringline.workers.plugins"
FORWARD = f"{MODULE}.forward:forward"
FLOW_STATS = f"{MODULE}.flow_stats:flow_stats"
FRAME = bytes(range(60))


@pytest.mark.parametrize("plugin", [FORWARD, FLOW_STATS])
@pytest.mark.parametrize(
    ("ports", "options", "outputs"),
    [
        (1, {}, [0]),
        (2, {}, [1, 0]),
        (4, {}, [1, 0, 3, 2]),
        (3, {"map": {"port0": "port2", "port2": "port2"}}, [2, DROP, 2]),
        (2, {"map": {}}, [DROP, DROP]),
    ],
)
def test_forward_follows_its_map(
    plugin: str, ports: int, options: dict[str, Any], outputs: list[int]
) -> None:
    frames = [Frame(FRAME, port) for port in range(ports)]
    results = run_plugin(plugin, frames, ports=ports, options=options)
    assert [result.verdict for result in results] == outputs
    assert all(result.frame == FRAME for result in results)


@pytest.mark.parametrize(
    ("ports", "options", "words"),
    [
        (3, {}, "with 3 ports the option map must be given"),
        (2, {"map": {"wan": "port0"}}, "'wan', which does not exist; the ports are port0, port1"),
        (2, {"map": {"port0": "wan"}}, "names the port 'wan'"),
        (2, {"map": {"port0": 1}}, "names the port 1"),
    ],
)
def test_an_impossible_map_is_refused(ports: int, options: dict[str, Any], words: str) -> None:
    with pytest.raises(PluginError, match=words):
        run_plugin(FORWARD, [FRAME], ports=ports, options=options)


def test_drop_drops() -> None:
    assert run_plugin(f"{MODULE}.drop:drop", [FRAME])[0].verdict == DROP


@pytest.mark.parametrize(
    "name", ["mac_swap", "mac_swap_compiled", "MacSwapColumns", "MacSwapPackets"]
)
@settings(max_examples=20)
@given(frames=st.lists(st.binary(min_size=12, max_size=80), max_size=100))
def test_mac_swap_is_one_plugin_in_every_tier(name: str, frames: list[bytes]) -> None:
    results = run_plugin(f"{MODULE}.mac_swap:{name}", [Frame(f, 1) for f in frames], ports=2)
    assert [result.verdict for result in results] == [1] * len(frames)
    assert [result.frame for result in results] == [f[6:12] + f[:6] + f[12:] for f in frames]


# -- flow_stats ---------------------------------------------------------------------------

TAGS = {0: b"", 1: b"\x81\x00\x00\x05", 2: b"\x88\xa8\x00\x07\x81\x00\x00\x05"}


# Chains of IPv6 extension headers: (type, contents after the first byte) each. For a fragment,
# also the type of the header after the fragment header: flow_stats reads no further.
OPTIONS, LONG = (0, bytes(7)), (60, b"\x01" + bytes(14))
EXTENSIONS: list[tuple[list[tuple[int, bytes]], int | None]] = [
    ([], None),
    ([OPTIONS], None),
    ([OPTIONS, LONG], None),
    ([(44, bytes(7))], None),  # the only fragment: first and last
    ([OPTIONS, (44, b"\0\0\1\0\0\0\7")], 2),
    ([(44, b"\0\1\0\0\0\0\7"), LONG], 1),
]


@st.composite
def packets(draw: st.DrawFn) -> tuple[bytes, tuple[Any, ...] | None]:
    """A frame and its flow; None if the frame is not IP."""
    tags = TAGS[draw(st.integers(0, 2))]
    kind = draw(st.sampled_from(["ipv4", "ipv6", "arp"]))
    protocol = draw(st.sampled_from([1, 6, 17, 58, 132]))
    source, target = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    ports = draw(st.integers(1, 2)).to_bytes(2, "big") + (0xFFFF).to_bytes(2, "big")
    fragment = draw(st.sampled_from([0, 0x4000, 0x2000, 0x0010]))
    options = draw(st.sampled_from([0, 4]))
    if kind == "arp":
        return bytes(12) + tags + b"\x08\x06" + bytes(46), None
    if kind == "ipv4":
        ends = [bytes([10, 0, 0, n]) for n in (source, target)]
        header = bytes([0x45 + options // 4]) + bytes(5) + fragment.to_bytes(2, "big")
        header += bytes([64, protocol]) + bytes(2) + ends[0] + ends[1] + bytes(options)
        whole = fragment in (0, 0x4000)
    else:
        ends = [b"\xfe\x80" + bytes(13) + bytes([n]) for n in (source, target)]
        extensions, offset = draw(st.sampled_from(EXTENSIONS))
        chain = [kind for kind, _ in extensions] + [protocol]
        header = b"\x60" + bytes(5) + bytes([chain[0], 64]) + ends[0] + ends[1]
        for following, (_, rest) in zip(chain[1:], extensions, strict=True):
            header += bytes([following]) + rest
        whole = offset is None
        protocol = chain[offset] if offset else protocol
    ether_type = b"\x08\x00" if kind == "ipv4" else b"\x86\xdd"
    frame = bytes(12) + tags + ether_type + header + ports + bytes(16)
    has_ports = protocol in (6, 17, 132) and whole
    return frame, (*ends, ports if has_ports else b"", protocol)


def flow_label(flow: tuple[Any, ...]) -> str:
    """The flow as flow_stats shows it, computed independently."""
    source, target, ports, protocol = flow
    words = []
    for address, port in ((source, ports[:2]), (target, ports[2:])):
        text = str(ipaddress.ip_address(address))
        if port:
            text = f"[{text}]" if ":" in text else text
            text += f":{int.from_bytes(port, 'big')}"
        words.append(text)
    return f"{words[0]} > {words[1]} {PROTOCOLS.get(protocol, protocol)}"


@settings(max_examples=30)
@given(st.lists(packets(), max_size=200))
def test_packets_and_bytes_are_counted_per_flow(
    made: list[tuple[bytes, tuple[Any, ...] | None]],
) -> None:
    run = run_plugin(FLOW_STATS, [frame for frame, _ in made], options={"top": 100})
    packets_of = Counter(flow_label(flow) for _, flow in made if flow)
    bytes_of: Counter[str] = Counter()
    for frame, flow in made:
        if flow:
            bytes_of[flow_label(flow)] += len(frame)
    assert run.named["other_packets"] == sum(flow is None for _, flow in made)
    assert run.named["flows_seen"] == len(packets_of)
    assert run.named["flows_without_place"] == 0
    shown = dict(run.named["top_talkers"])
    for label, (n, octets) in shown.items():
        assert (packets_of[label], bytes_of[label]) == (n, octets)
    assert len(shown) == min(len(packets_of), 100)


@given(st.binary(max_size=100), st.sampled_from([b"\x08\x00", b"\x86\xdd", b"\x81\x00"]))
@settings(max_examples=50)
def test_no_frame_is_an_error(data: bytes, ether_type: bytes) -> None:
    frames = [(bytes(12) + ether_type + data)[:n] for n in range(17, 115)]
    run = run_plugin(FLOW_STATS, frames)
    assert run.counters["forwarded"] == len(frames)


def test_real_captures_are_counted_to_the_last_packet(real_capture: Path) -> None:
    frames = [bytes(frame) for frame in read_capture(real_capture).frames if len(frame) < 1519]
    options = {"slots": 1 << 17, "top": 100}
    run = run_plugin(FLOW_STATS, frames, options=options)
    named = run.named
    assert run.counters["forwarded"] == len(frames)
    assert named["flows_without_place"] == 0
    assert named["other_packets"] == sum(frame[12:14] not in IP for frame in frames)
    rows = named["top_talkers"]
    assert len(rows) == min(100, named["flows_seen"])
    if named["flows_seen"] <= 100:
        assert sum(row[1][0] for row in rows) == len(frames) - named["other_packets"]


IP = (b"\x08\x00", b"\x86\xdd")


def udp(flow: int, length: int = 60) -> bytes:
    """A frame of flow number `flow`."""
    header = b"\x45" + bytes(8) + b"\x11" + bytes(2) + b"\x0a\0\0\1" + flow.to_bytes(4, "big")
    return (bytes(12) + b"\x08\x00" + header).ljust(length, b"\0")


RATE_LIMIT = f"{MODULE}.rate_limit:rate_limit"
SECOND = 1_000_000_000


def _from(source: str, seconds: float) -> Frame:
    """An IPv4 frame with this source address, which comes at this time."""
    address = ipaddress.ip_address(source).packed
    data = bytes(12) + b"\x08\x00" + bytes(12) + address + bytes(30)
    return Frame(data, time=1_700_000_000 * SECOND + round(seconds * SECOND))


def test_a_source_address_gets_its_rate_and_its_burst_and_no_more() -> None:
    burst = [_from("10.0.0.1", 0)] * 6
    steady = [_from("10.0.0.1", 1 + n / 20) for n in range(100)]  # 20 a second, for 5 s
    other = [_from("10.0.0.2", 6)] * 3
    not_ip = [Frame(bytes(60))] * 10
    frames = [*burst, *steady, *other, *not_ip]
    run = run_plugin(RATE_LIMIT, frames, options={"rate": 10, "burst": 4})
    passed = [result.verdict == 0 for result in run]
    assert passed[:6] == [True] * 4 + [False] * 2
    # 4 in the bucket, and 10 a second for the 4.95 s until the last frame.
    assert 52 <= sum(passed[6:106]) <= 54
    assert passed[106:] == [True] * 13
    assert run.named == {"over_limit": passed.count(False), "without_bucket": 0}


def test_an_address_takes_the_bucket_of_another_only_when_it_is_full_again() -> None:
    """17 addresses, 16 buckets."""
    options = {"rate": 1, "burst": 1, "addresses": 16}
    crowd = [_from(f"10.0.0.{n}", 0) for n in range(17)]
    run = run_plugin(RATE_LIMIT, [*crowd, *crowd], options=options)
    without = run.named["without_bucket"]
    assert without >= 2
    assert run.named["over_limit"] == 17 - without // 2, "a bucket that is in use was taken"
    later = [_from(f"10.1.0.{n}", 2) for n in range(8)]
    run = run_plugin(RATE_LIMIT, [*crowd, *later, *later], options=options)
    assert [result.verdict for result in run][17:] == [0] * 8 + [DROP] * 8


class FlowStatsHarness:
    """A flow_stats plugin on a worker slot that a successor can take over."""

    def __init__(self, **options: int) -> None:
        self.tier = loading.load(FLOW_STATS)
        self.tier.accept(options)
        self.tier.prepare(Context(ports=["a"]))
        self.harness = Harness(self.tier, Context(ports=["a"]))

    def run(self, frames: list[bytes]) -> None:
        for start in range(0, len(frames), BATCH):
            some = frames[start : start + BATCH]
            self.harness.run([(frame, 0, 0, 0, 0, 0) for frame in some])

    def worker(self) -> Worker:
        return Worker(self.harness.slot, queue=0, ports=["a"], options=self.tier.options)

    def restart(self) -> None:
        """Run the successor's setup on the same slot."""
        self.tier.setup(self.worker())

    def flows(self) -> Any:
        return self.worker().state("flows", np.int64, (self.tier.options["slots"], fs.WORDS))

    def named(self) -> dict[str, Any]:
        self.harness.engine.tick()
        return named_values(self.harness.slot)


def test_a_full_table_counts_packets_without_a_place() -> None:
    stats = FlowStatsHarness(slots=16)
    stats.run([udp(n % 40) for n in range(400)])
    named = stats.named()
    assert named["flows_seen"] <= 16
    placed = int(stats.flows()[:, fs.PACKETS].sum())
    assert placed + named["flows_without_place"] == 400
    assert named["flows_without_place"] > 0


def test_the_top_talkers_are_the_largest_flows() -> None:
    stats = FlowStatsHarness(top=5, slots=1024)
    rng = np.random.default_rng(7)
    sizes = {n: 60 + 13 * n for n in range(60)}
    frames = [udp(n, sizes[n]) for n in range(60) for _ in range(20)]
    stats.run([frames[i] for i in rng.permutation(len(frames))])
    rows = stats.named()["top_talkers"]
    shown = [int(label.split()[2].split(".")[3]) for label, _ in rows]
    assert shown[0] == 59
    # A flow larger than the smallest shown by a sixteenth would have replaced it.
    smallest = rows[-1][1][1]
    hidden = [20 * size for n, size in sizes.items() if n not in shown]
    assert max(hidden) <= smallest + smallest // 16 + max(sizes.values())
    assert [row[1][1] for row in rows] == sorted((row[1][1] for row in rows), reverse=True)


def test_flows_continue_in_a_successor() -> None:
    stats = FlowStatsHarness(slots=64, top=3)
    stats.run([udp(n) for n in range(10) for _ in range(n + 1)])
    before = stats.flows()[:, : fs.CHECK].copy(), stats.named()
    stats.restart()
    assert (stats.flows()[:, : fs.CHECK] == before[0]).all()
    stats.restart()
    shown = [(label, tuple(values)) for label, values in stats.named()["top_talkers"]]
    assert [values[0] for _, values in shown] == [10, 9, 8]
    assert stats.named()["flows_seen"] == 10


@pytest.mark.parametrize("word", range(fs.WORDS))
def test_a_half_written_line_of_a_killed_worker_is_cleared(word: int) -> None:
    """Killed while it wrote a new flow: the check word is wrong or missing."""
    stats = FlowStatsHarness(slots=16)
    stats.run([udp(1), udp(2)])
    flows = stats.flows()
    free = int(np.flatnonzero(flows[:, fs.CHECK] == 0)[0])
    flows[free, word] = 0x1234567
    stats.restart()
    valid = flows[flows[:, fs.CHECK] != 0]
    assert len(valid) == 2
    assert flows[free, fs.CHECK] == 0
    stats.run([udp(n) for n in range(3, 40)])
    assert stats.harness.counters.plugin_errors == 0
    placed = int(flows[:, fs.PACKETS].sum())
    assert placed <= 39 + 0x1234567


def test_its_action_may_be_to_drop() -> None:
    assert run_plugin(FLOW_STATS, [FRAME], options={"action": "drop"})[0].verdict == DROP
    with pytest.raises(PluginError, match="power of two"):
        run_plugin(FLOW_STATS, [FRAME], options={"slots": 100})
