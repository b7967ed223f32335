"""A worker that dies at any instruction leaves maps and tables that its successor can use."""

from __future__ import annotations

import os
import random
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SEED = int(os.environ.get("RINGLINE_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 30)

RunCrash = Callable[[str], str]


@pytest.fixture(scope="module", params=["-O2", "-O3"])
def crash(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RunCrash:
    """Compiles crash.c with the code of the maps, and runs it; returns its output."""
    program = tmp_path_factory.mktemp("crash") / "crash"
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    sources = [Path(__file__).with_name("crash.c"), ROOT / "workers" / "lookup" / "lookup.c"]
    warnings = ["-Wall", "-Wextra", "-Werror", "-std=gnu11"]
    subprocess.run(
        [compiler, request.param, *warnings, f"-I{ROOT / 'workers'}", *sources, "-o", program],
        check=True,
        timeout=110,
    )

    def run(what: str) -> str:
        done = subprocess.run(
            [program, what, str(SEED)], capture_output=True, text=True, timeout=110, check=False
        )
        assert done.returncode == 0, f"RINGLINE_SEED={SEED}: {done.stdout}{done.stderr}"
        return done.stdout

    return run


def test_a_map_is_whole_after_each_instruction(crash: RunCrash) -> None:
    """Insert, delete, replace and expire: what is found then, and after the repair."""
    assert int(crash("steps").split()[0]) > 10_000


def test_a_map_is_whole_after_each_instruction_of_a_repair(crash: RunCrash) -> None:
    """And a map that a wild write hit is cleared as a whole, or cleared again."""
    assert int(crash("opens").split()[0]) > 1_000


def test_a_map_survives_kills_at_random_moments(crash: RunCrash) -> None:
    assert int(crash("kills").split()[0]) > 0


def test_a_table_that_is_filled_halfway_is_the_old_one(crash: RunCrash) -> None:
    """Or the new one: at each instruction, all lookups agree on one of the two."""
    assert all(int(line.split()[0]) > 1_000 for line in crash("fill").splitlines())
