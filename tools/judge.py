"""A copy of the checkout, in which tools/mutants.py tries faults: is there a test that fails?"""

from __future__ import annotations

import contextlib
import io
import os
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

from faults import ROOT, Mutant, complain

PACKAGES = ("shm", "workers", "pipeline")
NOT_COPIED = (".git", ".venv", ".*_cache", ".hypothesis", ".coverage*", "__pycache__", "build")
TEST_SECONDS = 40  # for one test; a mutant may loop forever
COMPILE_SECONDS = 120  # for one file
END_SECONDS = 10  # for tests that were told to end

# For hypothesis: it searches for a failure, and does not spend time on making it smaller.
PROFILE = """
from hypothesis import HealthCheck, Phase, settings
settings.register_profile(
    "mutants",
    max_examples=20,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
"""

# The tests that keep the promises of a file, the cheapest first.
LANE = [
    "tests/pipeline/driver/test_lane_verdicts.py",
    "tests/pipeline/driver/test_lane_renewal.py",
    "tests/pipeline/driver/test_lane_blanks.py",
    "tests/pipeline/driver/test_lane_hostile_worker.py",
    "tests/pipeline/driver/test_lane_balance.py",
    "tests/pipeline/driver/test_lane_waiting.py",
    "tests/pipeline/driver/test_lane_rest.py",
    "tests/pipeline/driver/test_lane_counters.py",
    "tests/pipeline/driver/test_lane_interrupts.py",
]
ANY_WORKER = ["tests/pipeline/driver/test_lane_any_worker.py"]
KILLED_DRIVER = ["tests/shm/test_settle_driver.py"]
ORDER = ["tests/test_memory_order.py"]
IXGBE = [
    f"tests/pipeline/ports/test_ixgbe_{part}.py"
    for part in ("receive", "transmit", "stop", "start", "books")
]
E1000E = [f"tests/pipeline/ports/test_{name}_port.py" for name in ("e1000e", "igb")]
XDP = ["tests/pipeline/ports/test_xdp_bursts.py"]
PACKET = ["tests/pipeline/ports/test_packet_bursts.py"]
LOOP = ["tests/workers/process/test_loop.py"]
RING = [
    "tests/shm/test_ring.py",
    "tests/pipeline/driver/test_lane_waiting.py",
    *LOOP,
    *ORDER,
    "tests/shm/test_sanitizers.py",
    "tests/shm/test_ring_stress.py",
]
BALANCE = ["tests/shm/test_balance.py", *LANE, *ORDER, *KILLED_DRIVER]

# A file, the modules that compile it, and its tests.
TARGETS: dict[str, tuple[list[str], list[str]]] = {
    "shm/ring.h": (["shm", "workers", "pipeline"], RING),
    "shm/wait.h": (["shm", "workers", "pipeline"], RING),
    "shm/ledger.h": (["shm", "pipeline"], ["tests/shm/test_ledger.py", *LANE]),
    "shm/balance.h": (["shm", "pipeline"], BALANCE),
    "pipeline/driver/lane.c": (["pipeline"], [*LANE, *ANY_WORKER, *KILLED_DRIVER]),
    "pipeline/driver/lane_inline.h": (["pipeline"], [*LANE, *ANY_WORKER, *KILLED_DRIVER]),
    "pipeline/driver/idle.c": (["pipeline"], LANE),
    "pipeline/driver/settle.c": (["pipeline"], [*LANE, *ORDER, *ANY_WORKER, *KILLED_DRIVER]),
    "pipeline/driver/balance.c": (["pipeline"], LANE),
    "pipeline/driver/refuse.c": (["pipeline"], [*LANE, *ANY_WORKER]),
    "pipeline/ports/errors.c": (["pipeline"], [*IXGBE, *XDP]),
    "pipeline/ports/memory.h": (["pipeline"], [*LANE, *IXGBE, *ANY_WORKER, *KILLED_DRIVER]),
    "pipeline/ports/ixgbe/ixgbe.c": (["pipeline"], [*IXGBE, *ORDER]),
    "pipeline/ports/descriptor_rings/reclaim.c": (["pipeline"], [*IXGBE, *E1000E, *ORDER]),
    "pipeline/ports/descriptor_rings/rings.c": (["pipeline"], [*IXGBE, *E1000E]),
    "pipeline/ports/e1000e/e1000e.c": (["pipeline"], [*E1000E, *ORDER]),
    "pipeline/ports/tag.h": (["pipeline"], [*E1000E, *XDP]),
    "pipeline/ports/xdp/xdp.c": (["pipeline"], [*XDP, *ORDER]),
    "pipeline/ports/xdp/rings.c": (["pipeline"], XDP),
    "pipeline/ports/packet/packet.c": (["pipeline"], [*PACKET, *ORDER]),
    "pipeline/ports/packet/rings.c": (["pipeline"], PACKET),
    "workers/loop/loop.c": (
        ["workers"],
        [*LOOP, "tests/workers/test_batch.py"],
    ),
}


