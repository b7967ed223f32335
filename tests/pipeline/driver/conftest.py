from __future__ import annotations

from collections.abc import Iterator

import pytest

from .lane_harness import Harness


@pytest.fixture
def harness() -> Iterator[Harness]:
    with Harness() as harness:
        yield harness
