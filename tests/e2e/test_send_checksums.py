"""FIX_CHECKSUMS: checksums written when a frame is sent, by the card or by the worker.

The expected frames are those of a plugin that calls `fix_checksums` itself. Frames arrive with
wrong checksums.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ringline.workers.captures.captures import CaptureWriter, read_capture

from ..workers.headers.packets import tcp, udp

pytestmark = pytest.mark.slow

DATA = Path(__file__).parents[1] / "data"
TIMEOUT = 120  # until a command counts as hanging
PLUGINS = """
from ringline.workers.api import DROP, FIX_CHECKSUMS, create, fix_checksums, packet_function


@packet_function
def software(frame, meta):
    fix_checksums(frame)
    return meta.port


@packet_function
def flagged(frame, meta):
    meta.flags |= FIX_CHECKSUMS
    return meta.port


class Flagged:
    def process(self, batch):
        for packet in batch:
            packet.flags |= FIX_CHECKSUMS
            packet.verdict = packet.port
"""
MACS = bytes.fromhex("020000000001020000000002")


def ipv4(protocol: int, data: bytes, options: bytes = b"", fragment: int = 0) -> bytes:
    words = 5 + len(options) // 4
    total = (4 * words + len(data)).to_bytes(2, "big")
    head = bytes([0x40 | words, 0]) + total + bytes(2) + fragment.to_bytes(2, "big")
    return head + bytes([64, protocol]) + b"\xba\xd0" + bytes(range(192, 200)) + options + data


def ipv6(protocol: int, data: bytes, extension: bytes = b"") -> bytes:
    length = (len(extension) + len(data)).to_bytes(2, "big")
    first = 60 if extension else protocol
    return b"\x60\0\0\0" + length + bytes([first, 64]) + bytes(range(32)) + extension + data


def frames() -> Iterator[bytes]:
    """Frames for the card's engine, and those that the worker must do itself."""
    ports = (1000, 2000)
    four, six = b"\x08\x00", b"\x86\xdd"
    tag, service = b"\x81\x00\x00\x07", b"\x88\xa8\x00\x09"
    for size in (0, 1, 6, 17, 18, 100, 101, 1400, 1455):
        data = bytes(at % 256 for at in range(size))
        for tags in (b"", tag, service + tag):
            for packet, kind in (
                (ipv4(17, udp(ports, data)), four),
                (ipv4(6, tcp(ports, data)), four),
                (ipv6(17, udp(ports, data)), six),
                (ipv6(6, tcp(ports, data)), six),
            ):
                if len(packet) <= 1500:
                    yield MACS + tags + kind + packet
    data = bytes(range(40))
    short = ipv4(17, udp(ports, b"abc"))
    yield MACS + four + short + bytes(30)  # padding behind the packet
    yield MACS + four + ipv4(17, udp(ports, data, 0))  # no checksum is wanted
    yield MACS + six + ipv6(17, udp(ports, data, 0))
    yield MACS + four + ipv4(17, udp(ports, data), fragment=0x2000)
    yield MACS + four + ipv4(6, tcp(ports, data), options=b"\1\1\1\0")
    yield MACS + four + ipv4(6, tcp(ports, data)[:19])
    yield MACS + four + ipv4(1, b"\x08\0\0\0" + data)
    yield MACS + four + ipv4(132, bytes(40))
    yield MACS + six + ipv6(6, tcp(ports, data), extension=b"\x06\0" + bytes(6))
    yield MACS + six + ipv6(58, b"\x80\0\0\0" + data)
    yield MACS + 5 * tag + four + ipv4(6, tcp(ports, data))
    yield MACS + b"\x08\x06" + bytes(46)


def spoiled(path: Path) -> Iterator[bytes]:
    """The frames of a capture with a byte changed near the end of their headers."""
    for number, frame in enumerate(read_capture(path).frames):
        made = bytearray(frame)
        if len(made) > 50:
            made[24 + number % 26] ^= 0x5A
        yield bytes(made)


@pytest.fixture
def sent(tmp_path: Path, instance: Callable[[], str]) -> Callable[..., list[bytes]]:
    """What `ringline run` sends with a plugin of PLUGINS, in order."""
    (tmp_path / "mine.py").write_text(PLUGINS)

    def sent(plugin: str, given: list[bytes], *words: str) -> list[bytes]:
        with CaptureWriter(tmp_path / "in.pcap") as writer:
            for at, frame in enumerate(given):
                writer.write(frame, at * 1000)
        command = ["ringline", "run", f"./mine.py:{plugin}", "--name", instance(), "--queues", "1"]
        command += ["--replay", "in.pcap", "--record", "out.pcap", "--strict", *words]
        ended = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=TIMEOUT, cwd=tmp_path
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return [bytes(frame) for frame in read_capture(tmp_path / "out.pcap").frames]

    return sent


def test_card_and_software_write_the_same(sent: Callable[..., list[bytes]]) -> None:
    given = [*frames(), *spoiled(DATA / "mixed.pcap")]
    given = [frame for frame in given if len(frame) <= 1514]
    expected = sent("software", given)
    assert len(expected) == len(given)
    assert sum(a != b for a, b in zip(expected, given, strict=True)) > len(given) // 3
    for plugin in ("flagged", "Flagged"):
        assert sent(plugin, given) == expected


def test_jumbo_frames_have_right_checksums(sent: Callable[..., list[bytes]]) -> None:
    given = [
        MACS + b"\x08\x00" + ipv4(17, udp((1, 2), bytes(at % 256 for at in range(size))))
        for size in (1473, 2006, 2007, 4096, 8972)
    ]
    expected = sent("software", given, "--mtu", "9000")
    assert [len(frame) for frame in expected] == [len(frame) for frame in given]
    assert sent("flagged", given, "--mtu", "9000") == expected


def test_real_captures_get_the_same_checksums(
    sent: Callable[..., list[bytes]], real_capture: Path
) -> None:
    given = [frame for frame in spoiled(real_capture) if len(frame) <= 1514]
    assert sent("flagged", given) == sent("software", given)
