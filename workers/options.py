"""Options of plugins: their declaration, and the check of the given values.

A plugin declares its options as a list of `Option`; the configuration gives their values
in a TOML table. `resolve` compares the two and reports every mistake at once. No user code
runs here, and the module imports almost nothing, because every worker imports it.
"""

from __future__ import annotations

import os
import stat

from ringline.shm.text import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

# Python type of an option -> how messages name it.
_KINDS = {
    int: "an integer",
    float: "a number",
    str: "a string",
    bool: "true or false",
    list: "a list",
    dict: "a table",
}
_PATH = "the path of a file"  # for pathlib.Path, which takes milliseconds to import


def is_path(kind: type) -> bool:
    """Whether `kind` is pathlib.Path."""
    return kind.__name__ == "Path" and kind.__module__.partition(".")[0] == "pathlib"


class Option:
    """One option of a plugin.

        Option("limit", int, 10, "packets per second", minimum=1)

    name: the key in the table `options` of the configuration.
    kind: int, float, str, bool, list, dict or pathlib.Path. An integer is accepted for float.
        Path is for a file that the plugin reads. It is given as a string, which may begin with
        `~` and is relative to the folder of the configuration file, or, in `ringline try` and
        in tests, to the current folder. `worker.options` has the absolute Path. Before the
        start ringline checks that this is a regular file that can be read.
    default: its value when the configuration has none. Without a default the option must
        be given; the default None makes it optional.
    help: one line, shown when the option must be given and is not.
    choices: if not empty, the only values allowed.
    minimum, maximum: inclusive limits of a number.

    Raises TypeError when `kind` is another type or the default is not an allowed value.
    """

    _REQUIRED = object()

    __slots__ = ("choices", "default", "help", "kind", "maximum", "minimum", "name")

    def __init__(
        self,
        name: str,
        kind: type,
        default: Any = _REQUIRED,
        help: str = "",  # noqa: A002  # as argparse calls it
        *,
        choices: Sequence[Any] = (),
        minimum: float | None = None,
        maximum: float | None = None,
    ) -> None:
        self.name = name
        self.kind = kind
        self.default = default
        self.help = help
        self.choices = tuple(choices)
        self.minimum = minimum
        self.maximum = maximum
        if kind not in _KINDS and not is_path(kind):
            known = ", ".join([*(known.__name__ for known in _KINDS), "pathlib.Path"])
            raise TypeError(f"option {name!r}: its type must be one of {known}, not {kind!r}")
        if default is not Option._REQUIRED and default is not None:
            problem = self._problem(default)
            if problem:
                raise TypeError(f"the default of option {name!r} {problem}")

    def _problem(self, value: Any) -> str | None:
        """The end of a sentence that begins with the name: what is wrong with `value`; or None."""
        allowed: tuple[type, ...] = (self.kind,)
        if self.kind is float:
            allowed = (int, float)
        elif is_path(self.kind):
            allowed = (str, self.kind)
        fits = isinstance(value, allowed)
        if not fits or (isinstance(value, bool) and self.kind is not bool):
            return f"must be {_KINDS.get(self.kind, _PATH)}, not {value!r}"
        if is_path(self.kind) and (not str(value) or "\0" in str(value)):
            return f"must be {_PATH}, not {value!r}"
        if self.choices and value not in self.choices:
            return f"must be one of {', '.join(map(repr, self.choices))}, not {value!r}"
        if self.minimum is not None and value < self.minimum:
            return f"must be at least {self.minimum}, not {value!r}"
        if self.maximum is not None and value > self.maximum:
            return f"must be at most {self.maximum}, not {value!r}"
        return None


def resolve(
    declared: Sequence[Option],
    given: Mapping[str, Any],
    folder: str | None = None,
    places: Mapping[str, str] | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """The value of every declared option by name, and every mistake in `given`.

    A path is relative to `folder`, or to the current folder. A mistake is the end of a sentence
    and begins with the option: `"slots" must be at least 16, not 3`. It ends with the place of
    the option in the configuration file, if `places` has one by its name. An option with a
    mistake has no value.
    """
    values: dict[str, Any] = {}
    problems = []
    names = [option.name for option in declared]

    def report(name: str, problem: str) -> None:
        place = (places or {}).get(name)
        problems.append(f'"{name}" {problem}' + (f" ({place})" if place else ""))

    for name in given:
        if name not in names:
            report(name, f"is not an option of this plugin{_nearest(name, names)}")
    for option in declared:
        value = given.get(option.name, option.default)
        if value is Option._REQUIRED:
            hint = f" ({option.help})" if option.help else ""
            problems.append(f'"{option.name}" must be given{hint}')
            continue
        if option.name in given:
            problem = option._problem(value)
            if problem:
                report(option.name, problem)
                continue
        if value is not None and is_path(option.kind):
            path = os.path.join(folder or os.getcwd(), os.path.expanduser(value))
            if why := _unreadable(path):
                report(option.name, f"names {printable(path)}, which {why}")
                continue
            value = option.kind(path)
        values[option.name] = float(value) if option.kind is float and value is not None else value
    return values, problems


def _unreadable(path: str) -> str | None:
    """Why a plugin cannot read the file at `path`, as the end of a sentence; None if it can."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return "does not exist"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if stat.S_ISDIR(mode):
        return "is a folder"
    if not stat.S_ISREG(mode):  # reading a pipe could wait for ever
        return "is not a regular file"
    if not os.access(path, os.R_OK):
        return "cannot be read: Permission denied"
    return None


def _nearest(name: str, names: Sequence[str]) -> str:
    """The option that was probably meant, as the end of the sentence."""
    import difflib  # takes 3 ms: only a mistake pays for it

    close = difflib.get_close_matches(name, names, 1, 0.5)
    if close:
        return f'; did you mean "{close[0]}"?'
    if names:
        return "; it has " + ", ".join(f'"{known}"' for known in names)
    return "; it has none"
