"""An analysis of captures behind URLs gives what it gives for files, byte for byte."""

from __future__ import annotations

import gzip
import os
import posixpath
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import fsspec
import pytest

from ringline.pipeline.analysis import Result, run, sources, urls
from ringline.shm.errors import UsageError
from ringline.workers.captures.capture_table import Tally
from ringline.workers.captures.captures import CaptureReader

from ...data import make
from . import url_servers
from .conftest import START, flows, same

PROOF = os.environ.get("RINGLINE_PROOF") == "1"
DATA = Path(__file__).parents[2] / "data"
REAL = sorted(Path(os.environ.get("RINGLINE_CAPTURES", "/nonexistent")).glob("*.pcap*"))
KEYS = {"key": "a-key", "secret": "a-secret-that-nobody-sees"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Captures of several kinds, also in a folder, and a file that is none."""
    folder = tmp_path_factory.mktemp("captures")
    (folder / "in").mkdir()
    (folder / "large.pcap").write_bytes(make.pcap(flows(1, 4000, START)))
    (folder / "b.pcap.gz").write_bytes(gzip.compress(make.pcap(flows(2, 3000, START + 10**9))))
    (folder / "in" / "c.pcap").write_bytes(make.pcap(flows(3, 20, START + 2 * 10**9)))
    for name in ("mixed.pcap", "sections.pcapng", "big_endian.pcap"):
        (folder / name).write_bytes((DATA / name).read_bytes())
    (folder / "notes.txt").write_text("no capture")
    return folder


@pytest.fixture(autouse=True)
def _no_other_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in url_servers.AWS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def bucket(folder: Path) -> Iterator[dict[str, Any]]:
    """The captures in moto's S3, as s3://bucket/day/; the options that reach them."""
    with url_servers.s3() as endpoint, pytest.MonkeyPatch.context() as environment:
        for name, value in url_servers.AWS.items():
            environment.setenv(name, value)
        options = {"s3": {"endpoint_url": endpoint, **KEYS}}
        system = fsspec.filesystem("s3", **options["s3"])
        system.mkdir("bucket")
        for path in _files(folder):
            system.pipe_file(f"bucket/day/{path.relative_to(folder)}", path.read_bytes())
        listed = b"# of today\nday/large.pcap\n\nday/in\ns3://bucket/day/*.pcap*\n"
        system.pipe_file("bucket/list", listed)
        yield options


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def analyzed(given: list[str], **more: Any) -> Mapping[str, Any]:
    """The result, with the names of captures instead of their URLs."""
    result = run("flow_stats", given, workers=1, **more)
    assert result.broken == {}
    return _with_names(result)


def _with_names(result: Result) -> Mapping[str, Any]:
    def short(text: str, path: str) -> str:
        return text.replace(path, posixpath.basename(path))

    made = dict(same(result))
    made["captures"] = [
        {**it, "path": short(it["path"], it["path"])}
        | {"remarks": [short(remark, it["path"]) for remark in it["remarks"]]}
        for it in made["captures"]
    ]
    made["remarks"] = [remark for it in made["captures"] for remark in it["remarks"]]
    return made


@pytest.fixture(scope="module")
def expected(folder: Path) -> Mapping[str, Any]:
    return analyzed([str(folder)])


def test_s3_gives_what_files_give(bucket: dict[str, Any], expected: Mapping[str, Any]) -> None:
    """With a list, a pattern, a folder and files."""
    assert analyzed(["@s3://bucket/list"], storage=bucket, piece_bytes=50_000) == expected


@pytest.mark.skipif(not PROOF, reason="needs RINGLINE_PROOF=1: it takes minutes")
@pytest.mark.parametrize("piece", [100_000, 700_001, 256 << 20])
def test_s3_gives_what_files_give_for_real_captures(bucket: dict[str, Any], piece: int) -> None:
    system = fsspec.filesystem("s3", **bucket["s3"])
    paths = [*REAL, *sorted(DATA.glob("*.pcap*"))]
    for path in paths:
        system.pipe_file(f"bucket/real/{path.name}", path.read_bytes())
    given = [f"s3://bucket/real/{path.name}" for path in paths]
    assert analyzed(given, storage=bucket, piece_bytes=piece) == analyzed(list(map(str, paths)))


def test_http_without_ranges_gives_what_files_give(
    folder: Path, expected: Mapping[str, Any]
) -> None:
    with url_servers.plain(folder) as url:
        assert analyzed([f"{url}/"], piece_bytes=50_000) == expected


def test_memory_gives_what_files_give(folder: Path, expected: Mapping[str, Any]) -> None:
    system = fsspec.filesystem("memory")
    for path in _files(folder):
        system.pipe_file(f"/day/{path.relative_to(folder)}", path.read_bytes())
    try:
        assert analyzed(["memory://day/"], piece_bytes=50_000) == expected
    finally:
        system.rm("/day", recursive=True)


def test_a_pattern_a_folder_and_a_list_behind_urls(bucket: dict[str, Any]) -> None:
    access = urls.access_of(bucket)
    day = "s3://bucket/day/"
    for given, names in (
        ("s3://bucket/day/*.pcap", ["big_endian.pcap", "large.pcap", "mixed.pcap"]),
        ("s3://bucket/day/**/c.*", ["in/c.pcap"]),
        ("s3://bucket/day/in", ["in/c.pcap"]),
        ("s3://bucket/day/mixed.pcap", ["mixed.pcap"]),
    ):
        assert sources.paths_of([given], access) == [day + name for name in names]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3://none/a.pcap", "there is no such bucket"),
        ("s3://none/*.pcap", "there is no such bucket"),
        ("s3://bucket/day/none.pcap", "there is no such file or folder"),
        ("s3://bucket/day/none*", "no file has such a name"),
        ("@s3://bucket/none", "there is no such file or folder"),
    ],
)
def test_what_is_not_in_s3(bucket: dict[str, Any], url: str, words: str) -> None:
    with pytest.raises(UsageError) as raised:
        sources.paths_of([url], urls.access_of(bucket))
    assert words in str(raised.value)


