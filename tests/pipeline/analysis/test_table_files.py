"""Tables as files: pandas, polars and DuckDB read the same rows of each format."""

from __future__ import annotations

import csv
import datetime
import json
import math
import re
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest

from ringline.shm.errors import EnvironmentLacks, PluginError, UsageError
from ringline.workers.analysis import children
from ringline.workers.analysis.tables import formats, parquet_file, writing
from ringline.workers.analysis.tables.columns import Column
from ringline.workers.named.part import Part
from ringline.workers.plugins import flow_records

from ...data import make
from .conftest import START, analyze, flows

TSHARK = shutil.which("tshark")
Row = tuple[Any, ...]
READERS: dict[tuple[str, str], Callable[[str], Any]] = {
    ("pandas", "csv"): lambda path: pd.read_csv(
        path, dtype_backend="numpy_nullable", keep_default_na=False, na_values=[""]
    ),
    # The default engine rounds large integers in a column with nulls.
    ("pandas", "jsonl"): lambda path: pd.read_json(
        path, lines=True, engine="pyarrow", dtype_backend="pyarrow"
    ),
    ("pandas", "parquet"): lambda path: pd.read_parquet(path, dtype_backend="pyarrow"),
    ("polars", "csv"): lambda path: pl.read_csv(path, infer_schema_length=None),
    ("polars", "jsonl"): lambda path: pl.read_ndjson(path, infer_schema_length=None),
    ("polars", "parquet"): pl.read_parquet,
    ("duckdb", "csv"): lambda path: duckdb.sql(f"from read_csv('{path}', sample_size=-1)"),
    ("duckdb", "jsonl"): lambda path: duckdb.sql(
        f"from read_json('{path}', format='newline_delimited', sample_size=-1)"
    ),
    ("duckdb", "parquet"): lambda path: duckdb.sql(f"from '{path}'"),
}


def rows_of(program: str, form: str, path: str) -> list[Row]:
    """The rows that a program reads; times are ns since 1970, and nulls are None."""
    read = READERS[program, form](path)
    if program == "pandas":
        lists = [[_plain(it) for it in column] for _, column in read.items()]
        return list(zip(*lists, strict=True))
    if program == "polars":
        times = [name for name, kind in read.schema.items() if isinstance(kind, pl.Datetime)]
        read = read.with_columns(pl.col(times).dt.epoch("ns"))
        return [tuple(map(_plain, row)) for row in read.rows()]
    columns = [
        f'epoch_ns("{name}")' if "TIMESTAMP" in str(kind) else f'"{name}"'
        for name, kind in zip(read.columns, read.types, strict=True)
    ]
    return [tuple(map(_plain, row)) for row in read.project(", ".join(columns)).fetchall()]


def _plain(value: Any) -> Any:
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, pd.Timestamp):
        assert value.utcoffset() == datetime.timedelta(0)
        return value.value
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    return value.item() if hasattr(value, "item") else value


VALUES: dict[str, Any] = {
    "u8": np.array([0, 255, 1], np.uint8),
    "u16": np.ma.masked_array(np.array([443, 65535, 0], np.uint16), [False, False, True]),
    "u32": np.array([0, 2**32 - 1, 7], np.uint32),
    "u64": np.array([2**64 - 1, 2**63, 5], np.uint64),
    "i64": np.array([-(2**63), 2**63 - 1, 3], ">i8"),
    "f64": np.array([0.1, -1e300, 1.5]),
    "bool": np.array([True, False, True]),
    "time": np.array([START + 1, "NaT", -1], "M8[ns]"),
    "text": ['a,"b"', "two\nlines", "Grüße €"],
    "numbers": [1, None, 2**40],
    "shares": [1, 0.5, None],
    "answers": [True, None, False],
    "words": ["x", None, "None"],
    "mixed": [1, "one", 1.5],
}
EXPECTED: list[Row] = [
    (0, 443, 0, 2**64 - 1, -(2**63), 0.1, True, START + 1, 'a,"b"', 1, 1.0, True, "x", "1"),
    (
        *(255, 65535, 2**32 - 1, 2**63, 2**63 - 1, -1e300, False, None, "two\nlines", None, 0.5),
        *(None, None, "one"),
    ),
    (1, None, 7, 5, 3, 1.5, True, -1, "Grüße €", 2**40, None, False, "None", "1.5"),
]


@pytest.mark.parametrize(("program", "form"), READERS)
def test_each_program_reads_each_type(program: str, form: str, tmp_path: Path) -> None:
    described = writing.write("p", {"t": VALUES}, str(tmp_path), form)["t"]
    assert described["file"] == f"{tmp_path}/t.{form}"
    rows = rows_of(program, form, described["file"])
    if (program, form) == ("pandas", "jsonl"):  # its numbers over 2^63 are of type float
        rows = [(*row[:3], int(row[3]) - (row[3] == 2**64), *row[4:]) for row in rows]
    assert rows == EXPECTED
    assert [tuple(row) for row in described["first"]] == EXPECTED


