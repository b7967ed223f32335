"""Hugepages are used where they exist, and freed after the supervisor was killed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# It compares the free hugepages of the machine before and after.
pytestmark = [pytest.mark.slow, pytest.mark.alone]

PAGES = Path("/proc/sys/vm/nr_hugepages")
WANTED = 32  # pages of 2 MiB: packet memory of one queue takes 4, descriptors 1
SCENARIO = Path(__file__).with_name("on_hugepages.py")


def free_pages() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("HugePages_Free")), 0)


@pytest.fixture
def pages() -> Iterator[None]:
    """Reserve more hugepages of 2 MiB for the test."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root and unshare, to mount hugepages")
    before = PAGES.read_text()
    try:
        PAGES.write_text(str(int(before) + WANTED))
        if free_pages() < WANTED:
            pytest.skip(f"needs {WANTED} hugepages; the kernel has too little contiguous memory")
        yield
    finally:
        PAGES.write_text(before)


def test_hugepages_are_freed_after_a_kill(
    pages: None, tmp_path: Path, instance: Callable[[], str]
) -> None:
    name, folder = instance(), tmp_path / "hugepages"
    folder.mkdir()
    before = free_pages()
    result = subprocess.run(
        ["unshare", "--mount", sys.executable, str(SCENARIO), str(folder), name],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    seen = json.loads(result.stdout.splitlines()[-1])
    assert seen["during"] == [f"ringline.{name}.descriptors", f"ringline.{name}.packets"]
    assert seen["children"] == []
    assert seen["code"] == 0, result.stderr
    assert seen["after"] == []
    deadline = time.monotonic() + 10  # other programs may hold some for a moment
    while free_pages() < before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert free_pages() >= before, "hugepages are still in use"
