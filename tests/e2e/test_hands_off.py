"""Only a card that a run took is written to.

A folder takes the place of sysfs. Every card in it does DMA for somebody else: bus mastering is on
in its command register. Memory space is off, so that a write of ringline shows. Each refusal leaves
all 256 bytes of its configuration space as they are.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .operator_harness import HEAD, Operator, as_nobody
from .run_harness import status_of

pytestmark = pytest.mark.slow

ADDRESSES = ("0000:03:00.0", "0000:04:00.1")
REGISTERS = 128 << 10
COMMAND = 4  # offset of the command register
BUSY = 0x0504  # with bus mastering, SERR, interrupts off
MEMORY_SPACE, BUS_MASTER = 0x2, 0x4
TIMEOUT = 60.0  # seconds


class Card:
    """A card in the folder that takes the place of sysfs; somebody else uses it."""

    def __init__(self, sysfs: Path, address: str, command: int = BUSY) -> None:
        self.address = address
        self.folder = sysfs / "bus" / "pci" / "devices" / address
        self.folder.mkdir(parents=True)
        for name, text in (("vendor", "0x8086\n"), ("device", "0x10fb\n")):
            (self.folder / name).write_text(text)
        space = bytearray(os.urandom(256))
        space[COMMAND : COMMAND + 2] = command.to_bytes(2, "little")
        (self.folder / "config").write_bytes(space)
        (self.folder / "resource0").write_bytes(bytes(REGISTERS))

    @property
    def space(self) -> bytes:
        """The 256 bytes of its configuration space."""
        return (self.folder / "config").read_bytes()

    @property
    def command(self) -> int:
        return int.from_bytes(self.space[COMMAND : COMMAND + 2], "little")

    @property
    def registers(self) -> bytes:
        return (self.folder / "resource0").read_bytes()

    def bind(self, driver: str, up: bool | None = None) -> None:
        """Bind a kernel driver, with an interface that is up or down, or without one."""
        drivers = self.folder.parents[1] / "drivers" / driver
        drivers.mkdir(parents=True, exist_ok=True)
        (self.folder / "driver").symlink_to(drivers)
        if up is not None:
            interface = self.folder / "net" / "eth0"
            interface.mkdir(parents=True)
            (interface / "flags").write_text("0x1003\n" if up else "0x1002\n")

    @contextmanager
    def locked(self, seconds: float = TIMEOUT) -> Iterator[None]:
        """Another process has the card for the length of the block, and at most `seconds`."""
        code = (
            "import fcntl, sys, time\n"
            "file = open(sys.argv[1])\n"
            "fcntl.flock(file, fcntl.LOCK_EX)\n"
            "print(flush=True)\n"
            "time.sleep(float(sys.argv[2]))\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", code, str(self.folder / "resource0"), str(seconds)],
            stdout=subprocess.PIPE,
        ) as other:
            assert other.stdout is not None
            other.stdout.readline()
            try:
                yield
            finally:
                other.kill()


@pytest.fixture
def sysfs(operator: Operator) -> Path:
    return operator.folder / "sys"


@pytest.fixture
def card(sysfs: Path) -> Card:
    return Card(sysfs, ADDRESSES[0])


def port(name: str = "wan", address: str = ADDRESSES[0], dma: str = "offset") -> str:
    return f'[port.{name}]\ndevice = "pci:{address}"\ndma = "{dma}"\n'


ENVIRONMENT = {"RINGLINE_SYSFS": "sys"}


def refused(operator: Operator, text: str, code: int = 3, command: str = "run") -> str:
    path = operator.write(HEAD + text)
    return operator.refused(code, command, path, environment=ENVIRONMENT, other_output=True)


def make(name: str, content: bytes | str) -> Callable[[Card], object]:
    """A change of one file of the card."""
    data = content.encode() if isinstance(content, str) else content
    return lambda card: (card.folder / name).write_bytes(data)


def without(name: str) -> Callable[[Card], object]:
    return lambda card: (card.folder / name).unlink()


def to_folder(card: Card) -> None:
    """The registers can be opened and not mapped."""
    (card.folder / "resource0").unlink()
    (card.folder / "resource0").symlink_to("/dev/null")


# name: (what is done to the card, words of the sentence)
REFUSALS: dict[str, tuple[Callable[[Card], object], tuple[str, ...]]] = {
    "another vendor": (make("vendor", "0x144d\n"), ("144d:10fb", "no driver")),
    "another device": (make("device", "0x1533\n"), ("8086:1533", "no driver")),
    "no vendor": (without("vendor"), ("cannot use", "vendor")),
    "no number": (make("device", "what\n"), ("hexadecimal number",)),
    "interface up": (
        lambda card: card.bind("ixgbe", up=True),
        ("kernel driver ixgbe", "ip link set eth0 down", "ringline bind"),
    ),
    "interface down": (
        lambda card: card.bind("ixgbe", up=False),
        ("kernel driver ixgbe", "ringline bind"),
    ),
    "driver without an interface": (
        lambda card: card.bind("nvme"),
        ("kernel driver nvme", "ringline bind"),
    ),
    "no registers": (without("resource0"), ("resource0", "No such file")),
    "few registers": (make("resource0", bytes(4096)), ("4096 bytes", "need")),
    "no memory": (to_folder, ("resource0",)),
    "no configuration space": (
        lambda card: (card.folder / "config").rename(card.folder / "other"),
        ("config", "No such file"),
    ),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_refused_card_is_not_written_to(operator: Operator, card: Card, refusal: str) -> None:
    before = card.space
    change, words = REFUSALS[refusal]
    change(card)
    sentence = refused(operator, port())
    for word in (ADDRESSES[0], *words):
        assert word in sentence
    if refusal == "no configuration space":
        (card.folder / "other").rename(card.folder / "config")
    assert card.space == before


def test_a_card_of_another_instance_is_not_written_to(operator: Operator, card: Card) -> None:
    before, registers = card.space, card.registers
    with card.locked():
        assert "is mapped by another instance (process " in refused(operator, port())
    assert (card.space, card.registers) == (before, registers)


def test_two_instances_race_for_a_card(operator: Operator, card: Card) -> None:
    """A lock that is taken in this process: it is not the child of the other run."""
    before = card.space
    with (card.folder / "resource0").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert f"(process {os.getpid()})" in refused(operator, port())
    assert card.space == before


@pytest.mark.parametrize(
    ("text", "code", "word"),
    [
        (port(dma="physical"), 3, "hugepages"),
        (port() + "memory.buffers = 512\n", 2, "memory"),
        (port() + port("lan"), 2, "uses the card of port"),
        (port() + "queues = 17\n", 2, "queues"),
        (port() + port("lan", dma="physical"), 2, "port"),
        (port() + '[worker]\nplugin = "no.such:thing"\n', 2, "no.such"),
    ],
    ids=["physical", "buffers", "twice", "queues", "two modes", "plugin"],
)
def test_a_wrong_configuration_writes_to_no_card(
    operator: Operator, card: Card, text: str, code: int, word: str
) -> None:
    before = card.space
    assert word in refused(operator, text, code)
    assert card.space == before


def test_no_card_is_written_to_when_another_port_is_refused(
    operator: Operator, card: Card, sysfs: Path
) -> None:
    """The first port is taken and the second one refused: the run has not begun."""
    other = Card(sysfs, ADDRESSES[1])
    other.bind("ixgbe", up=True)
    before = [card.space, other.space]
    assert ADDRESSES[1] in refused(operator, port() + port("lan", ADDRESSES[1]))
    assert [card.space, other.space] == before


SLOW_TO_FAIL = """
import pathlib, time
def setup(worker):
    pathlib.Path("there").touch()
    while not pathlib.Path("fail").exists():
        time.sleep(0.01)
    raise ValueError("no")
