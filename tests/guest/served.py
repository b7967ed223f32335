"""Simulated 82599 cards for a guest, each served by a process of its own."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .cards import BUFFER_BYTES, End
from .hosts import CABLE, Host

RINGLINE = Path(sys.executable).with_name("ringline")
SECONDS = 60.0
# What a card refuses when its driver gives it a wrong address, or is killed: the kernel then takes
# the right to do DMA from it while frames come.
NO_DMA = r"DMA (read|write) of .*: outside every window"


@dataclass(frozen=True)
class Accesses:
    """How often the guest has read and written registers; `doorbells` are writes to the tails of
    descriptor rings."""

    read: int
    written: int
    doorbells: int

    def since(self, before: Accesses) -> Accesses:
        return Accesses(
            self.read - before.read,
            self.written - before.written,
            self.doorbells - before.doorbells,
        )


@dataclass(frozen=True)
class Served:
    """A card that a process serves at `path`; what it says is in the file `said`. What it refuses
    must match one of the patterns in `may_refuse`."""

    path: str
    process: subprocess.Popen[bytes]
    said: Path
    may_refuse: list[str] = field(default_factory=list)

    def accesses(self) -> Accesses:
        """The counts until now."""
        before = self.said.stat().st_size
        self.process.send_signal(signal.SIGUSR1)
        until = time.monotonic() + SECONDS
        while True:
            found = re.search(
                r"registers: (\d+) read, (\d+) written; (\d+) of", self.said.read_text()[before:]
            )
            if found is not None:
                return Accesses(*map(int, found.groups()))
            assert time.monotonic() < until, "the card did not say its counts"
            time.sleep(0.01)

    def end(self) -> None:
        """End the process. Its driver must have done nothing that the card refuses."""
        self.process.send_signal(signal.SIGTERM)
        output, _ = self.process.communicate(timeout=SECONDS)
        assert self.process.returncode == 0, f"the card has ended badly: {self.said.read_text()}"
        refused = re.findall(r"^the card refused: (.*)", output.decode(), re.MULTILINE)
        wrong = [
            each for each in refused if not any(re.match(known, each) for known in self.may_refuse)
        ]
        assert not wrong, f"the card refused what its driver did: {wrong}"


class ServedEnd(End):
    """The end of the cable of a served card, how often its registers are used, and what it may
    refuse."""

    def __init__(self, near: socket.socket, served: Served) -> None:
        super().__init__(near)
        self.accesses = served.accesses
        self.may_refuse = served.may_refuse
        self.process = served.process


@contextlib.contextmanager
def served_card(
    folder: Path, device: str = "10f7", broken: str = ""
) -> Iterator[tuple[str, ServedEnd]]:
    """The socket of a card for `Guest(served=...)`, and the end of its cable. `broken` is the
    defect of the card, "" for none."""
    card, here = (folder / name for name in ("wire", "end"))
    near = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    near.bind(str(here))
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
    with near, _served(folder, device, f"unix:{card},{here}", broken=broken) as served:
        near.connect(str(card))
        with contextlib.closing(ServedEnd(near, served)) as end:
            yield served.path, end


@contextlib.contextmanager
def served_to(
    host: Host, folder: Path, device: str, may_refuse: Sequence[str] = ()
) -> Iterator[str]:
    """The socket of a card for `Guest(served=...)`; the end of its cable is in `host`. What the
    card refuses must match one of the patterns `may_refuse`."""
    with _served(folder, device, f"tap:{CABLE}", host.line()) as served:
        served.may_refuse.extend(may_refuse)
        yield served.path


@contextlib.contextmanager
def _served(
    folder: Path, device: str, wire: str, within: Sequence[str] = (), broken: str = ""
) -> Iterator[Served]:
    path = folder / "card"
    line: list[str | Path] = [
        *within,
        RINGLINE,
        "serve-card",
        "--socket",
        path,
        "--wire",
        wire,
        "--id",
        device,
        *(("--broken", broken) if broken else ()),
    ]
    said = folder / "said"
    with (
        open(said, "wb") as errors,
        subprocess.Popen(line, stdout=subprocess.PIPE, stderr=errors) as process,
    ):
        try:
            until = time.monotonic() + SECONDS
            while not path.exists():
                assert process.poll() is None, "the card was not served"
                assert time.monotonic() < until, "the card was not served in time"
                time.sleep(0.05)
            served = Served(str(path), process, said)
            yield served
            served.end()
        finally:
            process.terminate()
            process.communicate(timeout=SECONDS)
