"""The values of arguments: each function turns the text of one argument into its value.

They raise ArgumentTypeError with the end of a sentence that begins with the argument.
"""

from __future__ import annotations

import re
import tomllib
from argparse import ArgumentTypeError
from typing import Any, Protocol


class _Takes(Protocol):
    """A parser, or a group of its arguments."""

    def add_argument(self, *names: str, **more: Any) -> Any: ...


def add_options(to: _Takes) -> None:
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
    """A number of seconds above 0."""
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 < found < 1e9:
        raise ArgumentTypeError(f"must be a number of seconds above 0, not {text!r}")
    return found


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
