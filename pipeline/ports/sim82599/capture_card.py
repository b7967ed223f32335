"""What simulated cards and their driver make of the frames of captures, for `ringline try` and
`ringline rss`.

The frames go the way of a run: through the wire, the device model and the receive burst of the
driver. So padding, size limits, RSS hash, checksum flags and VLAN stripping are those of a run,
by the same code. All memory is private, and no other process takes part.
"""

from __future__ import annotations

import heapq
import itertools
import mmap
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

from ringline.pipeline._pipeline import ffi, lib
from ringline.pipeline.configuration.config import PortConfig
from ringline.pipeline.ports.sim82599.port import Sim82599Port
from ringline.pipeline.ports.sim82599.wire import table_of
from ringline.shm.errors import Bug
from ringline.shm.frames import units_for
from ringline.shm.packets import DESCRIPTORS_BASE, PACKETS_BASE, DescriptorMemory, DeviceAddresses
from ringline.workers.captures.captures import CaptureError, CaptureReader, Frame
from ringline.workers.trials.arrivals import Arrived

CHUNK: int = lib.RL_BATCH_MAX
RX_DESCRIPTORS = 2 * CHUNK  # of each queue
SPARE_BUFFERS = 2 * CHUNK  # beside those in RX descriptors
DESCRIPTOR_BYTES = 1 << 16
STEPS_MAX = 1000  # of the model for one chunk; more means that it does not come to an end


class CaptureCard:
    """The frames of a capture as the card of the port `config` delivers them, with one queue.

    Iterate over it once. `port` is the index of the port; `too_long` counts the frames that the
    card has dropped so far: it has jumbo frames off.
    """

    def __init__(self, reader: CaptureReader, config: PortConfig, port: int = 0) -> None:
        self.too_long = 0
        self.received = 0
        self.port = port
        self.reader = reader
        self._config = config

    @property
    def paths(self) -> Mapping[int, str]:
        """See `Source`."""
        return {self.port: self.reader.tally.path}

    @property
    def share(self) -> float:
        """See `Source`."""
        return self.reader.share

    def __iter__(self) -> Iterator[Arrived]:
        frames = iter(self.reader)
        damage: CaptureError | None = None
        with _Receiver(replace(self._config, queues=1)) as receiver:
            while damage is None:
                chunk: list[Frame] = []
                try:
                    chunk.extend(itertools.islice(frames, CHUNK))
                except CaptureError as error:  # it comes after the frames before the damage
                    damage = error
                if not chunk:
                    break
                yield from self._deliver(receiver, chunk)
        if damage is not None:
            raise damage

    def _deliver(self, receiver: _Receiver, chunk: Sequence[Frame]) -> Iterator[Arrived]:
        received = receiver.receive([frame.data for frame in chunk])
        each: list[Received | None] = [*received]
        if len(received) < len(chunk):  # which ones the card dropped, it does not say
            each = [next(iter(receiver.receive([frame.data])), None) for frame in chunk]
        for frame, fields in zip(chunk, each, strict=True):
            if fields is None:
                self.too_long += 1
            else:
                self.received += 1
                yield Arrived(frame.number, frame.nanoseconds, self.port, *fields[1:])


class CaptureCards:
    """The frames of several captures, each at a card of its own, in the order of their times. Of
    equal times, the frame of the first card comes first. Iterate over it once."""

    def __init__(self, cards: Sequence[CaptureCard]) -> None:
        self._cards = cards

    @property
    def too_long(self) -> int:
        """See `Source`."""
        return sum(card.too_long for card in self._cards)

    @property
    def paths(self) -> Mapping[int, str]:
        """See `Source`."""
        return {card.port: card.reader.tally.path for card in self._cards}

    @property
    def share(self) -> float:
        """See `Source`."""
        return sum(card.share for card in self._cards) / len(self._cards)

    def __iter__(self) -> Iterator[Arrived]:
        return heapq.merge(*self._cards, key=lambda arrived: arrived.nanoseconds)


class Received(NamedTuple):
    """A frame that the card delivered: to which queue, and what the driver's receive burst tells.

    flags: as in a reference (RL_FLAG_*). data: the bytes of the frame.
    """

    queue: int
    rss_hash: int
    vlan_tci: int
    flags: int
    data: bytes


