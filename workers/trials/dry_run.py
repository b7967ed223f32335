"""The child process of `ringline check` and `ringline try`, which runs the user's plugin.

User code never runs in the supervisor or in a command: it may crash, hang or leave threads.
The job is one JSON object on standard input, the answers are JSON lines on standard output;
what the plugin prints goes to standard error. The frames of a trial come from a pipe
(arrivals.py). A trial writes the numbers of its current frames to shared memory, so that the
parent can report where it crashed.
"""

from __future__ import annotations

import contextlib
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
from ringline.shm.refusals import words
from ringline.workers.captures.captures import CaptureWriter
from ringline.workers.named.log import Log
from ringline.workers.options import resolve
from ringline.workers.process.engine import TICK_SECONDS
from ringline.workers.tiers import loading
from ringline.workers.tiers.rehearsal import SAMPLES
from ringline.workers.tiers.tier import Context, sentence, where
from ringline.workers.trials import arrivals
from ringline.workers.trials.arrivals import Arrived
from ringline.workers.trials.harness import (
    BATCH,
    ERROR,
    Arrival,
    Departure,
    Harness,
    Ticks,
    named_values,
    table_headings,
)
from ringline.workers.trials.stopwatch import Stopwatch

COMPLAINTS_MAX = 10
SAMPLE_BATCHES = 4  # that `check` times
# The shared page: struct rl_worker_counters, then three uint64: the places of the first and last
# frame of the current batch (arrivals.py), and 1 while the plugin has a batch or a tick.
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
    except SystemExit:
        raise
    except BaseException as error:  # for instance a panic in a library, or a cancellation
        if isinstance(error, Exception) and not where(error):
            raise  # no line of the plugin took part
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


def _log(spec: str) -> Log:
    """The plugin's log: on standard error, with the limit of a run."""

    def write(level: str, line: str) -> bool:
        print(f"plugin {spec}: {level}: {line}", file=sys.stderr, flush=True)
        return True

    return Log(write)


def _check(job: Mapping[str, Any]) -> dict[str, Any]:
    """Load, prepare and set up the plugin; the answer holds the problems as sentences."""
    try:
        tier = loading.load(job["plugin"], job["folder"])
        if job["options"] is not None:
            tier.options, problems = resolve(
                tier.declared, job["options"], job["folder"], job["places"]
            )
            if problems:
                said = [f"plugin {tier.spec}: option {problem}" for problem in problems]
                return {"problems": said}
        if job["only_import"]:
            return {"problems": []}
        tier.prepare(_context(job))
        log = _log(tier.spec)
        harness = Harness(tier, _context(job), blanks=job["blanks"], log=log)
    except PluginError as error:
        return {"problems": [str(error)]}
    warnings = _time_samples(harness, job)
    log._tell_left_out()
    return {
        "problems": [],
        "remarks": tier.remarks,
        "tier": tier.tier,
        "warnings": warnings,
    }


def _time_samples(harness: Harness, job: Mapping[str, Any]) -> list[str]:
    """Warnings about batches of sample packets and a tick that take too long. Their errors do not
    matter: the packets are not the user's."""
    watch = Stopwatch(job["plugin"], job["limit"])
    for _ in range(SAMPLE_BATCHES):
        with watch.batch():
            harness.run([(frame, 0, 0, 0, 0, 0) for frame in SAMPLES])
    with watch.tick(), contextlib.suppress(Exception):
        harness.engine.tick()
    return watch.warnings()


def _try(job: Mapping[str, Any], results: IO[str]) -> dict[str, Any]:
    """Run the plugin on the frames of a capture; the answer holds the summary."""
    context = _context(job)
    tier = loading.load(job["plugin"], job["folder"])
    tier.accept(job["options"], job["folder"])
    tier.prepare(context)
    page = mmap.mmap(job["page"], PAGE)
    address = int(ffi.cast("uintptr_t", ffi.from_buffer(page)))
    log = _log(tier.spec)
    harness = Harness(
        tier,
        context,
        blanks=job["blanks"],
        counters=address,
        log=log,
        frame_max=job["frame_max"],
    )
    _answer(results, {"ready": True})
    watch = Stopwatch(job["plugin"], job["limit"])
    place = ffi.cast("uint64_t *", address + PLACE_OFFSET)
    names = {index: context.ports[index] for index in job["captures"]}
    trial = _Trial(harness, context, place, watch, names)
    with open(job["arrivals"], "rb", buffering=1 << 16) as pipe:
        if job["out"] is None:
            trial.run(arrivals.read(pipe), None)
        else:
            with CaptureWriter(job["out"], job["out_descriptor"]) as writer:
                trial.run(arrivals.read(pipe), writer)
    log._tell_left_out()
    return {
        "summary": {
            "per_port": dict(zip(context.ports, trial.per_port, strict=True)),
            "created": trial.created,
            "refused": dict(trial.refused),
            "complaints": trial.complaints,
            "trace": trial.trace,
            "nanoseconds": harness.counters.plugin_ticks / ticks_per_second() * 1e9,
            "counters": counter_blocks.read(harness.slot.counters)
            | counter_blocks.read(ffi.cast("struct rl_worker_counters *", address)),
            "named": named_values(harness.slot),
            "headings": table_headings(harness.slot),
            "remarks": tier.remarks + watch.warnings(),
            "tier": tier.tier,
            "drops": {name: trial.dropped[number] for number, name in harness.reasons.items()},
        }
    }


