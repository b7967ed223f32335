"""What can go wrong, by whose it is to put right.

Every error that a user may see derives from RinglineError and carries one clear
sentence: what is wrong, where, and what to do. The class says whose turn it is
and which exit code the command ends with; nothing else is decided by it.

| class              | exit | whose       |
|--------------------|------|-------------|
| UsageError         | 2    | operator    |
| ConfigurationError | 2    | operator    |
| PluginError        | 2    | plugin      |
| EnvironmentLacks   | 3    | environment |
| HardwareError      | 3    | hardware    |
| GaveUp             | 4    | operator    |
| BooksError         | 5    | ringline    |
| Bug                | 1    | ringline    |
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing itself takes longer to import than all of this package
if TYPE_CHECKING:
    from collections.abc import Iterable


class RinglineError(Exception):
    """The root. Takes one message sentence."""

    exit_code: int = 1
    whose: str = "ringline"


class UsageError(RinglineError):
    """A command line that means nothing."""

    exit_code = 2
    whose = "operator"


class ConfigurationError(RinglineError):
    """Every mistake of a configuration at once; `str()` has one per line."""

    exit_code = 2
    whose = "operator"

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class PluginError(RinglineError):
    """The user's plugin cannot be loaded, set up, or given what it asks for."""

    exit_code = 2
    whose = "plugin"


class EnvironmentLacks(RinglineError):
    """The machine does not have, or does not allow, what is needed."""

    exit_code = 3
    whose = "environment"


class HardwareError(RinglineError):
    """A device did not do what was awaited; the sentence names it."""

    exit_code = 3
    whose = "hardware"


class GaveUp(RinglineError):
    """Restarted as often as the restart intensity allows, and it failed again."""

    exit_code = 4
    whose = "operator"


class BooksError(RinglineError):
    """The books do not balance."""

    exit_code = 5
    whose = "ringline"


class Bug(RinglineError):
    """A state that the code should make impossible. Says so to whoever reads it."""

    exit_code = 1
    whose = "ringline"

    confession = " (this is a bug in ringline)"

    def __init__(self, message: str) -> None:
        # Told once, though the message may have come from a child as a Bug.
        super().__init__(message.removesuffix(self.confession) + self.confession)
