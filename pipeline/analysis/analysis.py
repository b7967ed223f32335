"""Runs a plugin over captures: makes tasks, gives them to an executor, joins their results.

A task is a pure function of a range of a capture, the plugin and its options (`children.do`): to do
it again is harmless. So a task whose process died is done once more, on any executor.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from ringline.pipeline.analysis import captures, joining, sources, urls
from ringline.pipeline.analysis.by_flow import ByFlow, is_by_flow, shares_of
from ringline.pipeline.analysis.captures import Capture, Piece
from ringline.pipeline.analysis.engines.slots import Slots
from ringline.pipeline.analysis.finished import Finished
from ringline.pipeline.analysis.joining import Tree, answer_of
from ringline.pipeline.analysis.merging import TRIES
from ringline.pipeline.analysis.result import Result
from ringline.pipeline.analysis.resulting import result_of
from ringline.pipeline.analysis.scratch import make_folder, scratch_for
from ringline.pipeline.analysis.second_stage import Progress, SecondStage
from ringline.pipeline.analysis.travelling import Travelling
from ringline.pipeline.configuration import deadlines
from ringline.shm.control import revive
from ringline.shm.errors import Bug, EnvironmentLacks, PluginError
from ringline.shm.text import printable
from ringline.workers.analysis import children
from ringline.workers.analysis.tables import formats
from ringline.workers.captures.capture_table import CaptureError

PIECE_BYTES = 256 << 20  # of a capture that is not compressed, for one task
STATE_BYTES = 64 << 20
ROWS_BYTES = 8 << 20
_LOOK = 0.1
_ERRORS = (CaptureError, PluginError, EnvironmentLacks)


def run(
    plugin: str,
    given: sources.Given | Sequence[sources.Given],
    options: Mapping[str, Any] | None = None,
    executor: concurrent.futures.Executor | None = None,
    *,
    workers: int | None = None,
    folder: str | None = None,
    out: str | None = None,
    format: str = "csv",  # noqa: A002  # as users of tables call it
    to_cut: bool = False,
    strict: bool = False,
    debug: bool = False,
    piece_bytes: int = PIECE_BYTES,
    state_bytes: int = STATE_BYTES,
    silence: float = deadlines.ANALYSIS_SILENCE,
    by: str = "piece",
    scratch: str | None = None,
    shares: int | None = None,
    rows_bytes: int = ROWS_BYTES,
    with_state: bool = True,
    progress: Progress | None = None,
    storage: Mapping[str, Any] | None = None,
    keep: str | None = None,
    resume: bool = False,
) -> Result:
    """Run `plugin` on all captures that `given` names: files, folders, patterns, `@LIST`, URLs.

    options: those of the plugin.
    executor: where tasks run; None: `workers` processes on this machine, one for each core. See
        `engines.opened` for Dask and Ray.
    folder: a file name in `plugin` is relative to it.
    out: a folder for the tables that the plugin presents; it is made if it is not there.
    format: of their files: "csv", "jsonl" or "parquet", which needs the extra parquet.
    to_cut: a capture that is cut short is used up to the cut.
    strict: the first capture that cannot be used ends the analysis with its error. Without it,
        `Result.broken` tells.
    debug: in compiled plugins, an index out of range raises IndexError.
    piece_bytes: a capture that is not compressed is divided into parts of about this size.
    state_bytes: for the plugin's named state and counters, in each task.
    silence: a task that makes no progress for so many seconds is ended and done once more.
    by: "flow": the plugin sees the packets of each flow in order of time, across all captures; see
        by_flow.py. "piece": it sees each piece of each capture by itself.
    scratch: an existing folder, which all workers share, for packets by flow, and for rows of the
        plugin that are many; None: `out`, or the system's folder for temporary files.
    shares: by flow, into how many shares flows are divided; None: by the size of the captures.
    rows_bytes: a part holds as many rows in memory, if the plugin marks its merge as `ordered`.
    with_state: whether the result has the state of the plugin, which must have room in memory.
    progress: `progress(done, all, packets)` is called about ten times a second with bytes of
        pieces that are done, all bytes, and packets; first with what an earlier analysis did. If
        it raises KeyboardInterrupt, or the user presses Ctrl-C, the result has the captures that
        are finished.
    keep: a folder of its own for what is finished; it stays. resume: go on from what is there.
    storage: options of file systems of fsspec, by the scheme of a URL.

    Raises UsageError when there is no such capture, or what is in `keep` is of another plugin or
    version; EnvironmentLacks when a folder cannot be written; PluginError when the plugin cannot
    start, crashes twice on the same task, or fails to merge; CaptureError with `strict`.
    """
    of = {
        "plugin": plugin,
        "options": dict(options or {}),
        "folder": folder or os.getcwd(),
        "ports": ["port"],
        "state_bytes": state_bytes,
        "debug": debug,
    }
    began = time.monotonic()
    formats.check(format)
    access = urls.access_of(storage)
    paths = sources.paths_of(given, access)
    found, broken = sources.looked_at(paths, to_cut=to_cut, access=access)
    if strict and broken:
        raise CaptureError(next(iter(broken.values())))
    given_captures = [captures.divided(n, it, piece_bytes) for n, it in enumerate(found)]
    about = of | {"folder": None, "to_cut": to_cut, "piece_bytes": piece_bytes}
    is_flow = is_by_flow(by, resumes=resume)
    stores = is_flow or executor is None or scratch is not None
    finished = None
    if keep is not None and not is_flow:
        finished = Finished(keep, about, resumes=resume, stores=stores)
    slots = Slots(executor, workers)
    count = slots.now()
    make_folder(out)
    with contextlib.ExitStack() as opened:
        if finished is not None:
            opened.callback(finished.close)
        if (disk := scratch_for(scratch, out, is_needed=stores)) is not None:
            opened.callback(disk.close)
        of["store"] = (disk.path, rows_bytes) if disk is not None and stores else None
        opened.callback(children.close)
        own: concurrent.futures.Executor = concurrent.futures.ThreadPoolExecutor(count, "analysis")
        if executor is not None:
            own = Travelling(executor, of, silence, lambda error: revive(error, _ERRORS))
        opened.callback(own.shutdown, cancel_futures=True)
        analysis = _Analysis(of, given_captures, own, slots, to_cut, strict, silence)
        analysis.finished = finished
        if is_flow and disk is not None:
            analysis.flows = ByFlow(
                disk, given_captures, shares or shares_of(given_captures, count)
            )
        opened.callback(analysis.cancel)
        result = analysis.run(progress, out, format, with_state)
        if finished is not None and result.unfinished:
            result.can_go_on = finished.has_some
    result.broken = broken | result.broken
    result.seconds = time.monotonic() - began
    return result


class _Analysis(SecondStage):
    """The tasks of an analysis, and what is known of them so far."""

    def __init__(
        self,
        of: Mapping[str, Any],
        given: Sequence[Capture],
        executor: concurrent.futures.Executor,
        slots: Slots,
        to_cut: bool,
        strict: bool,
        silence: float,
    ) -> None:
        self._of = of
        self._captures = given
        self._executor = executor
        self._slots = slots
        self._to_cut = to_cut
        self._strict = strict
        self._silence = silence
        self._tree = Tree(max(len(given), 1))
        self._again: deque[Callable[[], None]] = deque()
        self._running: dict[concurrent.futures.Future[Any], Callable[[Any], None]] = {}
        self._cancellation = children.Cancellation()
        self._fingerprint: str | None = None
        self._packets = self._bytes = 0
        self._tasks = self._taken = 0
        self._ended: set[int] = set()  # captures that are in the tree, with or without a result
        self._used: list[Capture] = []
        self.finished: Finished | None = None
        self.flows: ByFlow | None = None

    def run(
        self, progress: Progress | None, out: str | None, form: str, with_state: bool
    ) -> Result:
        """Do all tasks, and return the result."""
        if not self._captures:
            self._wait_for({"do": "prepare"}, [])  # it tells whether the plugin can start
            return Result(self._of["plugin"])
        try:
            self._go_on()
            if self.flows is not None:
                self._wait_for(self.flows.rehearsal(), [])
            self._run_all(self._jobs(), progress)
            if self.flows is not None and self._used:
                self._run_shares(self.flows, progress)
        except KeyboardInterrupt:
            self._give_up_the_rest()
        whole = self._tree.result
        result = Result(self._of["plugin"], tasks=self._tasks, taken=self._taken)
        result_of(result, self._captures, self._used, whole)
        if whole is not None:
            job = {"do": "present", "folder": out, "format": form, "state": with_state}
            answer, state = self._wait_for(job, [whole.part])
            result.tables = answer["tables"]
            result.state = state or result.state if with_state else b""
        return result

    def _wait_for(self, job: Mapping[str, Any], parts: list[bytes]) -> tuple[dict[str, Any], bytes]:
        """Do a job here and now."""
        answer, part = children.do(self._of, job, parts, silence=self._silence)
        self._check(answer)
        return answer, part

    def _check(self, answer: Mapping[str, Any], what: str = "") -> None:
        """Raise the error of an answer, if it is one."""
        if "died" in answer:
            raise PluginError(f"plugin {self._of['plugin']} {answer['died']}{what}")
        if "error" in answer:
            raise revive(answer["error"], _ERRORS)

    # What an earlier analysis finished

    def _go_on(self) -> None:
        """Find out what is there."""
        if self.finished is not None and self.finished.resumes:
            answer, _ = self._wait_for({"do": "prepare"}, [])
            self._fingerprint = answer["fingerprint"]
            self.finished.begin(self._fingerprint)
            self._bytes, self._packets = self.finished.amount(self._captures)

    def _take(self, capture: Capture, piece: Piece) -> bool:
        """Use what there is in the place of a task, if there is something."""
        if self.finished is None or capture.number in self._ended:
            return capture.number in self._ended
        if self.finished.take(capture):
            then = self._finish
        elif self.finished.take_piece(capture, piece):
            then = self._accept
        else:
            return False
        self._taken += 1
        then(capture)
        return True

    # Tasks

    def _jobs(self) -> Iterator[Callable[[], None]]:
        """What begins the tasks of all pieces, in order."""
        for capture in self._captures:
            for piece in capture.pieces:
                if not capture.broken:
                    yield partial(self._begin, capture, piece)

    def _run_all(self, jobs: Iterator[Callable[[], None]], progress: Progress | None) -> None:
        stages = 1 if self.flows is None else 2
        everything = stages * sum(capture.source.bytes for capture in self._captures)
        if progress is not None:
            progress(self._bytes, everything, self._packets)
        while not self._tree.is_done:
            while len(self._running) < 2 * self._slots.now():  # the next ones wait there
                begin = self._again.popleft() if self._again else next(jobs, None)
                if begin is None:
                    break
                begin()
            if self._tree.is_done:
                break
            if not self._running:
                raise Bug("an analysis waits for a task that nobody does")
            done, _ = concurrent.futures.wait(
                self._running, _LOOK, concurrent.futures.FIRST_COMPLETED
            )
            for future in done:
                self._running.pop(future)(future)
            if progress is not None:
                progress(self._bytes, everything, self._packets)

    def _submit(
        self, job: Mapping[str, Any], parts: Sequence[bytes], then: Callable[[Any], None]
    ) -> None:
        job = dict(job) | {"fingerprint": self._fingerprint}
        try:
            future = self._executor.submit(
                children.do,
                self._of,
                job,
                list(parts),
                silence=self._silence,
                cancellation=self._cancellation,
            )
        except RuntimeError as error:  # it was shut down, or is broken
            raise EnvironmentLacks(
                f"the executor takes no more tasks: {printable(str(error))}"
            ) from None
        self._running[future] = then
        self._tasks += 1

    def _begin(self, capture: Capture, piece: Piece) -> None:
        if self._take(capture, piece):
            return
        if piece.tries:
            capture.make_sure(piece)
        piece.tries += 1
        job = capture.job(piece, to_cut=self._to_cut)
        if self.flows is not None:
            job = self.flows.first(piece, job)
        done = partial(self._is_done, capture, piece)
        self._submit(job, capture.source.content, done)

    def _is_done(self, capture: Capture, piece: Piece, future: Any) -> None:
        """A task has ended: note its answer."""
        answer, part = answer_of(future)
        if "died" in answer and piece.tries < TRIES:
            self._again.append(partial(self._begin, capture, piece))
            return
        if capture.broken:
            return
        if capture.doubts(piece, answer):
            self._accept(capture)
            return
        if "died" in answer:
            times = "twice" if piece.tries == TRIES else f"{piece.tries} times"
            why = f"{capture.source.shown}: plugin {self._of['plugin']} {answer['died']}, {times}"
            self._break(capture, why, PluginError)
            return
        self._check(answer)
        if "fingerprint" in answer:
            self._fingerprint = answer["fingerprint"]
        piece.answer, piece.part, piece.tries = answer, part, 0
        if self.finished is not None and "broken" not in answer:
            self.finished.keep_piece(capture, piece, self._fingerprint)
        self._accept(capture)

    def _accept(self, capture: Capture) -> None:
        """Do what the answer of a piece makes possible."""
        accepted = capture.accepted
        again = capture.check()
        self._again.extend(partial(self._begin, capture, it) for it in again)
        for it in capture.pieces[accepted : capture.accepted]:
            if it.answer is not None and not it.is_taken:
                self._packets += it.answer["tally"]["packets"]
                self._bytes += (it.stop or capture.source.bytes) - it.start
        if capture.broken:
            self._break(capture, capture.broken, CaptureError)
        else:
            self._join(capture.tree, lambda: self._finish(capture))

    def _break(self, capture: Capture, why: str, kind: type[CaptureError | PluginError]) -> None:
        """A capture cannot be used: nothing of it is in the result."""
        capture.broken = why
        if self._strict:
            raise kind(why)
        if capture.number not in self._ended:
            self._ended.add(capture.number)
            self._tree.put(capture.number, None)
            self._join(self._tree, lambda: None)

    def _finish(self, capture: Capture) -> None:
        """All pieces of a capture are joined."""
        if capture.number in self._ended or not capture.is_accepted:
            return
        capture.note_span()
        if self.finished is not None:
            self.finished.keep(capture, self._fingerprint)
        self._used.append(capture.with_named_complaints())
        self._ended.add(capture.number)
        self._tree.put(capture.number, capture.tree.result)
        if self.finished is not None:
            capture.forget()
        self._join(self._tree, lambda: None)

    def cancel(self) -> None:
        """End the tasks that run in this process, and begin no other."""
        self._cancellation.cancel()
        for future in self._running:
            future.cancel()

    def _give_up_the_rest(self) -> None:
        """After an interruption: end the tasks, and join the captures that are finished."""
        self.cancel()
        concurrent.futures.wait(self._running, 5.0)
        self._running.clear()
        used: Iterable[Capture] = sorted(self._used, key=lambda capture: capture.number)
        if self.finished is not None:
            used = self.finished.all_of(self._captures)
        elif self.flows is not None:
            used = ()  # no flow is whole
        self._used = []
        self._tree = joining.joined(
            len(self._captures),
            captures.outcomes_of(used, self._used),
            lambda a, b: self._wait_for({"do": "merge"}, [a, b])[1],
        )
