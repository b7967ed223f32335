"""A batch of up to 64 packets, as Python objects or as NumPy columns.

Both ways use the same memory: writing to `packet.data` and `batch.scatter` change the
packet, and `packet.verdict` and `batch.verdicts` are the same numbers. No assignment is without
effect: an attribute that cannot be set raises AttributeError. A packet without a
verdict is dropped. Do not keep packets, memoryviews or `verdicts` after `process`: their
memory then belongs to other packets.

On a virtual CPU (AMD EPYC), mac_swap takes 220 ns per packet with columns and 1100 ns with a loop
over the packets, in batches of 64; a loop that reads no `data` takes 220 ns. NumPy is imported when
a column is first used.
"""

from __future__ import annotations

from ringline.shm._shm import lib as shm
from ringline.workers import _workers
from ringline.workers._workers import ffi, lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    import numpy as np
    from numpy.typing import ArrayLike, DTypeLike, NDArray

_FULL: int = shm.RL_BATCH_MAX  # packets of a full batch
_WIRE_LENGTH: int = shm.RL_FLAG_WIRE_LENGTH
# Looked up once: a name of `lib` takes a part of the time of a call.
_columns = lib.rl_batch_columns

lib.rl_define_frame()


def _bytes_of(data: bytes | bytearray | memoryview, what: str) -> bytes:
    """All bytes of an object that consists of bytes, such as an array; `bytes` would also make
    60 zeros of the number 60."""
    try:
        return bytes(memoryview(data))
    except TypeError:
        kind = type(data).__name__
        raise TypeError(f"{what} must be bytes or an array of bytes, not {kind}") from None


class Packet(_workers.Frame):
    """One packet of a batch. Valid until `process` returns.

    data: a writable memoryview over the bytes of the frame. Assigning bytes to it writes them
        into the frame, which gets their length.
    length: bytes of the frame; it cannot be assigned.
    port: the number of its input port; it cannot be assigned.
    verdict: the number of the port to send to, DROP, or a drop reason; DROP at first. Writable.
    """

    # These four are in C (loop/packet.c). It calls the methods below for what is assigned to them:
    # an assignment without any effect would hide a mistake.
    __slots__ = ("_batch", "_index")

    _batch: Batch
    _index: int

    def _write(self, data: bytes | bytearray | memoryview) -> None:
        content = _bytes_of(data, "packet.data")  # a copy: `data` may be a part of the frame
        if len(content) != self.length:
            self.resize(0, len(content) - self.length)
        self.data[:] = content

    def _refuse_length(self, length: int) -> None:
        raise AttributeError("packet.length cannot be assigned: use packet.resize(front, back)")

    def _refuse_port(self, port: int) -> None:
        raise AttributeError(
            "packet.port cannot be assigned: it is the input port; write the number of the output "
            "port to packet.verdict"
        )

    def _refuse_verdict(self, verdict: Any) -> None:
        message = "a verdict must be the number of a port or DROP, not "
        if isinstance(verdict, int):
            raise ValueError(f"{message}{verdict}")
        message += type(verdict).__name__
        if isinstance(verdict, str):
            message += f": worker.ports[{verdict!r}] is the number of a port"
        raise TypeError(message)

    @property
    def rss_hash(self) -> int:
        """The 32-bit RSS hash that the card computed; valid if `flags & HASH`."""
        return int(self._reference.rss_hash)

    @property
    def wire_length(self) -> int:
        """Bytes that the packet had on the wire; see `Meta` in packets.py."""
        of = self._reference
        return int(of.rss_hash if of.flags & _WIRE_LENGTH else of.length)

    @property
    def flags(self) -> int:
        """A combination of VLAN, HASH, L3_OK, L4_OK and CHECKSUM_BAD. Writable: with FIX_CHECKSUMS
        set, the checksums are written when the frame is sent, by the card if it can."""
        return int(self._reference.flags)

    @flags.setter
    def flags(self, flags: int) -> None:
        self._reference.flags = flags

    @property
    def vlan_tci(self) -> int:
        """The stripped VLAN tag, 16 bits; valid if `flags & VLAN`. Writable: with the flag VLAN
        set, the card inserts this tag."""
        return int(self._reference.vlan_tci)

    @vlan_tci.setter
    def vlan_tci(self, vlan_tci: int) -> None:
        self._reference.vlan_tci = vlan_tci

    @property
    def time(self) -> int:
        """When the packet came, in nanoseconds since 1970; see `Batch.times`."""
        return int(self._batch._moments[self._index])

    @property
    def _reference(self) -> Any:
        return self._batch._loop.packets[self._index]

    def resize(self, front: int, back: int) -> memoryview:
        """Add `front` bytes before the frame and `back` bytes after it; negative numbers remove.

        Returns the new `data`. The content of added bytes is undefined. There are 192 bytes of
        room before a received frame. Frames of 17 to 1518 bytes can be sent, longer ones to a
        port with jumbo frames.

        Raises ValueError when the frame does not fit into its buffer.
        """
        reference = self._reference
        offset = reference.offset - front
        length = reference.length + front + back
        if offset < 0 or length < 0 or offset + length > self._batch._batch.room:
            raise ValueError("the frame does not fit into its buffer")
        reference.offset, reference.length = offset, length
        span = self._batch._loop.spans[self._index]  # for the next iteration
        span.start = reference.buffer * shm.RL_BUFFER_STRIDE + offset
        span.end = span.start + length
        self._batch._loop.look += 1
        return self.data


