"""Count the lines of the parts that must stay small; exit with 1 if one is over its limit.

The parts:
 - the packet path in C: every file with code that runs per packet between a card and a plugin.
   Not counted: headers with declarations only (types.h, lane.h, ...), and code that runs between
   two passes, which settles a dead worker (settle.c), waits (idle.c) or computes the balances
   (balance.h, balance.c), what a worker that breaks the rules or a frame with an error gets
   (refuse.c, errors.c), and what plugins call (packet.c, headers/, lookup/);
 - the bursts of a port on AF_XDP, and those of a port on packet sockets;
 - the life cycle of all ports on cards; on top of it, what drivers of cards with descriptor rings
   share, in C and Python; on top of that, the driver of the Intel 82599, without its table of
   registers, and those of the 82574L and the 82576, which shares much with it, likewise;
 - virtqueues, and on top of them and of the life cycle the driver of virtio-net.

Blank lines and lines with only a comment do not count. A Python docstring is a comment.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Promise:
    what: str
    files: list[str]
    limit: int


def parts_of(port: str) -> list[str]:
    """The files of a folder of ports in C and Python, without the table of registers."""
    return [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "pipeline/ports" / port).iterdir())
        if path.suffix in {".c", ".h", ".py"} and path.name != "registers.py"
    ]


CARD_PORT = "pipeline/ports/pci/card_port.py"

PROMISES = [
    Promise(
        "the packet path in C: rings, ledger, the lane, one port's bursts, the worker's loop",
        [
            "shm/cache.h",
            "shm/ring.h",
            "shm/times.h",
            "shm/wait.h",
            "shm/ledger.h",
            "shm/clock.h",
            "pipeline/driver/lane_inline.h",
            "pipeline/driver/lane.c",
            "pipeline/ports/memory.h",
            "pipeline/ports/descriptor_rings/reclaim.c",
            "pipeline/ports/ixgbe/ixgbe.c",
            "workers/loop/loop.c",
            "workers/loop/columns.c",
            "workers/plugin.h",
        ],
        1100,
    ),
    Promise(
        "the bursts of a port on AF_XDP, in place of those of ixgbe",
        ["pipeline/ports/xdp/xdp.c"],
        200,
    ),
    Promise(
        "the bursts of a port on packet sockets, likewise",
        ["pipeline/ports/packet/packet.c"],
        220,
    ),
    Promise("what all ports on cards share: the life cycle", [CARD_PORT], 130),
    Promise(
        "what cards with descriptor rings share on top of that: rings, common steps",
        parts_of("descriptor_rings"),
        500,
    ),
    Promise(
        "ixgbe on top of that, in C and Python, without its table of registers (registers.py)",
        parts_of("ixgbe"),
        450,
    ),
    Promise(
        "e1000e and igb on top of what is shared, likewise",
        [*parts_of("e1000e"), *parts_of("igb")],
        500,
    ),
    Promise(
        "the drivers of cards with descriptor rings together, without their tables of registers",
        [
            CARD_PORT,
            *(
                path
                for family in ("descriptor_rings", "ixgbe", "e1000e", "igb")
                for path in parts_of(family)
            ),
        ],
        1400,
    ),
    Promise("virtqueues, for any transport", parts_of("virtqueue"), 160),
    Promise(
        "virtio-net on top of virtqueues and the life cycle, likewise", parts_of("virtio"), 680
    ),
]

# String and character constants come first in the pattern: "/*" inside one starts no comment.
C_COMMENT = re.compile(r"""("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|/\*.*?\*/|//[^\n]*""", re.DOTALL)


def lines_of_c(text: str) -> int:
    def blank(match: re.Match[str]) -> str:
        return match[1] or "\n" * match[0].count("\n")

    return sum(bool(line.strip()) for line in C_COMMENT.sub(blank, text).splitlines())


def lines_of_python(text: str) -> int:
    lines: set[int] = set()
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in skipped and token.string:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
                and first.end_lineno is not None
            ):
                lines.difference_update(range(first.lineno, first.end_lineno + 1))
    return len(lines)


def count(path: Path) -> int:
    text = path.read_text(encoding="utf-8")
    return lines_of_python(text) if path.suffix == ".py" else lines_of_c(text)


def main() -> int:
    print("Lines, without blank lines, comments and docstrings:")
    kept = True
    for promise in PROMISES:
        print(f"\n{promise.what}")
        total = 0
        for name in promise.files:
            lines = count(ROOT / name)
            total += lines
            print(f"  {lines:5d}  {name}")
        right = total <= promise.limit
        kept = kept and right
        print(f"  {total:5d}  of at most {promise.limit}{'' if right else ': TOO MANY'}")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
