"""The errors that a user may see.

Each derives from RinglineError and carries one clear sentence: what is wrong, where, and
what to do. The class decides only the exit code of the command; the table says who can
solve the problem.

| class              | exit | who can solve it                 |
|--------------------|------|----------------------------------|
| UsageError         | 2    | operator                         |
| ConfigurationError | 2    | operator                         |
| PluginError        | 2    | author of the plugin             |
| EnvironmentLacks   | 3    | administrator of the machine     |
| HardwareError      | 3    | technician at the device         |
| GaveUp             | 4    | operator                         |
| BooksError         | 5    | developers of ringline           |
| NotAllWell         | 6    | operator, author of the plugin   |
| Interrupted        | 128+ | who sent the signal              |
| Bug                | 1    | developers of ringline           |
"""

from __future__ import annotations

import errno

TYPE_CHECKING = False  # importing typing takes longer than importing all of this package
if TYPE_CHECKING:
    from collections.abc import Iterable


# Any system call may return these errors of a resource that is used up. What to do about each:
REMEDIES = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room",
    errno.EMFILE: "raise the limit (ulimit -n)",
    errno.ENFILE: "raise the limit (sysctl fs.file-max)",
    errno.ENOMEM: "free some memory, or raise the limit (ulimit -v)",
    errno.EAGAIN: "raise the limit of processes (ulimit -u)",
}


def reason_of(error: OSError) -> str:
    """What the system says of the error, and what to do when a resource is used up."""
    # posix_ipc raises an error of its own, without a number, for EMFILE.
    number = error.errno or (errno.EMFILE if "files open" in str(error) else 0)
    said = error.strerror or str(error)
    return f"{said}: {REMEDIES[number]}" if number in REMEDIES else said


class RinglineError(Exception):
    """The base class. Takes one message: a sentence."""

    exit_code: int = 1
    ending = "ended by an error"  # the first words about a run that it ended, if any


class UsageError(RinglineError):
    """The command line is not valid."""

    exit_code = 2


class ConfigurationError(RinglineError):
    """All mistakes of a configuration at once; `str()` has one per line."""

    exit_code = 2

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class PluginError(RinglineError):
    """The user's plugin cannot be loaded or set up, or asks for something it cannot get."""

    exit_code = 2


class EnvironmentLacks(RinglineError):
    """The machine lacks a resource or a permission that the run needs."""

    exit_code = 3


class HardwareError(RinglineError):
    """A device did not do what was expected; the message names the device."""

    exit_code = 3


class GaveUp(RinglineError):
    """The run ended because the driver, a card process or the workers of all queues failed."""

    exit_code = 4


class BooksError(RinglineError):
    """The books do not balance."""

    exit_code = 5


class Interrupted(RinglineError):
    """A signal ended the run in order: one that is not the ordinary way to end it, so that a
    service manager which restarts after failures starts it again."""

    def __init__(self, number: int, name: str) -> None:
        super().__init__(f"{name} ended the run")
        self.exit_code = 128 + number
        self.ending = f"ended by {name}"


class NotAllWell(RinglineError):
    """With `run --strict`: the run ended in order, but with errors, restarts or lost packets."""

    exit_code = 6
    ending = ""


class Bug(RinglineError):
    """A state that the code should make impossible. The message says that it is a bug."""

    exit_code = 1

    confession = " (this is a bug in ringline)"

    def __init__(self, message: str) -> None:
        # A message that a child sent as a Bug ends with the confession already.
        super().__init__(message.removesuffix(self.confession) + self.confession)
