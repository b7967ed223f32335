"""The foreign card: an independent device model, compiled here, in a process of its own."""

from __future__ import annotations

import json
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

SOURCES = Path(__file__).parent / "card"
ADDRESS = "0000:03:00.0"


class Card:
    """A running model, with its sysfs folder and the counts that it prints."""

    def __init__(
        self, binary: Path, sysfs: Path, instance: str, frames: int, seconds: int, swap: bool
    ) -> None:
        self.sysfs = sysfs
        self.address = ADDRESS
        self.instance = instance
        self.folder = sysfs / "bus/pci/devices" / ADDRESS
        sysfs.mkdir()
        command = [str(binary), str(sysfs), ADDRESS, instance, str(frames), str(seconds)]
        self.process = subprocess.Popen(
            command + ["swap"] * swap,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        deadline = time.monotonic() + 60
        while not (self.folder / "vendor").exists():
            assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < deadline, "the card did not appear"
            time.sleep(0.005)

    def counts(self, seconds: float, driver: subprocess.Popen[str] | None = None) -> dict[str, Any]:
        """The counts of the card, printed when every frame is back, at a fault, or at its timeout.

        Fails after `seconds`. Empty when the process `driver` ends before.
        """
        assert self.process.stdout is not None
        deadline = time.monotonic() + seconds
        while not select.select([self.process.stdout], [], [], 0.1)[0]:
            assert time.monotonic() < deadline, f"the card printed nothing for {seconds} s"
            if driver is not None and driver.poll() is not None:
                return {}
        counts: dict[str, Any] = json.loads(self.process.stdout.readline())
        return counts

    def close(self) -> None:
        """End the process of the card."""
        try:
            self.process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()


@pytest.fixture(scope="session")
def card_binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    binary = tmp_path_factory.mktemp("card") / "card"
    sources = sorted(str(path) for path in SOURCES.glob("*.c"))
    flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["cc", *flags, "-o", str(binary), *sources], check=True, timeout=120)
    return binary


@pytest.fixture
def make_card(
    card_binary: Path, tmp_path: Path, instance: Callable[[], str]
) -> Iterator[Callable[..., Card]]:
    """Start a card: make_card(frames, seconds=60, swap=False)."""
    cards: list[Card] = []

    def make(frames: int, seconds: int = 60, swap: bool = False) -> Card:
        sysfs = tmp_path / f"sys{len(cards)}"
        cards.append(Card(card_binary, sysfs, instance(), frames, seconds, swap))
        return cards[-1]

    yield make
    for card in cards:
        card.close()


@pytest.fixture
def hash_of(card_binary: Path) -> Callable[[bytes, bytes], int]:
    """The card's Toeplitz hash of (key, data)."""

    def compute(key: bytes, data: bytes) -> int:
        command = [str(card_binary), "toeplitz", key.hex(), data.hex()]
        answer = subprocess.run(command, check=True, capture_output=True, text=True, timeout=10)
        return int(answer.stdout, 16)

    return compute


@pytest.fixture
def spaces() -> SimpleNamespace:
    """The first device address of each DMA segment."""
    return SimpleNamespace(descriptors=0x1000_0000, packets=0x1_0000_0000)
