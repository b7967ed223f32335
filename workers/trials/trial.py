"""Runs a plugin on a capture in a child process, for `ringline try`."""

from __future__ import annotations

import json
import mmap
import os
import selectors
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ringline.shm import errors
from ringline.shm._shm import ffi
from ringline.shm.control import revive
from ringline.shm.errors import PluginError
from ringline.shm.frames import MTU, frame_max
from ringline.workers.captures.capture_table import CaptureError
from ringline.workers.trials import arrivals, checking
from ringline.workers.trials.arrivals import Source
from ringline.workers.trials.dry_run import PAGE, PLACE_OFFSET

SILENCE_SECONDS = 10.0  # timeout of a batch
_LOOK_SECONDS = 0.1  # between two looks at the child
_FEEDER_SECONDS = 1.0  # for the feeder to notice that the child failed; it may wait for a pipe

_ERRORS = (CaptureError, PluginError, errors.EnvironmentLacks)


@dataclass(frozen=True)
class Summary:
    """The result of a trial.

    tier: "batch", "compiled" or "C".
    counters: those of a worker: packets, bytes, forwarded, dropped, plugin_errors,
        verdict_errors, created and so on.
    per_port: the number of packets that each port sends, by name.
    created: how many of these the plugin created.
    refused: packets with a port that no card can send, by cause (shm/refusals.py).
    too_long: frames that no card would receive; they were left out.
    nanoseconds: total time inside the plugin.
    complaints: the different errors, each with the number of its first frame, from 1; 0 for an
        error of `tick`.
    trace: the last lines of the traceback of the first error that has one.
    named: the plugin's own metrics by name (see `named_values`).
    headings: those of its tables by name: of the labels, then one per value.
    remarks: sentences about possible improvements.
    drops: how many packets the plugin dropped for each of its drop reasons, by name.
    """

    tier: str
    counters: dict[str, int]
    per_port: dict[str, int]
    created: int
    refused: dict[str, int]
    too_long: int
    nanoseconds: float
    complaints: list[tuple[int, str]]
    trace: list[str]
    named: dict[str, Any]
    headings: dict[str, list[str]]
    remarks: list[str]
    drops: dict[str, int]

    @property
    def forwarded(self) -> int:
        """How many of the received packets are sent."""
        return sum(self.per_port.values()) - self.created

    @property
    def nanoseconds_per_packet(self) -> float | None:
        """Average time inside the plugin; None without packets."""
        packets = self.counters["packets"]
        return self.nanoseconds / packets if packets else None


def run(
    plugin: str,
    source: Source,
    out: str | None = None,
    options: Mapping[str, Any] | None = None,
    ports: Sequence[str] = ("port",),
    *,
    out_descriptor: int | None = None,
    folder: str | None = None,
    blanks: int = 0,
    mtu: int = MTU,
    state_bytes: int = 4 << 20,
    debug: bool = False,
    progress: Callable[[float, float], None] | None = None,
    silence: float = SILENCE_SECONDS,
    limit: float = checking.SILENCE_SECONDS,
) -> Summary:
    """Run `plugin` on the frames of `source`.

    out: a capture file for the packets that the plugin sends, with the times of the frames.
    out_descriptor: an open file to write to instead; `out` is for messages then.
    folder: a file name in `plugin` is relative to it.
    blanks: how many packets the plugin can create per batch.
    mtu: of the ports, in bytes.
    state_bytes: for the plugin's named state and counters.
    debug: in compiled plugins, an index out of range raises IndexError.
    progress: `progress(share, 1.0)` is called about ten times a second with the share of the
        captures that was read, from 0 to 1.
    silence: the timeout of a batch in seconds.
    limit: a remark tells of a batch or tick that takes more seconds.

    Raises PluginError when the plugin cannot start, crashes or does not return in time,
    CaptureError when a capture is damaged or a file cannot be written, EnvironmentLacks on a full
    disk.
    """
    page_fd = os.memfd_create("ringline-trial", os.MFD_CLOEXEC)
    try:
        os.ftruncate(page_fd, PAGE)
        with mmap.mmap(page_fd, PAGE) as page:
            job = {
                "do": "try",
                "plugin": plugin,
                "out": None if out is None else os.fspath(out),
                "out_descriptor": out_descriptor,
                "options": dict(options or {}),
                "ports": list(ports),
                "captures": list(source.paths),
                "queue": 0,
                "folder": folder,
                "blanks": blanks,
                "frame_max": frame_max(mtu),
                "state_bytes": state_bytes,
                "debug": debug,
                "limit": limit,
                "page": page_fd,
            }
            return _Monitor(job, source, page, progress, silence).run()
    finally:
        os.close(page_fd)


