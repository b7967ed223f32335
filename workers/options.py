"""Options of plugins: what a plugin accepts, and whether it was given that.

A plugin declares its options as a list of `Option`; the configuration has them as
a TOML table. `resolve` compares the two and tells every mistake at once. Pure:
no user code runs here, nothing is imported that a small worker could do without.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

# What TOML calls the Python types that an option may have.
_KINDS = {
    int: "an integer",
    float: "a number",
    str: "a string",
    bool: "true or false",
    list: "a list",
    dict: "a table",
}


class Option:
    """One option of a plugin.

    `kind` is int, float, str, bool, list or dict. Without a `default` the option must be
    given; None as the default means that it may be left out. `choices` are the only values
    allowed; `minimum` and `maximum` bound a number. `help` is one line for the reader of
    an error.

    Raises TypeError when this declaration contradicts itself.
    """

    REQUIRED = object()

    __slots__ = ("choices", "default", "help", "kind", "maximum", "minimum", "name")

    def __init__(
        self,
        name: str,
        kind: type,
        default: Any = REQUIRED,
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
        if kind not in _KINDS:
            known = ", ".join(known.__name__ for known in _KINDS)
            raise TypeError(f"option {name!r}: its type is one of {known}, not {kind!r}")
        if default is not Option.REQUIRED and default is not None:
            problem = self.problem(default)
            if problem:
                raise TypeError(f"the default of option {name!r} {problem}")

    def problem(self, value: Any) -> str | None:
        """What is wrong with `value`, to follow the option's name, or None."""
        fits = (
            isinstance(value, (int, float)) if self.kind is float else isinstance(value, self.kind)
        )
        if not fits or (isinstance(value, bool) and self.kind is not bool):
            return f"must be {_KINDS[self.kind]}, not {value!r}"
        if self.choices and value not in self.choices:
            return f"must be one of {', '.join(map(repr, self.choices))}, not {value!r}"
        if self.minimum is not None and value < self.minimum:
            return f"must be at least {self.minimum}, not {value!r}"
        if self.maximum is not None and value > self.maximum:
            return f"must be at most {self.maximum}, not {value!r}"
        return None


def resolve(
    declared: Sequence[Option], given: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """The value of every declared option, and every mistake in `given` as a sentence part
    that names the option first: `"slots" must be at least 16, not 3`."""
    values: dict[str, Any] = {}
    problems = []
    names = [option.name for option in declared]
    for name in given:
        if name not in names:
            problems.append(f'"{name}" is no option of this plugin{_nearest(name, names)}')
    for option in declared:
        value = given.get(option.name, option.default)
        if value is Option.REQUIRED:
            hint = f" ({option.help})" if option.help else ""
            problems.append(f'"{option.name}" must be given{hint}')
            continue
        if option.name in given:
            problem = option.problem(value)
            if problem:
                problems.append(f'"{option.name}" {problem}')
                continue
        values[option.name] = float(value) if option.kind is float and value is not None else value
    return values, problems


def _nearest(name: str, names: Sequence[str]) -> str:
    """What was probably meant, as the end of the sentence."""
    import difflib  # 3 ms that only a mistake costs

    close = difflib.get_close_matches(name, names, 1, 0.5)
    if close:
        return f'; did you mean "{close[0]}"?'
    if names:
        return "; it has " + ", ".join(f'"{known}"' for known in names)
    return "; it has none"