class Late:
    setup = staticmethod(setup)
    def process(self, batch):
        pass
"""


@pytest.mark.parametrize("end", ["fails", "SIGINT", "SIGKILL"])
def test_a_card_is_not_written_to_before_every_worker_is_ready(
    operator: Operator, card: Card, end: str
) -> None:
    before, registers = card.space, card.registers
    operator.write(SLOW_TO_FAIL, "late.py")
    path = operator.write(HEAD + port() + '[worker]\nplugin = "./late.py:Late"\n')
    with operator.started("run", path, environment=ENVIRONMENT, keep_instance=True) as process:
        wait_for(lambda: (operator.folder / "there").exists() and is_locked(card))
        if end == "fails":
            (operator.folder / "fail").touch()
        else:
            process.send_signal(getattr(signal, end))
        process.communicate(timeout=TIMEOUT)
    assert process.returncode == {"fails": 2, "SIGINT": 0, "SIGKILL": -9}[end]
    wait_for(lambda: not is_locked(card))
    if end == "SIGKILL":
        said = operator.run("cleanup", path, environment=ENVIRONMENT).out
        assert "removed" in said
        assert "DMA" not in said, "the run had written to no card"
    assert (card.space, card.registers) == (before, registers)


@pytest.mark.parametrize("refusal", ["another device", "interface up", "interface down"])
def test_check_writes_to_no_card(operator: Operator, card: Card, refusal: str) -> None:
    before = card.space
    change, words = REFUSALS[refusal]
    change(card)
    assert words[0] in refused(operator, port(), command="check")
    assert card.space == before


def test_check_of_a_usable_card_writes_nothing(operator: Operator, card: Card) -> None:
    before = card.space
    path = operator.write(HEAD + port())
    assert "all well" in operator.run("check", path, environment=ENVIRONMENT).out
    assert card.space == before


@pytest.mark.parametrize("file", ["config", "resource0"])
def test_a_card_that_this_user_may_not_use_is_not_written_to(
    open_operator: Operator, file: str
) -> None:
    card = Card(open_operator.folder / "sys", ADDRESSES[0])
    before = card.space
    for name in ("config", "resource0"):
        (card.folder / name).chmod(0o444 if name == file else 0o666)
    path = open_operator.write(HEAD + port())
    within = as_nobody() if os.geteuid() == 0 else []
    sentence = open_operator.refused(3, "run", path, within=within, environment=ENVIRONMENT)
    assert f"{ADDRESSES[0]}/{file}: Permission denied; run as root" in sentence
    assert card.space == before


def test_a_run_takes_a_card_and_stops_it(operator: Operator, card: Card) -> None:
    """The registers are plain memory, so that the reset never ends: the card was written to."""
    refused(operator, port())
    assert card.command == BUSY & ~BUS_MASTER | MEMORY_SPACE


# -- what a killed run left -------------------------------------------------------------------

LEAVE = """
import os, signal, sys
from ringline.shm.packets import DescriptorMemory
memory = DescriptorMemory.create(sys.argv[1], 4096, hugepages="off")
for address in sys.argv[2:]:
    memory.segment.note_pci(address)
