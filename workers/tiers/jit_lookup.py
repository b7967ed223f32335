"""Prefix tables and maps in compiled code.

A table or map is its address. Each method is a call of the C function of the same name in
workers/lookup/lookup.c, so compiled code, plain Python and C give the same answers. The compiled
code refers to the functions by name, not by address, since it is kept in a cache.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import from_dtype, types
from numba.core import cgutils, errors
from numba.core.datamodel import models
from numba.core.typing.templates import AttributeTemplate
from numba.extending import (
    NativeValue,
    infer_getattr,
    intrinsic,
    lower_getattr,
    overload,
    overload_method,
    register_model,
    typeof_impl,
    unbox,
)
from numba.np.arrayobj import make_array, populate_array

from ringline.workers._workers import ffi, lib
from ringline.workers.lookup.maps import Map, words_differ
from ringline.workers.lookup.prefixes import Prefixes
from ringline.workers.tiers.jit import WORD, load

FUNCTIONS = ("find4", "find6", "find", "insert", "delete", "touch", "expire")
ALL_PLACES = (1 << 63) - 1
_HEADER: int = ffi.sizeof("struct rl_map")


def _name_functions() -> None:
    """Make the C functions known by name to every module that numba links."""
    addresses = ffi.new("uint64_t[]", len(FUNCTIONS))
    lib.rl_lookup_addresses(addresses)
    for name, address in zip(FUNCTIONS, addresses, strict=True):
        llvmlite.binding.add_symbol(f"rl_lookup_{name}", address)


_name_functions()


class PrefixesType(types.Type):  # type: ignore[misc]  # numba is not typed
    """The type of a prefix table."""

    def __init__(self) -> None:
        super().__init__(name="ringline.prefixes")


class MapType(types.Type):  # type: ignore[misc]
    """The type of a map: the words of its key, and the words of its value or their names."""

    def __init__(self, key: int, value: int, names: tuple[str, ...]) -> None:
        self.key_words = key
        self.value_words = value
        self.value_names = names
        super().__init__(name=f"ringline.map({key}, {value}, {names})")

    @property
    def values(self) -> Any:
        """The type of the attribute `values`."""
        if not self.value_names:
            return types.Array(types.int64, 2, "A")
        import numpy as np

        return types.Array(from_dtype(np.dtype([(n, np.int64) for n in self.value_names])), 1, "A")


PREFIXES = PrefixesType()


def type_of(part: Prefixes | Map) -> PrefixesType | MapType:
    """The numba type of a table or map."""
    if isinstance(part, Prefixes):
        return PREFIXES
    return MapType(part.key_words, part.value_words, part.value_names)


@register_model(PrefixesType)
@register_model(MapType)
class _AddressModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, WORD)


@typeof_impl.register(Prefixes)
@typeof_impl.register(Map)
def _typeof(value: Any, _: Any) -> Any:
    return type_of(value)


@unbox(PrefixesType)
@unbox(MapType)
def _unbox(_: Any, value: Any, context: Any) -> Any:
    """For a helper that Python calls with a table or map."""
    address = context.pyapi.object_getattr_string(value, "address")
    number = context.pyapi.long_as_longlong(address)
    context.pyapi.decref(address)
    failed = cgutils.is_not_null(context.builder, context.pyapi.err_occurred())
    return NativeValue(number, is_error=failed)


@intrinsic
def state_address(_: Any, words: Any, kind: Any) -> Any:
    """The table or map of type `kind` whose address is the word at address `words`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return load(builder, args[0], 0, 64)

    return kind.instance_type(types.int64, kind), codegen


def _call(builder: Any, name: str, arguments: list[Any]) -> Any:
    kind = ir.FunctionType(WORD, [argument.type for argument in arguments])
    function = cgutils.get_or_insert_function(builder.module, kind, f"rl_lookup_{name}")
    return builder.call(function, arguments)


def _parts(kind: Any) -> list[Any]:
    """The types of the words of a key or value; () is the default of a value."""
    if kind == () or (isinstance(kind, types.Omitted) and kind.value == ()):
        return []
    return list(kind.types) if isinstance(kind, types.BaseTuple) else [kind]


def _check(what: str, kind: Any, count: int) -> None:
    """Raise TypingError unless `kind` is `count` integers."""
    parts = _parts(kind)
    if len(parts) != count:
        raise errors.TypingError(words_differ(what, count, len(parts)))
    if not all(isinstance(part, (types.Integer, types.Boolean)) for part in parts):
        raise errors.TypingError(f"the words of the {what} of this map must be integers")


