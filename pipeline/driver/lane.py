"""The lane in Python: it is put together here and runs in C (lane.c, settle.c, balance.c).

Between two runs, and only then, Python may look at it and change it: attach the
rings of a new worker, count the books, stop receiving.
"""

from __future__ import annotations

from dataclasses import dataclass

from ringline.pipeline._pipeline import ffi, lib
from ringline.pipeline.ports.port import Port
from ringline.shm.clock import ticks, ticks_per_second
from ringline.shm.packets import DeviceAddresses, PacketMemory
from ringline.shm.rings import RingPair
from ringline.shm.segments import Segment

LINE_RATE = 14_880_952  # frames of 64 bytes a second on 10 Gbit/s, with preamble and gap
PAUSE_AFTER = 20e-6  # seconds without progress until passes end in longer pauses,
SLEEP_AFTER = 200e-6  # in sleep,
DEEP_AFTER = 0.1  # in deep sleep: a line-rate burst after so long may lose its first packets
WAKE_INTERVAL = 50e-6  # at most one wake-up of a worker in this time: each costs 9 us and more


@dataclass(frozen=True)
class Idle:
    """What the lane does when nothing comes.

    `adaptive` False spins for ever. `descriptors` is the shortest RX ring: no
    sleep is longer than it takes to fill at line rate, until DEEP_AFTER of silence
    allows `deep_sleep` seconds. `yielding`: the core is shared with a worker.
    """

    adaptive: bool = True
    yielding: bool = False
    descriptors: int = 512
    deep_sleep: float = 900e-6


@dataclass(frozen=True)
class Settlement:
    """What a dead worker's packets came to; see struct rl_settlement."""

    returned: int
    carried: int
    lost: int
    refused: int


class Lane:
    """One packet loop with its own free list, ledger, rings and counters.

    `books` is the segment `.lane.0`, `queues` the number of workers. All buffers of `packets`
    except the unusable ones start on the free list.
    """

    def __init__(
        self,
        books: Segment,
        packets: PacketMemory,
        addresses: DeviceAddresses,
        queues: int,
        idle: Idle,
    ) -> None:
        self._books_segment = books
        self._packets = packets
        self._rings: dict[int, RingPair] = {}
        self.ports: list[Port] = []
        second = ticks_per_second()
        self._books = ffi.cast("struct rl_lane_segment *", books.address)
        self._free = ffi.new("uint32_t[]", packets.buffers)
        starts = (packets.first_offset + n * packets.stride for n in range(packets.buffers))
        self._bus = ffi.new("uint64_t[]", [addresses.of(start) for start in starts])
        self._lane = ffi.new("struct rl_lane *")
        lane = self._lane
        lane.books = self._books
        lane.queues = queues
        for slot in lane.slots:
            slot.sampled = lib.RL_NO_BUFFER
        lane.adaptive = idle.adaptive
        lane.yielding = idle.yielding
        lane.sleep_ns = int(idle.descriptors / LINE_RATE / 2 * 1e9)  # waking takes the other half
        lane.deep_sleep_ns = int(idle.deep_sleep * 1e9)
        lane.pause_after = int(PAUSE_AFTER * second)
        lane.sleep_after = int(SLEEP_AFTER * second)
        lane.deep_after = int(DEEP_AFTER * second)
        lane.wake_interval = int(WAKE_INTERVAL * second)
        lane.ticks_per_64ns_shifted = max(1, int(second * 64e-9 * 65536))
        memory = lane.memory
        memory.base = ffi.cast("uint8_t *", packets.segment.address + packets.first_offset)
        memory.buffers = packets.buffers
        memory.stride = packets.stride
        memory.headroom = packets.headroom
        memory.bus = self._bus
        memory.free = self._free
        memory.ledger = ffi.cast("uint32_t *", books.address + self._books.ledger_offset)
        memory.books = self._books
        self._fill_free_list(set(addresses.unusable))

    def _fill_free_list(self, unusable: set[int]) -> None:
        memory = self._lane.memory
        # The last pushed is the first taken: start with the lowest index on top.
        for buffer in reversed(range(memory.buffers)):
            if buffer in unusable:
                memory.ledger[buffer] = lib.RL_LEDGER_UNUSABLE_WORD
            else:
                memory.ledger[buffer] = lib.RL_LEDGER_FREE_WORD
                memory.free[memory.free_count] = buffer
                memory.free_count += 1

    @property
    def memory(self) -> object:
        """The `struct rl_memory *` that ports are opened with."""
        return ffi.addressof(self._lane, "memory")

    def add_port(self, port: Port) -> None:
        """Poll `port` from the next run on; its index must be the next one."""
        lane = self._lane
        if port.index != lane.port_count:
            raise ValueError(f"port {port.name} has index {port.index}, next is {lane.port_count}")
        lane.ports[port.index] = port.c_port
        lane.port_count += 1
        if port.step is not None:
            function, context = port.step
            step = lane.steps[lane.step_count]
            step.step = ffi.cast("uint32_t (*)(void *)", function)
            step.context = ffi.cast("void *", context)
            lane.step_count += 1
        self.ports.append(port)

    def renew(
        self, queue: int, rings: RingPair | None, generation: int, blanks: int = 0
    ) -> Settlement:
        """Settle what `queue`'s worker held, if it had one, and attach the next.

        `rings` None: the queue has no worker from here, and what arrives for it
        is dropped as `no_worker`. The lane owns `rings` and closes them in time.
        """
        settled = ffi.new("struct rl_settlement *")
        fresh = ffi.NULL
        if rings is not None:
            fresh = ffi.cast("struct rl_rings_segment *", rings.segment.address)
        lib.rl_lane_renew(self._lane, queue, fresh, generation, settled)
        self._lane.slots[queue].blanks = blanks
        old = self._rings.pop(queue, None)
        if old is not None:
            old.close()
        if rings is not None:
            self._rings[queue] = rings
        return Settlement(settled.returned, settled.carried, settled.lost, settled.refused)

    def run(self, seconds: float) -> int:
        """Move packets for `seconds`, or until the supervisor asks for attention.

        Returns how many were moved: with 0, a whole pass found nothing.
        """
        moved: int = lib.rl_lane_run(self._lane, ticks() + int(seconds * ticks_per_second()))
        return moved

    @property
    def receiving(self) -> bool:
        """Whether packets are taken from the cards."""
        return bool(self._lane.receiving)

    @receiving.setter
    def receiving(self, on: bool) -> None:
        self._lane.receiving = on

    @property
    def moving(self) -> bool:
        """Whether the last pass moved anything."""
        return bool(self._lane.moved)

    @property
    def in_flight(self) -> int:
        """Packets with workers and on TX descriptor rings, by the ledger; no blanks in hand."""
        count: int = lib.rl_lane_in_flight(self._lane)
        return count

    def balance(self, *, complete: bool = False) -> None:
        """Count the books and publish the balances in the lane's segment.

        `complete` adds the full scan: every buffer index must be found exactly
        once on the free list, a descriptor ring, or with a worker.
        """
        posted = ffi.new("uint32_t[]", lib.RL_PORTS_MAX)
        for port in self.ports:
            posted[port.index] = sum(port.posted())
        seen = ffi.NULL
        if complete:
            seen = ffi.new("uint8_t[]", self._packets.buffers)
            for port in self.ports:
                port.scan(seen)
        lib.rl_lane_balance(self._lane, posted, seen)

    def close(self) -> None:
        """Let go of the rings. Ports are closed by whoever opened them."""
        for rings in self._rings.values():
            rings.close()
        self._rings.clear()
