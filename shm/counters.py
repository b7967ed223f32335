"""Read blocks of counters as dictionaries.

The C struct is the only declaration. cffi gives its field names, so a counter that is added there
appears in reports and metrics without other changes.
"""

from __future__ import annotations

from ringline.shm._shm import ffi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Value = int | list["Value"] | dict[str, "Value"]

_fields: dict[Any, list[tuple[str, bool]]] = {}


def field_names(struct: str) -> list[str]:
    """The names of the fields of `struct`, a C type such as "struct rl_slot_entry", in order."""
    return [name for name, _ in ffi.typeof(struct).fields]


def read(block: Any) -> dict[str, Any]:
    """Every field of a struct by its name. `block` is a struct or a pointer to one.

    A number becomes an int, an array a list, an inner struct a dictionary. Each number is read
    once. The numbers are not of one moment while their writer runs.
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
