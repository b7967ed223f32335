"""What an operator sees of a command: its exit code, its words, and what it leaves behind.

`Operator` runs `ringline` and holds every command to what all of them promise:

 - an exit code of the documented ones, and no trace of Python's
 - on the error output only sentences that begin with the command's name
 - nothing left: no shared memory, no socket, no process

`alone` and `as_nobody` wrap commands in a mount namespace of their own, where a test may
take things away from them; both need root.
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

SECONDS = 100.0  # after which a command hangs
MARK = "RINGLINE_TEST_COMMAND"
# Hugepages are another test's, which may run at the same time.
HEAD = 'name = "NAME"\nmetrics.listen = "off"\nmemory.hugepages = "off"\n'
PORT = '[port.wan]\ndevice = "sim:82599"\n'
ONE_QUEUE = HEAD + PORT


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    errors: str

    @property
    def sentences(self) -> list[str]:
        """What it said on its error output, without its name."""
        begin = "ringline: "
        lines = self.errors.splitlines()
        return [line.removeprefix(begin) for line in lines if line.startswith(begin)]

    @property
    def last(self) -> str:
        """The last of them: why it ended."""
        assert self.sentences, f"it said nothing: {self}"
        return self.sentences[-1]


class Operator:
    """Runs commands in `folder`, where `write` puts configurations of instances of one name."""

    def __init__(self, folder: Path, instance: Callable[[], str]) -> None:
        self.folder = folder
        self.name = instance()

    def write(self, text: str, file: str = "config.toml") -> Path:
        """A file in the folder; NAME in it stands for the instance's name."""
        path = self.folder / file
        path.write_text(text.replace("NAME", self.name))
        return path

    def run(
        self,
        *arguments: str | Path,
        within: Sequence[str] = (),
        environment: Mapping[str, str | None] | None = None,
        other_words: bool = False,
        beside: bool = False,
        **more: Any,
    ) -> Ended:
        """`ringline ARGUMENTS`, to its end. `within` is what is before it on the command line,
        `environment` what is different (None: without that variable). `other_words`: not only
        ours are on the error output. `beside`: an instance of this name runs, and stays."""
        with self.started(
            *arguments, within=within, environment=environment, beside=beside, **more
        ) as process:
            try:
                out, errors = process.communicate(timeout=SECONDS)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGABRT)
                pytest.fail(f"{shlex.join(map(str, arguments))} does not end")
        ended = Ended(process.returncode, out or "", errors or "")
        assert not re.search("Traceback|bug in ringline", ended.errors + ended.out), ended
        if not other_words:
            strange = [line for line in ended.errors.splitlines() if not is_a_sentence(line)]
            assert not strange, ended.errors
        return ended

    def refused(self, code: int, *arguments: str | Path, **more: Any) -> str:
        """The last sentence of a command that must end with `code`."""
        ended = self.run(*arguments, **more)
        assert ended.code == code, (ended.code, ended.errors, ended.out)
        return ended.last

    @contextmanager
    def started(
        self,
        *arguments: str | Path,
        within: Sequence[str] = (),
        environment: Mapping[str, str | None] | None = None,
        beside: bool = False,
        **more: Any,
    ) -> Iterator[subprocess.Popen[str]]:
        """`ringline ARGUMENTS` until the block ends. Then it has ended, and nothing is left."""
        mark = f"{self.name}.{time.monotonic_ns()}"
        variables = {**os.environ, **(environment or {}), MARK: mark}
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
            process.wait(SECONDS)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
        left: list[Any] = processes(mark)
        if not beside:
            left += [*shared_memory(self.name), *sockets(self.name)]
        assert not left, f"left behind: {left}"

    @contextmanager
    def serving(self, config: Path, **more: Any) -> Iterator[subprocess.Popen[str]]:
        """`ringline run`, which has begun to serve; told to end when the block does."""
        with self.started("run", config, **more) as process:
            try:
                self._until_it_serves(process)
                yield process
            finally:
                process.send_signal(signal.SIGINT)
            process.communicate(timeout=SECONDS)

    def _until_it_serves(self, process: subprocess.Popen[str]) -> None:
        until = time.monotonic() + SECONDS
        while True:
            asked = self.run("status", "--json", self.name, beside=True)
            if asked.code == 0 and '"state": "running"' in asked.out:
                return
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until, "it does not begin to serve"
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
    """Command lines of those that carry the mark and have not ended."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:  # it ended meanwhile, or belongs to somebody else
            continue
    return found


def alone(*preparations: str, afterwards: str | None = None) -> list[str]:
    """The beginning of a command line: in a mount namespace of its own, after `preparations`
    in shell, and `afterwards` when it has ended. Skips the test where that is not possible."""
    may = subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True)
    if may.returncode != 0:
        pytest.skip("needs root and mount namespaces")
    script = "\n".join(["set -e", *preparations])
    if afterwards is None:
        script += '\nexec "$@"'
    else:
        script += f'\ncode=0; "$@" || code=$?\n{afterwards}\nexit $code'
    return ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh"]


def as_nobody(*preparations: str) -> list[str]:
    """The same as user nobody, who can read what the command needs and little else."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to become somebody else")
    identity = "setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs"
    begin = alone(*_let_through(), *preparations)
    return [*begin, *identity.split(), "env", "-u", "XDG_RUNTIME_DIR", "-u", "HOME"]


def _let_through() -> Iterator[str]:
    """Shell commands that let others pass folders above Python and the package, in this mount
    namespace: a folder that stops them is covered by an empty one with only those in it."""
    here = Path(__file__).resolve().parents[2]
    needed = {Path(place) for place in (sys.base_prefix, sys.prefix, here)}
    stopped: dict[Path, list[Path]] = {}
    for place in sorted(needed):
        for above in reversed(place.parents):
            if not above.stat().st_mode & 0o001:
                stopped.setdefault(above, []).append(place)
                break
    for above, places in stopped.items():
        for number, place in enumerate(places):
            yield f"t{number}=$(mktemp -d); mount --rbind {shlex.quote(str(place))} $t{number}"
        yield f"mount -t tmpfs -o mode=755 none {shlex.quote(str(above))}"
        for number, place in enumerate(places):
            quoted = shlex.quote(str(place))
            yield f"mkdir -p {quoted}; mount --rbind $t{number} {quoted}"
            yield f"umount -l $t{number}; rmdir $t{number}"
