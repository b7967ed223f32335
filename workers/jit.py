"""What generated batch loops are made of, for numba to compile.

A compiled plugin sees two things of a packet: `frame`, an array over its bytes,
and `meta`. Both are made here of addresses, without an allocation and without a
reference count; after inlining nothing of them is left but loads and stores.

Numbers of `meta` read as int64, whatever their width in memory: then no sum of
theirs becomes a float, and a verdict is not narrowed before it was checked.

Imported only where a compiled plugin is prepared: numba takes 0.3 s.
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
    overload,
    register_jitable,
    register_model,
)
from numba.np.arrayobj import make_array, populate_array

from ringline.shm._shm import ffi as shm_ffi
from ringline.shm._shm import lib as shm
from ringline.workers import packets
from ringline.workers._workers import ffi, lib

WORD = ir.IntType(64)
FRAME = types.Array(types.uint8, 1, "C")
SIGNATURE = types.void(types.voidptr)

# Constants of the generated loops: numba freezes them.
DROP: int = shm.RL_VERDICT_DROP
ERROR: int = shm.RL_VERDICT_ERROR
INVALID: int = lib.RL_VERDICT_INVALID
STRIDE: int = shm.RL_BUFFER_STRIDE
HEADROOM: int = shm.RL_BUFFER_HEADROOM
LENGTH_MIN: int = shm.RL_FRAME_MIN
LENGTH_MAX: int = shm.RL_FRAME_MAX
CREATED_MAX: int = shm.RL_BATCH_MAX
REFERENCE: int = shm_ffi.sizeof("struct rl_reference")


def _field(struct: str, name: str) -> tuple[int, int]:
    """(offset, bits) of a field."""
    kind = dict(ffi.typeof(struct).fields)[name]
    return int(kind.offset), 8 * int(ffi.sizeof(kind.type))


class MetaType(types.Type):  # type: ignore[misc]  # numba is not typed
    """The type of `meta`: the addresses of the batch and of the packet's reference."""

    def __init__(self) -> None:
        super().__init__(name="ringline.meta")


META = MetaType()


@register_model(MetaType)
class _MetaModel(models.StructModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, [("batch", types.intp), ("packet", types.intp)])


# What `meta` offers: the holder of the field, its offset and width.
FIELDS = {
    name: ("packet", *_field("struct rl_reference", name))
    for name in ("port", "length", "rss_hash", "vlan_tci", "flags")
} | {name: ("batch", *_field("struct rl_batch", name)) for name in ("queue", "ports")}
WRITABLE = ("vlan_tci", "flags")


@infer_getattr
class _MetaAttributes(AttributeTemplate):  # type: ignore[misc]
    key = MetaType

    def generic_resolve(self, _: Any, name: str) -> Any:
        return types.int64 if name in FIELDS else None


def _member(context: Any, builder: Any, value: Any, name: str) -> Any:
    return getattr(cgutils.create_struct_proxy(META)(context, builder, value=value), name)


def _pointer(builder: Any, address: Any, offset: int, bits: int) -> Any:
    there = builder.add(address, ir.Constant(WORD, offset))
    return builder.inttoptr(there, ir.IntType(bits).as_pointer())


def _load(builder: Any, address: Any, offset: int, bits: int) -> Any:
    value = builder.load(_pointer(builder, address, offset, bits))
    return value if bits == 64 else builder.zext(value, WORD)


def _store(builder: Any, address: Any, offset: int, bits: int, value: Any) -> None:
    narrow = value if bits == 64 else builder.trunc(value, ir.IntType(bits))
    builder.store(narrow, _pointer(builder, address, offset, bits))


@lower_getattr_generic(MetaType)
def _get(context: Any, builder: Any, _: Any, value: Any, name: str) -> Any:
    holder, offset, bits = FIELDS[name]
    return _load(builder, _member(context, builder, value, holder), offset, bits)


@lower_setattr_generic(MetaType)
def _set(context: Any, builder: Any, _: Any, values: Any, name: str) -> None:
    if name not in WRITABLE:
        hint = "; use resize(meta, front, back)" if name == "length" else ""
        raise errors.TypingError(f"meta.{name} cannot be set{hint}")
    holder, offset, bits = FIELDS[name]
    meta, value = values
    _store(builder, _member(context, builder, meta, holder), offset, bits, value)


