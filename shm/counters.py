"""Counter blocks as dictionaries.

The C struct is the only declaration: field names come from it through cffi, so
that a counter added there appears in reports and metrics by itself.
"""

from __future__ import annotations

from ringline.shm._shm import ffi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Value = int | list["Value"] | dict[str, "Value"]

_fields: dict[Any, list[tuple[str, bool]]] = {}


def field_names(struct: str) -> list[str]:
    """The fields of a struct, `"struct rl_worker_counters"`, in its order."""
    return [name for name, _ in ffi.typeof(struct).fields]


def read(block: Any) -> dict[str, Any]:
    """Every field of a struct, or of what points to it, by its name.

    A number becomes an int, an array a list, a struct within it a dictionary.
    Each number is read once; together they are not of one moment, unless the
    writer stands still.
    """
    kind = ffi.typeof(block)
    if kind.kind == "pointer":
        block, kind = block[0], kind.item
    known = _fields.get(kind)
    if known is None:
        known = [(name, field.type.kind == "primitive") for name, field in kind.fields]
        _fields[kind] = known
    return {
        name: getattr(block, name) if plain else _value(getattr(block, name))
        for name, plain in known
    }


def _value(data: Any) -> Value:
    kind = ffi.typeof(data)
    if kind.kind != "array":
        return read(data)
    if kind.item.kind == "primitive":
        return list(ffi.unpack(data, len(data)))
    return [_value(item) for item in data]
