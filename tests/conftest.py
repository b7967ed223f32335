"""What holds for every test: names, timeouts, skips, and that nothing stays behind.

Settings, all from the environment:
 - RINGLINE_CAPTURES=FOLDER   real captures for the tests that take `real_capture`
 - RINGLINE_FORBID_SKIPS=1    a skip that is not in MAY_BE_MISSING fails the run
 - RINGLINE_PROOF=1           full counts instead of samples; takes long
 - RINGLINE_FAST=1            small samples: for `make check`

Promises of a test run, checked when it ends and made good where they are broken:
 - no shared memory of an instance `t<pid>-…` is left, on /dev/shm or any hugetlbfs
 - no process that a test started is left, nor any that those started
What an earlier run left because it was killed is removed when this one starts.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Skips that even the strictest run accepts: what a machine without the hardware cannot have.
MAY_BE_MISSING = ("hugepages", "RINGLINE_CAPTURES", "RINGLINE_PROOF")

# Tests that are slow by what they are: they run whole instances, or compile for themselves.
SLOW = re.compile(r"tests/(e2e|peers)/|sanitizers|stress|test_(compiled|documents|supervisor)")

SESSION = "RINGLINE_TEST_SESSION"
CAPTURES = os.environ.get("RINGLINE_CAPTURES")
FORBID_SKIPS = os.environ.get("RINGLINE_FORBID_SKIPS") == "1"

settings.register_profile(
    "fast", max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "sample", max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "proof", max_examples=5000, deadline=None, suppress_health_check=list(HealthCheck)
)
settings.load_profile(
    "proof"
    if os.environ.get("RINGLINE_PROOF") == "1"
    else "fast"
    if os.environ.get("RINGLINE_FAST") == "1"
    else "sample"
)

names = itertools.count(1)
skips: list[tuple[str, str]] = []
complaints: list[str] = []
first_seen: dict[Path, str] = {}  # what lies in shared memory: the test after which it did


@pytest.fixture
def instance() -> Callable[[], str]:
    """Makes names of instances that no other test or test run uses."""
    return lambda: f"t{os.getpid()}-{next(names)}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `real_capture: Path` runs once for each file in RINGLINE_CAPTURES."""
    if "real_capture" not in metafunc.fixturenames:
        return
    found = sorted(Path(CAPTURES).glob("*.pcap*")) if CAPTURES else []
    if found:
        metafunc.parametrize("real_capture", found, ids=[path.name for path in found])
    else:
        missing = (
            f"RINGLINE_CAPTURES={CAPTURES} has no captures"
            if CAPTURES
            else ("RINGLINE_CAPTURES is missing: a folder with real captures")
        )
        mark = pytest.mark.skip(reason=missing)
        metafunc.parametrize("real_capture", [pytest.param(None, marks=mark)], ids=["none"])


def pytest_configure(config: pytest.Config) -> None:
    # The command `ringline` and the tools that were unpacked for tests are beside this Python.
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
    os.environ[SESSION] = str(os.getpid())
    os.environ.pop("RINGLINE_SYSFS", None)
    signal.signal(signal.SIGTERM, end_in_order)
    # A shell's job in the background has these ignored, and so had all that tests start.
    for number, usual in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGQUIT, signal.SIG_DFL),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)
    for path in shared_memory(r"ringline\.t(\d+)-.*"):
        owner = path.name.split(".")[1][1:].split("-")[0]
        if not Path("/proc", owner).exists():
            path.unlink(missing_ok=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if SLOW.search(item.nodeid):
            item.add_marker("slow")


def end_in_order(number: int, _frame: object) -> None:
    """Let fixtures and the checks at the end run before a terminated test run goes."""
    if os.environ[SESSION] == str(os.getpid()):
        pytest.exit("terminated", returncode=128 + number)
    signal.signal(number, signal.SIG_DFL)  # a forked child: not its business
    os.kill(os.getpid(), number)


@pytest.fixture(autouse=True)
def _note_what_appears(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    for path in ours_in_shared_memory():
        first_seen.setdefault(path, request.node.nodeid)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        skips.append((report.nodeid, reason_of(report)))


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.skipped:
        skips.append((report.nodeid, reason_of(report)))


def pytest_sessionfinish(session: pytest.Session) -> None:
    complaints.extend(unwelcome_skips())
    complaints.extend(left_processes())
    complaints.extend(left_shared_memory())
    if complaints and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if complaints:
        terminalreporter.section("the run fails", red=True, bold=True)
        for complaint in complaints:
            terminalreporter.line(complaint)


def reason_of(report: pytest.TestReport | pytest.CollectReport) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


def unwelcome_skips() -> Iterator[str]:
    """A skip must say what is missing; with RINGLINE_FORBID_SKIPS=1 little may be."""
    for test, reason in skips:
        if not re.search(r"missing|needs|without|has no|could not import", reason):
            yield f"{test} was skipped without saying what is missing: {reason!r}"
        elif FORBID_SKIPS and not any(name in reason for name in MAY_BE_MISSING):
            yield f"{test} was skipped, which RINGLINE_FORBID_SKIPS=1 forbids: {reason}"


def left_processes() -> Iterator[str]:
    """Those that still run two seconds after the last test. They are ended here."""
    tracker = sys.modules.get("multiprocessing.resource_tracker")
    if tracker is not None:  # Python's own helper, which otherwise ends with this process
        tracker._resource_tracker._stop()
    deadline = time.monotonic() + 2.0
    while (left := started_here()) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid, command in left.items():
        yield f"process {pid} was left behind: {command}"
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def started_here() -> dict[int, str]:
    """Processes that carry this session's mark, or have this process as parent."""
    mark = f"{SESSION}={os.getpid()}".encode()
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent, state = parent_and_state(folder)
            marked = mark in (folder / "environ").read_bytes().split(b"\0")
            command = (
                (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            )
        except OSError:  # it ended meanwhile, or is not ours
            continue
        pid = int(folder.name)
        if pid != os.getpid() and state != "Z" and (marked or parent == os.getpid()):
            found[pid] = command or "(no command line)"
        elif parent == os.getpid() and state == "Z":
            found[pid] = "ended, but nobody waited for it"
    return found


def parent_and_state(folder: Path) -> tuple[int, str]:
    state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
    return int(parent), state


def left_shared_memory() -> Iterator[str]:
    for path in ours_in_shared_memory():
        test = first_seen.get(path, "a test")
        yield f"{path} was left behind; it appeared in {test} or just before"
        path.unlink(missing_ok=True)


def ours_in_shared_memory() -> list[Path]:
    return shared_memory(rf"ringline\.t{os.getpid()}-.*")


def shared_memory(pattern: str) -> list[Path]:
    matches = re.compile(pattern).fullmatch
    return [
        Path(folder, name)
        for folder in SHARED_MEMORY
        for name in sorted(os.listdir(folder))
        if matches(name)
    ]


def hugetlbfs_mounts() -> list[str]:
    rows = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    return [row[1] for row in rows if row[2] == "hugetlbfs" and os.access(row[1], os.R_OK)]


SHARED_MEMORY = [name for name in ("/dev/shm", *hugetlbfs_mounts()) if os.path.isdir(name)]
