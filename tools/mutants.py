"""Put one fault at a time into the C of the packet path, and see whether a test fails.

Such a fault is a mutant. It changes one place of one line: `<` becomes `<=`, `+` becomes `-`, a
statement is deleted (RULES). Each mutant is compiled in a copy of the checkout and run against the
tests that keep the promises of its file (TARGETS), the cheapest first. These do not count:
 - a mutant that does not compile;
 - one that the compiler turns into the same machine code as the original. Memory orders and fences
   are not judged in this way, because x86 needs no instruction for some of them and AArch64 does;
 - one that mutants.toml names: nobody can see a difference, and an entry there says why.

The exit code is 1 when fewer than 95 % of the others were killed, and 2 when the tests fail
without a fault or an entry of mutants.toml fits no mutant.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXCUSES = Path(__file__).with_suffix(".toml")
PACKAGES = ("shm", "workers", "pipeline")
NOT_COPIED = (".git", ".venv", ".*_cache", ".hypothesis", ".coverage*", "__pycache__", "build")
KILLED_SHARE = 0.95
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
]
ANY_WORKER = ["tests/pipeline/driver/test_lane_any_worker.py"]
KILLED_DRIVER = ["tests/shm/test_settle_driver.py"]
ORDER = ["tests/test_memory_order.py"]
IXGBE = [
    f"tests/pipeline/ports/test_ixgbe_{part}.py"
    for part in ("receive", "transmit", "stop", "start", "books")
]
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
    "pipeline/driver/settle.c": (["pipeline"], [*LANE, *ORDER, *ANY_WORKER, *KILLED_DRIVER]),
    "pipeline/driver/balance.c": (["pipeline"], LANE),
    "pipeline/ports/memory.h": (["pipeline"], [*LANE, *IXGBE, *ANY_WORKER, *KILLED_DRIVER]),
    "pipeline/ports/ixgbe/ixgbe.c": (["pipeline"], [*IXGBE, *ORDER]),
    "pipeline/ports/ixgbe/rings.c": (["pipeline"], IXGBE),
    "pipeline/ports/xdp/xdp.c": (["pipeline"], [*XDP, *ORDER]),
    "pipeline/ports/xdp/rings.c": (["pipeline"], XDP),
    "pipeline/ports/packet/packet.c": (["pipeline"], [*PACKET, *ORDER]),
    "pipeline/ports/packet/rings.c": (["pipeline"], PACKET),
    "workers/loop/loop.c": (
        ["workers"],
        [*LOOP, "tests/workers/test_batch.py"],
    ),
}

# What a rule looks for in a line of code, and what stands there in the mutant.
RULES = [
    (kind, re.compile(pattern), replacement)
    for kind, pattern, replacement in (
        ("comparison", r" < ", " <= "),
        ("comparison", r" <= ", " < "),
        ("comparison", r" > ", " >= "),
        ("comparison", r" >= ", " > "),
        ("comparison", r" == ", " != "),
        ("comparison", r" != ", " == "),
        ("logic", r" && ", " || "),
        ("logic", r" \|\| ", " && "),
        ("arithmetic", r" \+ ", " - "),
        ("arithmetic", r" - ", " + "),
        ("arithmetic", r" \+= ", " -= "),
        ("arithmetic", r" \+= ", " = "),
        ("arithmetic", r" -= ", " += "),
        ("arithmetic", r"\+\+", "--"),
        ("bits", r" \| ", " & "),
        ("bits", r" & ", " | "),
        ("bits", r" \|= ", " = "),
        ("shift", r" << ", " >> "),
        ("shift", r" >> ", " << "),
        ("negation", r"^(\s*(?:\} else )?if )(\(.*\))( \{)?(\s*)$", r"\1(!\2)\3\4"),
        ("constant", r"\b1\b", "0"),
        ("constant", r"\b0\b", "1"),
        ("order", r"__ATOMIC_(ACQUIRE|RELEASE|SEQ_CST)", "__ATOMIC_RELAXED"),
        (
            "deletion",
            r"^(\s+)(?!return\b|case\b|default\b)"
            r"(?:[\w*\[\]>.()&-]+(?: [-+|&]?= .*|\+\+|--)|(?!if\b|for\b|while\b)\w+\(.*\));(\s*)$",
            r"\1;\2",
        ),
        ("deletion", r"^(\s+)(?:continue|break);(\s*)$", r"\1;\2"),
    )
]
HEAD = re.compile(r"^[a-z].*?\b(?!__)(\w+)\(")  # the first line of a function


@dataclass(frozen=True)
class Mutant:
    """One fault: line `line` (from 1) of `file` reads `after` in place of `before`."""

    file: str
    function: str
    line: int
    before: str
    after: str
    kind: str

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What mutants.toml knows it by: no line number, so that other lines may move."""
        return self.file, self.function, self.before.strip(), self.after.strip()

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line} ({self.function})"


def code_lines(text: str) -> Iterator[tuple[int, str, str]]:
    """Number, function and text of each line inside a function that is neither empty, a directive
    nor only a comment."""
    depth, comment, directive, function = 0, False, False, ""
    for number, line in enumerate(text.splitlines(), 1):
        bare = line
        if comment:
            if "*/" not in line:
                continue
            comment, bare = False, line.partition("*/")[2]
        bare = re.sub(r"/\*.*?\*/", "", bare)
        if "/*" in bare:
            comment, bare = True, bare.partition("/*")[0]
        directive, was_directive = bare.endswith("\\"), directive
        if bare.startswith("#") or was_directive:
            continue
        if not depth and (head := HEAD.match(bare)):
            function = head[1]
        if depth and bare.strip():
            yield number, function, line
        depth += bare.count("{") - bare.count("}")


