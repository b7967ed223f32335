"""The examples of the README for prefix tables and maps work as they are shown."""

from __future__ import annotations

import re
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ringline.workers.testing import DROP, Frame, run_plugin

README = (Path(__file__).resolve().parents[3] / "README.md").read_text(encoding="utf-8")
TCP, UDP = 6, 17
PUBLIC = "198.51.100.9"
SERVER = "203.0.113.5"


def example(words: str) -> str:
    (found,) = (b for b in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if words in b)
    return found


def summed(data: bytes) -> int:
    """The Internet checksum (RFC 1071), independent of the code under test."""
    words = struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2))
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def packet(
    source: str, sport: int, target: str, dport: int, protocol: int, checksum: bool = True
) -> bytes:
    """A frame with TCP or UDP over IPv4, whose checksums are right, or without that of UDP."""
    addresses = socket.inet_aton(source) + socket.inet_aton(target)
    data = b"seventeen bytes.."
    if protocol == TCP:
        segment = struct.pack("!HHIIBBHHH", sport, dport, 1, 2, 0x50, 0x18, 1000, 0, 0) + data
        at = 16
    else:
        segment = struct.pack("!HHHH", sport, dport, 8 + len(data), 0) + data
        at = 6
    if checksum:
        right = summed(addresses + struct.pack("!HH", protocol, len(segment)) + segment) or 0xFFFF
        segment = segment[:at] + right.to_bytes(2, "big") + segment[at + 2 :]
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 1, 0, 64, protocol, 0)
    whole = head[:10] + summed(head + addresses).to_bytes(2, "big")
    macs = bytes.fromhex("020000000001020000000002")
    return macs + b"\x08\x00" + whole + addresses + segment