class Batch:
    """Up to 64 packets: iterate over them, index them, or use columns.

        def process(self, batch):
            for packet in batch:
                packet.verdict = packet.port

    A column is an array of shape (len(batch),), one element per packet. `verdicts` is the
    packets' own memory; the other columns are read-only copies.
    """

    # No other attribute can be assigned: `batch.verdict = 0` would have no effect.
    __slots__ = (
        "_batch",
        "_columns",
        "_count",
        "_fields",
        "_loop",
        "_numpy",
        "_packets",
        "_verdicts",
    )

    def __init__(self, loop: Any, view: memoryview) -> None:
        """`loop` is a `struct rl_worker *`, `view` is packet memory from buffer 0 on."""
        self._loop = loop
        self._count = 0
        self._batch = ffi.addressof(loop, "batch")
        address = int(ffi.cast("uintptr_t", loop))
        self._packets = [Packet(address, view, index) for index in range(shm.RL_BATCH_MAX)]
        for index, packet in enumerate(self._packets):
            packet._batch, packet._index = self, index
        self._numpy: Any = None
        self._columns: dict[str, Any] = {}
        self._fields: dict[Any, tuple[Any, int, Any]] = {}
        self._verdicts: Any = None

    def _begin(self) -> None:
        """Called by the engine before each batch: the loop holds new packets."""
        self._count = self._batch.count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Packet]:
        self._loop.look += 1
        return iter(self._packets[: self._count])

    def __getitem__(self, index: int) -> Packet:
        self._loop.look += 1
        return self._packets[range(self._count)[index]]

    def create(self, data: bytes | bytearray | memoryview, port: int) -> bool:
        """Create a packet with the bytes `data` and send it to `port`, after those of the batch.

        Returns False when the worker has no blank buffer left, or when 64 packets were created
        for this batch; `blanks` in the configuration is the number of blank buffers.

        Raises ValueError when there is no such port or `data` has not 17 to 1518 bytes (more if a
        port has jumbo frames),
        TypeError when `data` is not bytes.
        """
        content = _bytes_of(data, "the data of a packet")
        length = len(content)
        if not 0 <= port < self._loop.batch.ports:
            raise ValueError(f"the port must be 0 to {self._loop.batch.ports - 1}, not {port}")
        longest = self._batch.frame_max
        if not shm.RL_FRAME_MIN <= length <= longest:
            raise ValueError(
                f"a packet must have {shm.RL_FRAME_MIN} to {longest} bytes, not {length}"
            )
        there = lib.rl_batch_create(self._batch, length, port)
        if there == ffi.NULL:
            return False
        ffi.memmove(there, content, length)
        return True

    @property
    def verdicts(self) -> NDArray[np.int64]:
        """The verdict of each packet, int64; write to it: `batch.verdicts[:] = batch.ports`.

        Raises TypeError when a value written is not an integer.
        """
        if self._numpy is None:
            self._open_columns()
        verdicts: NDArray[np.int64] = self._verdicts
        return verdicts if self._count == _FULL else verdicts[: self._count]

    @verdicts.setter
    def verdicts(self, verdicts: ArrayLike) -> None:
        self.verdicts[:] = verdicts

    @property
    def ports(self) -> NDArray[np.int64]:
        """The number of the input port of each packet: int64, a copy."""
        return self._column("port")

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The bytes of each frame: int64, a copy."""
        return self._column("length")

    @property
    def wire_lengths(self) -> NDArray[np.int64]:
        """The bytes that each packet had on the wire: int64, a copy."""
        np = self._numpy or self._open_columns()
        on_wire = self.flags & _WIRE_LENGTH != 0
        lengths: NDArray[Any] = np.where(on_wire, self.hashes, self.lengths)
        return lengths

    @property
    def hashes(self) -> NDArray[np.int64]:
        """The RSS hash of each packet, valid where `flags & HASH`: int64, a copy."""
        return self._column("rss_hash")

    @property
    def flags(self) -> NDArray[np.int64]:
        """The flags of each packet (VLAN, HASH, L3_OK, L4_OK, CHECKSUM_BAD): int64, a copy."""
        return self._column("flags")

    @property
    def vlan_tcis(self) -> NDArray[np.int64]:
        """The stripped VLAN tag of each packet, valid where `flags & VLAN`: int64, a copy."""
        return self._column("vlan_tci")

    @property
    def times(self) -> NDArray[np.int64]:
        """When each packet came, in nanoseconds since 1970: int64, a read-only copy.

        It is when the driver took the packet from the card, or the card's own time stamp; in
        `ringline try` and in a replay with the pace of the capture it is the time in the capture.
        By the driver's clock, times do not run back while a worker lives: when the clock of the
        machine is set forward, they follow within a second, and when it is set back, they do
        not, until the next start of ringline. A created packet has no time.

        Raises AttributeError unless the class of the plugin has the attribute `times = True`.
        """
        moments = self._moments
        np = self._numpy or self._open_columns()
        column: NDArray[Any] = np.frombuffer(bytes(ffi.buffer(moments)), np.int64)
        return column[: self._count]

    @property
    def _moments(self) -> Any:
        """The times as cdata `int64_t[64]`. Raises AttributeError as `times` does."""
        if self._batch.times == ffi.NULL:
            raise AttributeError(
                "the times of packets are only there for a plugin that asks for them: write "
                "`times = True` into its class"
            )
        return self._loop.moments

    def gather(self, offset: int, dtype: DTypeLike) -> NDArray[Any]:
        """Read the field at byte `offset` of every frame: a new array, one row per packet.

            types = batch.gather(12, ">u2")          # shape (len(batch),)
            addresses = batch.gather(0, ("u1", 6))   # shape (len(batch), 6)

        `dtype` gives the width of the field and its byte order. Bytes beyond the end of a
        frame read as zero. Raises ValueError when `offset` is negative or `dtype` holds
        Python objects.
        """
        try:
            field = self._fields.get(dtype)
        except TypeError:  # a list cannot be a key
            dtype = (self._numpy or self._open_columns()).dtype(dtype)
            field = self._fields.get(dtype)
        if field is None:
            field = self._fields[dtype] = self._open_field(dtype)
        rows, width, address = field
        if offset < 0:
            raise ValueError(f"the offset of a field must be at least 0, not {offset}")
        _columns(self._batch, offset, width, address, 0)
        if self._count < _FULL:
            rows = rows[: self._count]
        column: NDArray[Any] = rows.copy()
        return column

    def scatter(self, offset: int, values: ArrayLike) -> None:
        """Write one row of `values` to byte `offset` of every frame.

            batch.scatter(36, (ports + 1).astype(">u2"))

        The shape of `values` is (len(batch), …); its dtype gives the width and the byte order.
        NumPy's arithmetic returns the machine's byte order: convert it, as in the example.
        Bytes beyond the end of a frame are not written.

        Raises ValueError when the number of rows is not len(batch), `offset` is negative, or the
        dtype of `values` holds Python objects.
        """
        np = self._numpy or self._open_columns()
        rows = np.ascontiguousarray(values)
        if len(rows) != self._count or offset < 0:
            raise ValueError(
                f"scatter needs one row for each of the {self._count} packets and an offset of at "
                f"least 0, not values of shape {rows.shape} and offset {offset}"
            )
        if rows.dtype.hasobject:
            raise ValueError(f"the dtype of a field must not hold Python objects: {rows.dtype}")
        width = rows.nbytes // self._count
        _columns(self._batch, offset, width, ffi.from_buffer(rows), 1)

    def _column(self, name: str) -> NDArray[np.int64]:
        """A copy of one field of all references, as int64 so that arithmetic does not overflow. It
        is read-only: a value written to it would reach no packet."""
        np = self._numpy or self._open_columns()
        packets = self._columns[name]
        if self._count < _FULL:
            packets = packets[: self._count]
        column: NDArray[Any] = packets.astype(np.int64)
        column.setflags(write=False)  # `column.flags.writeable` takes longer
        return column

    def _open_field(self, dtype: DTypeLike) -> tuple[Any, int, Any]:
        """Memory for a field of 64 packets, which `gather` uses again for each batch: the rows, the
        bytes of a row, and the address as `void *`."""
        np = self._numpy or self._open_columns()
        rows = np.empty(_FULL, dtype)
        if rows.dtype.hasobject:
            raise ValueError(f"the dtype of a field must not hold Python objects: {rows.dtype}")
        return rows, rows.nbytes // _FULL, ffi.cast("void *", ffi.from_buffer(rows))

    def _open_columns(self) -> Any:
        """Import NumPy and make the arrays over the loop's memory; returns the module."""
        import numpy as np

        from ringline.workers.verdicts import Verdicts

        reference = np.dtype(
            [
                ("buffer", "<u4"),
                ("offset", "<u2"),
                ("length", "<u2"),
                ("rss_hash", "<u4"),
                ("vlan_tci", "<u2"),
                ("port", "u1"),
                ("flags", "u1"),
            ]
        )
        packets = np.frombuffer(ffi.buffer(self._loop.packets), reference)[:_FULL]
        self._columns = {name: packets[name] for name in reference.names or ()}
        verdicts: NDArray[Any] = np.frombuffer(ffi.buffer(self._loop.verdicts), np.int64)
        self._verdicts = verdicts.view(Verdicts)
        self._verdicts.plain = verdicts
        self._numpy = np
        return np