def deliver(frames: Iterable[bytes | memoryview], config: PortConfig) -> Iterator[list[Received]]:
    """What the card of the port `config` delivers of `frames`: one list for each CHUNK of them.
    Frames that are too long are missing. Within a list, the frames of one queue are in order."""
    rest = iter(frames)
    with _Receiver(config) as receiver:
        while chunk := list(itertools.islice(rest, CHUNK)):
            yield receiver.receive(chunk)


class _Receiver:
    """A port of a simulated card on private memory; a context manager."""

    def __init__(self, config: PortConfig) -> None:
        config = replace(
            config, rx_descriptors=RX_DESCRIPTORS, tx_descriptors=CHUNK, wire=None, process=False
        )
        self._queues = config.queues
        buffers = config.queues * RX_DESCRIPTORS + SPARE_BUFFERS
        units = units_for(config.frame_max)
        self._port = Sim82599Port(config, 0, Path("/nonexistent"))
        stride = int(lib.RL_BUFFER_STRIDE)
        self._buffers = mmap.mmap(-1, buffers * units * stride, mmap.MAP_PRIVATE)
        self._view = memoryview(self._buffers)
        # What nothing refers to is freed, whatever C still points to.
        self._descriptors = _Descriptors()
        self._books = ffi.new("struct rl_lane_segment *")
        self._ledger = ffi.new("uint32_t[]", buffers * units)
        places = [PACKETS_BASE + n * stride for n in range(buffers * units)]
        self._bus = ffi.new("uint64_t[]", places)
        self._free = ffi.new("uint32_t[]", list(range(0, buffers * units, units)))
        self._references = ffi.new("struct rl_reference[]", CHUNK)
        self._memory = memory = ffi.new("struct rl_memory *")
        memory.base = ffi.cast("uint8_t *", ffi.from_buffer(self._buffers))
        memory.buffers, memory.stride, memory.room = buffers * units, stride, units * stride
        memory.headroom, memory.frame_max = lib.RL_BUFFER_HEADROOM, config.frame_max
        memory.bus, memory.ledger, memory.books = self._bus, self._ledger, self._books
        memory.free, memory.free_count = self._free, buffers

    def __enter__(self) -> _Receiver:
        rings = cast(DescriptorMemory, self._descriptors)
        self._port.open(self._memory, rings, DeviceAddresses(63, [DESCRIPTORS_BASE], []))
        self._port.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._port.close()

    def receive(self, frames: Sequence[bytes | memoryview]) -> list[Received]:
        """What arrives of `frames`, at most CHUNK of them, in order."""
        self._port.replay(table_of(frames, array("I", range(len(frames))), len(frames)))
        received: list[Received] = []
        for _ in range(STEPS_MAX):
            moved = self._port.step_once()
            before = len(received)
            for queue in range(self._queues):
                count = self._port.c_port.rx_burst(
                    self._port.c_port, queue, self._references, CHUNK
                )
                received += [self._take(queue, self._references[n]) for n in range(count)]
            taken = len(received) - before
            if not moved and not taken and self._port.wire_finished():
                return received
        raise Bug(f"a simulated card did not deliver {len(frames)} frames in {STEPS_MAX} steps")

    def _take(self, queue: int, reference: Any) -> Received:
        """Copy a packet, and free its buffer."""
        memory = self._memory
        start = reference.buffer * memory.stride + reference.offset
        memory.ledger[reference.buffer] = lib.RL_LEDGER_FREE_WORD
        memory.free[memory.free_count] = reference.buffer
        memory.free_count += 1
        data = bytes(self._view[start : start + reference.length])
        return Received(queue, reference.rss_hash, reference.vlan_tci, reference.flags, data)


class _Descriptors:
    """Descriptor memory in this process alone: the part of DescriptorMemory that a port uses."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, DESCRIPTOR_BYTES, mmap.MAP_PRIVATE)
        address = int(ffi.cast("uintptr_t", ffi.from_buffer(self._memory)))
        self.segment = SimpleNamespace(address=address, size=DESCRIPTOR_BYTES)
        self._next = 0

    def allocate(self, size: int, align: int = 128) -> tuple[int, int]:
        offset = -(-self._next // align) * align
        self._next = offset + size
        return self.segment.address + offset, offset
