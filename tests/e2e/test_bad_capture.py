"""Captures that cannot be replayed, and recordings that cannot be written."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ringline.workers.captures.captures import read_capture

from .operator_harness import ONE_QUEUE, Operator, as_nobody, in_mount_namespace

pytestmark = pytest.mark.slow

DATA = Path(__file__).parents[1] / "data"
MIXED = (DATA / "mixed.pcap").read_bytes()
SECTIONS = (DATA / "sections.pcapng").read_bytes()
GZIP = gzip.compress(MIXED)
LINK_TYPE = slice(20, 24)  # bytes of the pcap header
FIRST_LENGTH = slice(32, 36)  # bytes with the captured length of the first packet


def with_bytes(where: slice, value: int) -> bytes:
    changed = bytearray(MIXED)
    changed[where] = value.to_bytes(4, "little")
    return bytes(changed)


def not_there(path: Path) -> None:
    """Make no file."""


def content(data: bytes) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(data)


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (not_there, "there is no such capture file (looked from FOLDER)"),
    "empty": (content(b""), "is empty; a capture has at least a header"),
    "without packets": (content(MIXED[:24]), "holds no packet, so there is nothing to replay"),
    "cut in its header": (content(MIXED[:10]), "ends after 10 of the 24 bytes that every pcap"),
    "cut": (content(MIXED[:5000]), "packet 16, at byte 4092, ends after 892 of its 1514 bytes; "),
    "cut pcapng": (content(SECTIONS[:3000]), "the block at byte 2852, after 13 good packets, ends"),
    "of another link type": (
        content(with_bytes(LINK_TYPE, 113)),
        "has link type 113 (Linux cooked capture v1), and only Ethernet (1) can be replayed to a "
        "network card; capture on an Ethernet interface, or use ringline try, which makes up",
    ),
    "damaged": (content(with_bytes(FIRST_LENGTH, 0x7FFFFFFF)), "claims to hold 2147483647 bytes"),
    "a text": (
        content(b"root:x:0:0:root:/root:/bin/bash\n" * 9),
        "is not a capture: it does not begin",
    ),
    "compressed and cut": (
        content(GZIP[: len(GZIP) // 2]),
        f"its gzip data ends too early, after {len(GZIP) // 2} bytes, after ",
    ),
    "compressed with something behind": (
        content(GZIP + b"and so on"),
        f"something that is not gzip follows its compressed data, at byte {len(GZIP)}; remove it",
    ),
    "compressed in a way that nobody reads": (
        content(b"\x1f\x9d\x90" + bytes(60)),
        "is compressed with compress, which ringline does not read; decompress it first: unco",
    ),
    "a folder": (Path.mkdir, "is a directory; name a capture file in it"),
    "a pipe": (os.mkfifo, "is not a regular file; a capture must be one"),
}


def replaying(operator: Operator, wire: str, more: str = "") -> Path:
    return operator.write(f"{ONE_QUEUE}wire = {{ {wire} }}\n{more}")


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_capture_is_refused_before_anything_starts(operator: Operator, kind: str) -> None:
    make, told = BAD[kind]
    capture = operator.folder / "in.pcap"
    make(capture)
    path = replaying(operator, 'replay = "in.pcap"')
    ended = operator.run("run", path)
    assert ended.code == 2
    assert len(ended.sentences) == 1, ended.errors
    assert ended.last.startswith(f"{path}: port.wan.wire.replay: {capture}: ")
    assert told.replace("FOLDER", str(operator.folder)) in ended.last


@pytest.mark.parametrize("kind", ["missing", "cut", "a pipe"])
def test_check_and_try_report_the_same(operator: Operator, kind: str) -> None:
    make, told = BAD[kind]
    make(operator.folder / "in.pcap")
    told = told.replace("FOLDER", str(operator.folder))
    assert told in operator.refused(2, "check", replaying(operator, 'replay = "in.pcap"'))
    assert told in operator.refused(2, "try", "forward", "in.pcap")


def test_a_long_capture_that_is_damaged_ends_the_run(operator: Operator) -> None:
    """The file is too long to be checked before the start: the wire finds the damage."""
    packets = MIXED[24:]
    (operator.folder / "in.pcap").write_bytes(
        MIXED[:24] + packets * ((65 << 20) // len(packets)) + packets[:-5]
    )
    ended = operator.run("run", replaying(operator, 'replay = "in.pcap"'))
    assert ended.code == 2
    assert ended.last.startswith(f"{operator.folder}/in.pcap: packet ")
    assert "The file is damaged or was not written to its end: copy it again" in ended.last
    assert len(ended.sentences) == 2, ended.errors  # the start, and the reason for the end


@pytest.mark.parametrize("process", ["false", "true"])
@pytest.mark.parametrize("cut", ["refuse", "play"])
def test_a_capture_that_is_not_kept_and_cut_ends_the_run_in_order(
    operator: Operator, process: str, cut: str
) -> None:
    """300 MB of holes and zeros, read while they are sent: frames of 262,144 bytes, which the card
    drops, and 194 that it forwards."""
    with open(operator.folder / "in.pcap", "wb") as file:
        file.write(MIXED)
        for _ in range(1200):
            file.write(bytes(8) + 2 * (1 << 18).to_bytes(4, "little"))
            file.seek(1 << 18, os.SEEK_CUR)
        file.write(bytes(9))
    path = replaying(operator, f'replay = "in.pcap", cut = "{cut}"', f"process = {process}\n")
    ended = operator.run("run", path, "--report", "report.json")
    report = json.loads((operator.folder / "report.json").read_text())
    port = report["ports"]["wan"]
    assert not any(report["balance"].values()), report["balance"]
    assert port["received"]["packets"] == port["forwarded"] == 194
    if cut == "play":
        assert ended.code == 0
        assert port["card_drops"]["oversize"] == 1200
    else:
        assert ended.code == 2
        assert port["card_drops"]["oversize"] == 1200
        assert ended.last.startswith(f"{operator.folder}/in.pcap: packet 1395, at byte 3")
        assert "ends after 9 bytes of its header; the 1394 before it are good" in ended.last
        assert report["exit"] == {"code": 2, "reason": ended.last}


def test_a_capture_that_may_not_be_read_is_refused(open_operator: Operator) -> None:
    capture = open_operator.folder / "in.pcap"
    capture.write_bytes(MIXED)
    capture.chmod(0)
    path = replaying(open_operator, 'replay = "in.pcap"')
    within = as_nobody() if os.geteuid() == 0 else []
    assert open_operator.refused(2, "run", path, within=within) == (
        f"{path}: port.wan.wire.replay: {capture}: cannot be read: Permission denied"
    )


NOT_WRITABLE = {
    "none/out.pcap": "there is no folder FOLDER/none",
    ".": "FOLDER is a folder; name a file in it",
    "in.pcap": "FOLDER/in.pcap is the capture that is replayed; record to another file",
    "link.pcap": "FOLDER/link.pcap is the capture that is replayed; record to another file",
}


@pytest.mark.parametrize("record", NOT_WRITABLE)
def test_a_recording_that_cannot_be_made_is_refused(operator: Operator, record: str) -> None:
    (operator.folder / "in.pcap").write_bytes(MIXED)
    (operator.folder / "link.pcap").symlink_to("in.pcap")
    path = replaying(operator, f'replay = "in.pcap", record = "{record}"')
    told = NOT_WRITABLE[record].replace("FOLDER", str(operator.folder))
    for command in ("run", "check"):
        sentence = operator.refused(2, command, path)
        assert sentence == f"{path}: port.wan.wire.record: {told}"
    assert (operator.folder / "in.pcap").read_bytes() == MIXED


def test_a_trial_reports_a_file_that_it_cannot_write(operator: Operator) -> None:
    arguments = ("try", "forward", DATA / "mixed.pcap", "-w")
    assert operator.refused(2, *arguments, "none/out.pcap") == (
        "none/out.pcap: cannot be written: No such file or directory"
    )
    assert operator.refused(2, *arguments, ".") == ".: cannot be written: Is a directory"
    assert "No space left on device; make room or record elsewhere" in (
        operator.refused(3, *arguments, "/dev/full")
    )


def test_a_trial_overwrites_only_captures_of_ringline(operator: Operator) -> None:
    (operator.folder / "in.pcap").write_bytes(MIXED)
    (operator.folder / "link.pcap").hardlink_to(operator.folder / "in.pcap")
    operator.write("of great value", "notes")
    (operator.folder / "other.pcap").write_bytes(MIXED)
    os.mkfifo(operator.folder / "pipe")
    for out, told in (
        ("in.pcap", "in.pcap is the capture that is read; write to another file"),
        ("link.pcap", "link.pcap is the capture that is read; write to another file"),
        ("notes", "notes exists and is not a capture that ringline wrote; remove it, or choose"),
        ("other.pcap", "other.pcap exists and is not a capture that ringline wrote"),
        ("pipe", "pipe is a pipe or a socket; choose a regular file"),
    ):
        sentence = operator.refused(2, "try", "forward", "in.pcap", "-w", out)
        assert sentence.startswith(told)
    assert (operator.folder / "in.pcap").read_bytes() == MIXED
    assert (operator.folder / "other.pcap").read_bytes() == MIXED
    for _ in range(2):
        assert operator.run("try", "forward", "in.pcap", "-w", "out.pcap").code == 0
    path = replaying(operator, 'replay = "in.pcap", record = "out.pcap"')
    assert operator.run("run", path).code == 0
    assert operator.run("try", "forward", "in.pcap", "-w", "out.pcap").code == 0


FULL = {
    "at its end": ("flows = { packets = 9000 }, ", ""),
    "on the way": ("flows = {}, ", ""),
    "in another process": ("flows = {}, ", "process = true\n"),
}


@pytest.mark.parametrize("when", FULL)
def test_a_disk_that_fills_up_ends_the_run_in_order(operator: Operator, when: str) -> None:
    wire, more = FULL[when]
    (operator.folder / "small").mkdir()
    path = replaying(operator, f'{wire}record = "small/out.pcap"', more)
    copy = "cp small/out.pcap kept.pcap"  # the small disk ends with the namespace
    within = in_mount_namespace("mount -t tmpfs -o size=200k none small", afterwards=copy)
    ended = operator.run("run", path, "--report", "report.json", within=within)
    assert ended.code == 3
    assert ended.last.startswith(f"port wan: {operator.folder}/small/out.pcap: recording ended ")
    assert ended.last.endswith(": No space left on device; make room, or record elsewhere")
    report = json.loads((operator.folder / "report.json").read_text())
    port = report["ports"]["wan"]
    assert report["exit"] == {"code": 3, "reason": ended.last}
    assert not any(report["balance"].values()), report["balance"]
    assert port["received"] == port["transmitted"]
    assert port["in_flight"] == 0
    assert not any(port["drops"].values()), port["drops"]
    kept = read_capture(operator.folder / "kept.pcap")  # every recorded packet is complete
    assert len(kept) == port["wire"]["recorded"] < port["wire"]["transmitted"]