def mutants_of(file: str, text: str) -> Iterator[Mutant]:
    """Every fault that a rule can put into the text of a file."""
    for number, function, line in code_lines(text):
        code, comment, rest = line.partition("/*")
        for kind, pattern, replacement in RULES:
            for match in pattern.finditer(code):
                after = code[: match.start()] + match.expand(replacement) + code[match.end() :]
                yield Mutant(file, function, number, line, after + comment + rest, kind)


def sample(files: list[str], count: int, seed: int) -> list[Mutant]:
    """`count` mutants (0: all), from each file in turn, in an order that depends on the seed."""
    chance = random.Random(seed)
    piles = [list(mutants_of(file, (ROOT / file).read_text(encoding="utf-8"))) for file in files]
    if count == 0:
        return [mutant for pile in piles for mutant in pile]
    chance.shuffle(piles)
    for pile in piles:
        chance.shuffle(pile)
    chosen: list[Mutant] = []
    while len(chosen) < count and any(piles):
        chosen += [pile.pop() for pile in piles if pile]
    return chosen[:count]


def excuses(mutants: set[tuple[str, str, str, str]]) -> dict[tuple[str, str, str, str], str]:
    """The reasons of mutants.toml. SystemExit: an entry fits none of `mutants`."""
    found = {}
    for entry in tomllib.loads(EXCUSES.read_text(encoding="utf-8"))["equivalent"]:
        for after in entry["becomes"]:
            key = entry["file"], entry["function"], entry["line"], after
            if key not in mutants:
                complain(
                    f"{EXCUSES.name}: no mutant of {key[0]} makes {after!r} of {key[2]!r} in "
                    f"{key[1]}. The line has changed: judge it again, and mend or remove the entry."
                )
            found[key] = entry["reason"]
    return found


def complain(sentence: str) -> None:
    print(sentence, file=sys.stderr)
    sys.exit(2)


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


def run(chosen: list[Mutant], reasons: dict[tuple[str, str, str, str], str]) -> int:
    """Judge the mutants one by one; the exit code."""
    results: list[tuple[Mutant, str]] = []
    with tempfile.TemporaryDirectory(prefix="ringline-mutants.") as folder:
        copy = Copy(Path(folder))
        for number, mutant in enumerate(chosen, 1):
            began = time.monotonic()
            if mutant.key in reasons:
                outcome, test = "equivalent", ""
            else:
                copy.prepare(mutant.file)
                outcome, test = copy.judge(mutant)
            results.append((mutant, outcome))
            print(
                f"[{number}/{len(chosen)}] {outcome}, {time.monotonic() - began:.0f} s: "
                f"{mutant.place}: {mutant.kind}: {mutant.after.strip()}"
                + (f"\n    by {test}" if test else ""),
                flush=True,
            )
    return report(results)


def report(results: list[tuple[Mutant, str]]) -> int:
    """Print the counts per file and the survivors; the exit code."""
    columns = ("killed", "SURVIVES", "equivalent", "same code", "does not compile")
    print("\n" + "  ".join(("mutants", *columns, "file")))
    for file in dict.fromkeys(mutant.file for mutant, _ in results):
        counts = Counter(outcome for mutant, outcome in results if mutant.file == file)
        row = [(counts.total(), "mutants"), *((counts[name], name) for name in columns)]
        print("  ".join([f"{count:{len(name)}d}" for count, name in row] + [file]))
    outcomes = Counter(outcome for _, outcome in results)
    killed = outcomes["killed"]
    tried = killed + outcomes["SURVIVES"]
    print(f"\n{killed} of {tried} killed")
    for mutant, outcome in results:
        if outcome == "SURVIVES":
            print(f"{mutant.place}: no test fails\n  - {mutant.before.strip()}")
            print(f"  + {mutant.after.strip()}")
    return 0 if killed >= KILLED_SHARE * tried else 1


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=20, help="mutants to try (0: all)")
    parser.add_argument("--seed", type=int, default=1, help="another seed, other mutants")
    parser.add_argument("--file", action="append", choices=TARGETS, help="only this file")
    parser.add_argument("--line", type=int, action="append", help="only this line of the file")
    parser.add_argument("--list", action="store_true", help="show the mutants and try none")
    given = parser.parse_args(arguments)
    if given.line and len(given.file or ()) != 1:
        parser.error("--line needs one --file")
    if given.count < 0:
        parser.error(f"--count must be 0 or more, not {given.count}")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    reasons = excuses({mutant.key for mutant in sample(list(TARGETS), 0, 0)})
    chosen = sample(given.file or list(TARGETS), 0 if given.line else given.count, given.seed)
    if given.line:
        chosen = [mutant for mutant in chosen if mutant.line in given.line]
    if given.list:
        for mutant in chosen:
            print(f"{mutant.place}: {mutant.kind}: {mutant.after.strip()}")
        return 0
    return run(chosen, reasons)


def interrupted(number: int, _frame: object) -> None:
    """End through the `finally` clauses: they remove the copy and end the tests."""
    sys.exit(128 + number)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