class Module:
    """One C module of the copy: an object for each source, linked again for each mutant."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        objects = folder / "objects" / name
        objects.mkdir(parents=True)
        here = Path.cwd()
        os.chdir(folder)  # the paths in a builder are relative to the root of the repository
        try:
            builder = runpy.run_path(f"{name}/_build.py")["ffibuilder"]
            with contextlib.redirect_stdout(io.StringIO()):  # it says that it generates the C
                extension = builder.distutils_extension(str(objects), verbose=False)
        finally:
            os.chdir(here)
        compiler = shlex.split(sysconfig.get_config_var("CC") or "cc")
        includes = [f"-I{folder}", f"-I{sysconfig.get_paths()['include']}"]
        options = [*extension.extra_compile_args, "-O2", "-w", "-DPy_LIMITED_API=0x030b0000"]
        self._compile = [*compiler, "-fPIC", *options, *includes, "-MMD", "-c"]
        self._objects = {
            source: objects / f"{number}.o" for number, source in enumerate(extension.sources)
        }
        self._link = [*compiler, "-shared", "-o", str(folder / name / f"_{name}.abi3.so")]
        if not self._make(list(self._objects)) or not self.link():
            complain(f"{name} does not compile without a fault: run make build.")
        self._original = {source: path.read_bytes() for source, path in self._objects.items()}

    def build(self, file: str) -> bool | None:
        """Compile again what includes `file`. False: it does not compile; None: the machine code is
        the same as without a fault."""
        sources = [
            source
            for source, path in self._objects.items()
            if (self._folder / file).resolve() in self._read_by(path)
        ]
        if not self._make(sources):
            return False
        if all(self._objects[source].read_bytes() == self._original[source] for source in sources):
            return None
        return self.link()

    def _read_by(self, target: Path) -> set[Path]:
        """The files that the compiler read for an object."""
        rule = target.with_suffix(".d").read_text(encoding="utf-8").replace("\\\n", " ")
        return {Path(name).resolve() for name in rule.partition(":")[2].split()}

    def restore(self) -> None:
        """Take back the objects without a fault."""
        for source, path in self._objects.items():
            path.write_bytes(self._original[source])
        self.link()

    def link(self) -> bool:
        return self._run([*self._link, *map(str, self._objects.values())])

    def _make(self, sources: list[str]) -> bool:
        return all(
            self._run([*self._compile, str(self._folder / name), "-o", str(self._objects[name])])
            for name in sources
        )

    def _run(self, command: list[str]) -> bool:
        try:
            done = subprocess.run(
                command, capture_output=True, check=False, timeout=COMPILE_SECONDS
            )
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0


class Copy:
    """A copy of the checkout, with its own modules, for Python and for the tests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(
            ROOT,
            folder,
            symlinks=True,
            ignore=shutil.ignore_patterns(*NOT_COPIED),
            dirs_exist_ok=True,
        )
        shutil.copytree(folder / "package", folder / "site" / "ringline")
        for name in PACKAGES:
            (folder / "site" / "ringline" / name).symlink_to(folder / name)
        (folder / "site" / "mutants_profile.py").write_text(PROFILE, encoding="utf-8")
        (folder / "tmp").mkdir()
        self._environment = {
            **os.environ,
            "PYTHONPATH": str(folder / "site"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "RINGLINE_FAST": "1",
            "RINGLINE_CACHE": str(folder / "cache"),
            "TMPDIR": str(folder / "tmp"),
        }
        self._modules: dict[str, Module] = {}
        self._seconds: dict[str, float] = {}  # that the tests of a file take without a fault

    def prepare(self, file: str) -> None:
        """Compile the modules of a file, and see its tests pass without a fault."""
        modules, tests = TARGETS[file]
        for name in modules:
            if name not in self._modules:
                self._modules[name] = Module(self.folder, name)
        if file in self._seconds:
            return
        for _ in range(2):  # on a busy machine a test may fail once
            began = time.monotonic()
            failed = self.failure(tests, 20 * TEST_SECONDS)
            self._seconds[file] = time.monotonic() - began
            if failed is None:
                return
        complain(f"A test of {file} fails without a fault: {failed}. Mend this first.")

    def judge(self, mutant: Mutant) -> tuple[str, str]:
        """The outcome, and the test that failed."""
        names, tests = TARGETS[mutant.file]
        modules = [self._modules[name] for name in names]
        path = self.folder / mutant.file
        whole = path.read_text(encoding="utf-8")
        lines = whole.splitlines(keepends=True)
        lines[mutant.line - 1] = mutant.after + "\n"
        try:
            path.write_text("".join(lines), encoding="utf-8")
            built = [module.build(mutant.file) for module in modules]
            if False in built:
                return "does not compile", ""
            if not any(built) and "__atomic" not in mutant.before and "__asm" not in mutant.before:
                return "same code", ""
            failed = self.failure(tests, 60 + 3 * self._seconds[mutant.file])
            return ("SURVIVES", "") if failed is None else ("killed", failed)
        finally:
            path.write_text(whole, encoding="utf-8")
            for module in modules:
                module.restore()

    def failure(self, tests: list[str], seconds: float) -> str | None:
        """The first test that fails, or None. Whatever the tests started ends with them."""
        command = [sys.executable, "-m", "pytest", "-q", "-x", "--tb=no", "--hypothesis-seed=1"]
        command += ["-p", "mutants_profile", "--hypothesis-profile=mutants"]
        command += ["-p", "no:cacheprovider", "--timeout-method=thread"]
        command += [f"--timeout={TEST_SECONDS}", *tests]
        with (self.folder / "tmp" / "output").open("w+", encoding="utf-8") as output:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                return f"they did not end within {seconds:.0f} s"
            finally:
                end(process)
                sweep(process.pid)
            if process.returncode == 0:
                return None
            output.seek(0)
            text = output.read()
        named = re.search(r"^(?:FAILED|ERROR) (\S+)", text, re.MULTILINE)
        return named[1] if named else f"exit code {process.returncode}"


def end(process: subprocess.Popen[bytes]) -> None:
    """End the tests, in order if they can, and the process group that they began."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)


def sweep(pid: int) -> None:
    """Remove what the tests of process `pid` left: tests/conftest.py marks it with this number."""
    mark = f"RINGLINE_TEST_SESSION={pid}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                os.kill(int(folder.name), signal.SIGKILL)
    rows = [line.split() for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    for place in ("/dev/shm", *(row[1] for row in rows if row[2] == "hugetlbfs")):
        for path in Path(place).glob(f"ringline.t{pid}-*"):
            path.unlink(missing_ok=True)
