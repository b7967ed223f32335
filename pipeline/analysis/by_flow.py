"""An analysis by flow: the second stage, and what it needs of the first one.

The first stage divides the packets of all captures into shares by flow, and leaves them on disk
(workers/analysis/shares/). In the second one the plugin sees each share as one capture in order of
time. So it sees each flow as a whole and in order, across captures and ranges of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ringline.pipeline.analysis.captures import Capture, Piece, numbers_of
from ringline.pipeline.analysis.joining import Outcome, later
from ringline.pipeline.analysis.scratch import Scratch
from ringline.shm.errors import UsageError

SHARE_BYTES = 32 << 20  # of the captures, for one share
SHARES_MAX = 4096
COMPRESSED = 4  # times as many bytes are in a compressed capture
WAYS = ("piece", "flow")


@dataclass
class Share:
    """A share of the flows, and how often its task was begun."""

    number: int
    bytes: int
    tries: int = 0


@dataclass
class ByFlow:
    """The shares of an analysis.

    scratch: where the spills are.
    captures: those of the analysis.
    count: of shares.
    """

    scratch: Scratch
    captures: Sequence[Capture]
    count: int
    shares: list[Share] = field(default_factory=list)
    _places: dict[int, tuple[Capture, Piece]] = field(default_factory=dict)
    _listed: str | None = None
    _first: dict[str, Any] = field(default_factory=dict)
    _gauges: dict[str, tuple[Any, Any]] = field(default_factory=dict)  # by name: the last packet
    # of a share that has set it, and what it set
    _complaint: tuple[Any, Any] | None = None  # the earliest one, and its trace

    def __post_init__(self) -> None:
        """Number the pieces: packets of the same time are in this order."""
        for capture in self.captures:
            for piece in capture.pieces:
                self._places[len(self._places)] = (capture, piece)
        self._numbers = {id(piece): place for place, (_, piece) in self._places.items()}

    def first(self, piece: Piece, job: Mapping[str, Any]) -> dict[str, Any]:
        """The task of the first stage for a piece whose task would be `job`."""
        return dict(job) | {
            "do": "share",
            "place": self._numbers[id(piece)],
            "shares": self.count,
            "spill": self.scratch.new_base(),
        }

    def begin(self, used: Sequence[Capture], first: Outcome | None) -> None:
        """The first stage has ended with this outcome, and these captures are used."""
        assert first is not None
        self._first = {name: first.numbers[name] for name in ("clipped", "first", "last")}
        sizes = [0] * self.count
        paths = []
        for capture in sorted(used, key=lambda it: it.number):
            for piece in capture.pieces:
                assert piece.answer is not None
                paths.append(piece.answer["spill"])
                for number, size in enumerate(piece.answer["shares"]):
                    sizes[number] += size
                piece.answer["shares"] = []
        self._listed = self.scratch.listed(paths)
        self.shares = [Share(number, size) for number, size in enumerate(sizes) if size]
        self.shares = self.shares or [Share(0, 0)]

    def second(self, share: Share) -> dict[str, Any]:
        """The task of the second stage for a share."""
        return self._job(share.number) | {"spills": self._listed}

    def bytes_of(self, leaf: int) -> int:
        """Bytes of the captures for this share of those that are not empty, for the progress."""
        everything = sum(share.bytes for share in self.shares)
        size = sum(capture.source.bytes for capture in self.captures)
        return size * self.shares[leaf].bytes // everything if everything else size

    def rehearsal(self) -> dict[str, Any]:
        """A task that finds out whether the plugin can run at all."""
        return self._job(0) | {"spills": None}

    @staticmethod
    def _job(share: int) -> dict[str, Any]:
        return {
            "do": "run",
            "path": f"share {share} of the flows",
            "identity": None,
            "access": None,
            "to_cut": False,
            "start": 0,
            "stop": None,
            "is_guess": False,
            "section": None,
            "packets": 0,
            "last": None,
            "share": share,
        }

    def outcome(self, answer: Mapping[str, Any], part: bytes) -> Outcome:
        """The outcome of a share, to be joined. What belongs to one packet, of whatever share, is
        held back until `end`."""
        newest = answer["newest"]
        for name, value in answer["gauges"].items() if newest is not None else ():
            if value is not None and (name not in self._gauges or newest > self._gauges[name][0]):
                self._gauges[name] = newest, value
        for complaint in answer["complaints"]:
            if self._complaint is None or _order(complaint) < _order(self._complaint[0]):
                self._complaint = (complaint, answer["trace"])
        return Outcome(numbers_of(dict(answer)) | {"complaints": [], "trace": []}, part)

    def end(self, whole: Outcome | None) -> None:
        """The second stage has ended: add what was held back to its outcome."""
        assert whole is not None
        numbers = whole.numbers
        numbers |= self._first
        of_newest = {name: value for name, (_, value) in self._gauges.items()}
        numbers["gauges"] = later(numbers["gauges"], of_newest)
        if self._complaint is not None:
            (_, place, number, what), numbers["trace"] = self._complaint
            path = ""
            if place >= 0:
                capture, piece = self._places[place]
                path = capture.source.shown
                number += self._before(capture, piece)
            numbers["complaints"] = [(path, number, what)]

    @staticmethod
    def _before(capture: Capture, piece: Piece) -> int:
        """Packets of the capture before the piece."""
        count = 0
        for it in capture.pieces:
            if it is piece:
                break
            assert it.answer is not None
            count += it.answer["tally"]["packets"]
        return count


def _order(complaint: Sequence[Any]) -> tuple[Any, ...]:
    """Complaints about packets come first, in order of time."""
    return complaint[1] < 0, *complaint


def shares_of(captures: Sequence[Capture], workers: int) -> int:
    """How many shares an analysis has; its result does not depend on it."""
    sources = [capture.source for capture in captures]
    size = sum(it.bytes * (1 if it.is_plain else COMPRESSED) for it in sources)
    return min(max(size // SHARE_BYTES, 2 * workers), SHARES_MAX)


def is_by_flow(by: str, *, resumes: bool) -> bool:
    """Whether an analysis is by flow. Raises UsageError."""
    if by not in WAYS:
        raise UsageError(f"an analysis is by {' or '.join(WAYS)}, not by {by}")
    if by == "flow" and resumes:
        raise UsageError(
            "an analysis by flow finishes no capture before its end, so there is nothing to go on "
            "from: start it without --resume"
        )
    return by == "flow"
