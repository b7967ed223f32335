"""`ringline try` with pipes and descriptors as input and output, and what it prints of packets."""

from __future__ import annotations

import os
import pty
import subprocess
import threading
import time
from pathlib import Path

import pytest

from ringline.workers.captures.captures import read_capture, write_capture

FRAMES = [bytes([n]) * 60 for n in range(1, 4)]
TIMEOUT = 120  # seconds until a command counts as hanging


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    path = tmp_path / "in.pcap"
    write_capture(path, FRAMES)
    return path


def shell(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a script of bash in `folder`."""
    return subprocess.run(
        ["bash", "-c", script],
        check=False,
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=TIMEOUT,
    )


def frames_in(path: Path) -> list[bytes]:
    return [bytes(frame) for frame in read_capture(path).frames]


@pytest.mark.parametrize(
    "script",
    [
        "ringline try forward in.pcap -w /dev/fd/3 3> out.pcap",
        "ringline try forward in.pcap -w /dev/stdout > out.pcap",
        "ringline try forward in.pcap -w - > out.pcap",
        "ringline try forward in.pcap -w - | cat > out.pcap",
        "ringline try forward in.pcap -w >(cat > out.pcap); wait $!",
        "ringline try forward <(cat in.pcap) -w out.pcap",
        "ringline try forward - -w out.pcap < in.pcap",
        "cat in.pcap | ringline try forward /dev/stdin -w out.pcap",
        "cat in.pcap | ringline try forward - -w - | ringline try forward - -w out.pcap",
        "{ printf x; ringline try forward in.pcap -w /dev/fd/3; } 3> out.pcap > /dev/null",
    ],
)
def test_captures_come_and_go_through_descriptors(
    capture: Path, tmp_path: Path, script: str
) -> None:
    done = shell(script, tmp_path)
    assert done.returncode == 0, done.stderr
    assert frames_in(tmp_path / "out.pcap") == FRAMES
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.pcap", "out.pcap"]


def test_the_summary_goes_to_standard_error_when_the_capture_goes_to_standard_output(
    capture: Path, tmp_path: Path
) -> None:
    done = shell("ringline try forward in.pcap -w - | cat > out.pcap", tmp_path)
    assert "forwarded 3, written to standard output, dropped 0" in done.stderr
    done = shell("ringline try forward in.pcap -w /dev/fd/3 3> out.pcap", tmp_path)
    assert "forwarded 3, written to /dev/fd/3, dropped 0" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("ringline try forward in.pcap -w /dev/fd/9", "/dev/fd/9 cannot be written: Bad file"),
        ("ringline try forward /dev/fd/9", "/dev/fd/9: cannot be read: Bad file descriptor"),
        ("ringline try forward - < /etc/passwd", "standard input: is not a capture"),
        ("ringline try forward - < /dev/null", "standard input: is empty"),
        ("ringline try forward in.pcap -w - >&-", "- cannot be written: it is closed"),
        (
            "ringline try forward in.pcap -w /dev/fd/3 3< in.pcap",
            "/dev/fd/3 cannot be written: it is open for reading only",
        ),
        (
            "ringline try forward in.pcap -w - >> in.pcap",
            "- is the capture that is read; write to another file",
        ),
        (
            "ringline try forward - -w /dev/fd/3 < in.pcap 3<> in.pcap",
            "/dev/fd/3 is the capture that is read; write to another file",
        ),
        (
            "ringline try forward wan=/dev/fd/3 lan=/dev/fd/3 3< in.pcap",
            "only one capture can come from /dev/fd/3",
        ),
        (
            "ringline try forward wan=- lan=/dev/stdin < in.pcap",
            "only one capture can come from standard input",
        ),
        ("ringline try forward $'a\\nb'", "a\\nb: there is no such capture file"),
        ("ringline try forward $'/dev\\n'", "/dev\\n: there is no such capture file"),
        (
            "echo x > $'a\\nb'; ringline try forward $'a\\nb'",
            "a\\nb: is not a capture: it does not begin like pcap or pcapng",
        ),
        (
            "ringline try forward in.pcap -w $'none\\n/b'",
            "none\\n/b: cannot be written: No such file or directory",
        ),
        ("ringline try forward ''", "the name of the capture is empty; write the path of a file"),
        ("ringline try forward in.pcap -w ''", "-w needs the path of a file, not an empty one"),
    ],
)
def test_descriptors_that_do_not_serve_are_named(
    capture: Path, tmp_path: Path, script: str, told: str
) -> None:
    done = shell(script, tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"ringline: {told}")
    assert done.stderr.count("\n") == 1
    assert frames_in(capture) == FRAMES


def test_a_reader_that_goes_away_is_named(capture: Path, tmp_path: Path) -> None:
    done = shell("ringline try forward in.pcap -w - | true; exit ${PIPESTATUS[0]}", tmp_path)
    assert done.returncode == 3
    assert "standard output: recording stopped after 0 frames: Broken pipe; the program" in (
        done.stderr
    )


def test_pipes_that_never_block_are_waited_for(tmp_path: Path) -> None:
    frames = [bytes([n]) * 1000 for n in range(1, 200)]  # more than a pipe holds
    write_capture(tmp_path / "in.pcap", frames)
    content = (tmp_path / "in.pcap").read_bytes()
    (in_read, in_write), (out_read, out_write) = os.pipe(), os.pipe()
    os.set_blocking(in_read, False)
    os.set_blocking(out_write, False)
    with subprocess.Popen(
        ["ringline", "try", "forward", "-", "-w", "-"],
        stdin=in_read,
        stdout=out_write,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        os.close(in_read)
        os.close(out_write)
        time.sleep(1)  # it finds an empty pipe meanwhile; without this the test shows less
        feeder = threading.Thread(target=feed, args=(in_write, content))
        feeder.start()
        time.sleep(1)  # it finds a full pipe meanwhile
        with os.fdopen(out_read, "rb") as out:
            (tmp_path / "out.pcap").write_bytes(out.read())
        told = process.communicate(timeout=TIMEOUT)[1]
        feeder.join()
    assert process.returncode == 0, told
    assert frames_in(tmp_path / "out.pcap") == frames


def feed(descriptor: int, content: bytes) -> None:
    with os.fdopen(descriptor, "wb") as pipe:
        pipe.write(content)


def test_a_terminal_gets_no_capture(capture: Path) -> None:
    main, terminal = pty.openpty()
    done = subprocess.run(
        ["ringline", "try", "forward", str(capture), "-w", "-"],
        check=False,
        stdout=terminal,
        stderr=subprocess.PIPE,
        text=True,
        timeout=TIMEOUT,
    )
    os.close(terminal)
    os.close(main)
    assert done.returncode == 2
    assert done.stderr == (
        "ringline: - is a terminal, which cannot show a capture; write to a file\n"
    )


LABELS = """
class Labels:
    def setup(self, worker):
        self.table = worker.table("hosts", "host", ["n"], 8)

    def process(self, batch):
        for packet in batch:
            packet.verdict = packet.port
            text = bytes(packet.data[14:]).decode("latin-1")
            self.table.write([(text, [1])])
            if packet.data[0] == 2:
                raise ValueError(text)
"""


def test_bytes_of_packets_do_not_reach_the_terminal(tmp_path: Path) -> None:
    evil = b"\x1b]0;owned\x07\x1b[2J\nringline: forged\r\x9b31m\x00".ljust(46, b"\x85")
    (tmp_path / "labels.py").write_text(LABELS)
    write_capture(tmp_path / "in.pcap", [bytes([n]) * 14 + evil for n in (1, 2)])
    done = shell("ringline try ./labels.py:Labels in.pcap", tmp_path)
    assert done.returncode == 2
    for output in (done.stdout, done.stderr):
        assert "owned" in output
        assert all(line.isprintable() for line in output.split("\n"))
        assert not any(line.startswith("ringline: forged") for line in output.split("\n"))


TABLE = """
class Counts:
    def setup(self, worker):
        self.table = worker.table("lengths", "length", ["packets", "total"], 20)
        worker.table("nothing", "key", ["n"], 4)
        self.seen = worker.counter("seen")

    def process(self, batch):
        rows = [(f"{n} bytes", [n * n, n]) for n in range(1, 16)]
        self.table.write([("a long label", [1234567, 5]), *rows])
        self.seen.add(1234567)
"""


def test_a_table_has_headings_and_aligned_columns(capture: Path, tmp_path: Path) -> None:
    (tmp_path / "counts.py").write_text(TABLE)
    done = shell("ringline try ./counts.py:Counts in.pcap", tmp_path)
    assert done.returncode == 0, done.stderr
    assert (
        "  lengths:\n"
        "    length          packets  total\n"
        "    a long label  1,234,567      5\n"
        "    1 bytes               1      1\n"
        "    2 bytes               4      2\n"
    ) in done.stdout
    assert "    9 bytes              81      9\n    and 6 more\n" in done.stdout
    assert "  nothing:\n    key  n\n" in done.stdout
    assert "  seen: 1,234,567\n" in done.stdout
