"""nfcapd, a collector of IPFIX that others wrote, on loopback; nfdump reads what it collected."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

NFCAPD = shutil.which("nfcapd")
needed = pytest.mark.skipif(NFCAPD is None, reason="nfdump is missing")

SECONDS = 60.0
FLAGS = "CEUAPRSF"  # as nfdump writes them, from the highest bit on


def free_port(kind: int = socket.AF_INET) -> int:
    """A UDP port that nobody uses."""
    with socket.socket(kind, socket.SOCK_DGRAM) as probe:
        probe.bind(("::1" if kind == socket.AF_INET6 else "127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Collector:
    """nfcapd, from `with` on; after `stop` there are flows."""

    def __init__(self, folder: Path, host: str = "127.0.0.1", port: int | None = None) -> None:
        kind = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.port = port or free_port(kind)
        self.url = f"udp://[{host}]:{self.port}" if ":" in host else f"udp://{host}:{self.port}"
        self._folder = folder
        self._log = folder / "nfcapd.log"
        folder.mkdir(exist_ok=True)
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [str(NFCAPD), "-w", folder, "-b", host, "-p", str(self.port), "-B", "4000000"],
                stdout=log,
                stderr=log,
            )
        self._wait_for(lambda: "Startup nfcapd" in self.log, "it started")

    @property
    def log(self) -> str:
        """What nfcapd said."""
        return self._log.read_text()

    def _wait_for(self, is_true: Any, what: str) -> None:
        deadline = time.monotonic() + SECONDS
        while not is_true():
            assert self._process.poll() is None, f"nfcapd ended before {what}: {self.log}"
            assert time.monotonic() < deadline, f"{what}: not within {SECONDS:g} s; {self.log}"
            time.sleep(0.01)

    def _socket(self) -> tuple[int, int]:
        """Bytes that wait in the socket, and messages that the kernel dropped (proc(5))."""
        for name in ("udp", "udp6"):
            for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
                words = line.split()
                if int(words[1].rpartition(":")[2], 16) == self.port:
                    return int(words[4].partition(":")[2], 16), int(words[12])
        raise AssertionError("nfcapd has no socket")

    def stop(self, *, gaps: int = 0) -> None:
        """Let it take what waits, then end it. There may be so many gaps in the sequence numbers of
        its streams."""
        self._wait_for(lambda: self._socket()[0] == 0, "it read its socket")
        assert self._socket()[1] == 0, "the kernel dropped messages at the socket of nfcapd"
        self.end()
        said = re.search(r"Sequence Errors: (\d+), Bad Packets: (\d+)", self.log)
        assert said, self.log
        assert said[2] == "0", self.log
        assert int(said[1]) <= gaps, self.log

    def end(self) -> None:
        """End it."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(SECONDS)
        finally:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Collector:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def flows(self) -> list[dict[str, Any]]:
        """What nfdump reads: a dict for each record."""
        done = subprocess.run(
            ["nfdump", "-R", self._folder, "-q", "-o", "json"],
            env={"TZ": "UTC", "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
            timeout=SECONDS,
        )
        # Version 1.7.1 puts no brackets around the records, and sometimes no comma between them.
        text = done.stdout.strip().lstrip("[").rstrip("],")
        records = re.split(r"(?<=\n\})[,\s]*(?=\{)", text)
        return [json.loads(record) for record in records if record.startswith("{")]


def flags_of(record: dict[str, Any]) -> int:
    """The flags of TCP in a record of `Collector.flows`."""
    shown = record.get("tcp_flags", "." * 8)
    return sum(1 << 7 - at for at, letter in enumerate(shown) if letter != ".")
