"""`ringline try` on captures as people have them: compressed, cut, of several link types, huge, and
several at once."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ringline.workers.captures.captures import read_capture, write_capture

from ...data import make

DATA = Path(__file__).parents[2] / "data"
MIXED = (DATA / "mixed.pcap").read_bytes()
PROOF = os.environ.get("RINGLINE_PROOF") == "1"
TIMEOUT = 3000 if PROOF else 110  # seconds until a command counts as hanging
SECOND = 1_000_000_000
V4 = make.ipv4(17, make.udp(5000, 100, 1))

Try = Callable[..., subprocess.CompletedProcess[str]]

WITNESS = """
class Witness:
    def process(self, batch):
        for packet in batch:
            packet.data[0] = packet.port
            packet.verdict = packet.port
            if packet.data[1] == 0xEE:
                raise ValueError("oh")
"""


@pytest.fixture
def tried(tmp_path: Path) -> Try:
    """Run `ringline try` in a folder of its own."""

    def run(*arguments: object, script: str = "") -> subprocess.CompletedProcess[str]:
        words = ["ringline", "try", *map(str, arguments)]
        return subprocess.run(
            ["bash", "-c", script] if script else words,
            check=False,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=TIMEOUT,
        )

    return run


def cooked(packets: list[bytes]) -> bytes:
    """A capture of the interface `any`: Linux cooked v1."""
    header = struct.pack("!HHH8sH", 0, 1, 6, bytes.fromhex("0200000000aa0000"), 0x0800)
    content = make.pcap(make.timed([header + packet for packet in packets]))
    return content[:20] + struct.pack("<I", 113) + content[24:]


def frames_in(path: Path) -> list[bytes]:
    return [bytes(frame) for frame in read_capture(path).frames]


@pytest.mark.parametrize("tool", ["gzip", "bzip2", "xz", "zstd", "lz4"])
def test_what_a_plugin_sees_of_a_compressed_capture(tried: Try, tmp_path: Path, tool: str) -> None:
    if not shutil.which(tool):
        pytest.skip(f"{tool} is missing")
    (tmp_path / "in.pcap").write_bytes(MIXED)
    for script in (
        "ringline try mac_swap in.pcap -w plain.pcap",
        f"{tool} -c in.pcap > in.bin; ringline try mac_swap in.bin -w packed.pcap",
        f"{tool} -c in.pcap | ringline try mac_swap - -w piped.pcap",
    ):
        done = tried(script=script)
        assert done.returncode == 0, done.stderr
    plain = (tmp_path / "plain.pcap").read_bytes()
    assert len(plain) > 1000
    assert (tmp_path / "packed.pcap").read_bytes() == plain
    assert (tmp_path / "piped.pcap").read_bytes() == plain


def test_decompressing_programs_can_be_used_too(tried: Try, tmp_path: Path) -> None:
    (tmp_path / "in.pcap.gz").write_bytes(gzip.compress(MIXED))
    for script in (
        "zcat in.pcap.gz | ringline try forward - -w out.pcap",
        "ringline try forward <(zcat in.pcap.gz) -w out.pcap",
        "ringline try forward - < in.pcap.gz -w out.pcap",
        "ringline try forward /dev/fd/3 3< in.pcap.gz -w out.pcap",
    ):
        done = tried(script=script)
        assert done.returncode == 0, done.stderr
        assert len(frames_in(tmp_path / "out.pcap")) == len(frames_in(DATA / "mixed.pcap"))
        (tmp_path / "out.pcap").unlink()


def test_a_capture_without_ethernet_headers(tried: Try, tmp_path: Path) -> None:
    (tmp_path / "any.pcap").write_bytes(cooked([V4, V4]))
    done = tried("forward", "any.pcap", "-w", "out.pcap")
    assert done.returncode == 0, done.stderr
    told = "2 of 2 packets have no Ethernet header, so ringline made one up: 2 of link type 113"
    assert f"  remark: any.pcap: {told} (Linux cooked capture v1)\n" in done.stdout
    header = bytes.fromhex("020000000001 0200000000aa 0800")
    assert frames_in(tmp_path / "out.pcap") == [header + V4] * 2


def test_a_capture_is_used_up_to_its_cut_on_request(tried: Try, tmp_path: Path) -> None:
    good = make.section() + make.interface() + make.enhanced(b"e" * 60, 0)
    for content in (MIXED[:5000], good + make.enhanced(b"f" * 60, 0)[:-5]):
        (tmp_path / "cut.pcap").write_bytes(content)
        refused = tried("forward", "cut.pcap")
        assert refused.returncode == 2
        assert refused.stderr.count("\n") == 1
        assert "copy it again, or use what is good with --cut" in refused.stderr
        used = tried("forward", "cut.pcap", "--cut")
        assert used.returncode == 0, used.stderr
        [remark] = [line for line in used.stdout.splitlines() if line.startswith("  remark: ")]
        assert "the file is cut short, and the " in remark
        assert remark.endswith(" used")


def test_frames_before_the_damage_are_written(tried: Try, tmp_path: Path) -> None:
    (tmp_path / "cut.pcap").write_bytes(MIXED[:5000])
    assert tried("forward", "cut.pcap", "-w", "out.pcap").returncode == 2
    expected = [frame.ljust(60, b"\0") for frame in frames_in(DATA / "mixed.pcap")[:15]]
    assert frames_in(tmp_path / "out.pcap") == expected


def test_a_clock_that_steps_back_is_told(tried: Try, tmp_path: Path) -> None:
    write_capture(tmp_path / "in.pcap", [bytes(60)] * 3, [9 * SECOND, 5 * SECOND, 7 * SECOND])
    done = tried("forward", "in.pcap", "-w", "out.pcap")
    assert "the clock of the capture steps back: 1 of 3 frames have a time stamp" in done.stdout
    assert list(read_capture(tmp_path / "out.pcap").times) == [
        9 * SECOND,
        5 * SECOND,
        7 * SECOND,
    ]


# -- several captures --------------------------------------------------------------------------


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """a.pcap and b.pcap.gz with times that alternate, and a plugin that writes down the port."""
    (tmp_path / "witness.py").write_text(WITNESS)
    write_capture(tmp_path / "a.pcap", [b"aa" * 30] * 3, [SECOND, 3 * SECOND, 5 * SECOND])
    write_capture(tmp_path / "b.pcap", [b"bb" * 30] * 3, [2 * SECOND, 3 * SECOND, 4 * SECOND])
    packed = gzip.compress((tmp_path / "b.pcap").read_bytes())
    (tmp_path / "b.pcap.gz").write_bytes(packed)
    return tmp_path


def test_several_captures_arrive_at_their_ports_by_their_times(tried: Try, two: Path) -> None:
    done = tried("./witness.py:Witness", "wan=a.pcap", "lan=b.pcap.gz", "-w", "out.pcap")
    assert done.returncode == 0, done.stderr
    assert " on a.pcap and b.pcap.gz: 6 packets, 360 bytes\n" in done.stdout
    assert "  received by port: wan 3, lan 3\n" in done.stdout
    assert "  sent by port: wan 3, lan 3\n" in done.stdout
    out = read_capture(two / "out.pcap")
    pairs = zip(out.times, out.frames, strict=True)
    seen = [(time // SECOND, frame[0], chr(frame[1])) for time, frame in pairs]
    assert seen == [(1, 0, "a"), (2, 1, "b"), (3, 0, "a"), (3, 1, "b"), (4, 1, "b"), (5, 0, "a")]


@pytest.mark.skipif(not shutil.which("mergecap"), reason="mergecap (wireshark) is missing")
def test_mergecap_merges_in_the_same_order(tried: Try, two: Path) -> None:
    write_capture(two / "a.pcap", [b"a%03d" % n * 15 for n in range(500)], range(0, 5000, 10))
    write_capture(two / "b.pcap", [b"b%03d" % n * 15 for n in range(500)], range(1, 7001, 14))
    done = tried("drop", "wan=a.pcap", "lan=b.pcap")
    assert done.returncode == 0, done.stderr
    script = (
        "mergecap -F nsecpcap -w merged.pcap a.pcap b.pcap && ringline try forward wan=a.pcap "
        'lan=b.pcap -o \'map={wan="wan",lan="lan"}\' -w out.pcap'
    )
    done = tried(script=script)
    assert done.returncode == 0, done.stderr
    merged, out = read_capture(two / "merged.pcap"), read_capture(two / "out.pcap")
    assert out.times == merged.times
    assert list(out.frames) == list(merged.frames)


def test_ports_without_a_capture_and_their_order(tried: Try, two: Path) -> None:
    done = tried("./witness.py:Witness", "lan=b.pcap", "--ports", "wan,lan,dmz", "-w", "out.pcap")
    assert done.returncode == 0, done.stderr
    assert "  sent by port: wan 0, lan 3, dmz 0\n" in done.stdout
    assert {frame[0] for frame in read_capture(two / "out.pcap").frames} == {1}


def test_a_file_whose_name_looks_like_a_port_is_a_file(tried: Try, two: Path) -> None:
    (two / "wan=a.pcap").write_bytes((two / "b.pcap").read_bytes())
    assert "on wan=a.pcap: 3 packets" in tried("forward", "wan=a.pcap").stdout
    (two / "wan=a.pcap").unlink()
    done = tried("forward", "wan=a.pcap")
    assert "on a.pcap: 3 packets" in done.stdout


def test_errors_name_the_port_of_the_frame(tried: Try, two: Path) -> None:
    write_capture(two / "b.pcap", [b"\x01" * 60, b"\xee" * 60], [0, 2 * SECOND])
    done = tried("./witness.py:Witness", "wan=a.pcap", "lan=b.pcap")
    assert done.returncode == 2
    assert "frame 2: received by port lan: ValueError: oh" in done.stderr
    (two / "hang.py").write_text("class H:\n    def process(self, batch):\n        exit(3)\n")
    done = tried("./hang.py:H", "wan=a.pcap", "lan=b.pcap")
    assert done.returncode == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["wan=a.pcap", "b.pcap"], "b.pcap has no port: with several captures name the port of"),
        (["wan=a.pcap", "wan=b.pcap"], "port wan has two captures; merge them first: mergecap"),
        (["wan=a.pcap", "lan=b.pcap", "--ports", "wan"], "lan=b.pcap: --ports names no port lan"),
        (["wan=-", "lan=/dev/stdin"], "only one capture can come from standard input"),
        (["wan=a.pcap", "lan=none"], "none: there is no such capture file"),
        (["wan=a.pcap", "lan=."], ".: is a directory; name a capture file in it"),
        (["wan=a.pcap", "lan=b.pcap", "-w", "b.pcap"], "b.pcap is the capture that is read"),
    ],
)
def test_captures_that_do_not_fit_together_are_named(
    tried: Try, two: Path, arguments: list[str], told: str
) -> None:
    done = tried("forward", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"ringline: {told}")
    assert done.stderr.count("\n") == 1


# -- memory ------------------------------------------------------------------------------------

# Writes a capture of `count` frames of 1,500 bytes to standard output.
MAKER = """
import struct, sys
count = int(sys.argv[1])
out = sys.stdout.buffer
out.write(struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1))
piece = (struct.pack("<IIII", 5, 0, 1500, 1500) + bytes(1500)) * 100
for _ in range(count // 100):
    out.write(piece)
"""

# Runs a command and prints the largest resident memory of any of its processes, in KiB.
PEAK = """
import json, resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdin=sys.stdin, capture_output=True, text=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(json.dumps({"peak": used, "out": done.stdout, "error": done.stderr, "code": done.returncode}))
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_capture(tried: Try, tmp_path: Path) -> None:
    """6 GB in proof mode, through a pipe; the plugin is in C, so numba is not loaded."""
    (tmp_path / "maker.py").write_text(MAKER)
    (tmp_path / "peak.py").write_text(PEAK)
    peaks = {}
    for frames in (1000, 4_000_000 if PROOF else 100_000):
        script = (
            f"{sys.executable} maker.py {frames} | "
            f"{sys.executable} peak.py ringline try mac_swap - -w /dev/null"
        )
        done = tried(script=script)
        told = json.loads(done.stdout)
        assert told["code"] == 0, told["error"]
        assert f"forwarded {frames:,}, written to /dev/null, dropped 0" in told["out"]
        peaks[frames] = told["peak"]
    small, large = peaks.values()
    assert large < small + 40_000, "KiB: the capture had 150 MB or more"
    assert large < 200_000
