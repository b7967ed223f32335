"""What the captures of an analysis say together: from the joined outcome to the Result."""

from __future__ import annotations

from collections.abc import Sequence

from ringline.pipeline.analysis.captures import Capture
from ringline.pipeline.analysis.joining import Outcome
from ringline.pipeline.analysis.result import Result
from ringline.workers.captures.files.names import shown


def result_of(
    result: Result, captures: Sequence[Capture], used: Sequence[Capture], whole: Outcome | None
) -> Result:
    """The result with all but tables. `used` are the captures that are in it, and `whole` is their
    joined outcome."""
    numbers_of_used = {capture.number for capture in used}
    for capture in captures:
        result.redone += capture.redone
        if capture.number in numbers_of_used:
            remarks = capture.tally.remarks()
            path, packets = capture.source.shown, capture.tally.packets
            result.captures.append({"path": path, "packets": packets, "remarks": remarks})
            result.remarks += remarks
        elif capture.broken:
            result.broken[shown(capture.source.path)] = capture.broken
        else:
            result.unfinished.append(capture.source.shown)
    if whole is None:
        return result
    numbers = whole.numbers
    result.tier, result.counters = numbers["tier"], numbers["counters"]
    result.wire_bytes, result.nanoseconds = numbers["wire_bytes"], numbers["nanoseconds"]
    gauges = {name: value or 0 for name, value in numbers["gauges"].items()}  # None: never set
    result.named, result.headings = numbers["sums"] | gauges, numbers["headings"]
    result.drops, result.trace = numbers["drops"], numbers["trace"]
    result.first, result.last = numbers["first"], numbers["last"]
    result.complaints = [tuple(it) for it in numbers["complaints"]]
    result.remarks += numbers["remarks"]
    if numbers["clipped"]:
        result.remarks.append(
            f"{numbers['clipped']} packets have more than 65535 bytes: the plugin saw the "
            "first 65535 of each"
        )
    result.state = whole.part
    return result
