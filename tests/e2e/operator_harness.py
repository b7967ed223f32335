"""What an operator sees of a command: its exit code, its output, and what it leaves behind.

`Operator` runs `ringline` and checks what every command promises:

 - no Python traceback and no message "bug in ringline"
 - on standard error only sentences that begin with the command's name
 - nothing left: no shared memory, no socket, no process

`in_mount_namespace` and `as_nobody` make a command line that runs in a private mount
namespace, where a test can remove or fill file systems; both need root.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .run_harness import status_of

TIMEOUT = 100.0  # seconds until a command counts as hanging
MARK = "RINGLINE_TEST_COMMAND"
# No hugepages: another test may use them at the same time.
HEAD = 'name = "NAME"\nmetrics.listen = "off"\nmemory.hugepages = "off"\n'
PORT = '[port.wan]\ndevice = "sim:82599"\n'
ONE_QUEUE = HEAD + PORT


@dataclass(frozen=True)
class CommandResult:
    """Exit code and output of a command."""

    code: int
    out: str
    errors: str

    @property
    def sentences(self) -> list[str]:
        """The sentences on standard error, without the command's name."""
        begin = "ringline: "
        lines = self.errors.splitlines()
        return [line.removeprefix(begin) for line in lines if line.startswith(begin)]

    @property
    def last(self) -> str:
        """The last sentence: why the command ended."""
        assert self.sentences, f"no sentence on standard error: {self}"
        return self.sentences[-1]


class Operator:
    """Runs commands in `folder`; its configurations are for instances of the name `name`."""

    def __init__(self, folder: Path, instance: Callable[[], str]) -> None:
        self.folder = folder
        self.name = instance()

    def write(self, text: str, file: str = "config.toml") -> Path:
        """Write a file in the folder and return its path. NAME becomes the instance's name."""
        path = self.folder / file
        path.write_text(text.replace("NAME", self.name))
        return path

    def run(
        self,
        *arguments: str | Path,
        within: Sequence[str] = (),
        environment: Mapping[str, str | None] | None = None,
        other_output: bool = False,
        keep_instance: bool = False,
        **more: Any,
    ) -> CommandResult:
        """Run `ringline ARGUMENTS` until it ends.

        `within`: words before `ringline` on the command line. `environment`: changed
        variables (None: removed). `other_output`: standard error may have lines that are
        not ringline's. `keep_instance`: an instance of this name runs and stays.
        """
        with self.started(
            *arguments, within=within, environment=environment, keep_instance=keep_instance, **more
        ) as process:
            try:
                out, errors = process.communicate(timeout=TIMEOUT)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGABRT)
                pytest.fail(f"{shlex.join(map(str, arguments))} does not end")
        ended = CommandResult(process.returncode, out or "", errors or "")
        assert not re.search("Traceback|bug in ringline", ended.errors + ended.out), ended
        if not other_output:
            foreign = [line for line in ended.errors.splitlines() if not is_a_sentence(line)]
            assert not foreign, ended.errors
        return ended

    def refused(self, code: int, *arguments: str | Path, **more: Any) -> str:
        """Run a command that must exit with `code`; return its last sentence, without the number
        of the line in the configuration: tests/pipeline/configuration/test_lines.py covers it."""
        ended = self.run(*arguments, **more)
        assert ended.code == code, (ended.code, ended.errors, ended.out)
        return re.sub(r" \(line \d+\)$", "", ended.last)

    @contextmanager
    def started(
        self,
        *arguments: str | Path,
        within: Sequence[str] = (),
        environment: Mapping[str, str | None] | None = None,
        keep_instance: bool = False,
        **more: Any,
    ) -> Iterator[subprocess.Popen[str]]:
        """Start `ringline ARGUMENTS`. Leaving the block waits for its end; nothing may be left."""
        mark = f"{self.name}.{time.monotonic_ns()}"
        # A thread may be here while pytest changes PYTEST_CURRENT_TEST.
        inherited = {name: os.environ.get(name) for name in list(os.environ)}
        variables = {**inherited, **(environment or {}), MARK: mark}
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE}
        streams |= {"stderr": subprocess.PIPE, "cwd": self.folder}
        process = subprocess.Popen(
            [*within, "ringline", *map(str, arguments)],
            env={name: value for name, value in variables.items() if value is not None},
            text=True,
            **{**streams, **more},
        )
        try:
            yield process
            process.wait(TIMEOUT)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
        until = time.monotonic() + 30  # a child closes its files a little before it is gone
        while keep_instance and processes(mark) and time.monotonic() < until:
            time.sleep(0.05)
        left: list[Any] = processes(mark)
        if not keep_instance:
            left += [*shared_memory(self.name), *sockets(self.name)]
        assert not left, f"left behind: {left}"

    @contextmanager
    def serving(self, config: Path, **more: Any) -> Iterator[subprocess.Popen[str]]:
        """Start `ringline run` and wait until it runs; leaving the block interrupts it."""
        with self.started("run", config, **more) as process:
            try:
                self._wait_until_running(process)
                yield process
            finally:
                process.send_signal(signal.SIGINT)
            process.communicate(timeout=TIMEOUT)

    def _wait_until_running(self, process: subprocess.Popen[str]) -> None:
        deadline = time.monotonic() + TIMEOUT
        while True:
            if status_of(self.name).get("state") == "running":
                return
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, "the run does not reach the state running"
            time.sleep(0.05)


