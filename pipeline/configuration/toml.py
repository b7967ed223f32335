"""Typed access to the tables of a TOML file; all mistakes are collected.

A mistake does not stop the reading. It is added to a list, with its path in the file
(`port.wan.queues`) and the remedy, and the getter returns its default. So an operator
sees every mistake of a file at once.

This module knows TOML but no key; `schema` knows the keys.
"""

from __future__ import annotations

import difflib
import math
import os
import re
import stat
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ringline.shm.errors import ConfigurationError, reason_of

_KINDS: list[tuple[type, str]] = [
    (bool, "true or false"),
    (int, "an integer"),
    (float, "a number"),
    (str, "a string"),
    (list, "a list"),
    (dict, "a table"),
]

_UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}

# Far above any configuration. To parse a capture that was given by mistake takes minutes.
FILE_BYTES_MAX = 1 << 20
# Far above any configuration, too, and far below Python's limit of recursion: tomllib takes
# `[a.a.a. ...]` of any length.
DEPTH_MAX = 64


def read_file(path: Path) -> tuple[dict[str, Any], str]:
    """The top table of the file at `path`, and its text.

    Raises ConfigurationError when the file does not exist, cannot be read, is longer than
    FILE_BYTES_MAX, is not a regular file, or is not TOML (with the line).
    """
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigurationError(
                    f"{path}: is a pipe or a device, not a regular file; write the configuration "
                    "to a file"
                )
            content = file.read(FILE_BYTES_MAX + 1)
        if len(content) > FILE_BYTES_MAX:
            raise ConfigurationError(
                f"{path}: is longer than {FILE_BYTES_MAX >> 20} MiB; is this a configuration file?"
            )
        text = content.decode("utf-8-sig")  # some editors begin a file with a byte order mark
    except FileNotFoundError:
        raise ConfigurationError(f"{path}: there is no such file") from None
    except IsADirectoryError:
        raise ConfigurationError(f"{path}: is a folder, not a configuration file") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigurationError(
            f"{path}: line {line} is not UTF-8, which TOML requires; is this a configuration file?"
        ) from None
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {reason_of(error)}") from None
    try:
        top = tomllib.loads(text)
    except ValueError as error:  # also for a number of thousands of digits
        raise ConfigurationError(f"{path}: is not valid TOML: {error}") from None
    except RecursionError:
        raise ConfigurationError(f"{path}: is not valid TOML: nested too deeply") from None
    if _is_deeper(top, DEPTH_MAX):
        raise ConfigurationError(f"{path}: tables and lists are nested too deeply")
    return top, text


def _is_deeper(top: object, levels: int) -> bool:
    """Whether a value has more than `levels` levels of tables and lists."""
    level = [top]
    for _ in range(levels):
        level = [
            inner
            for value in level
            if isinstance(value, list | dict)
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
    return any(isinstance(value, list | dict) for value in level)


def _open_at_once(path: str, flags: int) -> int:
    """Open a file; without O_NONBLOCK, opening a pipe waits for a writer."""
    return os.open(path, flags | os.O_NONBLOCK)


def kind_of(value: object) -> str:
    """The type of a TOML value, in the words of the messages."""
    return next((words for kind, words in _KINDS if isinstance(value, kind)), "a date or time")


def beyond_64_bits(value: object) -> bool:
    """Whether it is an integer that does not fit into the 64 bits that TOML guarantees."""
    return isinstance(value, int) and not -(1 << 63) <= value < 1 << 63


def shown(value: object) -> str:
    """A TOML value as it stands in a file, cut to 60 characters."""
    if isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, str):
        text = '"' + value.encode("unicode_escape").decode("ascii") + '"'
    elif isinstance(value, list | dict):
        return kind_of(value)
    elif beyond_64_bits(value):
        # Python refuses to convert an integer of thousands of digits to text.
        return "an integer of more than 64 bits"
    else:
        text = str(value)
    return text if len(text) <= 60 else text[:56] + "..." + text[-1]