def capture(path: Path, frames: list[bytes]) -> None:
    with path.open("wb") as file:
        file.write(struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for number, frame in enumerate(frames):
            file.write(struct.pack("<IIII", 1_700_000_000 + number, 0, len(frame), len(frame)))
            file.write(frame)


def ends(frame: bytes) -> tuple[str, int, str, int]:
    sport, dport = struct.unpack_from("!HH", frame, 34)
    return socket.inet_ntoa(frame[26:30]), sport, socket.inet_ntoa(frame[30:34]), dport


def wrong_checksums(path: Path) -> list[str]:
    """What tcpdump says of the packets with a wrong checksum; it must look at all of them."""
    tcpdump = shutil.which("tcpdump")
    if tcpdump is None:
        pytest.skip("tcpdump is missing")
    done = subprocess.run(
        [tcpdump, "-vv", "-n", "-r", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert re.search(r"\(correct\)|sum ok", done.stdout), done.stdout
    return [line for line in done.stdout.splitlines() if re.search(r"incorrect|bad ", line)]


@pytest.mark.parametrize("words", ["def acl(", "def nat("])
def test_an_example_has_less_than_forty_lines_of_code(words: str) -> None:
    assert len([line for line in example(words).splitlines() if line.strip()]) < 40


def test_the_access_list_runs_on_a_capture(tmp_path: Path) -> None:
    (tmp_path / "acl.py").write_text(example("def acl("))
    frames = [
        packet(source, 1000, SERVER, 53, UDP)
        for source in ("192.0.2.7", "192.0.3.7", "10.0.0.1", "192.0.2.255")
    ]
    capture(tmp_path / "capture.pcap", [*frames, bytes(60)])
    (shown,) = re.findall(r"^    (printf .*rules\.csv\n    ringline try .*)$", README, re.MULTILINE)
    done = subprocess.run(
        ["bash", "-euc", shown.replace("\n    ", "\n") + " -w out.pcap"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "(denied 2)" in done.stdout, done.stdout
    out = (tmp_path / "out.pcap").read_bytes()
    assert all((frame in out) == sent for frame, sent in zip(frames, (0, 1, 1, 0), strict=True))


def test_a_wrong_rule_is_reported_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "acl.py").write_text(example("def acl("))
    (tmp_path / "rules.csv").write_text("prefix,action\n10.0.0.0/8,permit\n10.0.0.1/8,allow\n")
    capture(tmp_path / "capture.pcap", [bytes(60)])
    done = subprocess.run(
        ["ringline", "try", "./acl.py:acl", "capture.pcap", "-o", "rules=rules.csv"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 2
    assert "rules.csv: prefix table 'rules' stays as it was: line 3: " in done.stderr
    assert "Traceback" not in done.stderr


def test_behind_the_nat_no_checksum_is_wrong(tmp_path: Path) -> None:
    """Flows from inside, their answers, and packets that belong to no flow."""
    path = tmp_path / "nat.py"
    path.write_text(example("def nat("))
    options = {"public": PUBLIC}
    clients = [(f"10.0.{n % 7}.{n}", 5000 + n % 3, (TCP, UDP)[n % 2]) for n in range(1, 200)]
    there = [packet(host, port, SERVER, 80, what) for host, port, what in clients] * 2
    there.append(packet("10.0.0.1", 77, SERVER, 53, UDP, checksum=False))
    first = run_plugin(f"{path}:nat", there, options=options, ports=["lan", "wan"])
    assert [result.verdict for result in first] == [1] * len(there)
    outside = [ends(result.frame) for result in first]
    assert outside[: len(clients)] == outside[len(clients) : -1]  # a flow keeps its port
    assert {(source, *rest) for source, _, *rest in outside} == {
        (PUBLIC, SERVER, 80),
        (PUBLIC, SERVER, 53),
    }
    mapped = {(one[1], frame[23]) for one, frame in zip(outside, there, strict=True)}
    assert len(mapped) == len(clients) + 1  # no port has two flows of one protocol
    assert first[-1].frame[40:42] == b"\0\0"  # UDP without a checksum stays without

    answers = [
        packet(SERVER, dport, PUBLIC, sport, frame[23])
        for (_, sport, _, dport), frame in zip(outside, there, strict=True)
    ]
    strangers = [
        packet(SERVER, 80, PUBLIC, 60_000, TCP),
        packet(SERVER, 80, "198.51.100.8", outside[0][1], UDP),
        bytes(60),
    ]
    frames = [Frame(frame) for frame in there]
    frames += [Frame(frame, port=1) for frame in answers + strangers]
    run = run_plugin(f"{path}:nat", frames, options=options, ports=["lan", "wan"])
    assert [result.verdict for result in run] == (
        [1] * len(there) + [0] * len(answers) + [DROP] * len(strangers)
    )
    inside = [ends(result.frame) for result in run[len(there) : -len(strangers)]]
    wanted = [ends(frame) for frame in there]
    assert inside == [(target, dport, source, sport) for source, sport, target, dport in wanted]

    capture(tmp_path / "sent.pcap", [one.frame for one in run if one.verdict != DROP])
    assert wrong_checksums(tmp_path / "sent.pcap") == []
    damaged = bytearray(run[0].frame)
    damaged[25] ^= 1
    damaged[-1] ^= 1
    capture(tmp_path / "damaged.pcap", [run[1].frame, bytes(damaged)])
    assert len(wrong_checksums(tmp_path / "damaged.pcap")) > 0


GUARD = """
#include "plugin.h"

struct guard {
    struct rl_prefixes *rules;
    uint64_t *seen;
};

static inline int64_t guard(uint8_t *frame, struct rl_reference *meta, struct rl_batch *batch)
{
    struct guard *guard = batch->state;
    ++*guard->seen;
    uint32_t source = (uint32_t)rl_headers(frame, meta->length).src;
    return rl_prefix_find4(guard->rules, source) == 1 ? meta->port : RL_VERDICT_DROP;
}
RL_PLUGIN(guard_plugin, guard)
"""


def test_the_setup_of_a_plugin_in_c(tmp_path: Path, compile_c: Callable[[Path], str]) -> None:
    (tmp_path / "guard.c").write_text(GUARD)
    shutil.copy(compile_c(tmp_path / "guard.c"), tmp_path / "guard.so")
    (tmp_path / "guard.py").write_text(example("native_plugin"))
    sources = ("10.1.2.3", "192.0.2.1")
    frames = [packet(source, 5, SERVER, 80, TCP) for source in sources]
    run = run_plugin(f"{tmp_path}/guard.py:guard", frames)
    assert [result.verdict for result in run] == [0, DROP]
    assert run.named["seen"] == 2
