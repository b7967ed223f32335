"""`ringline rss`: the published hashes, the tables, JSON, and one sentence for each mistake."""

from __future__ import annotations

import json
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from ringline.pipeline.commands import cli
from ringline.pipeline.commands.rss_flows import Flow, flow_of, parse
from ringline.pipeline.ports.rss import rss_key
from ringline.pipeline.ports.sim82599.model import toeplitz
from ringline.shm.errors import UsageError
from ringline.workers.captures.pcap import file_header, packet_header

from ... import packet_headers
from ..ports.frames import ethernet, ipv4, ipv6, segment
from ..ports.test_sim82599_rss import VECTORS

MIXED = Path(__file__).parents[2] / "data" / "mixed.pcap"
TCP, UDP = 6, 17


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(["rss", *arguments]) == 0
    return capsys.readouterr().out


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    return json.loads(printed(capsys, *arguments, "--json"))


def end(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def capture(path: Path, frames: list[bytes]) -> str:
    pieces = [file_header()]
    for frame in frames:
        pieces += [packet_header(len(frame), 0), frame]
    path.write_bytes(b"".join(pieces))
    return str(path)


def conversation(protocol: int, there: tuple[str, int], back: tuple[str, int]) -> list[bytes]:
    """One frame in each direction."""
    frames = []
    for (source, sport), (target, dport) in ((there, back), (back, there)):
        ip, kind = (ipv6, 0x86DD) if ":" in source else (ipv4, 0x0800)
        ends = [packed(address) for address in (source, target)]
        body = segment(ends[0], ends[1], protocol, (sport, dport), b"hello")
        frames.append(ethernet(ip(source, target, protocol, body), kind))
    return frames


def packed(address: str) -> bytes:
    return parse(f"{address} > {address}").source


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize(("source", "target", "by_addresses", "by_ports"), VECTORS)
def test_a_tuple_has_the_published_hash(
    capsys: pytest.CaptureFixture[str],
    source: tuple[str, int],
    target: tuple[str, int],
    by_addresses: int,
    by_ports: int,
    protocol: str,
) -> None:
    with_ports = f"{end(*source)} > {end(*target)}/{protocol}"
    found = as_json(
        capsys, "--tuple", with_ports, "--tuple", f"{source[0]} > {target[0]}", "--queues", "16"
    )
    assert [each["hash"] for each in found["tuples"]] == [by_ports, by_addresses]
    assert [each["queue"] for each in found["tuples"]] == [by_ports % 16, by_addresses % 16]


def test_a_tuple_is_printed_with_both_directions(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "--tuple", "66.9.149.187:2794 > 161.142.100.80:1766/tcp")
    assert text == (
        "4 queues, key default\n\n"
        "queue        hash  flow\n"
        "    0  0x51ccc178  66.9.149.187:2794 > 161.142.100.80:1766/tcp\n"
        "    2  0xfde799b2  161.142.100.80:1766 > 66.9.149.187:2794/tcp\n"
        "the directions are on queues 0 and 2\n"
    )
    text = printed(
        capsys, "--tuple", "66.9.149.187:2794>161.142.100.80:1766/TCP", "--key", "symmetric"
    )
    assert text.splitlines()[-1].startswith("both directions are on queue ")


@pytest.mark.parametrize("key", ["default", "symmetric", "0123456789abcdef" * 5])
@pytest.mark.parametrize("queues", [1, 3, 16])
def test_each_packet_is_on_the_queue_of_its_hash(
    capsys: pytest.CaptureFixture[str], key: str, queues: int
) -> None:
    """The queue is computed here from another parser, the Toeplitz hash, and RETA, which has the
    queues in turn in its 128 entries."""
    from ringline.workers.captures.captures import read_capture

    packets = [0] * queues
    for frame in read_capture(MIXED).frames:
        read = packet_headers.rss_input(bytes(frame))
        packets[toeplitz(rss_key(key), read) % 128 % queues if read else 0] += 1
    found = as_json(capsys, str(MIXED), "--queues", str(queues), "--key", key)
    assert [each["packets"] for each in found["queues"]] == packets
    assert found["key_bytes"] == rss_key(key).hex()


def test_connections_that_do_not_meet_are_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    frames: list[bytes] = []
    for number in range(8):
        frames += conversation(TCP, ("10.0.0.1", 1000 + number), ("10.0.0.2", 80))
    frames += conversation(UDP, ("2001:db8::1", 5), ("2001:db8::2", 6))
    frames += conversation(UDP, ("10.0.0.1", 5), ("10.0.0.1", 6))
    frames.append(conversation(UDP, ("10.0.0.7", 5), ("10.0.0.8", 6))[0])
    path = capture(tmp_path / "a.pcap", frames)
    found = as_json(capsys, path)["connections"]
    assert found["in_both_directions"] == 10
    assert found["on_one_queue"] < 10
    text = printed(capsys, path)
    assert "10 connections seen in both directions: " in text
    assert "with --key symmetric both directions meet on one queue" in text
    found = as_json(capsys, path, "--key", "symmetric")["connections"]
    assert found == {"in_both_directions": 10, "on_one_queue": 10}
    assert "with --key" not in printed(capsys, path, "--key", "symmetric")


def test_the_heaviest_flows_come_first(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    frames = []
    for count, port in ((1, 10), (3, 30), (2, 20)):
        frames += conversation(UDP, ("10.0.0.1", port), ("10.0.0.2", 9))[:1] * count
    path = capture(tmp_path / "a.pcap", frames)
    flows = as_json(capsys, path, "--flows", "2")["heaviest_flows"]
    assert [(each["flow"], each["packets"], each["bytes"]) for each in flows] == [
        ("10.0.0.1:30 > 10.0.0.2:9/udp", 3, 180),
        ("10.0.0.1:20 > 10.0.0.2:9/udp", 2, 120),
    ]
    assert "flow" not in printed(capsys, path, "--flows", "0").splitlines()[-1]


def test_the_output_has_80_columns(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    long = "2001:db8:1111:2222:3333:4444:5555:666{}"
    frames = conversation(TCP, (long.format(1), 51111), (long.format(2), 52222))
    text = printed(capsys, capture(tmp_path / "a.pcap", frames * 1000))
    text += printed(capsys, str(MIXED))
    text += printed(capsys, "--tuple", f"[{long.format(1)}]:51111 > [{long.format(2)}]:52222/tcp")
    of_files = (f"{tmp_path / 'a.pcap'}:", f"{MIXED}:")  # as long as their paths
    lines = [line for line in text.splitlines() if not line.startswith(of_files)]
    assert max(map(len, lines)) <= 80
    assert f"        > [{long.format(2)}]:52222/tcp" in text.splitlines()
    rows = text.splitlines()[2:7]
    assert rows[0].startswith("queue  packets")
    assert len(set(map(len, rows))) == 1, "the columns are aligned"


def test_what_has_no_hash_and_what_is_too_long_is_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    frames = [ethernet(b"arp", 0x0806), ethernet(bytes(1600)), ethernet(bytes(1400))]
    path = capture(tmp_path / "a.pcap", frames)
    found = as_json(capsys, path)
    assert (found["without_hash"], found["left_out"]) == (2, 1)
    assert [each["packets"] for each in found["queues"]] == [2, 0, 0, 0]
    text = printed(capsys, path)
    assert "2 packets without a hash (not IP, or two VLAN tags): on queue 0" in text
    assert "left out 1 frame that no card would receive: too long" in text
    assert "no connection was seen in both directions" in text


def test_an_empty_capture_is_not_an_error(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = capture(tmp_path / "a.pcap", [])
    assert "0 packets, 0 bytes" in printed(capsys, path)
    assert sum(each["packets"] for each in as_json(capsys, path)["queues"]) == 0


def test_a_capture_that_is_cut_short_is_used_up_to_the_cut(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    cut = tmp_path / "cut.pcap"
    cut.write_bytes(MIXED.read_bytes()[:-10])
    assert cli.main(["rss", str(cut)]) == 2
    assert "or use what is good with --cut" in capsys.readouterr().err
    assert "193 packets" in printed(capsys, str(cut), "--cut")
    (remark,) = as_json(capsys, str(cut), "--cut")["remarks"]
    assert remark.endswith("the file is cut short, and the 193 before it are used")


@pytest.mark.slow
def test_memory_does_not_grow_with_the_capture(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    frames = conversation(UDP, ("10.0.0.1", 1), ("10.0.0.2", 2))
    path = capture(tmp_path / "a.pcap", [frame.ljust(1500, b"x") for frame in frames] * 5_000)
    assert Path(path).stat().st_size > 14 << 20
    printed(capsys, str(MIXED))  # imports what it needs
    tracemalloc.start()
    try:
        assert "10,000 packets" in printed(capsys, path)
        assert tracemalloc.get_traced_memory()[1] < 5 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("text", "flow"),
    [
        ("10.0.0.1:1 > 10.0.0.2:2/tcp", Flow(b"\x0a\0\0\1", b"\x0a\0\0\2", TCP, (1, 2))),
        ("[::1]:1 > [::2]:2/udp", Flow(bytes(15) + b"\1", bytes(15) + b"\2", UDP, (1, 2))),
        ("10.0.0.1 > 10.0.0.2", Flow(b"\x0a\0\0\1", b"\x0a\0\0\2", None, None)),
        ("::1 > ::2", Flow(bytes(15) + b"\1", bytes(15) + b"\2", None, None)),
    ],
)
def test_a_flow_is_read_and_written(text: str, flow: Flow) -> None:
    assert parse(text) == flow
    assert flow.text() == text
    again = flow_of(flow.frame())
    assert again is not None
    assert again.reversed().reversed() == again
    assert again._replace(protocol=flow.protocol) == flow


def test_the_fragments_of_a_flow_have_no_ports() -> None:
    body = struct.pack("!HH", 1, 2) + bytes(12)
    flow = flow_of(ethernet(ipv4("10.0.0.1", "10.0.0.2", UDP, body, fragment=0x2000), 0x0800))
    assert flow is not None
    assert flow.text() == "10.0.0.1 > 10.0.0.2/udp fragments"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("nonsense", 'must be "10.0.0.1:1234 > 10.0.0.2:80/tcp" or "10.0.0.1 > 10.0.0.2", not'),
        ("1.2.3.4", "must be "),
        ("1.2.3.4:5 > 1.2.3.4/tcp", "tcp needs two ports, as in"),
        ("1.2.3.4:5 > 1.2.3.4:6", "after ports, /tcp or /udp is missing in"),
        ("1.2.3.4:5 > [::1]:6/tcp", "both addresses must be IPv4, or both IPv6, not"),
        ("1.2.3.4:70000 > 1.2.3.4:6/tcp", "a port must be 0 to 65535, not '70000'"),
        ("1.2.3.4: > 1.2.3.4:6/tcp", "a port must be 0 to 65535, not ''"),
        ("1.2.3.400 > 1.2.3.4", "'1.2.3.400' is not an IP address"),
        ("[::1 > ::1", "'[::1' is not an IP address"),
        (" > ", "'' is not an IP address"),
        ("1.2.3.4:5 > 1.2.3.4:6/sctp", "the protocol must be tcp or udp, not 'sctp'; for others"),
    ],
)
def test_a_wrong_tuple_is_one_sentence(
    capsys: pytest.CaptureFixture[str], text: str, what: str
) -> None:
    with pytest.raises(UsageError):
        parse(text)
    assert cli.main(["rss", "--tuple", text]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ringline: --tuple: {what}")


@pytest.mark.parametrize("arguments", [[], ["a.pcap", "--tuple", "1.2.3.4 > 1.2.3.5"]])
def test_a_capture_or_a_tuple_is_needed(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert cli.main(["rss", *arguments]) == 2
    assert capsys.readouterr().err == "ringline: rss: give either a capture or --tuple\n"


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--queues", "0"], "argument --queues: must be an integer from 1 to 16, not '0'"),
        (["--queues", "17"], "argument --queues: must be an integer from 1 to 16, not '17'"),
        (["--queues", "two"], "argument --queues: must be an integer from 1 to 16, not 'two'"),
        (["--key", "12"], "argument --key: must be default, symmetric, or 80 hexadecimal digits"),
        (["--flows", "-1"], "argument --flows: must be an integer of at least 0, not '-1'"),
    ],
)
def test_a_wrong_option_is_one_sentence(
    capsys: pytest.CaptureFixture[str], arguments: list[str], what: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["rss", str(MIXED), *arguments])
    assert ended.value.code == 2
    assert what in capsys.readouterr().err.splitlines()[-1]


def test_a_file_that_is_no_capture_is_one_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "a.pcap").write_text("no capture at all, but longer than a header")
    for path in (tmp_path / "a.pcap", tmp_path / "missing.pcap"):
        assert cli.main(["rss", str(path)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"ringline: {path}")
