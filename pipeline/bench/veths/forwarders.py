"""Processes of `bench xdp`, each started by it in one of its namespaces: the source of the packets,
and what forwards or receives them in place of ringline.

    python -m ringline.pipeline.bench.veths.forwarders WHAT CPU [DESCRIPTOR]

The process runs on this CPU, prints `ready`, works until SIGTERM, and ends when its parent does.
What receives counts its packets in the memory behind the descriptor.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import importlib
import mmap
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from ringline.pipeline._pipeline import lib as pipeline
from ringline.pipeline.bench._bench import ffi, lib
from ringline.pipeline.bench.veths.links import FROM, INPUT, OUTPUT, ip
from ringline.pipeline.configuration import deadlines
from ringline.pipeline.configuration.config import PacketConfig, PortConfig, XdpConfig
from ringline.pipeline.ports.packet import rings
from ringline.pipeline.ports.packet.sockets import PacketAttachment
from ringline.pipeline.ports.xdp import bpf
from ringline.pipeline.ports.xdp.rings import SocketRings
from ringline.pipeline.ports.xdp.sockets import XdpAttachment
from ringline.shm._shm import lib as shm
from ringline.shm.clock import ticks_per_second
from ringline.shm.errors import EnvironmentLacks, RinglineError
from ringline.shm.packets import PacketMemory

# 64 bytes with CRC, of the EtherType for local experiments (IEEE 802, 88B5): no protocol of the
# kernel takes it, so it ends where it arrives.
FRAME = bytes.fromhex("02000000000202000000000188b5").ljust(60, b"\0")
BATCH = 64  # frames that the source sends at once
# Frames of one system call, some 0.2 s. Each call waits for all CPUs at its beginning, for 10 ms
# and more: with 65536 frames the source was silent for half of the time.
REPEAT = 1 << 20
TURN = 0.05  # seconds
BRIDGE = "bridge0"
ETH_P_ALL = 3
_NEWNS, _PRIVATE = 0x20000, 0x4000 | 0x40000  # CLONE_NEWNS; MS_REC | MS_PRIVATE of linux/mount.h

_TEST_RUN, _LIVE_FRAMES = 10, 2  # BPF_PROG_TEST_RUN, BPF_F_TEST_XDP_LIVE_FRAMES
_MOVE_CONSTANT, _CALL, _EXIT, _REDIRECT = 0xB7, 0x85, 0x95, 23  # BPF_FUNC_redirect

Work = Callable[[], object]  # called again and again


@contextlib.contextmanager
def source() -> Iterator[Work]:
    """Frames of the kernel's own generator: an XDP program that is run again and again on the same
    frame, and redirects it to the interface (BPF_F_TEST_XDP_LIVE_FRAMES of linux/bpf.h, Linux
    5.18). No frame needs a system call or a socket buffer, so the source is faster than all that
    forwards."""
    program = _redirecting_to(socket.if_nametoindex(FROM))
    frame = ffi.from_buffer(FRAME)

    def work(repeat: int = REPEAT) -> None:
        data = struct.pack(
            "=IIIIQQIIIIQQIIII",
            *(program, 0, len(FRAME), 0, int(ffi.cast("uintptr_t", frame)), 0),
            *(repeat, 0, 0, 0, 0, 0, _LIVE_FRAMES, 0, BATCH, 0),
        )
        attributes = ffi.new("char[]", data)
        result = pipeline.rl_xdp_bpf(_TEST_RUN, attributes, len(attributes) - 1)
        if result < 0 and result != -errno.EINTR:
            raise OSError(
                -result,
                f"the kernel cannot generate packets (Linux 5.18 can): {os.strerror(-result)}",
            )

    work(BATCH)
    yield work


def _redirecting_to(interface: int) -> int:
    """An XDP program that sends each frame to the interface with this number; its descriptor."""

    def instruction(code: int, register: int = 0, constant: int = 0) -> bytes:
        low, high = (register, 0) if sys.byteorder == "little" else (0, register)
        return struct.pack("=BBhi", code, low | high << 4, 0, constant)

    return bpf.load_program(
        instruction(_MOVE_CONSTANT, 1, interface)
        + instruction(_MOVE_CONSTANT, 2, 0)
        + instruction(_CALL, constant=_REDIRECT)
        + instruction(_EXIT)
    )


@contextlib.contextmanager
def bare() -> Iterator[Work]:
    """A loop in C over the same kind of sockets."""
    configs = [PortConfig(name=name, device=f"xdp:{name}", xdp=XdpConfig()) for name in NAMES]
    count = configs[0].rx_descriptors
    with contextlib.ExitStack() as stack:
        packets = stack.enter_context(
            PacketMemory.create(f"bench-{os.getpid()}", count, hugepages="off")
        )
        packets.segment.unlink()  # nothing is left of it if this process is killed
        ends = []
        for config in configs:
            attached = stack.enter_context(contextlib.closing(XdpAttachment(config, packets)))
            queue = ffi.new("struct rl_xdp_queue *")
            (fd,) = attached.descriptors
            stack.enter_context(
                contextlib.closing(
                    SocketRings(fd, queue, config.rx_descriptors, config.tx_descriptors)
                )
            )
            ends.append(queue)
            attached.take()
        lib.rl_bare_sockets_post(ends[0], count)
        ticks = int(TURN * ticks_per_second())
        yield lambda: lib.rl_bare_sockets(*ends, ticks)


@contextlib.contextmanager
def bridge() -> Iterator[Work]:
    """Linux's bridge, which works on the CPU of this process (receive packet steering)."""
    (cpu,) = os.sched_getaffinity(0)
    libc = ctypes.CDLL(None, use_errno=True)
    # /sys shows the interfaces of the namespace in which it was mounted.
    if libc.unshare(_NEWNS) or libc.mount(None, b"/", None, _PRIVATE, None):
        raise EnvironmentLacks(f"no mount namespace: {os.strerror(ctypes.get_errno())}")
    if libc.mount(b"sysfs", b"/sys", b"sysfs", 0, None):
        raise EnvironmentLacks(f"/sys cannot be mounted: {os.strerror(ctypes.get_errno())}")
    steering = Path(f"/sys/class/net/{INPUT}/queues/rx-0/rps_cpus")
    words = [f"{1 << cpu >> at & 0xFFFFFFFF:x}" for at in range(cpu // 32 * 32, -1, -32)]
    ip("link", "add", BRIDGE, "type", "bridge")
    try:
        steering.write_text(",".join(words), encoding="ascii")
        for name in NAMES:
            ip("link", "set", name, "master", BRIDGE)
        ip("link", "set", BRIDGE, "up")
        yield signal.pause
    finally:
        ip("link", "del", BRIDGE)
        steering.write_text("0", encoding="ascii")


@contextlib.contextmanager
def sockets() -> Iterator[Work]:
    """A bare loop in Python over AF_PACKET sockets: one frame at a time."""
    with contextlib.ExitStack() as stack:
        ends = []
        for name in NAMES:
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            ends.append(stack.enter_context(made))
            made.bind((name, ETH_P_ALL))
        receive, send = ends[0].recv, ends[1].send

        def work() -> None:
            for _ in range(1000):
                send(receive(2048))

        yield work


@contextlib.contextmanager
def scapy() -> Iterator[Work]:
    """Scapy's own bridge between two interfaces."""
    sendrecv = importlib.import_module("scapy.sendrecv")
    yield lambda: sendrecv.bridge_and_sniff(*NAMES, store=False, prn=lambda packet: None)


@contextlib.contextmanager
def packets(descriptor: int) -> Iterator[Work]:
    """A loop in C over the ring of a packet socket (TPACKET_V3), which only receives."""
    config = PortConfig(name=INPUT, device=f"packet:{INPUT}", packet=PacketConfig())
    queue = ffi.new("struct rl_packet_queue *")
    geometry = rings.Geometry.of(config)
    with contextlib.ExitStack() as stack:
        attached = stack.enter_context(contextlib.closing(PacketAttachment(config)))
        (fd,) = attached.descriptors
        stack.enter_context(contextlib.closing(rings.SocketRings(fd, queue, geometry)))
        memory = stack.enter_context(mmap.mmap(descriptor, COUNT_BYTES))
        with ffi.from_buffer(memory, require_writable=True) as begin:
            count = ffi.cast("uint64_t *", begin)
            ticks = int(TURN * ticks_per_second())
            attached.take()
            yield lambda: lib.rl_bare_packets(queue, ticks, count)


NAMES = (INPUT, OUTPUT)
COUNT_BYTES = 8
WHAT: dict[str, Callable[..., contextlib.AbstractContextManager[Work]]] = {
    "source": source,
    "bare": bare,
    "bridge": bridge,
    "sockets": sockets,
    "scapy": scapy,
    "packets": packets,
}


@contextlib.contextmanager
def started(what: str, cpu: int, *count: int) -> Iterator[int]:
    """Start such a process in the namespace of this thread and wait until it is ready; its id.
    `count` is the descriptor of COUNT_BYTES of memory for what receives, otherwise nothing.

    Raises EnvironmentLacks with the sentence that it printed when it cannot work.
    """
    command = [sys.executable, "-P", "-m", __name__, what, *map(str, (cpu, *count))]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=count,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            told, _, _ = select.select([process.stdout], [], [], deadlines.BENCH_FORWARDER)
            if not told:
                raise EnvironmentLacks(
                    f"bench xdp: {what} was not ready within {deadlines.BENCH_FORWARDER:g} s"
                )
            if process.stdout.readline() != "ready\n":
                said = process.stderr.read().strip().splitlines() or ["it ended"]
                raise EnvironmentLacks(f"bench xdp: {what}: {said[-1]}")
            yield process.pid
        finally:
            process.terminate()
            try:
                process.wait(deadlines.BENCH_STOP)
            except subprocess.TimeoutExpired:
                process.kill()


def main(what: str, cpu: str, *count: str) -> int:
    if shm.rl_die_with_parent(signal.SIGKILL, os.getppid()) != 0:
        return 1
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the benchmark ends this process
    os.sched_setaffinity(0, {int(cpu)})
    try:
        with WHAT[what](*map(int, count)) as work:
            print("ready", flush=True)
            while True:
                work()
    except (RinglineError, OSError) as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
