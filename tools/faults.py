"""The faults that tools/mutants.py puts into the C of the packet path, and those it forgives."""

from __future__ import annotations

import random
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXCUSES = Path(__file__).with_name("mutants.toml")

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
