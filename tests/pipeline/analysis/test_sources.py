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


def test_links_to_folders_are_followed_and_each_file_is_found_once(
    folder: Path, capture: Callable[..., Path]
) -> None:
    (folder / "away" / "deep").mkdir(parents=True)
    capture("away/d.pcap", b"a")
    capture("away/deep/e.pcap", b"a")
    (folder / "away" / "back").symlink_to("../in")  # a loop
    (folder / "in" / "again").symlink_to(folder / "in")
    (folder / "in" / "ahead").symlink_to("../away")
    (folder / "in" / "b.pcap").symlink_to("c.pcap")
    (folder / "in" / "zero").symlink_to("/dev/zero")
    found = ["in/b.pcap", "in/ahead/d.pcap", "in/ahead/deep/e.pcap"]
    assert paths_of(["in"]) == found
    assert paths_of(["in", "away", "in/again/again"]) == found
    (folder / "link").symlink_to("in")
    assert paths_of(["link"]) == [it.replace("in/", "link/", 1) for it in found]
    (folder / "all").mkdir()
    (folder / "all" / "first").symlink_to("second")
    (folder / "all" / "second").mkdir()
    capture("all/second/f.pcap", b"a")
    assert paths_of(["all"]) == ["all/second/f.pcap"]  # its name without a link


def test_links_that_lead_nowhere_are_left_out_and_named(folder: Path) -> None:
    (folder / "in" / "gone.pcap").symlink_to("nowhere")
    (folder / "in" / "self").symlink_to("self")
    for given in (["in"], ["in/*"], ["i*"]):
        found, broken = looked_at(paths_of(given), to_cut=False)
        assert [it.path for it in found] == ["in/c.pcap"]
        assert broken == {
            "in/gone.pcap": "in/gone.pcap: is a link, and what it leads to is not there",
            "in/self": "in/self: cannot be read: Too many levels of symbolic links",
        }
    with pytest.raises(UsageError, match=r"in/gone\.pcap: there is no such capture"):
        paths_of(["in/gone.pcap"])


def test_a_link_to_a_folder_that_cannot_be_read_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "away").mkdir()
    (folder / "in" / "link").symlink_to("../away")
    scandir = os.scandir

    def fails(path: str) -> object:
        if str(path).endswith("link"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", fails)
    with pytest.raises(UsageError, match="in/link: cannot be read: Permission denied"):
        paths_of(["in"])


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
