"""What is finished of an analysis, in a folder, so that another one can go on from it.

There is a file for each capture that is finished, and for each piece of the others. It begins with
a checksum of all that follows: a line of JSON, and the plugin's part. The line has a digest of what
the analysis was of: the plugin, its options, the contents of its file and of those beside it that
it loads, and the versions. Rows of the part that are many are in files of their own, the runs of
workers/analysis/runs.py: they are moved here as they are. The line has their checksums.

Guarantees (tests in tests/pipeline/analysis/test_finished.py):
 - the result is that of an analysis that nobody interrupted
   (test_what_goes_on_has_the_same_result_as_what_was_never_interrupted)
 - a damaged file counts for nothing, and so does one of a capture that has changed since
   (test_what_is_damaged_is_done_again, test_a_capture_that_has_changed_is_done_again)
 - of another plugin, other options or another version nothing is used
   (test_another_plugin_or_other_options_are_refused)
 - a run stays as long as something that is finished has it, and no longer
   (tests/pipeline/analysis/test_finished_runs.py: test_runs_are_there_as_long_as_they_are_needed)
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import platform
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ringline.pipeline.analysis.captures import Capture, Piece
from ringline.pipeline.analysis.joining import Outcome, Tree
from ringline.pipeline.telemetry.version import version
from ringline.shm.errors import EnvironmentLacks, UsageError, reason_of
from ringline.shm.text import printable
from ringline.workers.named import part as parts

_ABOUT = "about"
_NEW = ".new"
_COUNTS = ("packets", "used", "cut", "overlong", "misdated", "backward", "cut_at")
_BY_LINK = ("made_up", "left_out")


class Finished:
    """What is finished of an analysis of `of`, in `folder`, which is made if it is not there.

    of: what the results depend on beside the captures, as JSON values by name.
    resumes: whether what is there is used; if not, it is removed when something new is finished.
    stores: whether tasks have a folder for their rows, which they need to go on from runs.

    Raises UsageError when another analysis uses the folder, EnvironmentLacks when it cannot be
    used.
    """

    def __init__(
        self, folder: str, of: Mapping[str, Any], *, resumes: bool, stores: bool = True
    ) -> None:
        self.resumes = resumes
        self._stores = stores
        self._folder = folder
        self._of_runs = os.path.abspath(folder)
        self._about = {"ringline": version(), "Python": platform.python_version()} | dict(of)
        self._digest: str | None = None  # of what the analysis is of; None: not begun yet
        self._there: dict[str, dict[str, Any]] = {}  # the lines of files that may be used
        self._runs: dict[str, Mapping[str, str]] = {}  # by file: its runs, and their checksums
        self._whole: dict[str, str] = {}  # runs that are known to be whole, and their checksums
        try:
            os.makedirs(folder, exist_ok=True)
            self._fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise self._lacks(error) from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._fd)
            raise UsageError(
                f"{printable(folder)}: another analysis writes into this folder; wait for it, or "
                "name another"
            ) from None
        except OSError as error:
            os.close(self._fd)
            raise self._lacks(error) from None

    def close(self) -> None:
        """Let others use the folder, which is removed when nothing is in it."""
        if self._digest is not None:
            with contextlib.suppress(EnvironmentLacks):
                self._remove_runs()
        with contextlib.suppress(OSError):
            os.rmdir(self._folder)
        os.close(self._fd)

    def begin(self, fingerprint: str | None) -> None:
        """Find out what is there, or remove it. Call it once it is known what the plugin is; what
        is kept begins by itself. Raises UsageError when it is of something else."""
        if self._digest is not None:
            return
        text = json.dumps(self._about | {"fingerprint": fingerprint}, sort_keys=True)
        about, digest = json.loads(text), hashlib.sha256(text.encode()).hexdigest()
        if self.resumes:
            before = self._line(_ABOUT)
            if before is not None and before["about"] != about:
                raise UsageError(
                    f"{printable(self._folder)}: {_difference(before['about'], about)}"
                )
        for name in (it for it in self._names() if not it.endswith(parts.RUN)):
            line = self._line(name) if self.resumes and not name.endswith(_NEW) else None
            if line is None or line["of"] != digest:
                self._remove(name)
            elif name != _ABOUT:
                self._there[name] = line
                self._runs[name] = line.get("runs", {})
        if any(self._runs.values()) and not self._stores:
            raise UsageError(
                f"{printable(self._folder)}: what is finished there has rows on disk, so --resume "
                "needs a folder for those of the executor's workers: name one with --scratch"
            )
        self._digest = digest
        self._remove_runs()
        if self._line(_ABOUT) is None:
            self._write(_ABOUT, {"about": about})

    @property
    def has_some(self) -> bool:
        """Whether something finished is there that another analysis of the same can go on from."""
        if self._digest is None:  # what is there may be of something else
            return False
        return any(name != _ABOUT and not name.endswith(_NEW) for name in self._names())

    def amount(self, captures: Sequence[Capture]) -> tuple[int, int]:
        """How many bytes and packets of the captures are finished."""
        size = packets = 0
        for capture in captures:
            line = self._there.get(_name(capture))
            if line is not None:
                size += capture.source.bytes
                packets += line["tally"]["packets"]
                continue
            for piece in capture.pieces:
                line = self._there.get(_name(capture, piece))
                if line is not None:
                    size += (piece.stop or capture.source.bytes) - piece.start
                    packets += line["answer"]["tally"]["packets"]
        return size, packets

    def take(self, capture: Capture) -> bool:
        """Give a capture the outcome that is there, if there is one."""
        found = self._read(_name(capture))
        if found is None:
            return False
        line, part = found
        for name in _COUNTS:
            setattr(capture.tally, name, line["tally"][name])
        for name in _BY_LINK:
            counts = {int(kind): number for kind, number in line["tally"][name].items()}
            setattr(capture.tally, name, Counter(counts))
        capture.tree = Tree(1)
        capture.tree.put(0, None if line["numbers"] is None else Outcome(line["numbers"], part))
        capture.accepted = len(capture.pieces)
        return True

    def all_of(self, captures: Sequence[Capture]) -> Iterator[Capture]:
        """The captures that are finished; each has its outcome until the next one is asked for."""
        for capture in captures:
            if not capture.broken and self.take(capture):
                yield capture.with_named_complaints()
                capture.forget()

    def take_piece(self, capture: Capture, piece: Piece) -> bool:
        """Give a piece the answer that is there, if there is one. What another piece contradicted
        is not used."""
        found = self._read(_name(capture, piece))
        if found is None or (piece.known is not None and found[0]["known"] is None):
            return False
        line, piece.part = found
        piece.known, piece.answer, piece.is_taken = line["known"], line["answer"], True
        return True

    def keep(self, capture: Capture, fingerprint: str | None) -> None:
        """Keep the outcome of a capture, in the place of those of its pieces. Raises
        EnvironmentLacks."""
        self.begin(fingerprint)
        name = _name(capture)
        if name in self._there:
            return
        outcome, tally = capture.tree.result, capture.tally
        runs: dict[str, str] = {}
        if outcome is not None:
            outcome.part, runs = self._with_runs_here(outcome.part)
        line = {
            "runs": runs,
            "numbers": None if outcome is None else outcome.numbers,
            "tally": {name: getattr(tally, name) for name in _COUNTS}
            | {name: dict(getattr(tally, name)) for name in _BY_LINK},
        }
        self._write(name, line, b"" if outcome is None else outcome.part)
        self._there[name] = {}
        if len(capture.pieces) > 1:
            for piece in capture.pieces:
                self._remove(_name(capture, piece))

    def keep_piece(self, capture: Capture, piece: Piece, fingerprint: str | None) -> None:
        """Keep the answer of a piece, unless it is the only one. Raises EnvironmentLacks."""
        if len(capture.pieces) > 1:
            self.begin(fingerprint)
            piece.part, runs = self._with_runs_here(piece.part)
            line = {"runs": runs, "known": piece.known, "answer": piece.answer}
            self._write(_name(capture, piece), line, piece.part)

    # Runs

    def _with_runs_here(self, part: bytes) -> tuple[bytes, dict[str, str]]:
        """The part, whose runs are in the folder now, and their checksums by the names of files."""
        paths = [path for of in parts.runs_of(part).values() for path, _ in of]
        runs: dict[str, str] = {}
        for path in paths:
            name = os.path.basename(path)
            if name not in self._whole:
                try:
                    _move(path, self._path(name))
                    self._whole[name] = _checksum(self._path(name))
                except OSError as error:
                    raise self._lacks(error) from None
            runs[name] = self._whole[name]
        return _moved(part, self._of_runs), runs

    def _is_run_whole(self, name: str, checksum: str) -> bool:
        if name not in self._whole:
            with contextlib.suppress(OSError):
                self._whole[name] = _checksum(self._path(name))
        return self._whole.get(name) == checksum

    def _remove_runs(self) -> None:
        """Remove the runs that nothing has which is finished."""
        needed = {name for runs in self._runs.values() for name in runs}
        for name in self._names():
            if name.endswith(parts.RUN) and name not in needed:
                self._remove(name)

    # Files

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, name)

    def _names(self) -> list[str]:
        try:
            return os.listdir(self._folder)
        except OSError as error:
            raise self._lacks(error) from None

    def _write(self, name: str, line: Mapping[str, Any], part: bytes = b"") -> None:
        """Write a file whole or not at all."""
        head = json.dumps({"of": self._digest} | dict(line)).encode() + b"\n"
        part = _moved(part, "")  # the folder may get another name
        checksum = hashlib.sha256(head)
        checksum.update(part)
        new = self._path(name + _NEW)
        try:
            with open(new, "wb") as file:
                file.write(checksum.hexdigest().encode() + b"\n" + head)
                file.write(part)
            os.replace(new, self._path(name))
            self._runs[name] = line.get("runs", {})
        except OSError as error:
            raise self._lacks(error) from None
        finally:
            self._remove(name + _NEW)

    def _read(self, name: str) -> tuple[dict[str, Any], bytes] | None:
        """The line and the part of a file that may be used; None: there is none, or it is
        damaged."""
        if name not in self._there:
            return None
        try:
            with open(self._path(name), "rb") as file:
                checksum, head, part = file.readline(), file.readline(), file.read()
        except OSError:
            checksum = head = part = b""
        whole = hashlib.sha256(head)
        whole.update(part)
        is_whole = checksum == whole.hexdigest().encode() + b"\n"
        line = json.loads(head) if is_whole else {}
        if not is_whole or not all(self._is_run_whole(*it) for it in line.get("runs", {}).items()):
            del self._there[name]
            self._remove(name)
            return None
        return line, _moved(part, self._of_runs)

    def _line(self, name: str) -> dict[str, Any] | None:
        """The line of a file, without a look at its part; None: it has none."""
        try:
            with open(self._path(name), "rb") as file:
                file.readline()
                line = json.loads(file.readline())
        except (OSError, ValueError):
            return None
        wanted = {"about"} if name == _ABOUT else {"answer"} if "-" in name else {"tally"}
        return line if isinstance(line, dict) and wanted | {"of"} <= line.keys() else None

    def _remove(self, name: str) -> None:
        self._runs.pop(name, None)
        with contextlib.suppress(OSError):
            os.unlink(self._path(name))

    def _lacks(self, error: OSError) -> EnvironmentLacks:
        return EnvironmentLacks(
            f"{printable(self._folder)}: what is finished cannot be kept there: {reason_of(error)}"
        )


def _move(path: str, to: str) -> None:
    """Move a file, perhaps to another disk."""
    try:
        os.replace(path, to)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.copyfile(path, to)
        os.unlink(path)


def _checksum(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _moved(part: bytes, folder: str) -> bytes:
    """The part, for the case that its runs are in this folder."""
    runs = parts.runs_of(part)
    if not runs:
        return part
    named = {
        name: [(os.path.join(folder, os.path.basename(path)), rows) for path, rows in of]
        for name, of in runs.items()
    }
    return parts.with_runs(part, named)


def _name(capture: Capture, piece: Piece | None = None) -> str:
    """The file of a capture or of a piece. The number of a device may be another one when it is
    mounted again."""
    source = capture.source
    key = json.dumps([source.path, *source.identity[1:]])
    name = hashlib.sha256(key.encode()).hexdigest()[:32]
    return name if piece is None else f"{name}-{piece.start}-{piece.stop or 'end'}"


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Why what is there cannot be used, and what to do."""
    for name in sorted(now, key=lambda name: (name == "fingerprint", name != "plugin")):
        if before.get(name) == now[name]:
            continue
        if name == "fingerprint":
            what = (
                f"the plugin {now['plugin']}, a file beside it that it loads, or a file that its "
                "options name, has changed since"
            )
        else:
            was, is_ = (json.dumps(it, ensure_ascii=False) for it in (before.get(name), now[name]))
            what = f"its {name} was {was} and is {is_} now"
        return printable(
            f"the analysis there cannot go on: {what}; begin again without --resume, or in another "
            "folder"
        )
    return "the analysis there is of another version of ringline; begin again without --resume"
