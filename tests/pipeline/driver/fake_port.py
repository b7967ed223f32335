"""A port without a card. The test sets what it receives and how much it can send."""

from __future__ import annotations

from collections import deque

from ringline.pipeline._pipeline import ffi, lib
from ringline.pipeline.ports.port import Link, Port

BLANK = 255  # input port of a blank


class FakePort(Port):
    """Receives what the test gave to `arrive`; sends up to `tx_room` packets.

    `reclaim` completes all sent packets while `completing` is true. Follows the rules
    of pipeline/ports/port.h; its descriptor rings are Python lists.
    """

    def __init__(self, index: int, queues: int) -> None:
        self.name = f"fake{index}"
        self.index = index
        self.queue_pairs = queues
        self.step = None
        self.arrived: list[deque[int]] = [deque() for _ in range(queues)]  # frame lengths
        self.on_tx: list[list[int]] = [[] for _ in range(queues)]  # buffers, by queue
        self.sent: list[tuple[int, int, int]] = []  # buffer, offset, length, in order
        self.tx_room = 1 << 30
        self.strange: list[int] = []  # queues that the port does not have and the lane named
        self._callbacks = (
            ffi.callback("uint32_t(struct rl_port *, uint32_t, struct rl_reference *, uint32_t)")(
                self._rx_burst
            ),
            ffi.callback(
                "uint32_t(struct rl_port *, uint32_t, const struct rl_reference *, uint32_t)"
            )(self._tx_burst),
            ffi.callback("uint32_t(struct rl_port *, uint32_t)")(self._reclaim),
        )
        self.c_port = ffi.new("struct rl_port *")
        self.c_port.rx_burst, self.c_port.tx_burst, self.c_port.reclaim = self._callbacks
        self.c_port.index = index
        self.c_port.queue_pairs = queues
        self.c_port.ready = 1
        self.completing = True
        self.room_returns = 0  # what each `reclaim` adds to `tx_room`

    def open(self, memory, descriptors, addresses) -> None:
        self.c_port.memory = memory

    def arrive(self, queue: int, count: int, length: int = 64) -> None:
        self.arrived[queue].extend([length] * count)

    def _known(self, queue: int) -> int:
        if queue >= self.queue_pairs:
            self.strange.append(queue)
        return queue % self.queue_pairs

    def _rx_burst(self, port, queue, refs, n) -> int:
        memory = port.memory
        queue = self._known(queue)
        taken = 0
        while taken < n and self.arrived[queue] and memory.free_count:
            memory.free_count -= 1
            refs[taken] = {
                "buffer": memory.free[memory.free_count],
                "offset": memory.headroom,
                "length": self.arrived[queue].popleft(),
                "port": self.index,
            }
            taken += 1
        return taken

    def _tx_burst(self, port, queue, refs, n) -> int:
        n = min(n, self.tx_room)
        queue = self._known(queue)
        self.tx_room -= n
        for i in range(n):
            self.sent.append((refs[i].buffer, refs[i].offset, refs[i].length))
            self.on_tx[queue].append(refs[i].buffer)
        return n

    def _reclaim(self, port, queue) -> int:
        queue = self._known(queue)
        self.tx_room += self.room_returns
        if not self.completing or not self.on_tx[queue]:
            return 0
        done, self.on_tx[queue] = self.on_tx[queue], []
        memory, books = port.memory, port.memory.books
        for buffer in done:
            word = memory.ledger[buffer]
            input_port, input_queue = word & 0xFF, word >> 8 & 0xFF
            if input_port == BLANK:
                books.slots[input_queue].blanks_transmitted += 1
            else:
                books.queues[input_port * lib.RL_QUEUES_MAX + input_queue].transmitted += 1
            books.queues[self.index * lib.RL_QUEUES_MAX + queue].tx_packets += 1
            memory.ledger[buffer] = lib.RL_LEDGER_FREE_WORD
            memory.free[memory.free_count] = buffer
            memory.free_count += 1
        return len(done)

    def posted(self) -> tuple[int, int]:
        return 0, sum(map(len, self.on_tx))

    def scan(self, seen) -> None:
        for buffers in self.on_tx:
            for buffer in buffers:
                seen[buffer] += 1

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def close(self) -> None: ...
    def stop_receiving(self) -> None: ...
    def link(self) -> Link:
        return Link(True, 10_000)

    def statistics(self) -> dict[str, int]:
        return {}