def _reader(struct: str, name: str) -> Any:
    """A function of compiled code: the field of the struct at an address."""
    offset, bits = _field(struct, name)

    @intrinsic
    def read(_: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return _load(builder, args[0], offset, bits)

        return types.int64(types.int64), codegen

    return read


def _writer(struct: str, name: str) -> Any:
    """A function of compiled code: set the field of the struct at an address."""
    offset, bits = _field(struct, name)

    @intrinsic
    def write(_: Any, address: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            _store(builder, args[0], offset, bits, args[1])
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), codegen

    return write


batch_memory = _reader("struct rl_batch", "memory")
batch_packets = _reader("struct rl_batch", "packets")
batch_count = _reader("struct rl_batch", "count")
batch_ports = _reader("struct rl_batch", "ports")
batch_state = _reader("struct rl_batch", "state")
batch_created = _reader("struct rl_batch", "created")
batch_blanks = _reader("struct rl_batch", "blanks")
batch_blank_count = _reader("struct rl_batch", "blank_count")
set_batch_judged = _writer("struct rl_batch", "judged")
set_batch_created = _writer("struct rl_batch", "created")
set_batch_blank_count = _writer("struct rl_batch", "blank_count")
packet_buffer = _reader("struct rl_reference", "buffer")
packet_offset = _reader("struct rl_reference", "offset")
packet_length = _reader("struct rl_reference", "length")
set_packet_buffer = _writer("struct rl_reference", "buffer")
set_packet_offset = _writer("struct rl_reference", "offset")
set_packet_length = _writer("struct rl_reference", "length")
set_packet_port = _writer("struct rl_reference", "port")
set_packet_flags = _writer("struct rl_reference", "flags")


@intrinsic
def address_of(_: Any, pointer: Any) -> Any:
    """A void pointer as a number."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ptrtoint(args[0], WORD)

    return types.int64(types.voidptr), codegen


@intrinsic
def frame_at(_: Any, address: Any, length: Any) -> Any:
    """The `length` bytes at `address` as an array."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = make_array(FRAME)(context, builder)
        data = builder.inttoptr(args[0], array.data.type)
        one = context.get_constant(types.intp, 1)
        populate_array(array, data=data, shape=[args[1]], strides=[one], itemsize=one, meminfo=None)
        return array._getvalue()

    return FRAME(types.int64, types.int64), codegen


@intrinsic
def meta_at(_: Any, batch: Any, packet: Any) -> Any:
    """`meta` of the reference at `packet`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        meta = cgutils.create_struct_proxy(META)(context, builder)
        meta.batch, meta.packet = args
        return meta._getvalue()

    return META(types.int64, types.int64), codegen


@intrinsic
def holders(_: Any, meta: Any) -> Any:
    """(address of the batch, address of the packet's reference) of `meta`."""
    pair = types.UniTuple(types.int64, 2)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        both = [_member(context, builder, args[0], name) for name in ("batch", "packet")]
        return context.make_tuple(builder, pair, both)

    return pair(META), codegen


@intrinsic
def state_array(_: Any, words: Any, kind: Any) -> Any:
    """An array of type `kind` whose address and extents are the words at `words`."""
    array_type = kind.instance_type

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = make_array(array_type)(context, builder)
        data = builder.inttoptr(_load(builder, args[0], 0, 64), array.data.type)
        size = context.get_constant(
            types.intp, context.get_abi_sizeof(context.get_data_type(array_type.dtype))
        )
        shape = [_load(builder, args[0], 8 * (i + 1), 64) for i in range(array_type.ndim)]
        strides = [size]
        for extent in reversed(shape[1:]):
            strides.insert(0, builder.mul(strides[0], extent))
        populate_array(array, data=data, shape=shape, strides=strides, itemsize=size, meminfo=None)
        return array._getvalue()

    return array_type(types.int64, kind), codegen


@intrinsic
def state_number(_: Any, words: Any, kind: Any) -> Any:
    """The word at `words` as an int64 or float64."""
    number = kind.instance_type

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(_load(builder, args[0], 0, 64), context.get_value_type(number))

    return number(types.int64, kind), codegen


@register_jitable
def packet_address(batch: int, packet: int) -> Any:
    """The address of the frame that the reference at `packet` names."""
    return batch_memory(batch) + packet_buffer(packet) * STRIDE + packet_offset(packet)


def _big_endian(builder: Any, value: Any) -> Any:
    return value if value.type.width == 8 else builder.bswap(value)


def _pieces(size: int) -> list[tuple[int, int]]:
    """(byte, bytes) of the loads that make a field of `size` bytes."""
    return [(0, 4), (4, 2)] if size == 6 else [(0, size)]


def _size_of(size: Any) -> int:
    """The constant in the type of an argument."""
    value = getattr(size, "literal_value", None)
    if value not in (1, 2, 4, 6, 8):
        raise errors.TypingError("the size of a field is a constant: 1, 2, 4, 6 or 8")
    return int(value)


@intrinsic(prefer_literal=True)
def _load_field(_: Any, frame: Any, offset: Any, size: Any) -> Any:
    width = _size_of(size)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = make_array(FRAME)(context, builder, args[0]).data
        address = builder.add(builder.ptrtoint(data, WORD), args[1])
        value = ir.Constant(WORD, 0)
        for at, count in _pieces(width):
            pointer = _pointer(builder, address, at, 8 * count)
            piece = _big_endian(builder, builder.load(pointer, align=1))
            if count < 8:
                piece = builder.zext(piece, WORD)
            shift = ir.Constant(WORD, 8 * (width - at - count))
            value = builder.or_(value, builder.shl(piece, shift))
        return value

    return types.int64(FRAME, types.int64, size), codegen


@intrinsic(prefer_literal=True)
def _store_field(_: Any, frame: Any, offset: Any, size: Any, value: Any) -> Any:
    width = _size_of(size)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = make_array(FRAME)(context, builder, args[0]).data
        address = builder.add(builder.ptrtoint(data, WORD), args[1])
        for at, count in _pieces(width):
            shift = ir.Constant(WORD, 8 * (width - at - count))
            piece = builder.lshr(args[3], shift)
            if count < 8:
                piece = builder.trunc(piece, ir.IntType(8 * count))
            pointer = _pointer(builder, address, at, 8 * count)
            builder.store(_big_endian(builder, piece), pointer, align=1)
        return context.get_dummy_value()

    return types.void(FRAME, types.int64, size, types.int64), codegen


@overload(packets.field, prefer_literal=True)
def _get_field(frame: Any, offset: Any, size: Any) -> Any:
    if frame != FRAME:
        return None
    width = _size_of(size)

    def field(frame: Any, offset: Any, size: Any) -> Any:
        if offset < 0 or offset + width > len(frame):
            raise IndexError("the frame ends before this field")
        return _load_field(frame, offset, width)

    return field


@overload(packets.set_field, prefer_literal=True)
def _set_field(frame: Any, offset: Any, size: Any, value: Any) -> Any:
    if frame != FRAME:
        return None
    width = _size_of(size)

    def set_field(frame: Any, offset: Any, size: Any, value: Any) -> None:
        if offset < 0 or offset + width > len(frame):
            raise IndexError("the frame ends before this field")
        _store_field(frame, offset, width, value)

    return set_field


# Inlined, for without reference counts a function cannot return an array of its own.
@overload(packets.resize, inline="always")
def _resize(meta: Any, front: Any, back: Any) -> Any:
    if not isinstance(meta, MetaType):
        return None

    def resize(meta: Any, front: Any, back: Any) -> Any:
        batch, packet = holders(meta)
        offset = packet_offset(packet) - front
        length = packet_length(packet) + front + back
        if offset < 0 or length < 0 or offset + length > STRIDE:
            raise ValueError("the frame would leave its buffer")
        set_packet_offset(packet, offset)
        set_packet_length(packet, length)
        return frame_at(packet_address(batch, packet), length)

    return resize


@overload(packets.create, inline="always")
def _create(meta: Any, length: Any, port: Any) -> Any:
    if not isinstance(meta, MetaType):
        return None

    def create(meta: Any, length: Any, port: Any) -> Any:
        batch, _ = holders(meta)
        if not 0 <= port < batch_ports(batch) or not LENGTH_MIN <= length <= LENGTH_MAX:
            raise ValueError("no such port, or no such length")
        left, made = batch_blank_count(batch), batch_created(batch)
        if left == 0 or made == CREATED_MAX:
            return frame_at(batch, 0)
        blank = batch_blanks(batch) + (left - 1) * REFERENCE
        packet = batch_packets(batch) + (batch_count(batch) + made) * REFERENCE
        set_packet_buffer(packet, packet_buffer(blank))
        set_packet_offset(packet, HEADROOM)
        set_packet_length(packet, length)
        set_packet_port(packet, port)
        set_packet_flags(packet, 0)
        set_batch_blank_count(batch, left - 1)
        set_batch_created(batch, made + 1)
        return frame_at(packet_address(batch, packet), length)

    return create
