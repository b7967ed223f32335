"""The configuration of an instance, as frozen dataclasses.

`schema.load` makes a Config from a TOML file, `builtin.builtin` the one that runs
without a file. Paths to captures and the folder are absolute, and all values are
checked. The driver and card processes get the Config as JSON over the control socket
(`to_json`, `from_json`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ringline.pipeline.configuration import dataclass_json, deadlines
from ringline.shm import frames
from ringline.shm._shm import lib

# The limits are those of the C structs (shm/types.h).
RING_CAPACITY: int = lib.RL_RING_CAPACITY
BATCH_MAX: int = lib.RL_BATCH_MAX
QUEUES_MAX: int = lib.RL_QUEUES_MAX
PORTS_MAX: int = lib.RL_PORTS_MAX
FRAME_MAX: int = lib.RL_FRAME_MAX  # bytes without CRC, without jumbo frames
BUFFER_STRIDE: int = lib.RL_BUFFER_STRIDE  # bytes of a buffer without jumbo frames
BLANKS_MAX = RING_CAPACITY // 2  # more blanks would leave too little of `in` for packets
CRC_BYTES = 4
# Of ports on interfaces of the kernel: the word before the colon.
KERNEL_KINDS = ("xdp", "packet", "tap")
PAGE = 4096  # bytes of an ordinary page
HUGEPAGE = 2 << 20  # bytes


@dataclass(frozen=True)
class MemoryConfig:
    """Packet memory. `buffers` None means as many as `Config.needed_buffers` says."""

    buffers: int | None = None
    hugepages: str = "auto"  # auto | require | off


@dataclass(frozen=True)
class FlowsConfig:
    """Synthetic traffic of a simulated wire.

    `count` is the number of flows. `sizes` are (bytes of a frame without CRC, weight).
    `packets` is how many arrive in all; 0 means without end.
    """

    count: int = 256
    sizes: tuple[tuple[int, int], ...] = ((60, 1),)
    ip: str = "ipv4"  # ipv4 | ipv6 | mixed
    protocol: str = "udp"  # udp | tcp | mixed
    packets: int = 0


@dataclass(frozen=True)
class WireConfig:
    """The simulated wire at a simulated card.

    At most one of `replay` (a capture file) and `flows` is set; with neither, no traffic
    arrives. `repeat` is how often the capture is replayed; 0 means without end. `rate_mpps`
    0 is closed loop: a packet arrives as soon as the card can take it. With the `pace`
    "captured", the packets arrive at the times of the capture instead, `speed` times as fast.
    `cut` says what becomes of a capture that is cut short. `record` is the capture file for the
    packets that the card sends.
    """

    replay: str | None = None
    flows: FlowsConfig | None = None
    repeat: int = 1
    rate_mpps: float = 0.0
    record: str | None = None
    pace: str = "rate"  # rate | captured
    speed: float = 1.0
    cut: str = "refuse"  # refuse | play

    @property
    def has_source(self) -> bool:
        """Whether traffic arrives from this wire."""
        return self.replay is not None or self.flows is not None


@dataclass(frozen=True)
class Match:
    """Which frames an interface gives to ringline: those that agree with all that is set.

    `port` is the source or target port of TCP or UDP, and `prefix` contains the source or the
    target address.
    """

    ethertype: int | None = None
    protocol: int | None = None  # of IPv4 or IPv6
    port: int | None = None
    prefix: str | None = None  # as in 192.0.2.0/24 or 2001:db8::/32


@dataclass(frozen=True)
class XdpConfig:
    """How a port uses an interface of the kernel through AF_XDP.

    `take` has the frames for ringline; all others stay with the kernel. Empty: it takes all.
    `busy_poll_us` 0 is no busy polling. `channels` "set" gives the interface as many channels as
    the port has queues, until the end of the run.
    """

    mode: str = "copy"  # copy | zero-copy | auto
    attach: str = "auto"  # auto | native | generic
    take: tuple[Match, ...] = ()
    hash: str = "none"  # none | software
    busy_poll_us: int = 0
    channels: str = "check"  # check | set
    fix_checksums: bool = False  # write the checksums of received frames
    force: bool = False  # take an interface although this cuts off the machine


@dataclass(frozen=True)
class PacketConfig:
    """How a port uses an interface of the kernel through packet sockets.

    `outgoing`: frames that this machine sends are received too, except its own. `qdisc_bypass`:
    frames go to the kernel driver without queueing. `block_timeout_ms` is how long a frame may
    wait for others until the driver gets it.
    """

    outgoing: bool = True
    qdisc_bypass: bool = False
    block_timeout_ms: int = 1


@dataclass(frozen=True)
class TapConfig:
    """The TAP interface that a port makes. One that is there already keeps its settings.

    `addresses` are as in 192.0.2.1/24. With `up`, it is brought up as soon as the port reads.
    """

    mtu: int = 1500  # bytes
    addresses: tuple[str, ...] = ()
    up: bool = True

    @property
    def settings(self) -> tuple[str, ...]:
        """The keys that only a new interface can have, as far as they are set."""
        default = TapConfig()
        return tuple(
            key for key in ("mtu", "addresses") if getattr(self, key) != getattr(default, key)
        )


@dataclass(frozen=True)
class PortConfig:
    """One network interface."""

    name: str
    device: str  # sim:82599 | pci:0000:03:00.0 | xdp:eth0 | packet:eth0 | tap:tap0
    queues: int = 1
    dma: str = "auto"  # auto | offset | physical
    unproved: bool = False  # also a card that nothing was tried on
    rx_descriptors: int = 512  # per queue
    tx_descriptors: int = 512
    promiscuous: bool = True
    mac: str | None = None  # None: the address of the card
    more_macs: tuple[str, ...] = ()  # more addresses to receive for; without promiscuous
    vlan_strip: bool = False
    vlan_filter: tuple[int, ...] | None = None  # VLAN IDs to receive; None: all
    mtu: int = frames.MTU  # bytes; cards only, a TAP has its own
    rss_key: str = "default"  # default | symmetric | 80 hexadecimal digits
    wire: WireConfig | None = None  # simulated cards only
    process: bool = False  # a simulated card in a process of its own
    xdp: XdpConfig | None = None  # AF_XDP only
    packet: PacketConfig | None = None  # packet sockets only
    tap: TapConfig | None = None  # TAP interfaces only

    @property
    def simulated(self) -> bool:
        """Whether the card is simulated."""
        return self.device.startswith("sim:")

    @property
    def address(self) -> str:
        """What the device string names: the PCI address of a card or an interface of the kernel;
        "" for a simulated card, of which there may be several."""
        return "" if self.simulated else self.device.partition(":")[2]

    @property
    def claims(self) -> str:
        """What no other port of the instance may have; "" for nothing. A copy of the traffic takes
        nothing from another kind of port."""
        return self.device if self.packet is not None else self.address

    @property
    def kernel_interface(self) -> bool:
        """Whether it is an interface that keeps its kernel driver."""
        return self.device.partition(":")[0] in KERNEL_KINDS

    @property
    def posts_buffers(self) -> bool:
        """Whether it gives buffers to its RX descriptors in advance. Packet sockets and TAPs hold
        frames in memory of the kernel, from which they are copied."""
        return self.device.partition(":")[0] not in ("packet", "tap")

    @property
    def frame_max(self) -> int:
        """Bytes of the longest frame that it sends and receives, with a VLAN tag, without CRC."""
        return frames.frame_max(self.mtu if self.tap is None else max(self.tap.mtu, frames.MTU))

    @property
    def dma_mode(self) -> str:
        """How the card addresses memory: offset, physical or, for an interface of the kernel
        that copies nothing, pieces; `auto` is resolved."""
        if self.xdp is not None and self.xdp.mode != "copy":
            return "pieces"
        if self.kernel_interface:
            return "offset"
        if self.dma != "auto":
            return self.dma
        return "offset"


@dataclass(frozen=True)
class WorkerConfig:
    """One worker. `cpu` None means that `affinity.place` chooses."""

    plugin: str = "ringline.workers.plugins.forward:forward"
    options: dict[str, Any] = field(default_factory=dict)
    option_places: dict[str, str] = field(default_factory=dict, compare=False)  # for messages
    cpu: int | None = None
    state_bytes: int = 4 << 20  # for the named state, counters and tables of the plugin
    blanks: int = 0  # blank buffers for a plugin that creates packets
    debug: bool = False  # bounds checks in compiled plugins
    silence: float = deadlines.WORKER_SILENCE  # seconds without progress, then it is replaced


@dataclass(frozen=True)
class RestartConfig:
    """A worker that ends more than `intensity` times in `period` seconds is not restarted."""

    intensity: int = 5
    period: float = 30.0


@dataclass(frozen=True)
class DriverConfig:
    """The driver process.

    `cpu` None means that `affinity.place` chooses. `deep_sleep_us` is the longest sleep after
    0.1 s without traffic, in microseconds; 0 means no such sleep.
    """

    cpu: int | None = None
    idle: str = "adaptive"  # busy | adaptive
    deep_sleep_us: int = 900


@dataclass(frozen=True)
class MetricsConfig:
    """The metrics endpoint. `host` None means no endpoint, `port` 0 any free port."""

    host: str | None = "127.0.0.1"
    port: int = 9464
    elsewhere_if_taken: bool = False  # use another port; only in the built-in configuration


@dataclass(frozen=True)
class Config:
    """One instance."""

    name: str = "ringline"
    memory: MemoryConfig = MemoryConfig()
    ports: tuple[PortConfig, ...] = ()
    workers: tuple[WorkerConfig, ...] = ()  # one per queue, overrides already applied
    restart: RestartConfig = RestartConfig()
    driver: DriverConfig = DriverConfig()
    metrics: MetricsConfig = MetricsConfig()
    folder: str = "."  # of the configuration file; plugins may be in it

    @property
    def queues(self) -> int:
        """The number of workers: the queues of the port that has most."""
        return max((port.queues for port in self.ports), default=0)

    @property
    def dma_mode(self) -> str:
        """How cards address packet memory: that of the ports which demands most (schema.py)."""
        modes = {port.dma_mode for port in self.ports}
        return next((mode for mode in ("physical", "pieces") if mode in modes), "offset")

    def worker(self, queue: int) -> WorkerConfig:
        """The configuration of the worker that serves `queue`."""
        return self.workers[queue]

    def peers(self, queue: int) -> list[int]:
        """The queues of the other workers with the same plugin, options and size of state: they may
        read what the plugin of `queue` shares."""
        own = self.workers[queue]
        wanted = own.plugin, own.options, own.state_bytes
        return [
            other
            for other, it in enumerate(self.workers)
            if other != queue and (it.plugin, it.options, it.state_bytes) == wanted
        ]

    @property
    def frame_max(self) -> int:
        """Bytes of the longest frame of any port."""
        return max((port.frame_max for port in self.ports), default=FRAME_MAX)

    @property
    def buffer_units(self) -> int:
        """Units of packet memory in a buffer: more than one if a port has jumbo frames."""
        return frames.units_for(self.frame_max)

    @property
    def buffer_bytes(self) -> int:
        """Bytes of a buffer."""
        return self.buffer_units * BUFFER_STRIDE

    @property
    def buffers(self) -> int:
        """The number of buffers in packet memory."""
        return self.memory.buffers or sum(number for _, number in self.needed_buffers())

    def needed_buffers(self) -> list[tuple[str, int]]:
        """The fewest buffers that fill every ring at once, as (purpose, number) pairs.

        A buffer is in an RX or TX descriptor, on one of the two rings of a worker, in the
        batch that a worker or the driver works on, or a granted blank.
        """
        needed: list[tuple[str, int]] = []
        for port in self.ports:
            each = f"port {port.name}: {port.queues} x"
            if port.posts_buffers:
                rx = port.queues * port.rx_descriptors
                needed.append((f"{each} {port.rx_descriptors} RX", rx))
            needed.append((f"{each} {port.tx_descriptors} TX", port.queues * port.tx_descriptors))
        workers = self.queues
        needed.append((f"rings: {workers} x 2 x {RING_CAPACITY}", workers * 2 * RING_CAPACITY))
        needed.append((f"batches: {workers} x 2 x {BATCH_MAX}", workers * 2 * BATCH_MAX))
        blanks = sum(worker.blanks for worker in self.workers)
        if blanks:
            needed.append(("blanks", blanks))
        total = sum(number for _, number in needed)
        if self.dma_mode == "physical" or (
            self.dma_mode == "pieces" and self.memory.hugepages == "require"
        ):
            across = total // (HUGEPAGE // self.buffer_bytes) + 1
            needed.append(("buffers across a page's end", across))
        elif self.dma_mode == "pieces":  # the pages may be ordinary ones
            across = total * BUFFER_STRIDE // (PAGE - BUFFER_STRIDE) + 4
            needed.append(("buffers across a page's end", across))
        return needed

    def to_json(self) -> dict[str, Any]:
        """This Config as JSON values, for a message to a child process."""
        return dataclass_json.to_json(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Config:
        """The Config that `to_json` was called on. Raises Bug when `value` is no Config."""
        return dataclass_json.from_json(cls, value)
