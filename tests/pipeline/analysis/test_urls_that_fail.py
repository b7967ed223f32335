"""Each thing that is wrong with a URL is one sentence, and costs only its capture."""

from __future__ import annotations

import builtins
import json
import os
import random
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.http import HTTPFile

from ringline.pipeline.analysis import run, sources, urls
from ringline.pipeline.commands import cli
from ringline.pipeline.configuration import deadlines
from ringline.shm.errors import UsageError
from ringline.workers.captures.capture_table import CaptureError, Tally
from ringline.workers.captures.captures import CaptureReader
from ringline.workers.captures.files import remote
from ringline.workers.captures.files.access import Access

from ...data import make
from . import url_servers
from .conftest import START, flows
from .url_servers import Content

SECRET = "a-secret-that-nobody-sees"
KEYS = {"key": "a-key", "secret": SECRET}


@pytest.fixture(autouse=True)
def _no_other_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in url_servers.AWS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def content() -> Content:
    made = Content()
    made.files["/bucket/a.pcap"] = make.pcap(flows(1, 2000, START))
    made.files["/bucket/b.pcap"] = make.pcap(flows(2, 20, START + 10**9))
    return made


@pytest.fixture
def server(content: Content) -> Iterator[str]:
    with url_servers.ranges(content) as url:
        yield url


def at_once(content: Content, fault: str | int, times: int = 1) -> None:
    """The first `times` requests for the content of a.pcap fail, those behind its first block."""

    def before(method: str, path: str, wanted: str) -> str | int | None:
        nonlocal times
        if (
            times
            and method == "GET"
            and path.endswith("a.pcap")
            and not wanted.endswith("=0-65535")
        ):
            times -= 1
            return fault
        return None

    content.before = before


def read(url: str, **more: Any) -> int:
    """How many packets the capture at `url` has."""
    with CaptureReader(Tally(url), access=urls.access_of(more.get("storage"))) as reader:
        return sum(1 for _ in reader)


def sentence_of(url: str, **more: Any) -> str:
    with pytest.raises((CaptureError, UsageError)) as raised:
        read(url, **more)
    words = str(raised.value)
    assert "\n" not in words
    assert SECRET not in words
    return words


# What is asked for


