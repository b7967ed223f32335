"""A card that stops answering while it is stopped: the operator reads which register was awaited.

The cards are folders that take the place of sysfs. Their registers are plain memory, which the test
polls as a device model in another process does.
"""

from __future__ import annotations

import mmap
import os
import re
import signal
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ringline.pipeline.configuration.deadlines import PortLimits

from .operator_harness import HEAD, PORT, Operator
from .run_harness import ROLES, status_of

pytestmark = pytest.mark.slow

ADDRESSES = ("0000:03:00.0", "0000:04:00.0")
BYTES = 128 << 10
CTRL, EEC, RDRXCTL, LINKS, SECRXSTAT = 0, 0x10010, 0x2F00, 0x42A4, 0x8D04
RESET, BUS_MASTER = 1 << 26 | 1 << 3, 4
TIMEOUT = 60.0  # seconds


class Card:
    """A card that starts well. What `freeze` is set to happens at every poll from then on."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        for name, text in (("vendor", "0x8086\n"), ("device", "0x10fb\n")):
            (folder / name).write_text(text)
        (folder / "config").write_bytes(bytes(256))
        (folder / "resource0").write_bytes(bytes(BYTES))
        self.folder = folder
        self.freeze: Callable[[Card], None] | None = None
        with (folder / "resource0").open("r+b") as file:
            self.memory = mmap.mmap(file.fileno(), BYTES)
        for register, value in ((EEC, 1 << 9), (RDRXCTL, 8), (LINKS, 7 << 28), (SECRXSTAT, 1)):
            self.write(register, value)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._poll)
        self._thread.start()

    def read(self, register: int) -> int:
        value: int = struct.unpack_from("<I", self.memory, register)[0]
        return value

    def write(self, register: int, value: int) -> None:
        struct.pack_into("<I", self.memory, register, value)

    def _poll(self) -> None:
        while not self._ended.wait(0.001):
            if self.freeze is not None:
                self.freeze(self)
            elif self.read(CTRL) & RESET:
                self.write(CTRL, self.read(CTRL) & ~RESET)

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self.memory.close()


@pytest.fixture
def cards(operator: Operator) -> Iterator[list[Card]]:
    folder = operator.folder / "sys/bus/pci/devices"
    made = [Card(folder / address) for address in ADDRESSES]
    yield made
    for card in made:
        card.close()


def receiver_never_ready(card: Card) -> None:
    card.write(SECRXSTAT, 0)


def gone_from_the_bus(card: Card) -> None:
    """Every read of a card that was pulled out gives ones."""
    card.memory[:] = b"\xff" * BYTES


@pytest.mark.parametrize("ports", [1, 2])
def test_the_register_of_a_card_that_freezes_is_named(
    operator: Operator, cards: list[Card], ports: int
) -> None:
    sentence = stop_frozen(operator, cards[:ports], receiver_never_ready)
    told = re.match(
        r"ringline: port wan0: while the port was being stopped: waited ([0-9.]+) s for "
        r"SECRXSTAT\.SECRX_RDY to become 1; it is 0 \(",
        sentence,
    )
    assert told is not None, sentence
    # What was left of the port's share of the limit.
    assert 0 < float(told[1]) <= PortLimits().stop_receiving / ports


def test_a_card_that_was_pulled_out_is_named(operator: Operator, cards: list[Card]) -> None:
    sentence = stop_frozen(operator, cards[:1], gone_from_the_bus)
    assert "port wan0: while the port was being stopped: waited " in sentence


def stop_frozen(operator: Operator, cards: list[Card], freeze: Callable[[Card], None]) -> str:
    """Run with `cards`, freeze them, end the run; its last sentence."""
    text = HEAD
    for number, address in enumerate(ADDRESSES[: len(cards)]):
        text += f'[port.wan{number}]\ndevice = "pci:{address}"\ndma = "offset"\n'
    path = operator.write(text)
    with operator.started("run", path, environment={"RINGLINE_SYSFS": "sys"}) as process:
        wait_for(lambda: is_running(operator))
        for card in cards:
            card.freeze = freeze
            freeze(card)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 3, errors
    assert "made no progress" not in errors
    assert "SIG" not in errors, "a child had to be killed"
    for card in cards:
        assert not (card.folder / "config").read_bytes()[4] & BUS_MASTER
    return errors.strip().splitlines()[-1]


def test_a_simulated_card_that_is_stopped_is_named(operator: Operator) -> None:
    """Its process hangs: every access goes through its mailbox."""
    path = operator.write(HEAD + PORT + "process = true\n")
    with operator.started("run", path) as process:
        wait_for(lambda: is_running(operator))
        card = next(pid for pid, role in children(process.pid) if role == "card")
        signal.pidfd_send_signal(card, signal.SIGSTOP)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 3, errors
    assert "made no progress" not in errors
    assert "for the simulated card to answer an access to register 0x" in errors


def children(pid: int) -> Iterator[tuple[int, str]]:
    """A pidfd of each child of the run, and its role."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        command = Path(f"/proc/{child}/cmdline").read_text()
        role = next((role for part, role in ROLES.items() if part in command), "")
        yield os.pidfd_open(int(child)), role


def is_running(operator: Operator) -> bool:
    return status_of(operator.name).get("state") == "running"


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.02)