class _Feeder:
    """Writes the frames of `source` to a pipe, in a thread, until the reader is gone.

    `outlet` is the end for the reader.
    """

    def __init__(self, source: Source) -> None:
        self.outlet, self._inlet = os.pipe()
        self._source = source
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._feed, name="frames", daemon=True)

    def start(self) -> None:
        """Begin to write. The reader has been started: close its end here."""
        os.close(self.outlet)
        self._thread.start()

    def abandon(self) -> None:
        """Close the pipe: there is no reader."""
        os.close(self.outlet)
        os.close(self._inlet)

    def _feed(self) -> None:
        try:
            with open(self._inlet, "wb", buffering=1 << 16) as pipe:
                for arrived in self._source:
                    arrivals.write(pipe, arrived)
        except BrokenPipeError:
            pass
        except Exception as error:
            self._error = error

    def join(self, seconds: float | None = None) -> None:
        """Wait for the end of the thread, after the reader has ended, at most `seconds`. Raises
        what it raised."""
        self._thread.join(seconds)
        if self._error is not None:
            raise self._error


class _Monitor:
    """Watches the child, which shows its progress in the shared page."""

    def __init__(
        self,
        job: dict[str, Any],
        source: Source,
        page: mmap.mmap,
        progress: Callable[[float, float], None] | None,
        silence: float,
    ) -> None:
        self._job = job
        self._source = source
        self._page = page
        self._progress = progress
        self._silence = silence
        self._is_ready = False  # the plugin is prepared
        self._text = ""

    def run(self) -> Summary:
        """Start the child and return its summary. Raises the errors of `run`."""
        feeder = _Feeder(self._source)
        given = [self._job["page"], feeder.outlet]
        if self._job["out_descriptor"] is not None:
            given.append(self._job["out_descriptor"])
        try:
            child = checking.start(pass_fds=given)
        except BaseException:
            feeder.abandon()
            raise
        answer = None
        try:
            feeder.start()
            checking.tell(child, self._job | {"arrivals": feeder.outlet})
            answer = self._await(child)
        finally:
            checking.end(child)
            feeder.join(None if answer and "summary" in answer else _FEEDER_SECONDS)
        if answer is None:
            raise PluginError(
                f"plugin {self._job['plugin']} {checking.how_it_ended(child.returncode)}"
                f"{self._place()}"
            )
        if "error" in answer:
            raise revive(answer["error"], _ERRORS)
        summary = answer["summary"]
        summary["complaints"] = [(number, what) for number, what in summary["complaints"]]
        return Summary(too_long=self._source.too_long, **summary)

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
                if packets != done or (self._is_ready and not self._is_busy()):
                    since, done = time.monotonic(), packets
                if self._progress is not None and self._is_ready:
                    self._progress(self._source.share, 1.0)
                if readable:
                    data = os.read(child.stdout.fileno(), 65536)
                    if not data:
                        checking.await_end(child)
                        return None
                    for answer in self._lines(data):
                        if "ready" not in answer:
                            if self._progress is not None and "summary" in answer:
                                self._progress(1.0, 1.0)  # a short trial ends before a look
                            return answer
                        self._is_ready, since = True, time.monotonic()
                elif over:
                    return None
                limit = checking.PREPARE_SECONDS if not self._is_ready else self._silence
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

    def _is_busy(self) -> bool:
        """Whether the plugin has a batch or a tick. Otherwise the child waits for frames, which may
        come slowly through a pipe."""
        return self._page[PLACE_OFFSET + 16] != 0

    def _place(self) -> str:
        """The end of a sentence: which frames the child was working on."""
        place = memoryview(self._page)[PLACE_OFFSET : PLACE_OFFSET + 16].cast("Q")
        first, last = place
        place.release()
        if not first:
            return " while it was made ready"
        paths = self._source.paths
        of = f" of {next(iter(paths.values()))}" if len(paths) == 1 else ""
        return f" on one of the {arrivals.span(first, last, paths)}{of}"