def write_all(capture: Path, folder: Path) -> None:
    """Write the tables of `flow_stats` in all formats."""
    part = Part.unpack(analyze("flow_stats", capture, out=str(folder), format="parquet").state)
    for form in set(formats.FORMATS) - {"parquet"}:
        writing.write("flow_stats", flow_records.present(part), str(folder), form)


@pytest.fixture(scope="module")
def flow_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flows")
    capture = folder / "a.pcap"
    capture.write_bytes(make.pcap(flows(1, 3000, START), nanoseconds=True))
    write_all(capture, folder)
    return folder


def test_flow_records_are_the_same_in_each_format_and_program(flow_files: Path) -> None:
    expected = rows_of("polars", "parquet", f"{flow_files}/flows.parquet")
    assert len(expected) > 300
    for program, form in READERS:
        assert rows_of(program, form, f"{flow_files}/flows.{form}") == expected, (program, form)


def test_flow_records_have_their_types_in_parquet(flow_files: Path) -> None:
    types = pl.read_parquet_schema(flow_files / "flows.parquet")
    ways = {
        f"{name}_{way}": kind
        for way in ("a_to_b", "b_to_a")
        for name, kind in {
            "packets": pl.UInt64,
            "bytes": pl.UInt64,
            "first": pl.Datetime("ns", "UTC"),
            "last": pl.Datetime("ns", "UTC"),
            "tcp_flags": pl.UInt8,
            "vlan": pl.UInt16,
        }.items()
    }
    ends = {
        f"{name}_{end}": kind
        for end in "ab"
        for name, kind in {"address": pl.String, "port": pl.UInt16}.items()
    }
    times = {name: pl.Datetime("ns", "UTC") for name in ("first", "last")}
    assert types == {"protocol": pl.String} | ends | times | ways


@pytest.mark.skipif(TSHARK is None, reason="tshark is missing")
def test_sums_of_flow_records_are_those_of_tshark(tmp_path: Path) -> None:
    capture = tmp_path / "a.pcap"
    packets = []
    for number in range(400):
        host, port = number % 11 + 1, 5000 + number % 7
        tcp = struct.pack("!HHIIHHHH", port, 80, number, 1, 0x5010, 65535, 0, 0)
        layer4 = (6, tcp + bytes(number % 90)) if number % 3 else (17, make.udp(port, 40, number))
        ip = (
            (0x0800, make.ipv4(*layer4, host)) if number % 4 else (0x86DD, make.ipv6(*layer4, host))
        )
        packets.append((START + 1000 * number, make.ethernet(*ip)))
    capture.write_bytes(make.pcap(packets))
    command = [str(TSHARK), "-q", "-n", "-r", str(capture), "-z", "conv,tcp", "-z", "conv,udp"]
    for option in ("tcp.check_checksum:FALSE", "udp.check_checksum:FALSE"):
        command += ["-o", option]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    line = re.compile(r"<-> .* (\d+) ([\d,]+) bytes +(\d+) ([\d,]+) bytes +(\d+) ([\d,]+) bytes")
    found = [line.search(it) for it in said.splitlines() if "<->" in it]
    totals = [tuple(int(it[n].replace(",", "")) for it in found if it) for n in (5, 6)]
    assert None not in found
    expected = (len(found), *map(sum, totals))
    assert expected[1] == 400
    write_all(capture, tmp_path)
    for form in formats.FORMATS:
        for program in ("pandas", "polars", "duckdb"):
            rows = rows_of(program, form, f"{tmp_path}/totals.{form}")
            assert rows == [expected], (program, form)


class Generated:
    """A column that is made piece by piece; it notes how long a piece was."""

    dtype = np.dtype(str)
    longest = 0

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, which: slice) -> list[str]:
        start, stop, _ = which.indices(self._length)
        Generated.longest = max(Generated.longest, stop - start)
        return [f"row {number}" for number in range(start, stop)]


@pytest.mark.parametrize("form", formats.FORMATS)
def test_a_long_table_is_never_in_memory_as_a_whole(form: str, tmp_path: Path) -> None:
    rows = 300_000 if form == "parquet" else 30_000
    Generated.longest = 0
    writing.write("p", {"t": {"text": Generated(rows), "n": range(rows)}}, str(tmp_path), form)
    assert 0 < Generated.longest <= parquet_file.GROUP_ROWS
    read = READERS["duckdb", form](f"{tmp_path}/t.{form}")
    summed = read.aggregate("count(*), sum(n), count(distinct text)").fetchall()
    assert summed == [(rows, sum(range(rows)), rows)]
    if form == "parquet":
        groups = pq.ParquetFile(tmp_path / "t.parquet").metadata
        assert groups.num_row_groups == 3


