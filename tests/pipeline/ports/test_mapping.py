"""Registers that are mapped from a file: when the file ends before them, an access is a SIGBUS, as
that to the registers of a card that the kernel has removed."""

from __future__ import annotations

import mmap
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ringline.pipeline._pipeline import lib
from ringline.pipeline.ports.pci.mapping import MappedRegisters
from ringline.shm.errors import EnvironmentLacks

BYTES = 0x20000
STRANGER = """
import mmap, sys
from pathlib import Path
from ringline.pipeline.ports.pci.mapping import MappedRegisters
mapped = []
for path in sys.argv[1:]:
    with Path(path).open("r+b") as file:
        mapped.append(mmap.mmap(file.fileno(), 4096))
        file.truncate(0)
MappedRegisters(mapped[0], read_clears=False, release=lambda: None)
mapped[1][0]
"""


def test_registers_that_are_taken_away_read_as_ones(tmp_path: Path) -> None:
    path = tmp_path / "resource0"
    path.write_bytes(bytes(BYTES))
    released: list[str] = []
    with path.open("r+b") as file:
        registers = MappedRegisters(
            mmap.mmap(file.fileno(), BYTES),
            read_clears=True,
            release=lambda: released.append("released"),
        )
        registers.write32(8, 7)
        assert registers.read32(8) == 7
        doorbell = registers.pointer(0x1000)
        file.truncate(0)
        assert registers.read32(8) == 0xFFFFFFFF
        doorbell[0] = 5
        registers.write32(BYTES - 4, 1)
        assert registers.read32(8) == 0xFFFFFFFF
        registers.close()
    assert path.stat().st_size == 0
    assert released == ["released"]


def test_another_bus_error_ends_the_process(tmp_path: Path) -> None:
    paths = [tmp_path / "registers", tmp_path / "other"]
    for path in paths:
        path.write_bytes(bytes(4096))
    line = [sys.executable, "-c", STRANGER, *map(str, paths)]
    done = subprocess.run(line, capture_output=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGBUS, done.stderr


def test_more_registers_than_can_be_watched_are_refused() -> None:
    released: list[int] = []
    mapped: list[MappedRegisters] = []

    def add() -> mmap.mmap:
        memory = mmap.mmap(-1, mmap.PAGESIZE)
        number = len(mapped)
        mapped.append(
            MappedRegisters(memory, read_clears=False, release=lambda: released.append(number))
        )
        return memory

    try:
        for _ in range(lib.RL_ABSENT_MAX):
            add()
        refused = mmap.mmap(-1, mmap.PAGESIZE)
        with pytest.raises(EnvironmentLacks, match="registers of 64 cards, and cannot have more"):
            MappedRegisters(refused, read_clears=False, release=lambda: released.append(-1))
        assert refused.closed
        assert released == [-1]
        mapped.pop().close()
        add()
    finally:
        for registers in mapped:
            registers.close()
    assert len(released) == lib.RL_ABSENT_MAX + 2
