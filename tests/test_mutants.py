"""The tool that puts faults into the packet path: which faults it makes, and what it forgives."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOOL = ROOT / "tools" / "mutants.py"

SOURCE = """\
/* A comment with if (a < b) in it;
 * a = b + 1; */
#define CHANGED(a) \\
    (a < 0)
static inline __attribute__((cold)) int first(int a)
{
    /* if (a > 5) */
    if (a < 5) /* a < 9 */
        return 2;
    __atomic_store_n(&word, a, __ATOMIC_RELEASE);
    return a;
}

int second(void)
{
    count->sleeps++;
}
"""


@pytest.fixture(scope="module", autouse=True)
def _tools() -> Iterator[None]:
    """Imports find the modules in tools/, as they do when the tool runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TOOL.parent))
        yield


@pytest.fixture
def tool() -> ModuleType:
    return importlib.import_module("mutants")


@pytest.fixture
def faults() -> ModuleType:
    return importlib.import_module("faults")


@pytest.fixture
def judge() -> ModuleType:
    return importlib.import_module("judge")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A copy of the checkout."""
    return importlib.import_module("judge").Copy(tmp_path_factory.mktemp("checkout"))


def all_mutants() -> set[tuple[str, str, str, str]]:
    faults, judge = importlib.import_module("faults"), importlib.import_module("judge")
    return {mutant.key for mutant in faults.sample(list(judge.TARGETS), 0, 0)}


def test_each_fault_changes_one_place_of_one_line_of_code(faults: ModuleType) -> None:
    made = {(m.function, m.line, m.kind, m.after.strip()) for m in faults.mutants_of("x.c", SOURCE)}
    assert made == {
        ("first", 8, "comparison", "if (a <= 5) /* a < 9 */"),
        ("first", 8, "negation", "if (!(a < 5)) /* a < 9 */"),
        ("first", 10, "order", "__atomic_store_n(&word, a, __ATOMIC_RELAXED);"),
        ("first", 10, "deletion", ";"),
        ("second", 16, "arithmetic", "count->sleeps--;"),
        ("second", 16, "deletion", ";"),
    }


def test_every_function_that_decides_something_gets_faults(
    faults: ModuleType, judge: ModuleType
) -> None:
    for file in judge.TARGETS:
        text = (ROOT / file).read_text(encoding="utf-8")
        functions = {mutant.function for mutant in faults.mutants_of(file, text)}
        bodies = re.findall(r"^\w[^;{}#]*?\b(?!__)(\w+)\([^;{}]*\)\n\{(.*?)^\}", text, re.M | re.S)
        assert bodies, file
        for name, body in bodies:
            assert name in functions or not re.search(r" (<|==|\+=|&&) |\+\+", body), name


def test_a_seed_names_a_sample_and_each_file_has_its_turn(
    faults: ModuleType, judge: ModuleType
) -> None:
    files = list(judge.TARGETS)
    chosen = faults.sample(files, 2 * len(files), 5)
    assert (
        chosen == faults.sample(files, 2 * len(files), 5) != faults.sample(files, 2 * len(files), 6)
    )
    assert [sum(m.file == file for m in chosen) for file in files] == [2] * len(files)


def test_files_and_tests_exist(judge: ModuleType) -> None:
    for file, (modules, tests) in judge.TARGETS.items():
        for name in (file, *tests, *(f"{module}/_build.py" for module in modules)):
            assert (ROOT / name).is_file(), name


def test_every_excuse_fits_a_mutant_and_has_a_reason(faults: ModuleType) -> None:
    for reason in faults.excuses(all_mutants()).values():
        assert reason.endswith("."), reason


def test_an_excuse_ends_when_its_line_changes(
    faults: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "mutants.toml"
    file.write_text(
        '[[equivalent]]\nfile = "shm/ring.h"\nfunction = "rl_ring_pop"\n'
        'line = "if (got > 7)"\nbecomes = ["if (got >= 7)"]\nreason = "None."\n'
    )
    monkeypatch.setattr(faults, "EXCUSES", file)
    with pytest.raises(SystemExit) as ended:
        faults.excuses(all_mutants())
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "no mutant of shm/ring.h makes 'if (got >= 7)' of 'if (got > 7)' in rl_ring_pop" in said


@pytest.mark.parametrize(("killed", "code"), [(18, 1), (19, 0)])
def test_fewer_than_95_percent_killed_is_a_failure(
    tool: ModuleType, killed: int, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    mutant = tool.Mutant("a.c", "f", 3, "    a < b;", "    a <= b;", "comparison")
    outcomes = ["killed"] * killed + ["SURVIVES"] * (20 - killed)
    outcomes += ["equivalent", "same code", "does not compile"]  # these do not count
    assert tool.report([(mutant, outcome) for outcome in outcomes]) == code
    said = capsys.readouterr().out
    assert f"{killed} of 20 killed" in said
    assert "a.c:3 (f): no test fails\n  - a < b;\n  + a <= b;" in said


def test_what_ended_tests_left_behind_is_removed(
    judge: ModuleType, instance: Callable[[], str]
) -> None:
    process = subprocess.Popen(["sleep", "60"], start_new_session=True)
    marked = subprocess.Popen(
        ["sleep", "60"],
        env={**os.environ, "RINGLINE_TEST_SESSION": str(process.pid)},
        start_new_session=True,
    )
    left = Path(f"/dev/shm/ringline.t{process.pid}-1.packets")
    other = Path(f"/dev/shm/ringline.{instance()}.packets")
    try:
        for path in (left, other):
            path.touch()
        while b"sleep" not in Path(f"/proc/{marked.pid}/cmdline").read_bytes():
            time.sleep(0.01)
        judge.end(process)
        judge.sweep(process.pid)
        assert process.returncode == -15
        assert marked.wait(10) == -9
        assert (left.exists(), other.exists()) == (False, True)
    finally:
        for each in (process, marked):
            each.kill()
            each.wait()
        for path in (left, other):
            path.unlink(missing_ok=True)


def test_a_module_is_compiled_again_only_where_the_file_is_read(
    judge: ModuleType, copy: Any
) -> None:
    module = judge.Module(copy.folder, "shm")
    assert module.build("shm/ring.h") is None, "nothing has changed"
    file = copy.folder / "shm" / "ring.h"
    whole = file.read_text()
    file.write_text(whole.replace("end->own += n;", "end->own -= n;"))
    assert module.build("shm/ring.h") is True
    file.write_text(whole.replace("end->own += n;", "end->own += ;"))
    assert module.build("shm/ring.h") is False
    assert module.build("workers/loop/loop.c") is None, "no file of the module reads it"
    file.write_text(whole)
    module.restore()
    assert module.build("shm/ring.h") is None


def test_a_mutant_that_hangs_ends_at_its_deadline(copy: Any) -> None:
    for name, body in (("hangs", "time.sleep(60)"), ("fails", "assert False"), ("passes", "pass")):
        (copy.folder / "tests" / f"test_{name}.py").write_text(
            f"import time\ndef test_{name}():\n    {body}\n"
        )
    assert copy.failure(["tests/test_passes.py"], 30) is None
    failed = copy.failure(["tests/test_passes.py", "tests/test_fails.py"], 30)
    assert failed == "tests/test_fails.py::test_fails"
    assert copy.failure(["tests/test_hangs.py"], 3) == "they did not end within 3 s"


def test_tests_that_fail_without_a_fault_are_an_error(
    judge: ModuleType,
    copy: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (copy.folder / "tests" / "test_broken.py").write_text("def test_it():\n    assert 0\n")
    monkeypatch.setitem(judge.TARGETS, "shm/ring.h", ([], ["tests/test_broken.py"]))
    with pytest.raises(SystemExit) as ended:
        copy.prepare("shm/ring.h")
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "A test of shm/ring.h fails without a fault: tests/test_broken.py::test_it" in said


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--count", "-1"], "--count must be 0 or more, not -1"),
        (["--line", "7"], "--line needs one --file"),
    ],
)
def test_wrong_arguments_are_refused(arguments: list[str], sentence: str) -> None:
    done = subprocess.run(
        [sys.executable, str(TOOL), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert sentence in done.stderr


def test_the_mutants_of_one_line_are_listed() -> None:
    text = (ROOT / "shm" / "wait.h").read_text(encoding="utf-8").splitlines()
    line = text.index("    __atomic_store_n(&ring->sleeping, 1, __ATOMIC_RELAXED);") + 1
    done = subprocess.run(
        [sys.executable, str(TOOL), "--list", "--file", "shm/wait.h", "--line", str(line)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    place = f"shm/wait.h:{line} (rl_ring_sleep)"
    assert done.stdout.splitlines() == [
        f"{place}: constant: __atomic_store_n(&ring->sleeping, 0, __ATOMIC_RELAXED);",
        f"{place}: deletion: ;",
    ]
