"""The child process of `ringline check` and `ringline try`, which runs the user's plugin.

User code never runs in the supervisor or in a command: it may crash, hang or leave threads.
The job is one JSON object on standard input, the answers are JSON lines on standard output;
what the plugin prints goes to standard error. A trial writes the numbers of its current
frames to shared memory, so that the parent can report where it crashed.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import sys
from collections.abc import Mapping
from typing import IO, Any, NoReturn

from ringline.shm import counters as counter_blocks
from ringline.shm._shm import ffi, lib
from ringline.shm.clock import ticks_per_second
from ringline.shm.control import describe
from ringline.shm.errors import PluginError, RinglineError
from ringline.workers.captures.captures import CaptureWriter, read_capture
from ringline.workers.captures.headers import ETHERNET_MIN
from ringline.workers.options import resolve
from ringline.workers.tiers import loading
from ringline.workers.tiers.tier import Context, sentence
from ringline.workers.trials.harness import BATCH, ERROR, Departure, Harness, named_values

COMPLAINTS_MAX = 10
# The shared page: struct rl_worker_counters, then the numbers of the first and last frame of
# the current batch, two uint64.
PLACE_OFFSET = 1024
PAGE = 4096


def main() -> NoReturn:
    """Do the job on standard input; exits with 0 when the answer was written."""
    lib.rl_die_with_parent(signal.SIGKILL, os.getppid())
    job = json.load(sys.stdin)
    results = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        _answer(results, _check(job) if job["do"] == "check" else _try(job, results))
    except RinglineError as error:
        _answer(results, {"error": describe(error)})
    except (Exception, SystemExit):
        raise
    except BaseException as error:  # for instance a panic in a library, or a cancellation
        failure = PluginError(f"plugin {job['plugin']}: {sentence(error)}")
        _answer(results, {"error": describe(failure)})
    results.close()
    sys.stdout.flush()
    os._exit(0)  # threads of the plugin must not delay the exit


def _answer(results: IO[str], what: Mapping[str, Any]) -> None:
    results.write(json.dumps(what) + "\n")
    results.flush()


def _context(job: Mapping[str, Any]) -> Context:
    return Context(
        queue=job["queue"],
        ports=job["ports"],
        debug=job["debug"],
        state_bytes=job["state_bytes"],
    )


def _check(job: Mapping[str, Any]) -> dict[str, Any]:
    """Load, prepare and set up the plugin; the answer holds the problems as sentences."""
    try:
        tier = loading.load(job["plugin"], job["folder"])
        if job["options"] is not None:
            tier.options, problems = resolve(tier.declared, job["options"])
            if problems:
                said = [f"plugin {tier.spec}: option {problem}" for problem in problems]
                return {"problems": said}
        if job["only_import"]:
            return {"problems": []}
        tier.prepare(_context(job))
        Harness(tier, _context(job))
    except PluginError as error:
        return {"problems": [str(error)]}
    return {"problems": [], "remarks": tier.remarks, "tier": tier.tier}


def _try(job: Mapping[str, Any], results: IO[str]) -> dict[str, Any]:
    """Run the plugin on the frames of a capture; the answer holds the summary."""
    capture = read_capture(job["capture"])
    context = _context(job)
    tier = loading.load(job["plugin"], job["folder"])
    tier.accept(job["options"])
    tier.prepare(context)
    page = mmap.mmap(job["page"], PAGE)
    address = int(ffi.cast("uintptr_t", ffi.from_buffer(page)))
    harness = Harness(tier, context, blanks=job["blanks"], counters=address)
    _answer(results, {"frames": len(capture)})
    trial = _Trial(harness, context, ffi.cast("uint64_t *", address + PLACE_OFFSET))
    if job["out"] is None:
        trial.run(capture, None)
    else:
        with CaptureWriter(job["out"]) as writer:
            trial.run(capture, writer)
    remark = capture.remark()
    return {
        "summary": {
            "too_long": trial.too_long,
            "per_port": dict(zip(context.ports, trial.per_port, strict=True)),
            "complaints": trial.complaints,
            "nanoseconds": harness.counters.plugin_ticks / ticks_per_second() * 1e9,
            "counters": counter_blocks.read(harness.slot.counters)
            | counter_blocks.read(ffi.cast("struct rl_worker_counters *", address)),
            "named": named_values(harness.slot),
            "remarks": tier.remarks + ([] if remark is None else [remark]),
            "tier": tier.tier,
        }
    }


class _Trial:
    """Runs frames through a harness; `place` points to the frame numbers in the shared page."""

    def __init__(self, harness: Harness, context: Context, place: Any) -> None:
        self._harness = harness
        self._place = place
        self.too_long = 0
        self.per_port = [0] * len(context.ports)
        self.complaints: list[tuple[int, str]] = []  # (number of the first frame, error)

    def run(self, capture: Any, writer: CaptureWriter | None) -> None:
        """Run all frames as a card would deliver them: padded, and without too long ones."""
        batch: list[tuple[int, bytes]] = []
        for number, frame in enumerate(capture.frames, 1):
            if len(frame) > lib.RL_FRAME_MAX:
                self.too_long += 1
                continue
            batch.append((number, bytes(frame).ljust(ETHERNET_MIN, b"\0")))
            if len(batch) == BATCH:
                self._run(batch, capture.times, writer)
                batch = []
        if batch:
            self._run(batch, capture.times, writer)
        self._harness.engine.tick()

    def _run(self, batch: list[tuple[int, bytes]], times: Any, writer: Any) -> None:
        self._place[0], self._place[1] = batch[0][0], batch[-1][0]
        departures, created = self._harness.run([(frame, 0, 0, 0, 0) for _, frame in batch])
        complaint = self._harness.engine.complaint()
        for (number, frame), departure in zip(batch, departures, strict=True):
            if departure.verdict == ERROR:
                self._add_complaint(number, frame, complaint)
            else:
                self._send(departure, times[number - 1], writer)
        for departure in created:
            self._send(departure, times[batch[-1][0] - 1], writer)

    def _send(self, departure: Departure, when: int, writer: CaptureWriter | None) -> None:
        if departure.verdict < len(self.per_port):
            self.per_port[departure.verdict] += 1
            if writer is not None:
                writer.write(departure.data, when)

    def _add_complaint(self, number: int, frame: bytes, complaint: str | None) -> None:
        """Store the error of a frame, each error once, up to COMPLAINTS_MAX."""
        if len(self.complaints) == COMPLAINTS_MAX:
            return
        what = complaint or self._harness.explain((frame, 0, 0, 0, 0))
        if what not in [known for _, known in self.complaints]:
            self.complaints.append((number, what))
