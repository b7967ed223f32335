"""Convert dataclasses to JSON values and back.

For messages between processes of one version: a value that does not fit the
declaration is an error.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from typing import Any, TypeVar

from ringline.shm.errors import Bug

Declared = TypeVar("Declared")


@functools.lru_cache
def _hints(declared: type) -> dict[str, Any]:
    return typing.get_type_hints(declared)


def to_json(value: Any) -> dict[str, Any]:
    """A dataclass as a dictionary; dataclasses inside it become dictionaries too."""
    return dataclasses.asdict(value)


def from_json(declared: type[Declared], value: Any) -> Declared:
    """The `declared` dataclass from the `value` that `to_json` returned.

    Fields that are missing get their defaults. Raises Bug when `value` does not
    fit the declaration.
    """
    try:
        return typing.cast(Declared, _rebuilt(declared, value))
    except (TypeError, AttributeError, KeyError, ValueError) as error:
        raise Bug(f"a message does not fit the fields of {declared.__name__}: {error}") from error


def _rebuilt(declared: Any, value: Any) -> Any:
    if isinstance(declared, type) and dataclasses.is_dataclass(declared):
        hints = _hints(declared)
        unknown = value.keys() - hints.keys()
        if unknown:
            raise TypeError(f"fields {', '.join(sorted(unknown))} are unknown")
        fields = {name: _rebuilt(hints[name], inner) for name, inner in value.items()}
        return declared(**fields)
    origin, kinds = typing.get_origin(declared), typing.get_args(declared)
    if origin is types.UnionType:
        return None if value is None else _rebuilt(kinds[0], value)
    if origin is tuple and kinds[-1] is Ellipsis:
        return tuple(_rebuilt(kinds[0], inner) for inner in value)
    if origin is tuple:
        return tuple(_rebuilt(kind, inner) for kind, inner in zip(kinds, value, strict=True))
    return value
