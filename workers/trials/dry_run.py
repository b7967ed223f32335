"""The child process of `ringline check` and `ringline try`, which runs the user's plugin.

User code never runs in the supervisor or in a command: it may crash, hang or leave threads.
The job is one JSON object on standard input, the answers are JSON lines on standard output;
what the plugin prints goes to standard error. The frames of a trial come from a pipe
(arrivals.py). A trial writes the numbers of its current frames to shared memory, so that the
parent can report where it crashed.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import IO, Any, NoReturn

from ringline.shm import counters as counter_blocks
from ringline.shm._shm import ffi, lib
from ringline.shm.clock import ticks_per_second
from ringline.shm.control import describe
from ringline.shm.errors import PluginError, RinglineError
from ringline.shm.refusals import WORDS
from ringline.workers.captures.captures import CaptureWriter
from ringline.workers.options import resolve
from ringline.workers.tiers import loading
from ringline.workers.tiers.tier import Context, sentence
from ringline.workers.trials import arrivals
from ringline.workers.trials.arrivals import Arrived
from ringline.workers.trials.harness import (
    BATCH,
    ERROR,
    Arrival,
    Departure,
    Harness,
    named_values,
)

COMPLAINTS_MAX = 10
TICK_NANOSECONDS = 1_000_000_000  # between two ticks, by the times of the frames
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
        tier.options, problems = resolve(tier.declared, job["options"])
        if problems:
            return {"problems": [f"plugin {tier.spec}: option {problem}" for problem in problems]}
        tier.prepare(_context(job))
        Harness(tier, _context(job))
    except PluginError as error:
        return {"problems": [str(error)]}
    return {"problems": [], "remarks": tier.remarks, "tier": tier.tier}


def _try(job: Mapping[str, Any], results: IO[str]) -> dict[str, Any]:
    """Run the plugin on the frames of a capture; the answer holds the summary."""
    context = _context(job)
    tier = loading.load(job["plugin"], job["folder"])
    tier.accept(job["options"])
    tier.prepare(context)
    page = mmap.mmap(job["page"], PAGE)
    address = int(ffi.cast("uintptr_t", ffi.from_buffer(page)))
    harness = Harness(tier, context, blanks=job["blanks"], counters=address)
    _answer(results, {"ready": True})
    trial = _Trial(harness, context, ffi.cast("uint64_t *", address + PLACE_OFFSET))
    with open(job["arrivals"], "rb", buffering=1 << 16) as pipe:
        if job["out"] is None:
            trial.run(arrivals.read(pipe), None)
        else:
            with CaptureWriter(job["out"], job["out_descriptor"]) as writer:
                trial.run(arrivals.read(pipe), writer)
    return {
        "summary": {
            "per_port": dict(zip(context.ports, trial.per_port, strict=True)),
            "created": trial.created,
            "refused": dict(trial.refused),
            "complaints": trial.complaints,
            "nanoseconds": harness.counters.plugin_ticks / ticks_per_second() * 1e9,
            "counters": counter_blocks.read(harness.slot.counters)
            | counter_blocks.read(ffi.cast("struct rl_worker_counters *", address)),
            "named": named_values(harness.slot),
            "remarks": tier.remarks,
            "tier": tier.tier,
        }
    }


class _Trial:
    """Runs frames through a harness; `place` points to the frame numbers in the shared page."""

    def __init__(self, harness: Harness, context: Context, place: Any) -> None:
        self._harness = harness
        self._place = place
        self.per_port = [0] * len(context.ports)
        self.created = 0
        self.refused: Counter[str] = Counter()  # packets that no card can send, by cause
        self.complaints: list[tuple[int, str]] = []  # (number of the first frame, error)
        self._complained: set[str] = set()

    def run(self, frames: Iterable[Arrived], writer: CaptureWriter | None) -> None:
        """Run all frames. The plugin's tick is called when a second has passed by their times,
        and at the end."""
        batch: list[Arrived] = []
        last, tick_at = 0, None
        for frame in frames:
            if tick_at is None:
                tick_at = frame.nanoseconds + TICK_NANOSECONDS
            is_due = frame.nanoseconds >= tick_at
            if batch and (is_due or len(batch) == BATCH):
                self._run(batch, writer)
                batch = []
            if is_due:
                self._tick(last)
                tick_at = frame.nanoseconds + TICK_NANOSECONDS
            batch.append(frame)
            last = frame.number
        if batch:
            self._run(batch, writer)
        self._tick(last)

    def _tick(self, number: int) -> None:
        """Call the plugin's tick after the frame `number`."""
        try:
            self._harness.engine.tick()
        except Exception as error:
            self._complain(number, f"tick after this frame: {sentence(error)}")

    def _run(self, batch: list[Arrived], writer: CaptureWriter | None) -> None:
        self._place[0], self._place[1] = batch[0].number, batch[-1].number
        departures, created = self._harness.run([_arrival(frame) for frame in batch])
        complaint = self._harness.engine.complaint()
        for frame, departure in zip(batch, departures, strict=True):
            if departure.verdict == ERROR:
                if len(self.complaints) < COMPLAINTS_MAX:
                    what = complaint or self._harness.explain(_arrival(frame))
                    self._complain(frame.number, what)
            else:
                self._send(departure, frame, writer)
        for departure in created:
            self.created += self._send(departure, batch[-1], writer)

    def _send(self, departure: Departure, frame: Arrived, writer: CaptureWriter | None) -> bool:
        """Send a packet to its port, if it has one and the driver would not refuse it."""
        if departure.verdict >= len(self.per_port):
            return False
        if departure.refused is not None:
            self.refused[departure.refused] += 1
            self._complain(
                frame.number,
                f"a frame of {len(departure.data)} bytes cannot be sent: "
                f"{WORDS[departure.refused]}",
                departure.refused,
            )
            return False
        self.per_port[departure.verdict] += 1
        if writer is not None:
            writer.write(departure.on_wire(), frame.nanoseconds)
        return True

    def _complain(self, number: int, what: str, kind: str = "") -> None:
        """Store the error of a frame, each error once, up to COMPLAINTS_MAX. `kind` names errors
        that are the same, though their words differ."""
        kind = kind or what
        if kind not in self._complained and len(self.complaints) < COMPLAINTS_MAX:
            self._complained.add(kind)
            self.complaints.append((number, what))


def _arrival(frame: Arrived) -> Arrival:
    return frame.data, 0, frame.rss_hash, frame.vlan_tci, frame.flags
