"""`ringline doctor`: one line for each property of this machine that matters to a run.

TABLE has the lines; each function looks at one property and says what it found. A line whose files
cannot be read, as in a container or without root, says so and is a hint. Nothing is changed
(tests/pipeline/commands/test_doctor_command.py: test_nothing_is_changed).
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict

from ringline.pipeline.commands.doctor import cards, kernel, memory, processors
from ringline.pipeline.commands.doctor.findings import (
    HINT,
    LOOK_FURTHER,
    PROBLEM,
    Finding,
    Unreadable,
)
from ringline.pipeline.commands.doctor.machine import Machine, this_machine
from ringline.shm.errors import EnvironmentLacks, reason_of
from ringline.shm.text import counted, printable

Look = Callable[[Machine], Iterable[Finding]]

TABLE: tuple[tuple[str, Look], ...] = (
    ("card", cards.cards),
    ("iommu", kernel.iommu),
    ("vfio", kernel.vfio),
    ("mappings", kernel.mappings),
    ("lockdown", kernel.lockdown),
    ("xdp", kernel.xdp),
    ("hugepages", memory.hugepages),
    ("memlock", memory.locked),
    ("nofile", memory.files),
    ("cpus", processors.cpus),
    ("isolation", processors.isolation),
    ("governor", processors.governor),
    ("numa", processors.numa),
)


def doctor(given: Namespace) -> int:
    """Print the lines, as text or, with --json, as JSON; the exit code: that of EnvironmentLacks
    when there is a problem, else 0."""
    lines = list(examine(this_machine()))
    print(as_json(lines) if given.json else as_text(lines))
    return EnvironmentLacks.exit_code if _count(lines, PROBLEM) else 0


def examine(machine: Machine) -> Iterator[tuple[str, Finding]]:
    """The name and the finding of each line."""
    for name, look in TABLE:
        for finding in _looked(look, machine):
            yield name, finding


def as_text(lines: list[tuple[str, Finding]]) -> str:
    """One line for each finding, and a last one that counts them."""
    wide = max(len(name) for name, _ in lines)
    told = [
        f"{finding.mark:<{len(PROBLEM)}}  {name:<{wide}}  {printable(_sentence(finding))}"
        for name, finding in lines
    ]
    problems, hints = _count(lines, PROBLEM), _count(lines, HINT)
    if not problems and not hints:
        return "\n".join([*told, "all well"])
    counts = f"{counted(problems, 'problem')}, {counted(hints, 'hint')}"
    return "\n".join([*told, counts])


def as_json(lines: list[tuple[str, Finding]]) -> str:
    """The same for programs."""
    return json.dumps(
        {
            "lines": [{"line": name, **asdict(finding)} for name, finding in lines],
            **{f"{mark}s": _count(lines, mark) for mark in (PROBLEM, HINT)},
        }
    )


def _looked(look: Look, machine: Machine) -> list[Finding]:
    try:
        return list(look(machine))
    except Unreadable as error:
        return [Finding(HINT, str(error), error.remedy)]
    except EnvironmentLacks as error:
        return [Finding(HINT, f"not known: {error}", LOOK_FURTHER)]
    except OSError as error:
        what = f"not known: {error.filename or 'a file'}: {reason_of(error)}"
        return [Finding(HINT, what, LOOK_FURTHER)]


def _sentence(finding: Finding) -> str:
    return f"{finding.found}. To do: {finding.remedy}" if finding.remedy else finding.found


def _count(lines: list[tuple[str, Finding]], mark: str) -> int:
    return sum(finding.mark == mark for _, finding in lines)
