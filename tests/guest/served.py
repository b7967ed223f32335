"""Simulated 82599 cards for a guest, each served by a process of its own."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from .cards import BUFFER_BYTES, End

RINGLINE = Path(sys.executable).with_name("ringline")
SECONDS = 60.0


@contextlib.contextmanager
def served_card(folder: Path, device: str = "10f7") -> Iterator[tuple[str, End]]:
    """The socket of a card for `Guest(served=...)`, and the end of its cable."""
    path, card, here = (folder / name for name in ("card", "wire", "end"))
    near = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    near.bind(str(here))
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
    line = [RINGLINE, "serve-card", "--socket", path, "--wire", f"unix:{card},{here}"]
    line += ["--id", device]
    with near, subprocess.Popen(line, stdout=subprocess.PIPE) as process:
        try:
            until = time.monotonic() + SECONDS
            while not path.exists():
                assert process.poll() is None, "the card was not served"
                assert time.monotonic() < until, "the card was not served in time"
                time.sleep(0.05)
            near.connect(str(card))
            with contextlib.closing(End(near)) as end:
                yield str(path), end
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=SECONDS)
