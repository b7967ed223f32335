"""Rows on disk: the same as in memory, however many parts they are in."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ringline.shm.errors import EnvironmentLacks
from ringline.workers.analysis import runs
from ringline.workers.analysis.hooks import Hooks, Levels
from ringline.workers.analysis.runs import Store
from ringline.workers.named import steps
from ringline.workers.named.part import Part, ordered

from ...data import make
from .conftest import START, analyze, flows, same

PROOF = os.environ.get("RINGLINE_PROOF") == "1"


@ordered(sums=2, marks=1)
def merge(a: Part, b: Part) -> Part:
    """Adds the last word of rows with the same key; marks are a set; `count` is a sum."""
    rows = np.concatenate([a.state["sums"], b.state["sums"]])
    keys, places = np.unique(rows[:, :2], axis=0, return_inverse=True)
    sums = np.zeros(len(keys), np.int64)
    np.add.at(sums, places.reshape(-1), rows[:, 2])
    marks = np.unique(np.concatenate([a.state["marks"], b.state["marks"]]), axis=0)
    return Part(
        {
            "sums": np.column_stack([keys, sums]),
            "count": a.state["count"] + b.state["count"],
            "marks": marks,
        }
    )


def parts(seed: int, count: int) -> list[Part]:
    rng = random.Random(seed)
    made = []
    for number in range(count):
        keys = sorted(
            {(rng.randrange(-40, 40), rng.randrange(9)) for _ in range(rng.randrange(60))}
        )
        sums = np.array([(*key, rng.randrange(100)) for key in keys], np.int64).reshape(-1, 3)
        marks = np.unique(np.array([[rng.randrange(99)] for _ in range(20)], np.uint16), axis=0)
        made.append(Part({"sums": sums, "count": np.array([number]), "marks": marks}))
    return made


def joined(hooks: Hooks, given: list[Part]) -> Part:
    levels = Levels(hooks)
    for part in given:
        levels.add(Part.unpack(hooks.settled(part).pack()))
    return Part.unpack(levels.joined().pack())


@pytest.mark.parametrize("block", [16, 500])
@pytest.mark.parametrize("limit", [0, 700, 30_000])
def test_rows_on_disk_are_those_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, limit: int
) -> None:
    monkeypatch.setattr(runs, "BLOCK_BYTES", block)
    monkeypatch.setattr(runs, "BLOCK_BYTES_MIN", 1)
    for seed in range(20 if PROOF else 1):
        expected = joined(Hooks("p", merge, None, None), parts(seed, 11))
        hooks = Hooks("p", merge, None, None)
        hooks.store = Store(str(tmp_path), limit)
        part = joined(hooks, parts(seed, 11))
        assert bool(part.runs) == (limit < 30_000)
        whole = hooks.whole(part)
        assert whole.pack() == expected.pack()
    assert not list(tmp_path.glob("*.run"))


def test_reading_rows_from_disk_has_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a long one is not taken for one that hangs."""
    monkeypatch.setattr(runs, "BLOCK_BYTES", 16)
    monkeypatch.setattr(runs, "BLOCK_BYTES_MIN", 1)
    seen: list[int] = []
    monkeypatch.setattr(steps, "_show", lambda: seen.append(1))
    hooks = Hooks("p", merge, None, None)
    hooks.store = Store(str(tmp_path), 0)
    rows = len(hooks.whole(joined(hooks, parts(1, 11))).state["sums"])
    assert len(seen) >= rows > 100  # a block is one row


def test_a_run_that_is_cut_is_one_sentence(tmp_path: Path) -> None:
    hooks = Hooks("p", merge, None, None)
    hooks.store = Store(str(tmp_path), 0)
    part = joined(hooks, parts(1, 3))
    path = Path(part.runs["sums"][0][0])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(EnvironmentLacks, match=r"\.run: cannot be read: it is cut short"):
        hooks.whole(part)
    hooks.store = Store(str(tmp_path / "gone"), 0)
    with pytest.raises(EnvironmentLacks, match="gone: there is no such folder: with an engine"):
        hooks.settled(parts(1, 1)[0])


def test_an_analysis_with_rows_on_disk_finds_the_same(
    tmp_path: Path, capture: Callable[..., Path]
) -> None:
    paths = []
    for number in range(3):
        path = tmp_path / f"{number}.pcap"
        path.write_bytes(make.pcap(flows(number, 1000, START + 1_000_000 * number)))
        paths.append(path)
    expected = analyze("flow_stats", *paths)
    for by in ("piece", "flow") if PROOF else ("flow",):
        out = tmp_path / by
        out.mkdir()
        result = analyze(
            "flow_stats",
            *paths,
            by=by,
            rows_bytes=20_000,
            out=str(out),
            with_state=by == "piece",
        )
        for table in result.tables.values():
            table["file"] = None
        state = expected.state if by == "piece" else b""
        assert same(result) == {**same(expected), "state": state}
        lines = (out / "flows.csv").read_text().splitlines()
        assert len(lines) == 1 + len(Part.unpack(expected.state).state["flows"])
        assert sorted(it.name for it in out.iterdir()) == [
            "flows.csv",
            "top_talkers.csv",
            "totals.csv",
        ]