def test_only_a_table_that_hangs_ends_the_analysis(
    capture: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is for each step of writing a table, not for all of it."""
    path = capture("a.pcap", b"abc")
    monkeypatch.setattr(children, "JOIN_SECONDS", 2.0)
    result = analyze("Slowly", path, options={"seconds": 0.2}, out=str(tmp_path))
    assert result.tables["slow"]["rows"] == 12 * 4096
    with pytest.raises(PluginError, match="no progress for 2 s while it joined parts or wrote tab"):
        analyze("Slowly", path, options={"first": 3600.0})


def test_numbers_that_json_lacks_are_nulls(tmp_path: Path) -> None:
    values = {"x": [math.nan, -math.inf, 0.5], "y": np.array(["NaT", "NaT", 1], "M8[s]")}
    described = writing.write("p", {"t": values}, str(tmp_path), "jsonl")["t"]
    lines = (tmp_path / "t.jsonl").read_text().splitlines()
    assert list(map(json.loads, lines)) == [
        {"x": None, "y": None},
        {"x": None, "y": None},
        {"x": 0.5, "y": 1_000_000_000},
    ]
    assert described["first"] == [[None, None], [None, None], [0.5, 1_000_000_000]]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([], "text"),
        ([None], "text"),
        ([2**63], "u64"),
        ([-1, 2**63], "text"),
        ([2**64], "text"),
        (range(5), "i64"),
        ([np.uint8(3), 4], "i64"),
        (np.array([1, "x"], object), "text"),
        (np.array([1], np.float16), "f32"),
        (np.array([1], np.longdouble), "f64"),
        (np.array(["a"]), "text"),
    ],
)
def test_types_of_columns(values: Any, kind: str) -> None:
    column = Column(values)
    assert column.type == kind
    assert len(column.piece(0, 9)) == len(values)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ([b"x"], "the column c of the table t has values of type bytes, not numbers or text"),
        ([(1,), 2], "has values of type tuple, not"),
        (np.zeros((2, 2)), "has 2 dimensions, not one"),
        (np.zeros(1, "m8[s]"), "has values of type "),
        (np.zeros(1, complex), "has values of type complex"),
        (5, "the column c of the table t is of type int, which has no length"),
    ],
)
def test_values_of_no_type_are_refused(values: Any, sentence: str) -> None:
    with pytest.raises(PluginError, match=sentence):
        writing.write("p", {"t": {"c": values}}, None)


class _Short:
    """A column that gives fewer values than it has."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, which: slice) -> list[int]:
        return [1]


@pytest.mark.parametrize("form", formats.FORMATS)
@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (_Short(), "the table t: the column c gave 1 value for the 3 from row 0 on"),
        (np.array(["2261-12-31", "2300-01-01"], "M8[D]"), "the column c has the time 2300-01-01, "),
        (np.array(["1677-01-01"], "M8[us]"), "only those from 1678 to 2261 can be written"),
    ],
)
def test_values_that_cannot_be_written_are_named(
    values: Any, sentence: str, form: str, tmp_path: Path
) -> None:
    with pytest.raises(PluginError, match=sentence):
        writing.write("p", {"t": {"c": values}}, str(tmp_path), form)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", formats.FORMATS)
def test_a_heading_that_is_no_text_is_escaped(form: str, tmp_path: Path) -> None:
    made = writing.write("p", {"t": {"a\udc80": [1]}}, str(tmp_path), form)
    assert made["t"]["columns"] == ["a\\udc80"]


def test_a_line_of_csv_ends_with_a_newline_alone(tmp_path: Path) -> None:
    texts = ["a\rb", "a\nb", "a\r\nb", "\r\n", "a,b", 'a"b', "", "c"]
    writing.write("p", {"t": {"n": range(8), "text": texts}}, str(tmp_path))
    data = (tmp_path / "t.csv").read_bytes()
    assert data.startswith(b'n,text\n0,"a\rb"\n1,"a\nb"\n2,"a\r\nb"\n')
    assert data.endswith(b"7,c\n")
    with open(tmp_path / "t.csv", newline="") as file:
        assert [text for _, text in csv.reader(file)] == ["text", *texts]


def test_a_format_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="written as csv, jsonl, parquet, not as xlsx"):
        analyze("flow_stats", tmp_path, format="xlsx")


def test_parquet_without_its_package_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentLacks, match=r"pip install 'ringline\[parquet\]'"):
        analyze("flow_stats", tmp_path / "none.pcap", format="parquet")


@pytest.mark.parametrize("form", formats.FORMATS)
def test_a_full_disk_is_one_sentence(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EnvironmentLacks, match="cannot be written: No space left on device: make"):
        writing._write("/dev/full", {"n": Column(range(300_000))}, _to_full(form))


def _to_full(form: str) -> Any:
    return lambda new, columns: writing._WRITERS[form]("/dev/full", columns)
