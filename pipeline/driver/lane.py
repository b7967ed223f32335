"""The Python side of the lane. Python builds it; it runs in C (lane.c, settle.c, balance.c).

Only between two calls of `run` may Python read or change it: attach the rings of a new worker,
count the books, stop receiving.
"""

from __future__ import annotations

from dataclasses import dataclass

from ringline.pipeline._pipeline import ffi, lib
from ringline.pipeline.ports.port import Port
from ringline.shm._shm import lib as shm
from ringline.shm.clock import ticks, ticks_per_second, wall_offset
from ringline.shm.packets import DeviceAddresses, PacketMemory
from ringline.shm.rings import RingPair
from ringline.shm.segments import Segment

LINE_RATE = 14_880_952  # frames of 64 bytes per second at 10 Gbit/s, with preamble and gap
PAUSE_AFTER = 20e-6  # seconds without progress before passes end in longer pauses
SLEEP_AFTER = 200e-6  # seconds without progress before passes end in sleep
# Seconds without progress before passes end in deep sleep. A burst at line rate may then lose its
# first packets.
DEEP_AFTER = 0.1
# Nanoseconds: packet times follow a clock of the machine that was set forward by at least this.
CLOCK_STEP = 1_000_000
WAKE_INTERVAL = 50e-6  # seconds between two wake-ups of a worker: each costs 9 us or more


@dataclass(frozen=True)
class Idle:
    """What the lane does when no traffic arrives.

    `adaptive` False: it spins and never sleeps. `descriptors` is the length of the shortest RX
    ring: a sleep lasts half the time that this ring takes to fill at line rate. After DEEP_AFTER
    without progress it lasts `deep_sleep` seconds, if that is longer, or until the next frame when
    all cards can wake the lane. `yielding`: the core is
    shared with another process.
    """

    adaptive: bool = True
    yielding: bool = False
    descriptors: int = 512
    deep_sleep: float = 900e-6


@dataclass(frozen=True)
class Settlement:
    """How many references of a dead worker ended in which way: see struct rl_settlement."""

    returned: int
    carried: int
    lost: int
    refused: int


