"""Put one fault at a time into the C of the packet path, and see whether a test fails.

Such a fault is a mutant. It changes one place of one line: `<` becomes `<=`, `+` becomes `-`, a
statement is deleted (RULES in faults.py). Each mutant is compiled in a copy of the checkout and run
against the tests that keep the promises of its file, the cheapest first (TARGETS in judge.py).
These do not count:
 - a mutant that does not compile;
 - one that the compiler turns into the same machine code as the original. Memory orders and fences
   are not judged in this way, because x86 needs no instruction for some of them and AArch64 does;
 - one that mutants.toml names: nobody can see a difference, and an entry there says why.

The exit code is 1 when fewer than 95 % of the others were killed, and 2 when the tests fail
without a fault or an entry of mutants.toml fits no mutant.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from faults import Mutant, excuses, sample
from judge import TARGETS, Copy

KILLED_SHARE = 0.95


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
