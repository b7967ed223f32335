"""What a line of `ringline doctor` says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ringline.shm.errors import EnvironmentLacks

OK, HINT, PROBLEM = "ok", "hint", "problem"

# What to do when nothing better is known about a file of the kernel that gives no answer.
LOOK_FURTHER = "run as root; if the line stays, look at the messages of the kernel (dmesg)"

Figure = int | float | str | None | Mapping[str, int]


@dataclass(frozen=True)
class Finding:
    """One line. `mark` is ok; hint: it costs speed, or only some kinds of port need it; or problem:
    a run on a card or an interface that is here cannot start. `found` says what is there, with its
    figure; `remedy` what to do, "" when nothing is to do; `figures` are the numbers in `found`, for
    programs."""

    mark: str
    found: str
    remedy: str = ""
    figures: Mapping[str, Figure] = field(default_factory=dict)


class Unreadable(EnvironmentLacks):
    """What a line looks at cannot be read here. `remedy` says what to do."""

    def __init__(self, why: str, remedy: str = LOOK_FURTHER) -> None:
        super().__init__(why)
        self.remedy = remedy
