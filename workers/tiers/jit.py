"""The building blocks of generated batch loops, as numba intrinsics.

A packet function gets `frame`, an array over the bytes of the packet, and `meta`. Both are
made from addresses, without allocation and without reference counts; after inlining only
loads and stores remain.

The fields of `meta` read as int64, regardless of their width in memory. So numba never
converts a sum of them to float, and a verdict is checked before it is stored as 8 bits.

Only a worker that prepares a compiled plugin imports this module: numba takes 0.3 s.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils, errors
from numba.core.datamodel import models
from numba.core.typing.templates import AttributeTemplate
from numba.extending import (
    infer_getattr,
    intrinsic,
    lower_getattr_generic,
    lower_setattr_generic,
    register_jitable,
    register_model,
)
from numba.np.arrayobj import make_array, populate_array

from ringline.shm._shm import ffi as shm_ffi
from ringline.shm._shm import lib as shm
from ringline.workers._workers import ffi, lib

WORD = ir.IntType(64)
FRAME = types.Array(types.uint8, 1, "C")
SIGNATURE = types.void(types.voidptr)

# Constants of the generated loops: numba compiles their values in.
DROP: int = shm.RL_VERDICT_DROP
ERROR: int = shm.RL_VERDICT_ERROR
INVALID: int = lib.RL_VERDICT_INVALID
REASON: int = shm.RL_VERDICT_REASON
STRIDE: int = shm.RL_BUFFER_STRIDE
REFERENCE: int = shm_ffi.sizeof("struct rl_reference")
TIME = 8  # bytes


def _field(struct: str, name: str) -> tuple[int, int]:
    """(offset in bytes, width in bits) of a field."""
    kind = dict(ffi.typeof(struct).fields)[name]
    return int(kind.offset), 8 * int(ffi.sizeof(kind.type))


class MetaType(types.Type):  # type: ignore[misc]  # numba is not typed
    """The type of `meta`: the addresses of the batch, of the packet's reference and of its time."""

    def __init__(self) -> None:
        super().__init__(name="ringline.meta")


META = MetaType()


