"""Frames of an analysis stay in the window that the capture is read into, if nothing can be written
behind their ends."""

from __future__ import annotations

import gzip
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringline.pipeline.analysis import run
from ringline.workers.analysis import children
from ringline.workers.tiers import loading
from ringline.workers.tiers.tier import Context

from ...data import make

PLUGINS = Path(__file__).parents[1] / "plugins" / "grows.py"
GROWING = ["grow", "by_helper", "by_overload"]


@pytest.fixture(autouse=True)
def _no_child_stays() -> Iterator[None]:
    yield
    children.close()


@pytest.mark.parametrize("name", [*GROWING, "write"])
def test_no_packet_sees_what_was_written_into_another_one(name: str, tmp_path: Path) -> None:
    chance = random.Random(1)
    frames = [chance.randbytes(chance.choice([60, 61, 700, 1514])) for _ in range(3000)]
    content = make.pcap([(10**18 + number, frame) for number, frame in enumerate(frames)])
    paths = tmp_path / "a.pcap", tmp_path / "b.pcap.gz"
    paths[0].write_bytes(content)
    paths[1].write_bytes(gzip.compress(content, 1))
    for path in paths:
        result = run(f"{PLUGINS}:{name}", [path], workers=1)
        assert result.broken == {}
        assert result.named["total"] == sum(map(sum, frames))


@pytest.mark.parametrize("name", [*GROWING, "write"])
def test_a_function_that_resizes_is_found(name: str) -> None:
    """At once, and when it comes from the cache."""
    for _ in range(2):
        tier = loading.load(f"{PLUGINS}:{name}")
        tier.accept({})
        tier.prepare(Context())
        assert tier.keeps_lengths == (name not in GROWING)


def test_frames_of_other_tiers_are_copied() -> None:
    for name in ("forward", "mac_swap_batch", "mac_swap_columns"):
        tier = loading.load(name)
        tier.accept({})
        tier.prepare(Context())
        assert not tier.keeps_lengths
