"""The hints of cache.h: what the compiler makes of them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

# No linking: the output is a text of instructions. Only clang complains about unused arguments.
TEXT = ["-S", "-Wno-unused-command-line-argument"]
X86 = os.uname().machine == "x86_64"


@pytest.mark.parametrize(("flags", "hints"), [([], X86), (["-DRL_NO_HINTS"], False)])
def test_hints_can_be_left_out(build_c: Callable[..., Path], flags: list[str], hints: bool) -> None:
    text = build_c("tests/shm/cache_calls.c", flags=[*TEXT, *flags]).read_text()
    assert bool(re.search(r"^\s+cldemote\b", text, re.MULTILINE)) == hints
    assert bool(re.search(r"^\s+(prefetch|prfm)", text, re.MULTILINE)) == hints


def test_other_processors_get_no_hints(build_c: Callable[..., Path]) -> None:
    text = build_c("tests/shm/cache_calls.c", flags=[*TEXT, "-DOTHER_PROCESSOR"]).read_text()
    assert not re.search(r"^\s+(cldemote|prefetch|prfm)", text, re.MULTILINE)
