"""Python interface of the device model: registers, wire, record, faults.

The model itself is C; sim82599.h lists what it models and what it does not. It includes a wire:
frames that arrive come from a `FrameTable`; frames that leave are counted and, on request,
recorded to a pcap file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ringline.pipeline._pipeline import ffi, lib
from ringline.pipeline.ports.sim82599.transits import Transits
from ringline.shm.errors import Bug, reason_of
from ringline.workers.captures import headers
from ringline.workers.captures.captures import CaptureError

if TYPE_CHECKING:
    from array import array
    from types import TracebackType

BAR_BYTES: int = lib.RL_SIM_BAR_BYTES
DEFECTS: dict[str, int] = {
    "eeprom": lib.RL_SIM_BROKEN_EEPROM,
    "link": lib.RL_SIM_BROKEN_LINK,
    "stop": lib.RL_SIM_BROKEN_STOP,
}


class Frames(Protocol):
    """The frames that arrive on a wire; see `FrameTable` for the fields."""

    @property
    def data(self) -> bytes: ...
    @property
    def offsets(self) -> array[int]: ...
    @property
    def lengths(self) -> array[int]: ...
    @property
    def order(self) -> array[int]: ...
    @property
    def total(self) -> int: ...


class Arrivals(Protocol):
    """When they arrive; see `Timing` for the fields."""

    @property
    def stamps(self) -> array[int]: ...
    @property
    def due(self) -> array[int]: ...
    @property
    def pace(self) -> float: ...
    @property
    def period(self) -> int: ...


class TimedFrames(Frames, Protocol):
    """Frames that may have times, and may be followed by others; see `FrameTable`."""

    @property
    def timing(self) -> Arrivals | None: ...
    @property
    def more(self) -> Callable[[], TimedFrames | None] | None: ...


class Sim82599:
    """A simulated 82599. A context manager; `close` flushes the record.

    `mac` is its address, six bytes, which a reset puts into RAL and RAH. With `left_running` the
    card is in the state in which a previous owner left it, running, and must be reset; otherwise it
    was just powered on.
    With `foreign` the faults are only what the card refuses; else also what a driver of ringline
    should not do. With `backplane` the link is negotiated over a backplane.
    `broken` are the defects of the card, words of DEFECTS.
    `card` is cdata `struct rl_sim_card *`, the part that other processes may read: zeroed memory
    of a segment that stays mapped until `close`. With None the model allocates it.
    """

    read_clears = True

    def __init__(
        self,
        mac: bytes = bytes.fromhex("020000000001"),
        *,
        left_running: bool = True,
        foreign: bool = False,
        backplane: bool = False,
        broken: Sequence[str] = (),
        card: Any = None,
    ) -> None:
        config = ffi.new("struct rl_sim_config *")
        config.mac = mac
        config.left_running = left_running
        config.foreign, config.backplane = foreign, backplane
        for part in broken:
            config.broken |= DEFECTS[part]
        config.card = ffi.NULL if card is None else card
        self._sim = lib.rl_sim_new(config)
        if self._sim == ffi.NULL:
            raise MemoryError
        self.card = lib.rl_sim_card(self._sim)
        self._record_path = ""
        self._record_fd = -1
        self._transits: Transits | None = None  # C writes to its memory
        self._more: Callable[[], TimedFrames | None] | None = None
        self._handle: Any = None  # of this object, for C
        self.bad_input: str | None = None  # why no more frames arrive, as a sentence

    # -- card -----------------------------------------------------------------------------

    def map_window(self, bus: int, address: int, size: int) -> None:
        """Map bus addresses `bus` to `bus + size` to the memory at `address`, for DMA.

        Raises `ValueError` when some of them are mapped already, or there are none.
        """
        error = lib.rl_sim_map(self._open(), bus, ffi.cast("void *", address), size)
        if error == -1:
            raise MemoryError
        if error:
            raise ValueError(f"bus addresses from 0x{bus:x} on, {size} bytes: empty, or in use")

    def unmap_window(self, bus: int, size: int) -> None:
        """Unmap all that is mapped of the bus addresses `bus` to `bus + size`."""
        if lib.rl_sim_unmap(self._open(), bus, size) != 0:
            raise MemoryError

    def vector(self, number: int, fd: int) -> None:
        """Let the messages of MSI-X vector `number` go to the eventfd `fd`; -1: nowhere."""
        lib.rl_sim_vector(self._open(), number, fd)

    def function_reset(self) -> None:
        """Set the card to the state after power-on."""
        lib.rl_sim_function_reset(self._open())

    def idle_seconds(self) -> float:
        """How long the card has nothing to do if nothing happens."""
        return min(int(lib.rl_sim_due(self._open())) / 1e9, 3600.0)

    def bus_master(self, on: bool) -> None:
        """Set the bus master bit of the PCI command register; without it the card does no DMA."""
        lib.rl_sim_bus_master(self._open(), on)

    def read32(self, address: int) -> int:
        """Read a register, with the side effects of a read."""
        return int(lib.rl_sim_read(self._open(), address))

    def write32(self, address: int, value: int) -> None:
        """Write a register, with the side effects of a write."""
        lib.rl_sim_write(self._open(), address, value)

    def pointer(self, address: int) -> Any:
        """A tail register, RDT or TDT, as cdata `volatile uint32_t *` for direct writes."""
        tail = lib.rl_sim_tail(self._open(), address)
        if tail == ffi.NULL:
            raise Bug(f"register 0x{address:05x} is not a tail")
        return tail

    def relax(self) -> None:
        """Wait a moment: one step of the model."""
        self.step()

    def step(self) -> int:
        """Let the card work for a while; returns the number of frames and descriptors moved."""
        return int(lib.rl_sim_step(self._open()))

    @property
    def step_function(self) -> tuple[int, int]:
        """`step` for C: the addresses of the function and of its context."""
        function = ffi.addressof(lib, "rl_sim_step")
        return int(ffi.cast("uintptr_t", function)), int(ffi.cast("uintptr_t", self._open()))

    def run(self, seconds: float) -> int:
        """Step and answer the mailbox for `seconds`; returns the number of frames and descriptors
        moved and of requests answered."""
        return int(lib.rl_sim_run(self._open(), int(seconds * 1e9)))

    # -- wire -----------------------------------------------------------------------------

    def load(self, table: Frames | TimedFrames, rate_mpps: float = 0.0) -> None:
        """Let the frames of `table` arrive, from the first on. The frames are copied.

        `rate_mpps` is the rate in millions of packets per second; 0 is closed loop: the wire waits
        for room. The times of `table`, if it has them, come before a rate. When frames that
        follow cannot be read, the wire ends, and `bad_input` says why.

        Raises `MemoryError`, and `Bug` for an inconsistent table.
        """
        source, kept = _source(table)
        source.total, source.rate = table.total, rate_mpps * 1e6
        self._more = getattr(table, "more", None)
        if self._more is not None:
            self._handle = ffi.new_handle(self)
            source.more, source.context = lib.rl_sim_more, self._handle
        self._check_source(lib.rl_sim_source(self._open(), source))
        del kept

    def continue_wire(self) -> None:
        """Give the model the frames that follow, if there are any; for the model itself."""
        try:
            table = None if self._more is None else self._more()
            if table is not None:
                source, kept = _source(table)
                self._check_source(lib.rl_sim_continue(self._open(), source))
                del kept
        except CaptureError as error:
            self.bad_input = str(error)

    @staticmethod
    def _check_source(error: int) -> None:
        if error == -1:
            raise MemoryError
        if error:
            raise Bug("the frame table has no frames, or indices beyond its end")

    def live(self, fd: int, peer: bytes = b"") -> None:
        """Let frames come from `fd` and go there: a TAP, or a datagram socket that sends to the
        socket address `peer`, a struct sockaddr. It does not block, and stays open until `close`.
        """
        if lib.rl_sim_live(self._open(), fd, peer, len(peer)) != 0:
            raise MemoryError

    @property
    def waits_for_descriptor(self) -> bool:
        """Whether a frame of the live wire waits at the card, so that it reads no other."""
        return bool(lib.rl_sim_is_waiting(self._open()))

    def record(self, path: str) -> None:
        """Record transmitted frames to the file `path`, from now on.

        Raises `CaptureError` when the file cannot be written.
        """
        if self._record_fd >= 0:
            raise Bug(f"already recording to {self._record_path}")
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise CaptureError(
                f"{path}: cannot be written for recording: {reason_of(error)}"
            ) from None
        self._record_fd, self._record_path = fd, path
        if lib.rl_sim_record(self._open(), fd) != 0:
            raise MemoryError
        self.flush()

    def flush(self) -> None:
        """Write buffered frames of the record to the file."""
        lib.rl_sim_record_flush(self._open())

    @property
    def record_error(self) -> str | None:
        """Why recording stopped early, as a sentence; None when it did not."""
        return record_error(self.card, self._record_path)

    def measure_transits(self) -> Transits:
        """Measure from now on how long frames of an open-loop wire are under way, until they leave.
        Call it after the last `map_window`."""
        self._transits = Transits()
        if lib.rl_sim_measure_transits(self._open(), self._transits.memory) != 0:
            raise MemoryError
        return self._transits

    @property
    def finished(self) -> bool:
        """True once a finite source has sent its last frame and the card has delivered or dropped
        it."""
        lib.rl_sim_publish(self._open())
        return bool(self.card.wire.finished)

    def wire(self) -> dict[str, int]:
        """The counters of `struct rl_sim_wire`, by name. Bytes are without CRC."""
        self.publish()
        return wire_counters(self.card)

    def publish(self) -> Any:
        """Bring the counters up to date; the cdata `struct rl_sim_wire`."""
        lib.rl_sim_publish(self._open())
        return self.card.wire

    def faults(self) -> list[str]:
        """The last 64 faults as sentences, oldest first; empty for a correct driver."""
        return faults(self.card)

    def fault_counts(self) -> dict[str, int]:
        """Number of faults by kind; kinds without faults are left out."""
        return fault_counts(self.card)

    # -- life cycle ---------------------------------------------------------------------------

    def close(self) -> None:
        """Flush the record and free everything. May be called again."""
        sim, self._sim = self._sim, ffi.NULL
        if sim == ffi.NULL:
            return
        self._more = self._handle = None
        lib.rl_sim_free(sim)
        self.card = ffi.NULL
        if self._record_fd >= 0:
            os.close(self._record_fd)
            self._record_fd = -1

    def _open(self) -> Any:
        if self._sim == ffi.NULL:
            raise Bug("a simulated 82599 was used after close")
        return self._sim

    def __enter__(self) -> Sim82599:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@ffi.def_extern()
def rl_sim_more(context: Any) -> None:
    """The frames at hand have been sent (struct rl_sim_source)."""
    sim: Sim82599 = ffi.from_handle(context)
    sim.continue_wire()


def _source(table: Frames | TimedFrames) -> tuple[Any, list[Any]]:
    """A cdata `struct rl_sim_source *` for `table`, and what must live as long."""
    source = ffi.new("struct rl_sim_source *")
    data = ffi.from_buffer("uint8_t[]", table.data)
    offsets = ffi.from_buffer("uint64_t[]", table.offsets)
    lengths = ffi.from_buffer("uint32_t[]", table.lengths)
    order = ffi.from_buffer("uint32_t[]", table.order)
    source.data, source.data_bytes = data, len(table.data)
    source.offsets, source.lengths, source.frames = offsets, lengths, len(table.lengths)
    source.order, source.order_length = order, len(table.order)
    kept = [data, offsets, lengths, order]
    timing: Arrivals | None = getattr(table, "timing", None)
    if timing is not None:
        stamps = ffi.from_buffer("int64_t[]", timing.stamps)
        due = ffi.from_buffer("uint64_t[]", timing.due)
        source.stamps, source.due = stamps, due
        source.pace, source.period = timing.pace, timing.period
        kept += [stamps, due]
    return source, kept


# The functions below also read cards whose model runs in another process.


def faults(card: Any) -> list[str]:
    """The last faults of `card`, cdata `struct rl_sim_card *`, as sentences, oldest first."""
    made = card.fault_next
    sentences = []
    for number in range(max(0, made - lib.RL_SIM_FAULTS), made):
        fault = card.faults[number % lib.RL_SIM_FAULTS]
        text = ffi.string(fault.text).decode(errors="replace")
        sentences.append(text if fault.times == 1 else f"{text} ({fault.times} times)")
    return sentences


def fault_counts(card: Any) -> dict[str, int]:
    """Number of faults of `card` by kind; kinds without faults are left out."""
    return {
        ffi.string(lib.rl_sim_fault_name(kind)).decode(): card.fault_kinds[kind]
        for kind in range(lib.RL_SIM_FAULT_KINDS)
        if card.fault_kinds[kind]
    }


def wire_counters(card: Any) -> dict[str, int]:
    """The counters of `struct rl_sim_wire`, without those per queue, by name."""
    return {
        name: getattr(card.wire, name)
        for name, field in ffi.typeof("struct rl_sim_wire").fields
        if field.type.kind == "primitive"
    }


def record_error(card: Any, path: str) -> str | None:
    """Why the recording of `card` to `path` stopped early, as a sentence; None when it did not."""
    number = card.wire.record_error
    if not number:
        return None
    return (
        f"{path}: recording ended after {card.wire.recorded} of {card.wire.transmitted} frames: "
        f"{os.strerror(number)}; make room, or record elsewhere"
    )


def toeplitz(key: headers.Bytes, data: headers.Bytes) -> int:
    """The model's Toeplitz hash of at most 36 bytes of `data`, with a key of 40 bytes."""
    if len(key) != 40 or len(data) > 36:
        raise Bug("a Toeplitz key has 40 bytes, its input at most 36")
    return int(lib.rl_sim_toeplitz(bytes(key), bytes(data), len(data)))
