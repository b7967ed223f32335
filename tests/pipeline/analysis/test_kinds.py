"""Analyses of every kind of capture, by a plugin in C that joins its parts, and Parquet files: the
same result however the work is divided."""

from __future__ import annotations

import bz2
import gzip
import importlib
import lzma
import re
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ringline.workers.api import include_directory
from ringline.workers.named.part import Part

from ...data import make
from .conftest import START, analyze, flows, same

FORMATS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda content: importlib.import_module("backports.zstd").compress(content),
    ".lz4": lambda content: importlib.import_module("lz4.frame").compress(content),
}
every_format = pytest.mark.parametrize("ending", FORMATS)


@pytest.fixture(scope="module")
def contents() -> list[bytes]:
    """Two captures of flows."""
    return [make.pcap(flows(n, 1500, START + 3_000_000_000 * n)) for n in range(2)]


@every_format
@pytest.mark.parametrize("by", ["piece", "flow"])
def test_a_compressed_capture_gives_the_result_of_the_plain_one(
    tmp_path: Path, contents: list[bytes], ending: str, by: str
) -> None:
    results = []
    for change in (bytes, FORMATS[ending]):
        for number, content in enumerate(contents):
            (tmp_path / f"{number}.pcap{ending}").write_bytes(change(content))
        results.append(analyze("Sizes", tmp_path, by=by, piece_bytes=100_000))
    expected, found = results
    assert same(found) | {"captures": []} == same(expected) | {"captures": []}
    assert found.counters["packets"] == 3000
    assert [it["packets"] for it in found.captures] == [1500, 1500]
    assert found.broken == {}


@every_format
def test_a_compressed_capture_that_is_cut_short_is_left_out_or_used_up_to_the_cut(
    tmp_path: Path, contents: list[bytes], ending: str
) -> None:
    good = tmp_path / "0.pcap"
    good.write_bytes(contents[0])
    # In two parts: bzip2 and xz give what is in a part that is cut late, or not at all.
    half = len(contents[1]) // 2
    packed = FORMATS[ending](contents[1][:half]) + FORMATS[ending](contents[1][half:])
    bad = tmp_path / f"1.pcap{ending}"
    bad.write_bytes(packed[: len(packed) - 40])
    for by in ("piece", "flow"):
        result = analyze("Sizes", good, bad, by=by)
        assert list(result.broken) == [str(bad)]
        sentence = result.broken[str(bad)]
        found = re.fullmatch(
            rf"{bad}: its \w+ data ends too early, after {len(packed) - 40} bytes, after (\d+) "
            r"good packets\. The file .* with --cut .*",
            sentence,
        )
        assert found, sentence
        assert result.counters["packets"] == 1500
        cut = analyze("Sizes", good, bad, by=by, to_cut=True)
        assert cut.broken == {}
        assert cut.counters["packets"] == 1500 + int(found[1])
        assert 700 < int(found[1]) < 1500


IN_C = """
#include "plugin.h"

/* Counts packets by their first byte, and keeps the largest length of each. */
static inline int64_t measure(uint8_t *frame, struct rl_reference *meta, struct rl_batch *batch)
{
    uint64_t *const *state = batch->state;
    state[0][frame[0]]++;
    if (meta->length > state[1][frame[0]])
        state[1][frame[0]] = meta->length;
    return meta->port;
}
RL_PLUGIN(measuring, measure)
"""
DECLARED = """
import ctypes

import numpy as np

from ringline.workers.api import Part, native_plugin


def setup(worker):
    return worker.state("count", "u8", (256,)), worker.state("largest", "u8", (256,))


def merge(a, b):
    a.state["count"] += b.state["count"]
    np.maximum(a.state["largest"], b.state["largest"], out=a.state["largest"])
    return a


def present(part):
    seen = np.flatnonzero(part.state["count"])
    return {"bytes": {"first": seen, "largest": part.state["largest"][seen]}}


LIBRARY = ctypes.CDLL(FILE)
measuring = native_plugin(
    ctypes.addressof(ctypes.c_char.in_dll(LIBRARY, "measuring")),
    setup=setup,
    merge=merge,
    present=present,
)
"""


def test_a_plugin_in_c_joins_its_parts_with_its_merge(tmp_path: Path) -> None:
    source, library = tmp_path / "measuring.c", tmp_path / "measuring.so"
    source.write_text(IN_C)
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    command = [compiler, "-shared", "-fPIC", "-O2", f"-I{include_directory()}"]
    subprocess.run([*command, str(source), "-o", str(library)], check=True, timeout=60)
    plugin = tmp_path / "guard.py"
    plugin.write_text(f"FILE = {str(library)!r}\n{DECLARED}")
    paths, count, largest = [], [0] * 256, [0] * 256
    for number in range(3):
        frames = [bytes([n % (5 + number)]) * (60 + n * 7 % 900) for n in range(1500)]
        for frame in frames:
            count[frame[0]] += 1
            largest[frame[0]] = max(largest[frame[0]], len(frame))
        times = [START + 10**9 * number + 1000 * n for n in range(len(frames))]
        paths.append(tmp_path / f"{number}.pcap")
        paths[-1].write_bytes(make.pcap(list(zip(times, frames, strict=True))))
    results = [
        analyze(f"{plugin}:measuring", *paths, **more)  # type: ignore[arg-type]
        for more in (
            {},
            {"workers": 2, "piece_bytes": 60_000},
            {"workers": 2, "by": "flow", "shares": 5},
        )
    ]
    for result in results:
        assert result.tier == "C"
        state = Part.unpack(result.state).state
        assert state["count"].tolist() == count
        assert state["largest"].tolist() == largest
        assert result.tables["bytes"]["first"] == [[n, largest[n]] for n in range(7)]
    assert same(results[1]) == same(results[0])
    assert results[1].tasks > 9


def test_parquet_has_the_same_rows_however_the_work_is_divided(
    tmp_path: Path, contents: list[bytes]
) -> None:
    paths = [tmp_path / f"{number}.pcap" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    tables = []
    for workers, piece, order in ((1, 1 << 30, paths), (2, 50_000, paths[::-1])):
        out = tmp_path / str(workers)
        out.mkdir()
        result = analyze(
            "flow_stats",
            *order,
            workers=workers,
            piece_bytes=piece,
            out=str(out),
            format="parquet",
        )
        tables.append(pq.read_table(out / "flows.parquet"))
    whole, divided = tables
    assert result.tasks > 9
    assert divided.schema == whole.schema
    rows = whole.to_pylist()
    assert divided.to_pylist() == rows
    assert len(rows) == result.tables["flows"]["rows"] > 300
    counted = sum(row["packets_a_to_b"] + row["packets_b_to_a"] for row in rows)
    assert counted == int(np.sum(Part.unpack(result.state).state["flows"][:, 6:8]))
