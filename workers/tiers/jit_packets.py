"""The functions of packets.py for compiled code: field, set_field, resize, create.

The import of this module registers them with numba.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils, errors
from numba.core.typing import signature
from numba.extending import intrinsic, lower_builtin, type_callable
from numba.np.arrayobj import make_array

from ringline.shm._shm import lib as shm
from ringline.workers import packets
from ringline.workers.tiers.jit import (
    FRAME,
    META,
    REFERENCE,
    WORD,
    MetaType,
    array_at,
    batch_count,
    batch_packets,
    batch_ports,
    holders,
    packet_address,
    packet_buffer,
    packet_length,
    packet_offset,
    pointer,
    reader,
    set_packet_port,
    used,
    writer,
)

HEADROOM: int = shm.RL_BUFFER_HEADROOM
LENGTH_MIN: int = shm.RL_FRAME_MIN
CREATED_MAX: int = shm.RL_BATCH_MAX

batch_blank_count = reader("struct rl_batch", "blank_count")
batch_room = reader("struct rl_batch", "room")
batch_frame_max = reader("struct rl_batch", "frame_max")
batch_blanks = reader("struct rl_batch", "blanks")
batch_created = reader("struct rl_batch", "created")
set_batch_blank_count = writer("struct rl_batch", "blank_count")
set_batch_created = writer("struct rl_batch", "created")
set_packet_buffer = writer("struct rl_reference", "buffer")
set_packet_flags = writer("struct rl_reference", "flags")
set_packet_length = writer("struct rl_reference", "length")
set_packet_offset = writer("struct rl_reference", "offset")


def _big_endian(builder: Any, value: Any) -> Any:
    return value if value.type.width == 8 else builder.bswap(value)


def _pieces(size: int) -> list[tuple[int, int]]:
    """The loads or stores for a field of `size` bytes, as (offset, bytes)."""
    return [(0, 4), (4, 2)] if size == 6 else [(0, size)]


def _size_of(size: Any) -> int:
    """The size of a field from the literal type of its argument. Raises TypingError."""
    value = getattr(size, "literal_value", None)
    if value not in (1, 2, 4, 6, 8):
        raise errors.TypingError("the size of a field must be a constant: 1, 2, 4, 6 or 8")
    return int(value)


def _load(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    width = _size_of(signature.args[2])
    data = make_array(FRAME)(context, builder, args[0]).data
    address = builder.add(builder.ptrtoint(data, WORD), args[1])
    value = ir.Constant(WORD, 0)
    for at, count in _pieces(width):
        there = pointer(builder, address, at, 8 * count)
        piece = _big_endian(builder, builder.load(there, align=1))
        if count < 8:
            piece = builder.zext(piece, WORD)
        shift = ir.Constant(WORD, 8 * (width - at - count))
        value = builder.or_(value, builder.shl(piece, shift))
    return value


def _store(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    width = _size_of(signature.args[2])
    data = make_array(FRAME)(context, builder, args[0]).data
    address = builder.add(builder.ptrtoint(data, WORD), args[1])
    for at, count in _pieces(width):
        shift = ir.Constant(WORD, 8 * (width - at - count))
        piece = builder.lshr(args[3], shift)
        if count < 8:
            piece = builder.trunc(piece, ir.IntType(8 * count))
        there = pointer(builder, address, at, 8 * count)
        builder.store(_big_endian(builder, piece), there, align=1)
    return context.get_dummy_value()


@intrinsic(prefer_literal=True)
def load_field(_: Any, frame: Any, offset: Any, size: Any) -> Any:
    """`field` without a check of the offset."""
    _size_of(size)
    return types.int64(FRAME, types.int64, size), _load


@intrinsic(prefer_literal=True)
def store_field(_: Any, frame: Any, offset: Any, size: Any, value: Any) -> Any:
    """`set_field` without a check of the offset."""
    _size_of(size)
    return types.void(FRAME, types.int64, size, types.int64), _store


# `field` and `set_field` are code, not functions: numba would compile a function once for each size
# and each constant offset, 0.1 s each.
def _check_range(context: Any, builder: Any, frame: Any, offset: Any, width: int) -> None:
    """Raise IndexError unless `width` bytes from `offset` on are in the frame."""
    length = cgutils.unpack_tuple(builder, make_array(FRAME)(context, builder, frame).shape)[0]
    last = builder.sub(length, ir.Constant(WORD, width))
    low = builder.icmp_signed("<", offset, ir.Constant(WORD, 0))
    beyond = builder.or_(low, builder.icmp_signed(">", offset, last))
    with builder.if_then(beyond, likely=False):
        said = ("the field is not within the frame",)
        context.call_conv.return_user_exc(builder, IndexError, said)


def _access_type(frame: Any, offset: Any, size: Any, *value: Any, returns: Any) -> Any:
    numbers = types.Integer, types.IntegerLiteral, types.Boolean
    if frame != FRAME or not all(isinstance(each, numbers) for each in (offset, *value)):
        return None
    _size_of(size)
    return signature(returns, FRAME, types.int64, size, *[types.int64] * len(value))


@type_callable(packets.field)
def _field_type(_: Any) -> Any:
    def typer(frame: Any, offset: Any, size: Any) -> Any:
        return _access_type(frame, offset, size, returns=types.int64)

    return typer


@type_callable(packets.set_field)
def _set_field_type(_: Any) -> Any:
    def typer(frame: Any, offset: Any, size: Any, value: Any) -> Any:
        return _access_type(frame, offset, size, value, returns=types.void)

    return typer


def _lowers(function: Any, arguments: int, codegen: Any) -> None:
    @lower_builtin(function, FRAME, *[types.Any] * (arguments - 1))
    def _lower(context: Any, builder: Any, called: Any, args: Any) -> Any:
        _check_range(context, builder, args[0], args[1], _size_of(called.args[2]))
        return codegen(context, builder, called, args)


_lowers(packets.field, 3, _load)
_lowers(packets.set_field, 4, _store)


# `resize` and `create` return an array, and a function that is compiled without reference counts
# cannot do that, an inlined one neither: numba checks it first. So each is a function that returns
# the address and the length of the frame, and code that makes the array of them.
def _resized(meta: Any, front: Any, back: Any) -> Any:
    batch, packet = holders(meta)
    offset = packet_offset(packet) - front
    length = packet_length(packet) + front + back
    if offset < 0 or length < 0 or offset + length > batch_room(batch):
        raise ValueError("the frame does not fit into its buffer")
    set_packet_offset(packet, offset)
    set_packet_length(packet, length)
    return packet_address(batch, packet), length


def _created(meta: Any, length: Any, port: Any) -> Any:
    batch, _ = holders(meta)
    if not 0 <= port < batch_ports(batch) or not LENGTH_MIN <= length <= batch_frame_max(batch):
        raise ValueError(packets.WRONG_LENGTH)
    left, made = batch_blank_count(batch), batch_created(batch)
    if left == 0 or made == CREATED_MAX:
        return batch, 0
    blank = batch_blanks(batch) + (left - 1) * REFERENCE
    packet = batch_packets(batch) + (batch_count(batch) + made) * REFERENCE
    set_packet_buffer(packet, packet_buffer(blank))
    set_packet_offset(packet, HEADROOM)
    set_packet_length(packet, length)
    set_packet_port(packet, port)
    set_packet_flags(packet, 0)
    set_batch_blank_count(batch, left - 1)
    set_batch_created(batch, made + 1)
    return packet_address(batch, packet), length


def _returns_frame(function: Any, place: Any) -> None:
    """Register `function(meta, integer, integer)`, which returns the frame at `place(…)`."""
    pair = types.UniTuple(types.int64, 2)

    @type_callable(function)
    def _type(_: Any) -> Any:
        def typer(meta: Any, first: Any, second: Any) -> Any:
            numbers = types.Integer, types.IntegerLiteral, types.Boolean
            fits = isinstance(first, numbers) and isinstance(second, numbers)
            used.append(function.__name__)
            return FRAME if isinstance(meta, MetaType) and fits else None

        return typer

    @lower_builtin(function, MetaType, types.Any, types.Any)
    def _lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        numbers = [
            context.cast(builder, value, kind, types.int64)
            for value, kind in zip(args[1:], signature.args[1:], strict=True)
        ]
        inner = pair(META, types.int64, types.int64)
        found = context.compile_internal(builder, place, inner, [args[0], *numbers])
        address, length = cgutils.unpack_tuple(builder, found)
        return array_at(context, builder, address, length)


_returns_frame(packets.resize, _resized)
_returns_frame(packets.create, _created)
