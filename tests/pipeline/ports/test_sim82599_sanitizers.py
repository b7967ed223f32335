"""The model under AddressSanitizer and UndefinedBehaviorSanitizer, with a random driver."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
MODEL = ROOT / "pipeline/ports/sim82599"
# These are the driver's side of the simulated card: they read what the model wrote.
DRIVER_SIDE = ("stamps.c", "stamps.h")
ROUNDS = 20_000 if os.environ.get("RINGLINE_PROOF") == "1" else 300
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


def model_files(pattern: str) -> list[Path]:
    return sorted(file for file in MODEL.rglob(pattern) if file.name not in DRIVER_SIDE)


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("fuzz") / "fuzz"
    sources = [ROOT / "tests/pipeline/ports/fuzz_sim82599.c", *model_files("*.c")]
    flags = ["-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", *SANITIZERS]
    command = [os.environ.get("CC", "cc"), *flags, "-o", str(program), *map(str, sources)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return program


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_accesses_stay_within_bounds_and_balance(fuzzer: Path, seed: int) -> None:
    done = subprocess.run(
        [str(fuzzer), str(seed), str(ROUNDS)],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_the_model_includes_no_header_of_the_driver() -> None:
    """The model must not share mistakes of the driver, so it shares no code with it."""
    for source in model_files("*.[ch]"):
        for line in source.read_text().splitlines():
            if line.startswith('#include "'):
                included = (source.parent / line.split('"')[1]).resolve()
                assert included.is_relative_to(MODEL), f"{source}: {line}"