@register_model(MetaType)
class _MetaModel(models.StructModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        members = ("batch", "packet", "time")
        super().__init__(manager, kind, [(name, types.intp) for name in members])


# The fields of `meta`: (which address of `meta`, offset in bytes, width in bits).
FIELDS = {
    name: ("packet", *_field("struct rl_reference", name))
    for name in ("port", "length", "rss_hash", "vlan_tci", "flags")
} | {name: ("batch", *_field("struct rl_batch", name)) for name in ("queue", "ports", "frame_max")}
FIELDS["time"] = ("time", 0, 64)
WRITABLE = ("vlan_tci", "flags")
used: list[str] = []  # grows each time that numba finds `meta.time`, `resize` or `create`


@infer_getattr
class _MetaAttributes(AttributeTemplate):  # type: ignore[misc]
    key = MetaType

    def generic_resolve(self, _: Any, name: str) -> Any:
        if name == "time":
            used.append(name)
        return types.int64 if name in FIELDS or name == "wire_length" else None


def _member(context: Any, builder: Any, value: Any, name: str) -> Any:
    return getattr(cgutils.create_struct_proxy(META)(context, builder, value=value), name)


def pointer(builder: Any, address: Any, offset: int, bits: int) -> Any:
    there = builder.add(address, ir.Constant(WORD, offset))
    return builder.inttoptr(there, ir.IntType(bits).as_pointer())


def load(builder: Any, address: Any, offset: int, bits: int) -> Any:
    value = builder.load(pointer(builder, address, offset, bits))
    return value if bits == 64 else builder.zext(value, WORD)


def store(builder: Any, address: Any, offset: int, bits: int, value: Any) -> None:
    narrow = value if bits == 64 else builder.trunc(value, ir.IntType(bits))
    builder.store(narrow, pointer(builder, address, offset, bits))


@lower_getattr_generic(MetaType)
def _get(context: Any, builder: Any, _: Any, value: Any, name: str) -> Any:
    if name == "wire_length":
        number = {
            of: _field_of(context, builder, value, of) for of in ("flags", "rss_hash", "length")
        }
        flag = builder.and_(number["flags"], ir.Constant(WORD, shm.RL_FLAG_WIRE_LENGTH))
        is_set = builder.icmp_unsigned("!=", flag, ir.Constant(WORD, 0))
        return builder.select(is_set, number["rss_hash"], number["length"])
    return _field_of(context, builder, value, name)


def _field_of(context: Any, builder: Any, value: Any, name: str) -> Any:
    holder, offset, bits = FIELDS[name]
    return load(builder, _member(context, builder, value, holder), offset, bits)


@lower_setattr_generic(MetaType)
def _set(context: Any, builder: Any, _: Any, values: Any, name: str) -> None:
    if name not in WRITABLE:
        hint = "; use resize(meta, front, back)" if name == "length" else ""
        raise errors.TypingError(f"meta.{name} cannot be set{hint}")
    holder, offset, bits = FIELDS[name]
    meta, value = values
    store(builder, _member(context, builder, meta, holder), offset, bits, value)


def reader(struct: str, name: str) -> Any:
    """An intrinsic that reads this field of the struct at an address, as int64."""
    offset, bits = _field(struct, name)

    @intrinsic
    def read(_: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return load(builder, args[0], offset, bits)

        return types.int64(types.int64), codegen

    return read


def writer(struct: str, name: str) -> Any:
    """An intrinsic that writes this field of the struct at an address."""
    offset, bits = _field(struct, name)

    @intrinsic
    def write(_: Any, address: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            store(builder, args[0], offset, bits, args[1])
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), codegen

    return write


batch_memory = reader("struct rl_batch", "memory")
batch_packets = reader("struct rl_batch", "packets")
batch_count = reader("struct rl_batch", "count")
batch_ports = reader("struct rl_batch", "ports")
batch_state = reader("struct rl_batch", "state")
batch_times = reader("struct rl_batch", "times")
batch_reasons = reader("struct rl_batch", "reasons")
set_batch_judged = writer("struct rl_batch", "judged")
packet_buffer = reader("struct rl_reference", "buffer")
packet_offset = reader("struct rl_reference", "offset")
packet_length = reader("struct rl_reference", "length")
set_packet_port = writer("struct rl_reference", "port")


@intrinsic
def address_of(_: Any, pointer: Any) -> Any:
    """A void pointer as an int64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ptrtoint(args[0], WORD)

    return types.int64(types.voidptr), codegen


def array_at(context: Any, builder: Any, address: Any, length: Any) -> Any:
    """The code for `frame_at`."""
    array = make_array(FRAME)(context, builder)
    data = builder.inttoptr(address, array.data.type)
    one = context.get_constant(types.intp, 1)
    populate_array(array, data=data, shape=[length], strides=[one], itemsize=one, meminfo=None)
    return array._getvalue()


@intrinsic
def frame_at(_: Any, address: Any, length: Any) -> Any:
    """The `length` bytes at `address` as a uint8 array."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return array_at(context, builder, args[0], args[1])

    return FRAME(types.int64, types.int64), codegen


@intrinsic
def meta_at(_: Any, batch: Any, packet: Any, time: Any) -> Any:
    """The `meta` of the reference at address `packet` in the batch at address `batch`; `time` is
    the address of its time, if there is one."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        meta = cgutils.create_struct_proxy(META)(context, builder)
        meta.batch, meta.packet, meta.time = args
        return meta._getvalue()

    return META(types.int64, types.int64, types.int64), codegen


@intrinsic
def holders(_: Any, meta: Any) -> Any:
    """The two addresses in `meta`: (the batch, the packet's reference)."""
    pair = types.UniTuple(types.int64, 2)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        both = [_member(context, builder, args[0], name) for name in ("batch", "packet")]
        return context.make_tuple(builder, pair, both)

    return pair(META), codegen


@intrinsic
def state_array(_: Any, words: Any, kind: Any) -> Any:
    """An array of type `kind`; the words at address `words` are its address and extents."""
    array_type = kind.instance_type

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = make_array(array_type)(context, builder)
        data = builder.inttoptr(load(builder, args[0], 0, 64), array.data.type)
        size = context.get_constant(
            types.intp, context.get_abi_sizeof(context.get_data_type(array_type.dtype))
        )
        shape = [load(builder, args[0], 8 * (i + 1), 64) for i in range(array_type.ndim)]
        strides = [size]
        for extent in reversed(shape[1:]):
            strides.insert(0, builder.mul(strides[0], extent))
        populate_array(array, data=data, shape=shape, strides=strides, itemsize=size, meminfo=None)
        return array._getvalue()

    return array_type(types.int64, kind), codegen


@intrinsic
def state_number(_: Any, words: Any, kind: Any) -> Any:
    """The word at address `words` as an int64 or float64."""
    number = kind.instance_type

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(load(builder, args[0], 0, 64), context.get_value_type(number))

    return number(types.int64, kind), codegen


@register_jitable
def packet_address(batch: int, packet: int) -> Any:
    """The address of the first byte of the frame whose reference is at `packet`."""
    return batch_memory(batch) + packet_buffer(packet) * STRIDE + packet_offset(packet)
