"""A C compiler for the tests of the headers: small programs, built during the test run."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent.parent.parent
STRICT = ["-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-Werror", f"-I{ROOT}"]


@pytest.fixture(scope="session")
def build_c(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`build_c("tests/shm/x.c", …, flags=[…])` compiles a program, once per session and flags."""
    compiler = shutil.which("clang") or shutil.which("gcc")
    folder = tmp_path_factory.mktemp("c")

    def build(*sources: str, flags: list[str] | None = None) -> Path:
        if compiler is None:
            pytest.skip("needs a C compiler: neither clang nor gcc is installed")
        key = hashlib.sha256(repr((sources, flags)).encode()).hexdigest()[:12]
        program = folder / f"{Path(sources[0]).stem}-{key}"
        if not program.exists():
            command = [
                compiler,
                *STRICT,
                *(flags or []),
                *(str(ROOT / source) for source in sources),
                "-o",
                str(program),
                "-lpthread",
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
            assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"
        return program

    return build
