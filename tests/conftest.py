"""Rules for every test: instance names, skips, slow tests, and that nothing is left behind.

Settings, all from the environment:
 - RINGLINE_CAPTURES=FOLDER   real captures for the tests that take `real_capture`
 - RINGLINE_FORBID_SKIPS=1    a skip with a reason outside MAY_BE_MISSING fails the run
 - RINGLINE_PROOF=1           full counts instead of samples; slow
 - RINGLINE_FAST=1            small samples: for `make check`

Checked at the end of a test run; what is left fails the run and is removed or killed:
 - shared memory of an instance `t<pid>-…`, on /dev/shm or any hugetlbfs
 - processes that a test started, and their descendants
 - network namespaces `ringline-t<pid>-…`, with all their interfaces
Shared memory and namespaces of an earlier test run that was killed are removed at the start.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROOF = os.environ.get("RINGLINE_PROOF") == "1"
# Skip reasons that RINGLINE_FORBID_SKIPS=1 accepts: not every machine has these.
MAY_BE_MISSING = (
    "hugepages",
    "RINGLINE_CAPTURES",
    "RINGLINE_PROOF",
    "a kernel with AF_XDP",
    "a kernel with TCX",
    "netem",
    *(() if PROOF else ("QEMU 11",)),  # `make proof` and .ci/run get it
)

# Slow tests: they run whole instances, compile programs, or try very many cases.
SLOW = re.compile(
    r"tests/(e2e|guest|peers|workers/headers)/|sanitizers|stress"
    r"|test_(cli|code_cache|compiled|completion|crash|documents|examples|lookup_tiers|mutants)\.py"
    r"|test_(pipeline|plugins|running|supervisor|systemd|trial|try_captures|try_streams)\.py"
    r"|test_(compressed|contract|memory_order|native_state|package|plain|start|times|wild_worker)\.py"
    r"|analysis/test_engine|bench/test_(compare|pair)\.py|workers/(process/test_process|tiers/test_refusals)\.py"
    r"|workers/(process/test_failing_plugin|test_(drop_reasons|router|shared|switch))\.py"
)

TESTS = Path(__file__).parent
SESSION = "RINGLINE_TEST_SESSION"
NAMESPACE = "ringline-t"  # the name of a network namespace goes on with the process id
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
    "proof" if PROOF else "fast" if os.environ.get("RINGLINE_FAST") == "1" else "sample"
)

names = itertools.count(1)
skips: list[tuple[str, str]] = []
complaints: list[str] = []
figures: list[str] = []  # what tests have recorded with `record_property`
first_seen: dict[Path, str] = {}  # file in shared memory -> the test after which it was there


@pytest.fixture
def instance() -> Callable[[], str]:
    """Makes instance names that no other test or test run uses."""
    return lambda: f"t{os.getpid()}-{next(names)}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes `real_capture: Path` once for each file in RINGLINE_CAPTURES; without
    RINGLINE_PROOF a slow one for some of them, which are others for another test."""
    if "real_capture" not in metafunc.fixturenames:
        return
    found = sorted(Path(CAPTURES).glob("*.pcap*")) if CAPTURES else []
    if not PROOF and SLOW.search(metafunc.definition.path.as_posix()):
        first = zlib.crc32(metafunc.function.__name__.encode())
        found = sorted({found[(first + 4 * n) % len(found)] for n in range(3) if found})
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
    # The command `ringline` and the tools unpacked for tests are in the folder of this Python.
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
    os.environ[SESSION] = str(os.getpid())
    # A test run that is killed must not leave its runs at full load.
    os.environ["RINGLINE_END_WITH"] = str(os.getpid())
    os.environ.pop("RINGLINE_SYSFS", None)
    signal.signal(signal.SIGTERM, end_in_order)
    # A shell starts background jobs with these ignored; the tests' processes would inherit that.
    for number, default in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGQUIT, signal.SIG_DFL),
        (signal.SIGHUP, nothing),  # under nohup this process still ignores it
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, default)
    for path in shared_memory(r"ringline\.t(\d+)-.*"):
        owner = path.name.split(".")[1][1:].split("-")[0]
        if not Path("/proc", owner).exists():
            path.unlink(missing_ok=True)
    for name in namespaces(r"(\d+)"):
        if not Path("/proc", name.removeprefix(NAMESPACE).split("-")[0]).exists():
            remove_namespace(name)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not even import the slow modules when only fast tests are wanted."""
    fast = config.option.markexpr.startswith("not slow")
    return True if fast and collection_path.is_file() and is_slow(collection_path) else None


def is_slow(path: Path) -> bool:
    return (
        path.is_relative_to(TESTS) and SLOW.search(f"tests/{path.relative_to(TESTS)}") is not None
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if is_slow(item.path):
            item.add_marker("slow")


def end_in_order(number: int, _frame: object) -> None:
    """Run fixture teardown and the final checks before a terminated test run exits."""
    if os.environ[SESSION] == str(os.getpid()):
        pytest.exit("terminated", returncode=128 + number)
    signal.signal(number, signal.SIG_DFL)  # a forked child just dies
    os.kill(os.getpid(), number)


def nothing(number: int, _frame: object) -> None:
    """Ignore a signal, but not in the programs that this process starts."""


@pytest.fixture(autouse=True)
def _note_new_shared_memory(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    for path in ours_in_shared_memory():
        first_seen.setdefault(path, request.node.nodeid)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        skips.append((report.nodeid, reason_of(report)))
    if report.when == "call":
        figures.extend(f"{report.nodeid}: {name}: {what}" for name, what in report.user_properties)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.skipped:
        skips.append((report.nodeid, reason_of(report)))


def pytest_sessionfinish(session: pytest.Session) -> None:
    complaints.extend(forbidden_skips())
    complaints.extend(left_processes())
    complaints.extend(left_shared_memory())
    complaints.extend(left_namespaces())
    if complaints and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if figures:
        terminalreporter.section("figures")
        for figure in figures:
            terminalreporter.line(figure)
    if complaints:
        terminalreporter.section("the run fails", red=True, bold=True)
        for complaint in complaints:
            terminalreporter.line(complaint)


def reason_of(report: pytest.TestReport | pytest.CollectReport) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


def forbidden_skips() -> Iterator[str]:
    """Report skips without a reason, and all but MAY_BE_MISSING if skips are forbidden."""
    for test, reason in skips:
        if not re.search(r"missing|needs|without|has no|could not import", reason):
            yield f"{test} was skipped without saying what is missing: {reason!r}"
        elif FORBID_SKIPS and not any(name in reason for name in MAY_BE_MISSING):
            yield f"{test} was skipped, which RINGLINE_FORBID_SKIPS=1 forbids: {reason}"


def left_processes() -> Iterator[str]:
    """Report and kill processes that still run 20 seconds after the last test."""
    tracker = sys.modules.get("multiprocessing.resource_tracker")
    if tracker is not None:  # Python's helper process, which otherwise ends with this one
        tracker._resource_tracker._stop()
    deadline = time.monotonic() + 20.0
    while (left := started_here()) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid, command in left.items():
        yield f"process {pid} was left behind: {command}"
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def started_here() -> dict[int, str]:
    """Return processes with this session's mark in their environment, or with this parent."""
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
            found[pid] = "a zombie: nobody waited for it"
    return found


def parent_and_state(folder: Path) -> tuple[int, str]:
    state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
    return int(parent), state


def left_shared_memory() -> Iterator[str]:
    for path in ours_in_shared_memory():
        test = first_seen.get(path, "a test")
        yield f"{path} was left behind; it appeared in {test} or just before"
        path.unlink(missing_ok=True)


def left_namespaces() -> Iterator[str]:
    for name in namespaces(str(os.getpid())):
        yield f"network namespace {name} was left behind"
        remove_namespace(name)


def namespaces(owner: str) -> list[str]:
    """Network namespaces of test runs; `owner` is a pattern for the process id."""
    matches = re.compile(f"{NAMESPACE}{owner}-.*").fullmatch
    try:
        return sorted(filter(matches, os.listdir("/run/netns")))
    except OSError:
        return []


def remove_namespace(name: str) -> None:
    subprocess.run(["ip", "netns", "del", name], check=False, timeout=30, capture_output=True)


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