def test_s3_without_credentials(bucket: dict[str, Any]) -> None:
    access = urls.access_of({"s3": {"endpoint_url": bucket["s3"]["endpoint_url"]}})
    with pytest.raises(UsageError, match="there are no credentials for it"):
        sources.paths_of(["s3://bucket/day"], access)


def test_an_address_of_ipv6_is_no_pattern(folder: Path) -> None:
    content = url_servers.Content()
    content.files["/a.pcap"] = (folder / "mixed.pcap").read_bytes()
    with url_servers.ranges(content, "::1") as url:
        assert "[::1]" in url
        given = [f"{url}/a.pcap"]
        assert sources.paths_of(given) == given
        found, broken = sources.looked_at(given, to_cut=False)
    assert (len(found), broken) == (1, {})


def test_a_capture_in_an_archive_behind_a_url(folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "day.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(folder / "large.pcap", "large.pcap")
    found, broken = sources.looked_at(
        sources.paths_of([f"zip://*.pcap::file://{tmp_path}/day.zip"]), to_cut=False
    )
    assert broken == {}
    assert [source.path for source in found] == [f"zip://large.pcap::file://{tmp_path}/day.zip"]
    assert not found[0].is_plain
    with CaptureReader(Tally(found[0].path), access=found[0].access) as reader:
        assert sum(1 for _ in reader) == 4000


def test_a_url_of_a_file_is_its_path(folder: Path) -> None:
    (folder / "a b.pcap").symlink_to(folder / "mixed.pcap")
    try:
        assert sources.paths_of([f"file://{folder}/a%20b.pcap"]) == [f"{folder}/a b.pcap"]
        assert sources.paths_of([f"file://localhost{folder}/in"]) == [f"{folder}/in/c.pcap"]
    finally:
        (folder / "a b.pcap").unlink()