class Lane:
    """The packet loop with its free list, ledger, rings and counters.

    `books` is the segment `.lane.0`, `queues` the number of workers. At the start the free list
    has all buffers of `packets` except the unusable ones. `calls` is a descriptor that becomes
    readable when `run` shall end early; -1: none.
    """

    def __init__(
        self,
        books: Segment,
        packets: PacketMemory,
        addresses: DeviceAddresses,
        queues: int,
        idle: Idle,
        calls: int = -1,
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
        lane.calls = calls
        for slot in lane.slots:
            slot.sampled = lib.RL_NO_BUFFER
        lane.adaptive = idle.adaptive
        lane.yielding = idle.yielding
        # Half the time to fill the ring: the other half is for waking up.
        lane.sleep_ns = int(idle.descriptors / LINE_RATE / 2 * 1e9)
        lane.deep_sleep_ns = int(idle.deep_sleep * 1e9)
        lane.pause_after = int(PAUSE_AFTER * second)
        lane.sleep_after = int(SLEEP_AFTER * second)
        lane.deep_after = int(DEEP_AFTER * second)
        lane.wake_interval = int(WAKE_INTERVAL * second)
        # A queue may rest as long as the lane may sleep. One that spins serves all queues always.
        lane.rest = int(lane.sleep_ns * 1e-9 * second) if idle.adaptive else 0
        lane.ticks_per_64ns_shifted = max(1, int(second * 64e-9 * 65536))
        lane.clock_offset = wall_offset()
        memory = lane.memory
        memory.base = ffi.cast("uint8_t *", packets.segment.address + packets.first_offset)
        memory.buffers = packets.buffers
        memory.stride = packets.stride
        memory.room = packets.room
        memory.frame_max = shm.RL_FRAME_MAX  # until add_port
        memory.headroom = packets.headroom
        memory.bus = self._bus
        memory.free = self._free
        memory.ledger = ffi.cast("uint32_t *", books.address + self._books.ledger_offset)
        memory.books = self._books
        self._fill_free_list(set(addresses.unusable))

    def _fill_free_list(self, unusable: set[int]) -> None:
        memory = self._lane.memory
        # The list is a stack: the lowest index is pushed last, so it is taken first.
        for buffer in reversed(range(memory.buffers)):
            if buffer % self._packets.units or buffer in unusable:
                memory.ledger[buffer] = lib.RL_LEDGER_UNUSABLE_WORD
            else:
                memory.ledger[buffer] = lib.RL_LEDGER_FREE_WORD
                memory.free[memory.free_count] = buffer
                memory.free_count += 1

    @property
    def memory(self) -> object:
        """The `struct rl_memory *` that `Port.open` needs."""
        return ffi.addressof(self._lane, "memory")

    def add_port(self, port: Port) -> None:
        """Poll `port` from the next run on. Its index must be the number of ports before it."""
        lane = self._lane
        if port.index != lane.port_count:
            raise ValueError(
                f"the index of port {port.name} must be {lane.port_count}, not {port.index}"
            )
        port.c_port.frame_max = port.frame_max
        lane.memory.frame_max = max(lane.memory.frame_max, port.frame_max)
        lane.ports[port.index] = port.c_port
        lane.port_count += 1
        if port.step is not None:
            self.add_step(*port.step)
        self.ports.append(port)

    def add_step(self, function: int, context: int) -> None:
        """Call `function` with `context` once in each pass, before the queues are served. Both are
        addresses; see struct rl_step. The lane counts its time as that of device models."""
        lane = self._lane
        step = lane.steps[lane.step_count]
        step.step = ffi.cast("uint32_t (*)(void *)", function)
        step.context = ffi.cast("void *", context)
        lane.step_count += 1

    def renew(
        self, queue: int, rings: RingPair | None, generation: int, blanks: int = 0
    ) -> Settlement:
        """Settle the buffers of the queue's dead worker, if it had one, and attach the next worker.

        `blanks` is the number of blanks that the next worker holds. `rings` None: the queue has no
        worker from now on, and its packets are dropped as `no_worker`. The lane owns `rings`: it
        closes them at the next `renew` of the queue, or in `close`.
        """
        settled = ffi.new("struct rl_settlement *")
        fresh = ffi.NULL
        if rings is not None:
            rings.times.offset = self._lane.clock_offset
            rings.times.engines = sum(1 << each.index for each in self.ports if each.checksums)
            rings.times.stamped = any(
                port.c_port.stamps != ffi.NULL and not port.live_stamps for port in self.ports
            )
            fresh = ffi.cast("struct rl_rings_segment *", rings.segment.address)
        lib.rl_lane_renew(self._lane, queue, fresh, generation, settled)
        self._lane.slots[queue].blanks = blanks
        old = self._rings.pop(queue, None)
        if old is not None:
            old.close()
        if rings is not None:
            self._rings[queue] = rings
        return Settlement(settled.returned, settled.carried, settled.lost, settled.refused)

    def follow_clock(self) -> None:
        """Let packet times follow the clock of the machine when it was set forward, by at least
        CLOCK_STEP. When it was set back, they stay ahead of it: they never run back."""
        offset = wall_offset()
        if offset - self._lane.clock_offset < CLOCK_STEP:
            return
        self._lane.clock_offset = offset
        for rings in self._rings.values():
            rings.times.offset = offset

    def run(self, seconds: float) -> int:
        """Move packets for `seconds`, or until the supervisor increments `request` in the books.

        Runs at least one pass. Returns how many packets moved: 0 means that no pass found any.
        """
        if self._lane.progress_at == 0:  # the first run
            self._lane.progress_at = ticks()
            shm.rl_sleep_exactly()
        moved: int = lib.rl_lane_run(self._lane, ticks() + int(seconds * ticks_per_second()))
        return moved

    @property
    def receiving(self) -> bool:
        """Whether the lane takes packets from the cards."""
        return bool(self._lane.receiving)

    @receiving.setter
    def receiving(self, on: bool) -> None:
        self._lane.receiving = on

    @property
    def moving(self) -> bool:
        """Whether the last pass moved a packet."""
        return bool(self._lane.moved)

    @property
    def in_flight(self) -> int:
        """Packets that workers hold or TX rings contain, by the ledger. Blanks that workers hold
        do not count."""
        count: int = lib.rl_lane_in_flight(self._lane)
        return count

    def balance(self, *, complete: bool = False) -> None:
        """Count the books and publish the balances in the lane's segment.

        `complete` adds a full scan: every buffer must be found exactly once, on the free list, on
        a descriptor ring, with a worker, or unusable.
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
        """Close the rings. The caller closes the ports."""
        for rings in self._rings.values():
            rings.close()
        self._rings.clear()
