"""An instance with all its segments but no process: a test writes the counters itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from select import select

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from ringline.pipeline.configuration.config import Config, MetricsConfig, PortConfig, WorkerConfig
from ringline.pipeline.supervisor.instance import Instance
from ringline.pipeline.telemetry.metrics import RinglineCollector
from ringline.pipeline.telemetry.observe import Sources, take
from ringline.pipeline.telemetry.server import Server
from ringline.pipeline.telemetry.snapshot import Snapshot
from ringline.shm import counters
from ringline.workers.worker import Worker


class Idle:
    """`sources` is what `take` reads; a real supervisor keeps it up to date."""

    def __init__(self, instance: Instance, config: Config) -> None:
        self.instance = instance
        self.books = instance.books
        self.sources = Sources.of(config, instance.lane, instance.slots)
        self.sources.state = "running"
        for source in self.sources.workers:
            source.rings = instance.new_rings(source.queue, 1)
            source.state, source.up, source.generation, source.pid = "running", True, 1, 4711

    def take(self) -> Snapshot:
        return take(self.sources)

    def plugin(self, queue: int) -> Worker:
        """The `Worker` of this queue, as its plugin gets it."""
        return Worker(self.instance.slots[queue], queue=queue, ports=["wan"], options={})

    def count(self, scale: int = 1) -> None:
        """Give every counter of the packet path a different value, a multiple of `scale`."""
        value = 1
        for port, source in enumerate(self.sources.ports):
            for queue in range(len(self.sources.workers)):
                block = self.books.queues[port * 16 + queue]
                for name in counters.field_names("struct rl_queue_counters"):
                    if name == "drop_named":
                        block.drop_named[0], block.drop_named[3] = value * scale, 7 * scale
                    else:
                        setattr(block, name, value * scale)
                    value += 1
                source.statistics[f"rx_queue{queue}_dropped"] = value * scale
            for statistic in ("rx_missed", "rx_oversize", "rx_undersize", "rx_crc_errors"):
                value += 1
                source.statistics[statistic] = value * scale
        for queue in range(len(self.sources.workers)):
            causes = self.books.slots[queue].refusals
            for name in counters.field_names("struct rl_refusals"):
                setattr(causes, name, value * scale)
                value += 1
        for slot in self.instance.slots:
            for name in counters.field_names("struct rl_worker_counters"):
                if name != "heartbeat":
                    setattr(slot.counters, name, value * scale)
                    value += 1


def exposition(idle: Idle) -> str:
    """All metrics as Prometheus reads them."""
    registry = CollectorRegistry()
    registry.register(RinglineCollector(idle.take))
    return generate_latest(registry).decode()


@contextmanager
def idle_instance(name: str, *, ports: int = 1, queues: int = 2) -> Iterator[Idle]:
    """An idle instance called `name`; leaving the context unlinks its segments."""
    config = Config(
        name=name,
        ports=tuple(PortConfig(("wan", "lan")[n], "sim:82599", queues) for n in range(ports)),
        workers=(WorkerConfig(state_bytes=1 << 20),) * queues,
        metrics=MetricsConfig(host=None),
    )
    with Instance(config, lambda address: None) as instance:
        idle = Idle(instance, config)
        try:
            yield idle
        finally:
            idle.books = None


@contextmanager
def served(server: Server) -> Iterator[Server]:
    """Call `server.turn` in a thread, as the event loop does; close the server at the end."""
    stop = threading.Event()

    def loop() -> None:
        while not stop.is_set():
            select([server.fileno()], [], [], 0.02)
            server.turn()

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield server
    finally:
        stop.set()
        thread.join()
        server.close()
