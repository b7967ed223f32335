"""The values of arguments: each function turns the text of one argument into its value.

They raise ArgumentTypeError with the end of a sentence that begins with the argument.
"""

from __future__ import annotations

import re
import tomllib
from argparse import ArgumentTypeError
from typing import Any, Protocol

LONGEST = 60.0  # seconds of a delay
LONGEST_RUN = 1e9  # seconds: 31 years


class Takes(Protocol):
    """A parser, or a group of its arguments."""

    def add_argument(self, *names: str, **more: Any) -> Any: ...


def add_options(to: Takes) -> None:
    """The argument -o, which sets options of the plugin."""
    to.add_argument(
        "-o",
        dest="options",
        action="append",
        default=[],
        type=option,
        metavar="KEY=VALUE",
        help="an option of the plugin; VALUE is TOML, otherwise a string",
    )


def seconds(text: str) -> float:
    """A number of seconds above 0, at most LONGEST_RUN."""
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 < found <= LONGEST_RUN:
        raise ArgumentTypeError(
            f"must be a number of seconds above 0 and at most {LONGEST_RUN:.0f}, not {text!r}"
        )
    return found


def share(text: str) -> float:
    """A percentage as a number from 0 to 1."""
    try:
        found = float(text.removesuffix("%"))
    except ValueError:
        found = -1.0
    if not 0 <= found <= 100:
        raise ArgumentTypeError(f"must be a percentage from 0 to 100, not {text!r}")
    return found / 100


def duration(text: str) -> float:
    """A time such as 10ms, in seconds: at most LONGEST."""
    found = _with_unit(text, {"us": 1e-6, "ms": 1e-3, "s": 1.0})
    if found is None or found > LONGEST:
        raise ArgumentTypeError(
            f"must be a time up to {LONGEST:g} s such as 500us, 10ms or 1s, not {text!r}"
        )
    return found


def rate(text: str) -> float:
    """A rate such as 100mbit, in bits a second: at least 1000."""
    found = _with_unit(text.lower(), {"kbit": 1e3, "mbit": 1e6, "gbit": 1e9})
    if found is None or not 1e3 <= found <= 1e12:
        raise ArgumentTypeError(
            f"must be a rate from 1kbit to 1000gbit such as 100mbit, in bits a second, not {text!r}"
        )
    return found


def _with_unit(text: str, units: dict[str, float]) -> float | None:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([a-z]+)", text)
    if match is None or match[2] not in units or len(match[1]) > 18:
        return None
    return float(match[1]) * units[match[2]]


def option(text: str) -> tuple[str, Any]:
    """An option of a plugin as (key, value): the value is TOML, otherwise a string."""
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise ArgumentTypeError(f"must be KEY=VALUE, not {text!r}")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):  # ValueError also for a number of thousands of digits
        return key, value


def names(text: str) -> list[str]:
    """Different names, separated by commas."""
    found = text.split(",")
    if "" in found or len(set(found)) != len(found):
        raise ArgumentTypeError(f"must be different names, as in wan,lan, not {text!r}")
    return found


def number(text: str) -> int:
    """An integer of at least 0."""
    found = int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else -1
    if found < 0:
        raise ArgumentTypeError(f"must be an integer of at least 0, not {text!r}")
    return found


def mtu(text: str) -> int:
    """An MTU that ports can have, in bytes (shm/frames.py)."""
    found = int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else 0
    if not 1500 <= found <= 9216:
        raise ArgumentTypeError(f"must be an integer from 1500 to 9216, not {text!r}")
    return found


def positive(text: str) -> int:
    """An integer from 1 to 4096."""
    found = int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else 0
    if not 1 <= found <= 4096:
        raise ArgumentTypeError(f"must be an integer from 1 to 4096, not {text!r}")
    return found


def size(text: str) -> int:
    """A size such as 64MB or 64MiB, in bytes: at least 64 KiB."""
    units = {"kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30}
    found = _with_unit(text.lower(), units)
    if found is None or not 65536 <= found <= 1e15:
        raise ArgumentTypeError(
            f"must be a size of at least 64KiB such as 64MB or 256MiB, not {text!r}"
        )
    return int(found)


def queues(text: str) -> int:
    """A number of queues; the configuration checks that it is from 1 to 16."""
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise ArgumentTypeError(f"must be an integer from 1 to 16, not {text!r}")
    return int(text)


def rss_key(text: str) -> str:
    """`default`, `symmetric`, or 80 hexadecimal digits."""
    if text not in ("default", "symmetric") and not re.fullmatch("[0-9A-Fa-f]{80}", text):
        raise ArgumentTypeError(
            f"must be default, symmetric, or 80 hexadecimal digits, not {text!r}"
        )
    return text
