"""Fixtures of the tests that use the command line."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .operator_view import Operator
from .running import Running


@pytest.fixture(scope="session")
def name_instance() -> Callable[[], str]:
    """As `instance`, for fixtures that outlive a test."""
    numbers = itertools.count(1)
    return lambda: f"t{os.getpid()}-m{next(numbers)}"


@pytest.fixture
def operator(tmp_path: Path, instance: Callable[[], str]) -> Operator:
    """Runs commands in a folder of the test's own."""
    return Operator(tmp_path, instance)


@pytest.fixture
def open_operator(instance: Callable[[], str]) -> Iterator[Operator]:
    """The same in a folder that every user can read and write."""
    folder = Path(tempfile.mkdtemp(prefix="ringline-", dir="/tmp"))
    folder.chmod(0o777)
    yield Operator(folder, instance)
    shutil.rmtree(folder)


@pytest.fixture
def start(tmp_path: Path, instance: Callable[[], str]) -> Iterator[Callable[..., Running]]:
    """Starts runs, and ends by force what is left of them afterwards."""
    runs: list[Running] = []

    def start_(**options: bool) -> Running:
        runs.append(Running(instance(), tmp_path, **options))
        return runs[-1]

    yield start_
    for run in runs:
        run.kill_all()