def did_you_mean(word: str, valid: Sequence[str]) -> str:
    """`; did you mean "..."?` with the closest of the valid words, or "" if none is close."""
    near = difflib.get_close_matches(word, valid, n=1)
    return f'; did you mean "{near[0]}"?' if near else ""


def joined(path: str, key: str) -> str:
    """The path of `key` in the table at `path`, as messages write it."""
    bare = key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else shown(key)
    return f"{path}.{bare}" if path else bare


class Table:
    """One table of the file, with typed getters.

    A getter adds a mistake to `problems`, which all tables of a file share, and returns
    its default. Call `done` after the last getter: it reports unknown keys. `elsewhere` gives
    the end of the sentence for a key that another table has; it gets the path of this table,
    the key and the value. `done` adds the known keys of the table to `record`, by its path.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        path: str,
        problems: list[str],
        *,
        elsewhere: Callable[[str, str, Any], str] | None = None,
        record: dict[str, list[str]] | None = None,
    ) -> None:
        self.values = values
        self.path = path
        self.problems = problems
        self._elsewhere = elsewhere
        self._record = record
        self._known: list[str] = []

    def at(self, key: str) -> str:
        """The path of `key` in the file."""
        return joined(self.path, key)

    def problem(self, key: str, sentence: str) -> None:
        """Add a mistake of `key` to the problems."""
        self.problems.append(f"{self.at(key)}: {sentence}")

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def raw(self, key: str) -> Any:
        """The value of `key`, not checked, or None; marks the key as known."""
        self._known.append(key)
        return self.values.get(key)

    def _typed(
        self, key: str, kinds: tuple[type, ...], wanted: str, instead_of_a_list: str = ""
    ) -> Any:
        value = self.raw(key)
        if value is None:
            return None
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            kind, text = kind_of(value), shown(value)
            remedy = instead_of_a_list if isinstance(value, list) else ""
            found = kind if text == kind else f"{kind} ({text})"
            self.problem(key, f"must be {wanted}, not {found}{remedy}")
            return None
        return value

    def string(
        self,
        key: str,
        default: str,
        *,
        check: Callable[[str], str | None] | None = None,
    ) -> str:
        """A string; `check` returns what is wrong with it, or None."""
        found = self.optional_string(key, check=check)
        return default if found is None else found

    def optional_string(
        self, key: str, *, check: Callable[[str], str | None] | None = None
    ) -> str | None:
        """A string, or None when the key is absent or wrong."""
        value: str | None = self._typed(key, (str,), "a string")
        wrong = check(value) if value is not None and check else None
        if wrong:
            self.problem(key, wrong)
            return None
        return value

    def choice(self, key: str, default: str, choices: Sequence[str]) -> str:
        """One string of `choices`."""
        value: str | None = self._typed(key, (str,), "one of " + ", ".join(choices))
        if value is None:
            return default
        if value not in choices:
            hint = did_you_mean(value, choices)
            self.problem(key, f"must be one of {', '.join(choices)}, not {shown(value)}{hint}")
            return default
        return value

    def integer(
        self, key: str, default: int, low: int, high: int, *, power_of_two: bool = False
    ) -> int:
        """An integer from `low` to `high`."""
        found = self.optional_integer(key, low, high, power_of_two=power_of_two)
        return default if found is None else found

    def optional_integer(
        self, key: str, low: int, high: int, *, power_of_two: bool = False
    ) -> int | None:
        """An integer, or None when the key is absent or wrong."""
        wanted = f"{'a power of two' if power_of_two else 'an integer'} from {low} to {high}"
        value: int | None = self._typed(key, (int,), wanted)
        if value is None:
            return None
        if not low <= value <= high or (power_of_two and value & (value - 1)):
            self.problem(key, f"must be {wanted}, not {shown(value)}")
            return None
        return value

    def number(self, key: str, default: float, low: float, high: float) -> float:
        """A number, with or without a fraction, from `low` to `high`."""
        wanted = f"a number from {low:.10g} to {high:.10g}"
        value = self._typed(key, (int, float), wanted)
        if value is None:
            return default
        if not low <= value <= high:  # also true for NaN
            self.problem(key, f"must be {wanted}, not {shown(value)}")
            return default
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """true or false, as a bool."""
        value: bool | None = self._typed(key, (bool,), "true or false")
        return default if value is None else value

    def size(self, key: str, default: int, low: int, high: int) -> int:
        """A number of bytes: an integer, or a string such as "16 MiB"."""
        wanted = (
            f'a number of bytes from {low} to {high}, such as {default} or "{default >> 20} MiB"'
        )
        value = self._typed(key, (int, str), wanted)
        if value is None:
            return default
        if isinstance(value, str):
            match = re.fullmatch(r"([0-9]{1,12}) ?(KiB|MiB|GiB|)", value)
            if match is None:
                self.problem(key, f"must be {wanted}, not {shown(value)}")
                return default
            value = int(match[1]) * _UNITS[match[2]]
        if not low <= value <= high:
            self.problem(key, f"must be {wanted}, not {shown(value)}")
            return default
        return int(value)

    def integers(self, key: str, low: int, high: int) -> tuple[int, ...]:
        """A list of integers, each from `low` to `high`; empty by default."""
        wanted = f"a list of integers from {low} to {high}"
        values: list[Any] = self._typed(key, (list,), wanted) or []
        for at, value in enumerate(values):
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                self.problem(key, f"must be {wanted}; item {at + 1} is {shown(value)}")
                return ()
        return tuple(values)

    def strings(self, key: str, *, check: Callable[[str], str | None]) -> tuple[str, ...]:
        """A list of strings; empty by default. `check` returns what is wrong with one, or None."""
        values: list[Any] = self._typed(key, (list,), "a list of strings") or []
        for at, value in enumerate(values):
            wrong = (
                check(value)
                if isinstance(value, str)
                else f"must be a list of strings; item {at + 1} is {shown(value)}"
            )
            if wrong:
                self.problem(key, wrong)
                return ()
        return tuple(values)

    def table(self, key: str, head: str | None = None) -> Table | None:
        """The table `key`, or None when the key is absent or not a table. `head` is how a file
        writes it, as in [port.NAME]."""
        head = head or f"[{self.at(key)}]"
        value: Mapping[str, Any] | None = self._typed(key, (dict,), "a table", f"; write {head}")
        if value is None:
            return None
        return Table(
            value,
            self.at(key),
            self.problems,
            elsewhere=self._elsewhere,
            record=self._record,
        )

    def json_table(self, key: str) -> dict[str, Any]:
        """A table with any keys, such as the options of a plugin; its values must fit into JSON."""
        table = self.table(key)
        if table is None:
            return {}
        for path, value in _leaves(table.values, self.at(key)):
            if kind_of(value) == "a date or time":
                self.problems.append(f"{path}: must not be a date or time; write it as a string")
            elif isinstance(value, float) and not math.isfinite(value):
                self.problems.append(f"{path}: must be a finite number, not {value}")
            elif beyond_64_bits(value):
                self.problems.append(f"{path}: must be an integer of at most 64 bits")
        return dict(table.values)

    def done(self, otherwise: str = "") -> None:
        """Report each key of the table that no getter asked for; `otherwise` ends the sentence
        when there is no better advice."""
        if self._record is not None:
            self._record[self.path] = list(self._known)
        unused = [key for key in self._known if key not in self.values]
        for key, value in self.values.items():
            if key not in self._known:
                hint = did_you_mean(key, unused) or did_you_mean(key, self._known)
                if self._elsewhere is not None:
                    advice = self._elsewhere(self.path, key, value)
                    hint += advice.replace(";", " Or", 1) if hint else advice
                known = ", ".join(known for known in self._known if not known.isdigit())
                hint = hint or f"; known keys: {known}{otherwise}"
                self.problem(key, f"unknown key{hint}")


def _leaves(value: Any, path: str) -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield from _leaves(inner, f"{path}[{at}]")
    else:
        yield path, value
