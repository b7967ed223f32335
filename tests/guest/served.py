"""Simulated 82599 cards for a guest, each served by a process of its own."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from .cards import BUFFER_BYTES, End
from .hosts import CABLE, Host

RINGLINE = Path(sys.executable).with_name("ringline")
SECONDS = 60.0


@contextlib.contextmanager
def served_card(folder: Path, device: str = "10f7") -> Iterator[tuple[str, End]]:
    """The socket of a card for `Guest(served=...)`, and the end of its cable."""
    card, here = (folder / name for name in ("wire", "end"))
    near = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    near.bind(str(here))
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
    with near, _served(folder, device, f"unix:{card},{here}") as path:
        near.connect(str(card))
        with contextlib.closing(End(near)) as end:
            yield path, end


@contextlib.contextmanager
def served_to(host: Host, folder: Path, device: str) -> Iterator[str]:
    """The socket of a card for `Guest(served=...)`; the end of its cable is in `host`."""
    with _served(folder, device, f"tap:{CABLE}", host.line()) as path:
        yield path


@contextlib.contextmanager
def _served(folder: Path, device: str, wire: str, within: Sequence[str] = ()) -> Iterator[str]:
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
    ]
    with subprocess.Popen(line, stdout=subprocess.PIPE) as process:
        try:
            until = time.monotonic() + SECONDS
            while not path.exists():
                assert process.poll() is None, "the card was not served"
                assert time.monotonic() < until, "the card was not served in time"
                time.sleep(0.05)
            yield str(path)
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=SECONDS)