os.kill(os.getpid(), signal.SIGKILL)
"""


def left_by_a_killed_run(name: str, *addresses: str) -> None:
    """Shared memory as a killed run leaves it; its driver had taken the cards `addresses`."""
    done = subprocess.run([sys.executable, "-c", LEAVE, name, *addresses], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL


@pytest.fixture(params=["cleanup", "run"])
def clean_up(request: pytest.FixtureRequest, operator: Operator) -> Callable[[], str]:
    """Clean up after the instance, by the command or by the next start (which fails after it)."""

    def clean_up() -> str:
        path = operator.write(HEAD + port(address="0000:99:00.0"))
        ended = operator.run(request.param, path, environment=ENVIRONMENT)
        assert ended.code == (0 if request.param == "cleanup" else 3)
        return ended.out if request.param == "cleanup" else ""

    return clean_up


@pytest.mark.parametrize("use", ["bound", "bound and down", "locked"])
def test_a_card_that_somebody_else_uses_now_is_left_alone(
    operator: Operator, sysfs: Path, clean_up: Callable[[], str], use: str
) -> None:
    taken, free = Card(sysfs, ADDRESSES[0]), Card(sysfs, ADDRESSES[1])
    left_by_a_killed_run(operator.name, *ADDRESSES)
    before = taken.space
    if use == "locked":
        with taken.locked():
            said = clean_up()
    else:
        taken.bind("ixgbe", up=use == "bound")
        said = clean_up()
    assert taken.space == before
    assert free.command == BUSY & ~BUS_MASTER
    if said:
        assert f"PCI device {taken.address} belongs to " in said
        assert f"DMA of PCI device {free.address} was stopped" in said
        assert "1 file in shared memory removed" in said


def test_a_card_that_a_killed_run_left_is_stopped(
    operator: Operator, card: Card, clean_up: Callable[[], str]
) -> None:
    left_by_a_killed_run(operator.name, card.address)
    after = bytearray(card.space)
    after[COMMAND] &= ~BUS_MASTER
    clean_up()
    assert card.space == after


def test_a_configured_card_that_the_killed_run_had_not_taken_is_left_alone(
    operator: Operator, card: Card
) -> None:
    left_by_a_killed_run(operator.name)
    before = card.space
    path = operator.write(HEAD + port())
    said = operator.run("cleanup", path, environment=ENVIRONMENT).out
    assert said == f"{path}: instance {operator.name}: 1 file in shared memory removed\n"
    assert card.space == before


def test_a_run_without_a_file_is_cleaned_up_by_its_name(operator: Operator, card: Card) -> None:
    left_by_a_killed_run(operator.name)
    (operator.folder / operator.name).mkdir()  # a folder is no configuration
    for done in ("1 file in shared memory removed", "nothing was left"):
        said = operator.run("cleanup", operator.name, environment=ENVIRONMENT).out
        assert said == f"instance {operator.name}: {done}\n"
    (operator.folder / "edge").write_text(f'name = "{operator.name}"')
    assert operator.run("cleanup", "edge").out.startswith(f"edge: instance {operator.name}: ")
    assert operator.refused(2, "cleanup", "Edge") == (
        "there is no such file, and the name of an instance must be 1 to 32 characters from a-z, "
        '0-9 and -, not "Edge"'
    )


def test_a_clean_up_waits_for_the_driver_that_is_about_to_end(
    operator: Operator, card: Card
) -> None:
    """The driver of a killed supervisor stops its cards by itself; it has the lock until then."""
    left_by_a_killed_run(operator.name, card.address)
    path = operator.write(HEAD + port())
    with card.locked(0.3):
        said = operator.run("cleanup", path, environment=ENVIRONMENT).out
    assert f"DMA of PCI device {card.address} was stopped" in said
    assert card.command == BUSY & ~BUS_MASTER


def test_a_clean_up_of_nothing(operator: Operator) -> None:
    path = operator.write("unknown = 1\n" + HEAD)
    said = operator.run("cleanup", path, environment=ENVIRONMENT)
    assert said.out == f"{path}: instance {operator.name}: nothing was left\n"
    assert operator.refused(2, "cleanup", operator.folder / "missing.toml").endswith("no such file")
    path = operator.write("name = 3\n")
    assert operator.refused(2, "cleanup", path) == f"{path}: name: must be a string"


def test_a_running_instance_is_not_cleaned_up(operator: Operator) -> None:
    path = operator.write(HEAD + '[port.wan]\ndevice = "sim:82599"\n')
    with operator.started("run", path) as process:
        wait_for(lambda: status_of(operator.name).get("state") == "running")
        told = operator.run("cleanup", path, keep_instance=True)
        assert told.code == 3
        assert f"already runs: process {process.pid} holds" in told.last
        assert status_of(operator.name)["state"] == "running"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0


def is_locked(card: Card) -> bool:
    with (card.folder / "resource0").open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.02)
