"""Fields of a batch as NumPy columns: their widths, and whose memory they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ringline.workers.api import Batch
from ringline.workers.testing import Run, run_plugin

FRAMES = [bytes([n]) * (60 + n) for n in range(10)]


def checked(judge: Any, frames: list[bytes], **how: Any) -> Run:
    """Run the function `judge` as a class's process; no packet may be an error."""
    run = run_plugin(type("Judge", (), {"process": staticmethod(judge)}), frames, **how)
    assert [result.error for result in run] == [None] * len(run)
    return run


@pytest.mark.parametrize("width", [1, 2, 3, 4, 6, 8, 9])
@pytest.mark.parametrize("offset", [0, 58, 62, 65])
def test_fields_of_every_width_end_with_the_frame(width: int, offset: int) -> None:
    """The usual widths have code of their own (columns.c)."""
    frames = [bytes(range(1, 61 + n)) for n in range(10)]

    def judge(batch: Batch) -> None:
        rows = batch.gather(offset, ("u1", width))
        assert [bytes(row) for row in rows] == [
            frame[offset : offset + width].ljust(width, b"\0") for frame in frames
        ]
        batch.scatter(offset, np.full((10, width), 0xEE, dtype="u1"))
        for packet in batch:
            packet.resize(0, 16)
            packet.verdict = 0

    for frame, result in zip(frames, checked(judge, frames), strict=True):
        there = frame[:offset] + b"\xee" * width + frame[offset + width :]
        assert result.frame[: len(frame)] == there[: len(frame)]
        assert b"\xee" not in result.frame[len(frame) :]


def test_each_gather_returns_rows_of_its_own() -> None:
    def judge(batch: Batch) -> None:
        for dtype in ("u1", np.dtype(">u2"), [("high", "u1"), ("low", "u1")]):
            first = batch.gather(0, dtype)
            second = batch.gather(batch[9].length, dtype)
            assert [row.tobytes()[0] for row in first] == list(range(10))
            assert [row.tobytes()[0] for row in second] == [0] * 10
            first.fill(7)  # a copy, which can be written
            assert [row.tobytes()[0] for row in batch.gather(0, dtype)] == list(range(10))

    checked(judge, FRAMES)


@pytest.mark.parametrize("count", [3, 64])
def test_columns_kept_from_one_batch_do_not_change_with_the_next(count: int) -> None:
    kept: list[Any] = []

    def judge(batch: Batch) -> None:
        kept.append((batch.lengths, batch.gather(0, "u1")))

    frames = [bytes([n]) * (60 + n) for n in range(2 * count)]
    checked(judge, frames, batch=count)
    assert [n for lengths, _ in kept for n in lengths] == list(range(60, 60 + 2 * count))
    assert [n for _, first in kept for n in first] == list(range(2 * count))
