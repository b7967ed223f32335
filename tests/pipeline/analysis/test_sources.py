"""Which captures the arguments of an analysis name."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ringline.pipeline.analysis.sources import looked_at, paths_of
from ringline.shm.errors import UsageError


@pytest.fixture
def folder(tmp_path: Path, capture: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """a.pcap, b.pcap, in/c.pcap, and a file that is no capture."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    for number, name in enumerate(("b.pcap", "a.pcap", "in/c.pcap")):
        capture(name, b"abc", begin=number)
    (tmp_path / "notes.txt").write_text("no capture")
    return tmp_path


@pytest.mark.parametrize(
    ("given", "paths"),
    [
        (["a.pcap"], ["a.pcap"]),
        (["."], ["./a.pcap", "./b.pcap", "./in/c.pcap"]),
        (["?.pcap"], ["a.pcap", "b.pcap"]),
        (["**/*.pcap"], ["a.pcap", "b.pcap", "in/c.pcap"]),
        (["b.pcap", "in", "./b.pcap"], ["b.pcap", "in/c.pcap"]),
    ],
)
def test_files_folders_and_patterns(folder: Path, given: list[str], paths: list[str]) -> None:
    assert paths_of(given) == paths


def test_a_list_is_relative_to_its_folder(folder: Path) -> None:
    (folder / "in" / "list").write_text("# of today\n\nc.pcap\n../a.pcap\n  ../b*\n@more\n")
    (folder / "in" / "more").write_text(f"{folder}/b.pcap\n")
    assert paths_of(["@in/list"]) == ["in/c.pcap", "in/../a.pcap", "in/../b.pcap"]


def test_a_list_names_a_file_with_any_letters(folder: Path) -> None:
    odd = folder / "a[1]"
    odd.mkdir()
    (folder / "a.pcap").rename(odd / "one\u2028line.pcap")
    (folder / "b.pcap").rename(odd / "b[2].pcap")
    (odd / "list").write_bytes(b"\xef\xbb\xbfone\xe2\x80\xa8line.pcap\r\nb[2].pcap\r\n*.pcap\r\n")
    assert paths_of(["@a[1]/list"]) == ["a[1]/one\u2028line.pcap", "a[1]/b[2].pcap"]
    (odd / "list").write_text("b*.pcap")
    assert paths_of(["@a[1]/list"]) == ["a[1]/b[2].pcap"]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("none.pcap", "none.pcap: there is no such capture, folder or list (looked from "),
        ("none*", "none*: no file has such a name"),
        ("", "the name of a capture is empty"),
        ("-", "none can come from standard input"),
        ("/dev/stdin", "none can come from standard input: name a file, or write it to one first"),
        ("/dev/fd/3", "none can come from /dev/fd/3"),
        ("@none", "none: the list cannot be read: No such file or directory"),
        ("@bad", "bad, line 2: gone.pcap: there is no such capture"),
        ("@loop", "the list names itself"),
        ("@binary", "the list cannot be read: it is not UTF-8"),
        ("empty", "empty: there is no capture in this folder"),
    ],
)
def test_one_sentence_for_each_mistake(folder: Path, given: str, sentence: str) -> None:
    (folder / "empty").mkdir()
    (folder / "bad").write_text("a.pcap\ngone.pcap\n")
    (folder / "loop").write_text("@loop\n")
    (folder / "binary").write_bytes(b"\xff\xfe\n")
    with pytest.raises(UsageError, match=re.escape(sentence)) as raised:
        paths_of([given])
    assert "\n" not in str(raised.value)


def test_captures_come_in_the_order_of_their_first_packets(folder: Path) -> None:
    (folder / "broken.pcap").write_bytes(b"\xd4\xc3\xb2\xa1")
    (folder / "empty.pcap").write_bytes(b"")
    found, broken = looked_at(
        ["a.pcap", "b.pcap", "in/c.pcap", "broken.pcap", "empty.pcap"], to_cut=False
    )
    assert [os.path.basename(source.path) for source in found] == ["b.pcap", "a.pcap", "c.pcap"]
    assert all(source.is_plain and source.bytes > 300 for source in found)
    assert "ends after 4 of the 24 bytes" in broken["broken.pcap"]
    assert "is empty" in broken["empty.pcap"]