def is_a_sentence(line: str) -> bool:
    return re.match(r"ringline( [a-z]+)?: |usage: ringline|       ", line) is not None


def shared_memory(name: str) -> list[Path]:
    return sorted(Path("/dev/shm").glob(f"ringline.{name}.*"))


def sockets(name: str) -> list[Path]:
    folders = [Path("/run/ringline"), *Path("/tmp").glob("ringline-*")]
    if "XDG_RUNTIME_DIR" in os.environ:
        folders.append(Path(os.environ["XDG_RUNTIME_DIR"], "ringline"))
    return [path for folder in folders if (path := folder / f"{name}.sock").exists()]


def processes(mark: str) -> list[str]:
    """Return the command lines of running processes that have the mark in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:  # it ended meanwhile, or belongs to another user
            continue
    return found


def in_mount_namespace(*preparations: str, afterwards: str | None = None) -> list[str]:
    """Return the beginning of a command line that runs in a private mount namespace.

    `preparations` are shell commands before the command, `afterwards` is one after it.
    Skips the test where namespaces are not possible.
    """
    probe = subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True)
    if probe.returncode != 0:
        pytest.skip("needs root and mount namespaces")
    script = "\n".join(["set -e", *preparations])
    if afterwards is None:
        script += '\nexec "$@"'
    else:
        script += f'\ncode=0; "$@" || code=$?\n{afterwards}\nexit $code'
    return ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh"]


def as_nobody(*preparations: str) -> list[str]:
    """Like `in_mount_namespace`, as user nobody, who can read Python and the package."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    identity = "setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs"
    begin = in_mount_namespace(*_make_reachable(), *preparations)
    return [*begin, *identity.split(), "env", "-u", "XDG_RUNTIME_DIR", "-u", "HOME"]


def _make_reachable() -> Iterator[str]:
    """Return shell commands that let other users reach Python and the package.

    A parent folder without search permission for others is covered by an empty tmpfs, and
    only the needed folders are mounted into it.
    """
    here = Path(__file__).resolve().parents[2]
    needed = {Path(place) for place in (sys.base_prefix, sys.prefix, here)}
    closed: dict[Path, list[Path]] = {}
    for place in sorted(needed):
        for above in reversed(place.parents):
            if not above.stat().st_mode & 0o001:
                closed.setdefault(above, []).append(place)
                break
    for above, places in closed.items():
        for number, place in enumerate(places):
            yield f"t{number}=$(mktemp -d); mount --rbind {shlex.quote(str(place))} $t{number}"
        yield f"mount -t tmpfs -o mode=755 none {shlex.quote(str(above))}"
        for number, place in enumerate(places):
            quoted = shlex.quote(str(place))
            yield f"mkdir -p {quoted}; mount --rbind $t{number} {quoted}"
            yield f"umount -l $t{number}; rmdir $t{number}"