def test_only_the_range_of_a_piece_is_asked_for(content: Content, server: str) -> None:
    content.files["/big.pcap"] = make.pcap([(START, bytes(1400))] * 4000)
    size = len(content.files["/big.pcap"])
    access = urls.access_of(None)
    tally = Tally(f"{server}/big.pcap")
    with CaptureReader(tally, any_link=True, access=access) as reader:
        content.asked.clear()
        reader.source.expect(size // 4)
        reader.source.seek(size // 8)
        reader.source.need(0, size // 8 + 100)
    ranges = [list(map(int, it.removeprefix("bytes=").split("-"))) for _, _, it in content.asked]
    assert ranges[0][0] == size // 8
    assert max(last for _, last in ranges) <= size // 4 + 2 * remote.FIRST_BYTES
    assert [first for first, _ in ranges[1:]] == [last + 1 for _, last in ranges[:-1]]


def test_a_block_that_is_not_needed_any_more_does_not_disturb_the_next(
    content: Content, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read ahead, in another thread, while the reader goes on elsewhere."""
    data = random.Random(1).randbytes(2 << 20)
    content.files["/a"] = data
    file = remote.RemoteFile(Tally(f"{server}/a"), urls.access_of(None))
    second, ahead, elsewhere = remote.FIRST_BYTES, 9 * remote.FIRST_BYTES, 24 * remote.FIRST_BYTES
    moved, moved_back = threading.Event(), threading.Event()
    seek = HTTPFile.seek

    def late(self: HTTPFile, to: int) -> None:
        """The reader moves the file elsewhere, then the other thread moves it back."""
        if to == ahead:
            moved.wait(0.5)
        seek(self, to)
        if to == elsewhere:
            moved.set()
            moved_back.wait(0.5)
        if to == ahead:
            moved_back.set()

    monkeypatch.setattr(HTTPFile, "seek", late)
    for at in (0, second, elsewhere):
        file.seek(at)
        piece = file.read()
        assert piece == data[at : at + len(piece)]
    assert moved_back.is_set()
    file.close()


def test_a_file_that_is_small_is_asked_for_once(content: Content, server: str) -> None:
    assert read(f"{server}/bucket/b.pcap") == 20
    assert [method for method, _, _ in content.asked] == ["HEAD", "GET"]


# Faults of a server


@pytest.mark.parametrize("fault", ["cut", 503])
def test_what_fails_for_a_moment_is_asked_for_again(
    content: Content, server: str, fault: str | int
) -> None:
    at_once(content, fault, times=2)
    assert read(f"{server}/bucket/a.pcap") == 2000


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("cut", "cannot be read at byte 65536, 3 times: the connection broke"),
        (503, "cannot be read at byte 65536, 3 times: its server answers with status 503"),
        (403, "cannot be read at byte 65536: access is denied (status 403)"),
        (404, "cannot be read at byte 65536: there is no such file"),
    ],
)
def test_what_fails_always_costs_its_capture(
    content: Content, server: str, fault: str | int, words: str
) -> None:
    at_once(content, fault, times=1000)
    url = f"{server}/bucket/a.pcap"
    assert sentence_of(url).startswith(f"{url}: {words}")
    if fault == "cut":
        result = run("flow_stats", [url, f"{server}/bucket/b.pcap"], workers=1)
        assert [it["packets"] for it in result.captures] == [20]
        assert result.broken[url].startswith(f"{url}: {words}")


def test_a_server_that_says_nothing_has_a_deadline(
    content: Content, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "URL_ANSWER", 0.5)
    content.before = lambda *request: "silent"
    assert "its server gave no answer for 0.5 s" in sentence_of(f"{server}/bucket/a.pcap")
    monkeypatch.setattr(deadlines, "URL_ANSWER", 4.0)  # enough for the answers that come
    at_once(content, "silent", 1000)
    assert "at byte 65536: its server gave no answer" in sentence_of(f"{server}/bucket/a.pcap")


def test_a_file_that_is_replaced_meanwhile_is_named(content: Content, server: str) -> None:
    def before(method: str, path: str, wanted: str) -> None:
        if method == "GET" and path.endswith("a.pcap") and "=0-" not in wanted:
            content.files[path] = make.pcap(flows(7, 2000, START))

    content.before = before
    url, changed = f"{server}/bucket/a.pcap", "a.pcap: has changed while it was read: analyze it"
    result = run("flow_stats", [url], workers=1)
    assert changed in result.broken[url]
    content.files["/bucket/a.pcap"] = make.pcap(flows(1, 2000, START))
    assert changed in sentence_of(
        "s3://bucket/a.pcap", storage={"s3": {"endpoint_url": server, **KEYS}}
    )


# What is asked for wrongly


@pytest.mark.parametrize(
    ("status", "words"),
    [(403, "access is denied"), (404, "there is no such "), (500, "status 500")],
)
@pytest.mark.parametrize("scheme", ["http", "s3"])
def test_what_a_server_refuses(
    content: Content, server: str, scheme: str, status: int, words: str
) -> None:
    content.before = lambda *request: status
    if scheme == "http":
        assert words in sentence_of(f"{server}/bucket/a.pcap")
    else:
        storage = {"s3": {"endpoint_url": server, **KEYS}}
        assert words in sentence_of("s3://bucket/a.pcap", storage=storage)


@pytest.mark.parametrize(
    ("status", "words"),
    [(403, "access is denied"), (404, "no file has such a name|is no such file")],
)
@pytest.mark.parametrize("scheme", ["http", "s3"])
def test_a_pattern_in_a_folder_that_a_server_refuses(
    content: Content, server: str, scheme: str, status: int, words: str
) -> None:
    content.before = lambda *request: status
    access = urls.access_of({"s3": {"endpoint_url": server, **KEYS}})
    url = f"{server}/bucket/*.pcap" if scheme == "http" else "s3://bucket/*.pcap"
    with pytest.raises(UsageError) as raised:
        sources.paths_of([url], access)
    assert re.search(words, str(raised.value))


def test_a_host_that_is_not_there() -> None:
    with socket.socket() as taken:  # nobody listens on this port
        taken.bind(("127.0.0.1", 0))
        there = f"http://127.0.0.1:{taken.getsockname()[1]}"
        assert "its server cannot be reached" in sentence_of(f"{there}/a.pcap")
        storage = {"s3": {"endpoint_url": there, **KEYS}}
        words = sentence_of("s3://bucket/a.pcap", storage=storage)
        assert "its server cannot be reached" in words
        for url in ("s3://bucket/*.pcap", f"{there}/*.pcap", f"{there}/"):
            with pytest.raises(UsageError, match="its server cannot be reached"):
                sources.paths_of([url], urls.access_of(storage))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nothing://a/b.pcap", "fsspec knows no URLs nothing://"),
        ("memory://none/a.pcap", "there is no such file or folder"),
        ("memory://none/*.pcap", "no file has such a name"),
        ("memory://here/", "there is no capture in this folder"),
        ("@memory://here/list", "memory://here/list, line 1: /a.pcap: a list behind a URL names"),
        ("@memory://here/none", "memory://here/none: cannot be read: there is no such file"),
        ("@memory://here/binary", "memory://here/binary: the list cannot be read: it is not UTF-8"),
        ("@memory://here/loop", "the list names itself"),
    ],
)
def test_names_that_are_wrong(url: str, words: str) -> None:
    import fsspec

    system = fsspec.filesystem("memory")
    for name, text in {"list": b"/a.pcap", "loop": b"@loop", "binary": b"\xff\xfe"}.items():
        system.pipe_file(f"/here/{name}", text)
    try:
        with pytest.raises(UsageError, match=re.escape(words)) as raised:
            sources.paths_of([url])
        assert "\n" not in str(raised.value)
    finally:
        system.rm("/here", recursive=True)


@pytest.mark.parametrize(
    ("lacks", "url", "how"),
    [
        ("fsspec", "s3://bucket/a.pcap", "pip install 'ringline[urls]'"),
        ("s3fs", "s3://bucket/a.pcap", "pip install 'ringline[urls]'"),
        ("aiohttp", "https://host/a.pcap", "pip install 'ringline[urls]'"),
        ("gcsfs", "gs://bucket/a.pcap", "pip install gcsfs"),
    ],
)
def test_a_package_that_is_missing(
    lacks: str, url: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    real: Callable[..., Any] = builtins.__import__

    def without(name: str, *more: Any, **others: Any) -> Any:
        if name.partition(".")[0] == lacks:
            raise ModuleNotFoundError(f"No module named {lacks!r}", name=lacks)
        return real(name, *more, **others)

    for name in list(sys.modules):
        if name.partition(".")[0] == lacks or name in ("fsspec.implementations.http",):
            monkeypatch.delitem(sys.modules, name)
    if lacks != "fsspec":
        from fsspec.registry import _registry

        for scheme in ("s3", "https", "gs"):
            monkeypatch.delitem(_registry, scheme, raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    words = sentence_of(url)
    assert f"the package {lacks}, which reads" in words
    assert how in words


# Secrets


def test_passwords_and_signatures_are_not_shown(content: Content, server: str) -> None:
    content.before = lambda *request: 403
    host = server.removeprefix("http://")
    url = f"http://user:{SECRET}@{host}/a.pcap?X-Signature={SECRET}"
    words = sentence_of(url)
    assert words.startswith(f"http://user:***@{host}/a.pcap?(hidden ")
    found, broken = sources.looked_at([url], to_cut=False)
    assert not found
    assert SECRET not in str(broken)


def test_options_are_in_no_repr(content: Content, server: str) -> None:
    access = urls.access_of({"s3": {"endpoint_url": server, **KEYS}, "https": {}})
    found, _ = sources.looked_at(["s3://bucket/b.pcap"], to_cut=False, access=access)
    assert SECRET not in repr(found) + repr(access) + repr(found[0].access)
    job = found[0].access.of(found[0].path) if found[0].access else {}
    assert SECRET not in repr(job)
    assert json.loads(json.dumps(job))["options"] == {"s3": {"endpoint_url": server, **KEYS}}


def test_a_server_does_not_pay_for_a_slow_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slowly.py").write_text(
        "import time\n"
        "from fsspec.implementations.memory import MemoryFileSystem\n"
        "time.sleep(1.0)\n"
        "class Slowly(MemoryFileSystem):\n"
        "    protocol = 'slowly'\n"
        "Slowly().pipe_file('slowly://a.pcap', bytes(7))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    fsspec.register_implementation("slowly", "slowly.Slowly")
    file = remote.RemoteFile(Tally("slowly://a.pcap"), Access({}, 0.5))
    file.close()
    assert file.size == 7


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot be read: No such file or directory"),
        (f'{{"s3": {SECRET}', "cannot be read: it is not JSON"),
        (f'["{SECRET}"]', "has no object: write "),
    ],
)
def test_a_file_of_options_that_is_wrong(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "options"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=re.escape(words)) as raised:
        urls.options_in(os.fspath(path))
    assert SECRET not in str(raised.value)


def test_the_command_takes_options_and_shows_no_secret(
    content: Content, server: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = tmp_path / "options.json"
    options.write_text(json.dumps({"http": {"headers": {"Authorization": SECRET}}}))
    out = tmp_path / "out"
    given = ["analyze", "flow_stats", f"{server}/bucket/b.pcap?sign={SECRET}", "--workers", "1"]
    assert cli.main([*given, "--storage-options", str(options), "-w", str(out)]) == 0
    report = (out / "report.json").read_text()
    assert json.loads(report)["captures"][0]["path"].startswith(f"{server}/bucket/b.pcap?(")
    assert content.headers["Authorization"] == SECRET
    words = "".join(capfd.readouterr())
    assert "20 packets" in words
    assert SECRET not in report + words


def test_options_that_are_not_by_scheme() -> None:
    with pytest.raises(UsageError, match="must be an object for each scheme"):
        urls.access_of({"key": SECRET})
    with pytest.raises(UsageError, match="must be values of JSON"):
        urls.access_of({"s3": {"session": object()}})
