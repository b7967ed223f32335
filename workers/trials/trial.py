"""Runs a plugin on a capture in a child process, for `ringline try`."""

from __future__ import annotations

import json
import mmap
import os
import selectors
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ringline.shm import errors
from ringline.shm._shm import ffi
from ringline.shm.control import revive
from ringline.shm.errors import PluginError
from ringline.workers.captures.capture_table import CaptureError
from ringline.workers.trials import checking
from ringline.workers.trials.dry_run import PAGE, PLACE_OFFSET

SILENCE_SECONDS = 10.0  # timeout of a batch
_LOOK_SECONDS = 0.1  # between two looks at the child

_ERRORS = (CaptureError, PluginError, errors.EnvironmentLacks)


@dataclass(frozen=True)
class Summary:
    """The result of a trial.

    tier: "batch", "compiled" or "C".
    counters: those of a worker: packets, bytes, forwarded, dropped, plugin_errors,
        verdict_errors, created and so on.
    per_port: the number of packets for each port, by name.
    too_long: frames that no card would receive; they were left out.
    nanoseconds: total time inside the plugin.
    complaints: the different errors, each with the number of its first frame, from 1; 0 for an
        error of `tick`.
    trace: the last lines of the traceback of the first error that has one.
    named: the plugin's own metrics by name (see `named_values`).
    remarks: sentences about possible improvements.
    """

    tier: str
    counters: dict[str, int]
    per_port: dict[str, int]
    too_long: int
    nanoseconds: float
    complaints: list[tuple[int, str]]
    trace: list[str]
    named: dict[str, Any]
    remarks: list[str]

    @property
    def nanoseconds_per_packet(self) -> float | None:
        """Average time inside the plugin; None without packets."""
        packets = self.counters["packets"]
        return self.nanoseconds / packets if packets else None


def run(
    plugin: str,
    capture: str,
    out: str | None = None,
    options: Mapping[str, Any] | None = None,
    ports: Sequence[str] = ("port",),
    *,
    folder: str | None = None,
    blanks: int = 0,
    state_bytes: int = 64 << 20,
    debug: bool = False,
    progress: Callable[[int, int], None] | None = None,
    silence: float = SILENCE_SECONDS,
) -> Summary:
    """Run `plugin` on the frames of the file `capture`; the first port receives them.

    out: a capture file for the packets that the plugin sends, with the times of the frames.
    folder: a file name in `plugin` is relative to it.
    blanks: how many packets the plugin can create per batch.
    progress: `progress(done, all)` is called about ten times a second.
    silence: the timeout of a batch in seconds.

    Raises PluginError when the plugin cannot start, crashes or does not return in time,
    CaptureError when a file cannot be read or written, EnvironmentLacks on a full disk.
    """
    page_fd = os.memfd_create("ringline-trial", os.MFD_CLOEXEC)
    try:
        os.ftruncate(page_fd, PAGE)
        with mmap.mmap(page_fd, PAGE) as page:
            job = {
                "do": "try",
                "plugin": plugin,
                "capture": os.fspath(capture),
                "out": None if out is None else os.fspath(out),
                "options": dict(options or {}),
                "ports": list(ports),
                "queue": 0,
                "folder": folder,
                "blanks": blanks,
                "state_bytes": state_bytes,
                "debug": debug,
                "page": page_fd,
            }
            return _Monitor(job, page, progress, silence).run()
    finally:
        os.close(page_fd)


class _Monitor:
    """Watches the child, which shows its progress in the shared page."""

    def __init__(
        self,
        job: dict[str, Any],
        page: mmap.mmap,
        progress: Callable[[int, int], None] | None,
        silence: float,
    ) -> None:
        self._job = job
        self._page = page
        self._progress = progress
        self._silence = silence
        self._frames: int | None = None  # known when the child has read the capture
        self._text = ""

    def run(self) -> Summary:
        """Start the child and return its summary. Raises the errors of `run`."""
        child = checking.start(pass_fds=(self._job["page"],))
        try:
            checking.tell(child, self._job)
            answer = self._await(child)
        finally:
            checking.end(child)
        if answer is None:
            raise PluginError(
                f"plugin {self._job['plugin']} {checking.how_it_ended(child.returncode)}"
                f"{self._place()}"
            )
        if "error" in answer:
            raise revive(answer["error"], _ERRORS)
        summary = answer["summary"]
        summary["complaints"] = [(number, what) for number, what in summary["complaints"]]
        return Summary(**summary)

    def _await(self, child: subprocess.Popen[str]) -> dict[str, Any] | None:
        """The child's answer, None when it ended without one. Raises PluginError on timeout."""
        assert child.stdout is not None
        since, done = time.monotonic(), 0
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            while True:
                over = checking.has_ended(
                    child
                )  # before the read; another process may have its output, too
                readable = selector.select(_LOOK_SECONDS)
                packets = self._packets()
                if packets != done:
                    since, done = time.monotonic(), packets
                if self._progress is not None and self._frames is not None:
                    self._progress(packets, self._frames)
                if readable:
                    data = os.read(child.stdout.fileno(), 65536)
                    if not data:
                        checking.await_end(child)
                        return None
                    for answer in self._lines(data):
                        if "frames" not in answer:
                            return answer
                        self._frames, since = answer["frames"], time.monotonic()
                elif over:
                    return None
                limit = checking.PREPARE_SECONDS if self._frames is None else self._silence
                if time.monotonic() - since > limit:
                    raise PluginError(
                        f"plugin {self._job['plugin']} did not return for {limit:g} s"
                        f"{self._place()}"
                    )

    def _lines(self, data: bytes) -> list[dict[str, Any]]:
        *whole, self._text = (self._text + data.decode()).split("\n")
        return [json.loads(line) for line in whole]

    def _packets(self) -> int:
        kind = dict(ffi.typeof("struct rl_worker_counters").fields)["packets"]
        return int.from_bytes(self._page[kind.offset : kind.offset + 8], "little")

    def _place(self) -> str:
        """The end of a sentence: which frames the child was working on."""
        place = memoryview(self._page)[PLACE_OFFSET : PLACE_OFFSET + 16].cast("Q")
        first, last = place
        place.release()
        if not first:
            return " while it was made ready"
        return f" on one of the frames {first} to {last} of {self._job['capture']}"
