"""What each signal does to a run, by number.

`ENDING` end a run in order. `ASKING` mean something to other programs, such as "open your log
again" or "print your progress": a run refuses them with a line. `IGNORED_BY_CHILDREN` are all of
these: only the supervisor decides, also when a terminal, `systemctl kill` or `docker kill`
sends a signal to every process.

Children ignore those too that stop a process in the background when it uses the terminal: with
`stty tostop`, a line in the log would stop a worker.

Not listed are signals of a crash (SIGSEGV, SIGABRT, …) and of job control (SIGTSTP, …), which
keep their effect, and those that the kernel or Python ignores (SIGCHLD, SIGWINCH, SIGPIPE, …).

`_signal` is the module under `signal`, which takes 4 ms to import: workers start in 13 ms.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

ORDINARY: tuple[int, ...] = (_signal.SIGTERM, _signal.SIGINT)  # the run ends with code 0
ASKING: tuple[int, ...] = (_signal.SIGUSR1, _signal.SIGUSR2, _signal.SIGIO)
_KEPT = {
    getattr(_signal, name)
    for name in (
        *("SIGKILL", "SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGCONT"),
        *("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGTRAP", "SIGSYS"),
        *("SIGCHLD", "SIGURG", "SIGWINCH", "SIGPIPE", "SIGXFSZ"),
    )
}
ENDING: tuple[int, ...] = tuple(
    sorted(int(number) for number in _signal.valid_signals() if number not in (*_KEPT, *ASKING))
)
IGNORED_BY_CHILDREN: tuple[int, ...] = (
    *ENDING,
    *ASKING,
    _signal.SIGTTIN,
    _signal.SIGTTOU,
)


def ignore(numbers: Iterable[int]) -> None:
    """Ignore these signals in this process and in the programs that it starts."""
    for number in numbers:
        _signal.signal(number, _signal.SIG_IGN)


def name_of(number: int) -> str:
    """`SIGHUP`; a real-time signal without a name of its own is `signal 37`."""
    for name in dir(_signal):
        if (
            name.startswith("SIG")
            and not name.startswith("SIG_")
            and (getattr(_signal, name) == number)
        ):
            return name
    return f"signal {number}"