class _Trial:
    """Runs frames through a harness; `place` points to three numbers in the shared page, and
    `names` are those of the ports that have a capture, by index."""

    def __init__(
        self,
        harness: Harness,
        context: Context,
        place: Any,
        watch: Stopwatch,
        names: Mapping[int, str],
    ) -> None:
        self._harness = harness
        self._names = names
        self._watch = watch
        self._place = place
        self.per_port = [0] * len(context.ports)
        self.created = 0
        self.refused: Counter[str] = Counter()  # packets that no card can send, by cause
        self.dropped: Counter[int] = Counter()  # by the verdict of a drop reason
        # (number of the first frame, or 0 if it concerns none; error)
        self.complaints: list[tuple[int, str]] = []
        self.trace: list[str] = []  # the traceback of the first error that has one
        self._complained: set[str] = set()

    def run(self, frames: Iterable[Arrived], writer: CaptureWriter | None) -> None:
        """Run all frames. The plugin's tick is called when a second has passed by their times,
        and at the end. When their clock steps back, the second begins anew."""
        batch: list[Arrived] = []
        ticks = Ticks()
        for frame in frames:
            is_due = ticks.are_due(frame.nanoseconds)
            if batch and (is_due or len(batch) == BATCH):
                self._run(batch, writer)
                batch = []
            if is_due:
                self._tick()
            batch.append(frame)
        if batch:
            self._run(batch, writer)
        self._tick(ending=True)

    def _tick(self, *, ending: bool = False) -> None:
        """Call the plugin's tick."""
        self._place[2] = 1
        with self._watch.tick():
            self._harness.engine.tick_whole(TICK_SECONDS, ending=ending)
        self._place[2] = 0
        complaint = self._complaint()
        if complaint is not None:
            self._complain(0, complaint)

    def _complaint(self) -> str | None:
        engine = self._harness.engine
        complaint = engine.complaint()
        self.trace = self.trace or engine.trace
        return complaint

    def _run(self, batch: list[Arrived], writer: CaptureWriter | None) -> None:
        self._place[0], self._place[1] = first, last = batch[0].place, batch[-1].place
        self._place[2] = 1
        with self._watch.batch(f" on the {arrivals.span(first, last, self._names)}"):
            departures, created = self._harness.run([_arrival(frame) for frame in batch])
        self._place[2] = 0
        complaint = self._complaint()
        for frame, departure in zip(batch, departures, strict=True):
            if departure.verdict == ERROR:
                if len(self.complaints) < COMPLAINTS_MAX:
                    what = complaint or self._harness.explain(_arrival(frame))
                    self._complain(frame.number, self._of(frame) + what, what)
            elif departure.verdict in self._harness.reasons:
                self.dropped[departure.verdict] += 1
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
                f"{self._of(frame)}a frame of {len(departure.data)} bytes cannot be sent: "
                f"{words(departure.refused, self._harness.frame_max)}",
                departure.refused,
            )
            return False
        self.per_port[departure.verdict] += 1
        if writer is not None:
            writer.write(departure.on_wire(), frame.nanoseconds)
        return True

    def _of(self, frame: Arrived) -> str:
        """The begin of a sentence about `frame`, when there are several captures."""
        return f"received by port {self._names[frame.port]}: " if len(self._names) > 1 else ""

    def _complain(self, number: int, what: str, kind: str = "") -> None:
        """Store the error of a frame, each error once, up to COMPLAINTS_MAX. `kind` names errors
        that are the same, though their words differ."""
        kind = kind or what
        if kind not in self._complained and len(self.complaints) < COMPLAINTS_MAX:
            self._complained.add(kind)
            self.complaints.append((number, what))


def _arrival(frame: Arrived) -> Arrival:
    return (
        frame.data,
        frame.port,
        frame.rss_hash,
        frame.vlan_tci,
        frame.flags,
        frame.nanoseconds,
    )
