"""Fixtures of the tests that use the command line."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .operator_harness import Operator
from .run_harness import RunHarness
from .veth_harness import Veths, needs


@pytest.fixture(scope="session")
def name_instance() -> Callable[[], str]:
    """Like `instance`, for fixtures that outlive a test."""
    numbers = itertools.count(1)
    return lambda: f"t{os.getpid()}-m{next(numbers)}"


@pytest.fixture
def operator(tmp_path: Path, instance: Callable[[], str]) -> Operator:
    """Runs commands in the test's temporary folder."""
    return Operator(tmp_path, instance)


@pytest.fixture
def open_operator(instance: Callable[[], str]) -> Iterator[Operator]:
    """Like `operator`, in a folder that every user can read and write."""
    folder = Path(tempfile.mkdtemp(prefix="ringline-", dir="/tmp"))
    folder.chmod(0o777)
    yield Operator(folder, instance)
    shutil.rmtree(folder)


@pytest.fixture
def veths() -> Iterator[Veths]:
    """Two hosts and the middle, where ringline runs; one queue."""
    needs("ethtool")
    with contextlib.closing(Veths()) as made:
        yield made


@pytest.fixture
def start(tmp_path: Path, instance: Callable[[], str]) -> Iterator[Callable[..., RunHarness]]:
    """Starts runs; after the test it kills their processes and removes their files."""
    runs: list[RunHarness] = []

    def start_(**options: bool) -> RunHarness:
        runs.append(RunHarness(instance(), tmp_path, **options))
        return runs[-1]

    yield start_
    for run in runs:
        run.kill_all()