def _as_words(context: Any, builder: Any, value: Any, kind: Any) -> Any:
    """The words of a key or value in memory of the function; their address."""
    parts = _parts(kind)
    place = cgutils.alloca_once(builder, ir.ArrayType(WORD, max(len(parts), 1)))
    for number, part in enumerate(parts):
        word = value
        if isinstance(kind, types.BaseTuple):
            word = builder.extract_value(value, number)
        word = context.cast(builder, word, part, types.int64)
        builder.store(word, cgutils.gep_inbounds(builder, place, 0, number))
    return builder.ptrtoint(place, WORD)


def _caller(name: str, words: int) -> Any:
    """An intrinsic that calls the C function `name` with a table or map, and a tuple of arguments:
    first `words` keys and values, then integers."""

    @intrinsic
    def call(_: Any, table: Any, arguments: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            given = [args[0]]
            for number, kind in enumerate(arguments.types):
                value = builder.extract_value(args[1], number)
                if number < words:
                    given.append(_as_words(context, builder, value, kind))
                else:
                    given.append(context.cast(builder, value, kind, types.int64))
            return _call(builder, name, given)

        return types.int64(table, arguments), codegen

    return call


_find4 = _caller("find4", 0)
_find6 = _caller("find6", 0)
_find = _caller("find", 1)
_insert = _caller("insert", 2)
_delete = _caller("delete", 1)
_touch = _caller("touch", 0)
_expire = _caller("expire", 0)


def _method(kind: Any, name: str) -> Any:
    """Make the decorated function the method `name`. It checks the types of the arguments, and
    numba compiles the function that it returns, whose signature must be the same."""
    return overload_method(kind, name)


@_method(PrefixesType, "find4")
def find4(table, address):  # type: ignore[no-untyped-def]
    """As Prefixes.find4."""
    return lambda table, address: _find4(table, (address,))


@_method(PrefixesType, "find6")
def find6(table, high, low):  # type: ignore[no-untyped-def]
    """As Prefixes.find6."""
    return lambda table, high, low: _find6(table, (high, low))


@_method(MapType, "find")
def find(table, key, now=0):  # type: ignore[no-untyped-def]
    """As Map.find."""
    _check("key", key, table.key_words)
    return lambda table, key, now=0: _find(table, (key, now))


@_method(MapType, "insert")
def insert(table, key, value=(), now=0):  # type: ignore[no-untyped-def]
    """As Map.insert."""
    _check("key", key, table.key_words)
    _check("value", value, table.value_words)
    return lambda table, key, value=(), now=0: _insert(table, (key, value, now))


@_method(MapType, "delete")
def delete(table, key):  # type: ignore[no-untyped-def]
    """As Map.delete."""
    _check("key", key, table.key_words)
    return lambda table, key: _delete(table, (key,))


@_method(MapType, "touch")
def touch(table, place, now):  # type: ignore[no-untyped-def]
    """As Map.touch."""
    return lambda table, place, now: _touch(table, (place, now))


@_method(MapType, "expire")
def expire(table, now, places=ALL_PLACES):  # type: ignore[no-untyped-def]
    """As Map.expire."""
    return lambda table, now, places=ALL_PLACES: _expire(table, (now, places))


def _offset(field: str) -> int:
    return int(ffi.offsetof("struct rl_map", field))


@intrinsic
def _entries(_: Any, table: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return load(builder, args[0], _offset("used"), 64)

    return types.int64(table), codegen


@overload(len)
def _length(table):  # type: ignore[no-untyped-def]
    if not isinstance(table, MapType):
        return None

    def length(table):  # type: ignore[no-untyped-def]
        return _entries(table)

    return length


@infer_getattr
class _MapAttributes(AttributeTemplate):  # type: ignore[misc]
    key = MapType

    def resolve_values(self, table: Any) -> Any:
        return table.values


@lower_getattr(MapType, "values")
def _values(context: Any, builder: Any, table: Any, address: Any) -> Any:
    kind = table.values
    array = make_array(kind)(context, builder)
    start = builder.add(address, ir.Constant(WORD, _HEADER + 8 * (2 + table.key_words)))
    places = load(builder, address, _offset("places"), 64)
    stride = builder.mul(load(builder, address, _offset("stride"), 32), ir.Constant(WORD, 8))
    shape, strides = [places], [stride]
    size = 8 * table.value_words
    if kind.ndim == 2:
        shape.append(ir.Constant(WORD, table.value_words))
        strides.append(ir.Constant(WORD, 8))
        size = 8
    populate_array(
        array,
        data=builder.inttoptr(start, array.data.type),
        shape=shape,
        strides=strides,
        itemsize=context.get_constant(types.intp, size),
        meminfo=None,
    )
    return array._getvalue()
