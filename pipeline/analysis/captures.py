"""One capture of an analysis: its ranges, whether they fit together, and what they say together.

A range in the middle of a file begins at a guess, which the range before it checks: a task tells
where its first packet begins, and where the next one after its range does. If the two differ, or
the task assumed other interfaces than there are, its result is thrown away and it is done again
from the right place. The first range has no guess, so all are right in the end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ringline.pipeline.analysis.joining import Outcome, Tree
from ringline.pipeline.analysis.sources import Source
from ringline.shm.errors import EnvironmentLacks
from ringline.workers.captures.capture_table import CaptureError, Tally
from ringline.workers.captures.captures import CaptureReader


@dataclass
class Piece:
    """A range of a capture, and what became of it.

    start, stop: bytes of the file, see `Range` in workers/captures/scanner.py.
    known: what is known of the range before it: `begin`, `section`, `packets` and `last`; None:
        nothing, so the begin is guessed.
    answer, part: what the task said, when it is done.
    tries: how often it was begun without an end.
    is_taken: an earlier analysis did it.
    """

    start: int
    stop: int | None
    known: dict[str, Any] | None
    answer: dict[str, Any] | None = None
    part: bytes = b""
    tries: int = 0
    is_taken: bool = False


@dataclass
class Capture:
    """A capture that is read in one or several pieces.

    number: its place in the order of time.
    broken: why it cannot be used; "" while nothing is known against it.
    accepted: how many pieces, from the first, are certainly right.
    """

    number: int
    source: Source
    pieces: list[Piece]
    broken: str = ""
    accepted: int = 0
    redone: int = 0
    tally: Tally = field(init=False)
    tree: Tree = field(init=False)

    def __post_init__(self) -> None:
        self.tally = Tally(self.source.path)
        self.tree = Tree(len(self.pieces))

    def job(self, piece: Piece, *, to_cut: bool) -> dict[str, Any]:
        """The task for a piece."""
        known = piece.known or {}
        return {
            "do": "run",
            "path": self.source.path,
            "identity": list(self.source.identity),
            "access": self.source.access and self.source.access.of(self.source.path),
            "to_cut": to_cut,
            "start": known.get("begin", piece.start),
            "stop": piece.stop,
            "is_guess": piece.known is None,
            "section": known.get("section"),
            "packets": known.get("packets", 0),
            "last": known.get("last"),
        }

    def check(self) -> list[Piece]:
        """Accept pieces that are done and fit to those before them; returns those that must be
        done again. Accepted pieces go to the tree."""
        while self.accepted < len(self.pieces) and not self.broken:
            piece = self.pieces[self.accepted]
            answer = piece.answer
            if answer is None:
                return []
            if self._must_be_redone(piece, answer):
                self.redone += 1
                piece.known, piece.answer, piece.part = self._known(), None, b""
                return [piece]
            if "broken" in answer:
                self.broken = answer["broken"]
                return []
            numbers = numbers_of(answer) | {"complaints": self._complaints(piece, answer)}
            self._add(answer)
            self.tree.put(self.accepted, Outcome(numbers, piece.part))
            self.accepted += 1
            piece.part = b""
        if self.accepted == len(self.pieces) and not self.broken:
            self._check_whole()
        return []

    def _complaints(self, piece: Piece, answer: dict[str, Any]) -> list[tuple[int, str]]:
        """The errors of the plugin in an accepted piece, with their packets in the capture. A piece
        with a guess counted from its own begin."""
        before = self.tally.packets if piece.known is None else 0
        return [(packet and packet + before, what) for packet, what in answer["complaints"]]

    def doubts(self, piece: Piece, answer: dict[str, Any]) -> bool:
        """Whether the plugin failed on a piece with a guess, and perhaps on what is no packet: then
        `check` has the piece done again, and the failure counts if it is there again."""
        has_died, error = "died" in answer, answer.get("error")
        is_its_own = error is not None and error["type"] != EnvironmentLacks.__name__
        if piece.known is not None or not (has_died or is_its_own):
            return False
        piece.answer, piece.tries = answer, piece.tries if has_died else 0
        return True

    def make_sure(self, piece: Piece) -> None:
        """Let a piece whose task is done again begin at the right place, if that is known now."""
        if piece.known is None and self.pieces[self.accepted] is piece:
            piece.known = self._known()

    def _known(self) -> dict[str, Any]:
        """What is known where the first piece that is not accepted begins."""
        before = self.pieces[self.accepted - 1].answer
        assert before is not None
        return {
            "begin": before["end"],
            "section": before["end_section"],
            "packets": self.tally.packets,
            "last": self._last(),
        }

    def _last(self) -> int | None:
        """The time of the last packet in the accepted pieces that has one."""
        for piece in reversed(self.pieces[: self.accepted]):
            if piece.answer is not None and piece.answer["last"] is not None:
                return int(piece.answer["last"])
        return None

    def note_span(self) -> None:
        """Note in the joined outcome the times of the first and the last packet that have one, if
        the pieces are there, which may have others."""
        answers = [it.answer for it in self.pieces if it.answer is not None]
        if self.tree.result is not None and len(answers) == len(self.pieces):
            firsts = (it["first"] for it in answers if it["first"] is not None)
            self.tree.result.numbers |= {"first": next(firsts, None), "last": self._last()}

    def _must_be_redone(self, piece: Piece, answer: dict[str, Any]) -> bool:
        """Whether a piece with a guess guessed wrong, or must know more of what is before it."""
        if piece.known is not None:
            return False
        before = self.pieces[self.accepted - 1].answer
        assert before is not None
        if answer.get("begin") != before["end"] or answer["section"] != before["end_section"]:
            return True
        # What failed says nothing of its begin. The place of damage is told with the number of the
        # packet in the file.
        return "broken" in answer or bool(answer["needs_last"])

    def _add(self, answer: dict[str, Any]) -> None:
        """Count the packets of an accepted piece."""
        tally, of = self.tally, answer["tally"]
        last = self._last()
        piece = self.pieces[self.accepted]
        is_first_back = (
            piece.known is None
            and last is not None
            and answer["first"] is not None
            and answer["first"] < last
        )
        tally.backward += of["backward"] + is_first_back
        for name in ("packets", "used", "cut", "overlong", "misdated"):
            setattr(tally, name, getattr(tally, name) + of[name])
        tally.made_up += Counter({int(kind): n for kind, n in of["made_up"].items()})
        tally.left_out += Counter({int(kind): n for kind, n in of["left_out"].items()})
        tally.cut_at = of["cut_at"]

    def _check_whole(self) -> None:
        tally = self.tally
        if tally.left_out and not tally.used:
            try:
                again, access = Tally(self.source.path), self.source.access
                with CaptureReader(again, any_link=True, access=access) as reader:
                    self.broken = str(reader.refused(sorted(tally.left_out)))
            except CaptureError as error:
                self.broken = str(error)

    def with_named_complaints(self) -> Capture:
        """The capture, with its path before each error of the plugin in the joined outcome."""
        if self.tree.result is not None:
            numbers, path = self.tree.result.numbers, self.source.shown
            numbers["complaints"] = [(path, *it) for it in numbers["complaints"]]
        return self

    def forget(self) -> None:
        """Let go of the joined outcome."""
        self.tree = Tree(1)

    @property
    def is_accepted(self) -> bool:
        """Whether all pieces are right."""
        return self.accepted == len(self.pieces)


def numbers_of(answer: dict[str, Any]) -> dict[str, Any]:
    """What of an answer is added to that of others (`joining.add`)."""
    names = (
        *("counters", "drops", "sums", "wire_bytes", "clipped", "nanoseconds", "gauges"),
        *("headings", "complaints", "trace", "remarks", "tier", "first", "last"),
    )
    return {name: answer[name] for name in names}


def outcomes_of(captures: Iterable[Capture], used: list[Capture]) -> Iterator[Outcome | None]:
    """The outcomes of captures, one at a time; the captures are added to `used`."""
    for capture in captures:
        used.append(capture)
        yield capture.tree.result


def divided(number: int, source: Source, piece_bytes: int) -> Capture:
    """The capture in pieces of about `piece_bytes`; one that is compressed is one piece."""
    count = max(1, source.bytes // piece_bytes) if source.is_plain else 1
    bounds = [source.bytes * index // count for index in range(count)]
    stops: list[int | None] = [*bounds[1:], None]
    pieces = [
        Piece(start, stop, None if start else {}) for start, stop in zip(bounds, stops, strict=True)
    ]
    return Capture(number, source, pieces)
