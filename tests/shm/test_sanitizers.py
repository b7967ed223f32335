"""The C of shm under AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


@pytest.mark.parametrize("flags", [[], SANITIZERS], ids=["plain", "sanitized"])
def test_no_access_outside_and_nothing_undefined(
    build_c: Callable[..., Path], flags: list[str]
) -> None:
    program = build_c("tests/shm/sanitized.c", "shm/shm.c", flags=flags)
    done = subprocess.run([str(program)], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""


def test_the_sanitizer_reports_an_access_outside(
    build_c: Callable[..., Path], tmp_path: Path
) -> None:
    # Reads one reference after the end of the batch.
    source = tmp_path / "beyond.c"
    source.write_text(
        '#include "shm/shm.h"\n'
        "#include <stdlib.h>\n"
        "int main(void)\n"
        "{\n"
        "    struct rl_ring *ring = calloc(1, sizeof *ring);\n"
        "    struct rl_ring_end end = {ring, 0, 0};\n"
        "    struct rl_reference *refs = malloc(2 * sizeof *refs);\n"
        "    return rl_end_push(&end, refs, 3) != 3;\n"
        "}\n"
    )
    program = build_c(str(source), "shm/shm.c", flags=SANITIZERS)
    done = subprocess.run([str(program)], capture_output=True, text=True, check=False, timeout=60)
    assert "AddressSanitizer: heap-buffer-overflow" in done.stderr
