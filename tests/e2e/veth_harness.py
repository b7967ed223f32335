"""Two network namespaces with a host each, and a third one between them for ringline.

    host "a" -- eth0 ~~ va -- the middle -- vb ~~ eth0 -- host "b"

`~~` is a veth pair. Nothing here touches the network of the machine. A namespace ends with all
its interfaces; tests/conftest.py removes those of a test run that was killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import itertools
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

PREFIX = "ringline-t"
FOLDER = Path("/run/netns")
CLONE_NEWNET = 0x40000000
TIMEOUT = 60.0  # seconds
SIDES = {"a": 1, "b": 2, "c": 3}
ETH_P_ALL = 3

_numbers = itertools.count(1)


def needs(*tools: str) -> None:
    """Skip the test when the machine cannot make namespaces or lacks a tool."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to make network namespaces")
    for tool in ("ip", *tools):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is missing")
    try:
        socket.socket(44, socket.SOCK_RAW, 0).close()
    except OSError:
        pytest.skip("needs a kernel with AF_XDP")


def ip(*arguments: str) -> str:
    return run("ip", *arguments)


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


@contextlib.contextmanager
def entered(namespace: str) -> Iterator[None]:
    """This thread is in the namespace. Sockets that are made here stay in it."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/self/ns/net") as before, open(FOLDER / namespace) as target:
        assert libc.setns(target.fileno(), CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        try:
            yield
        finally:
            assert libc.setns(before.fileno(), CLONE_NEWNET) == 0


class Veths:
    """The two hosts, or three, and the middle. `queues` are the queues of each interface in the
    middle, `far` those of the hosts."""

    def __init__(self, queues: int = 1, far: int | None = None, hosts: int = 2) -> None:
        begin = f"{PREFIX}{os.getpid()}-{next(_numbers)}"
        self.middle = f"{begin}-m"
        self.hosts = {side: f"{begin}-{side}" for side in list(SIDES)[:hosts]}
        self.processes: list[subprocess.Popen[str]] = []
        self._sockets: list[socket.socket] = []
        try:
            self._make(queues, far or queues)
        except BaseException:
            self.close()
            raise

    def _make(self, queues: int, far: int) -> None:
        for namespace in (self.middle, *self.hosts.values()):
            ip("netns", "add", namespace)
            ip("-n", namespace, "link", "set", "lo", "up")
        for side in self.hosts:
            self.join(side, queues, far)

    def join(self, side: str, queues: int = 1, far: int = 1) -> None:
        """Join a host with the middle by a veth pair: at first, or again when it was removed."""
        host, number = self.hosts[side], SIDES[side]
        near, far_end = (
            ["numrxqueues", str(count), "numtxqueues", str(count)] for count in (queues, far)
        )
        pair = ["link", "add", f"v{side}", *near, "type", "veth"]
        ip("-n", self.middle, *pair, "peer", "name", "eth0", "netns", host, *far_end)
        # The middle itself says nothing on its interfaces.
        with entered(self.middle):
            Path(f"/proc/sys/net/ipv6/conf/v{side}/disable_ipv6").write_text("1")
        ip("-n", self.middle, "link", "set", f"v{side}", "up")
        ip("-n", host, "link", "set", "eth0", "up")
        ip("-n", host, "addr", "add", f"10.77.0.{number}/24", "dev", "eth0")
        ip("-n", host, "addr", "add", f"fd77::{number}/64", "dev", "eth0", "nodad")

    @staticmethod
    def within(namespace: str) -> list[str]:
        return ["ip", "netns", "exec", namespace]

    def host(self, side: str, *command: str) -> str:
        """Run a command on a host and return its output."""
        return run(*self.within(self.hosts[side]), *command)

    def start(self, side: str, *command: str) -> subprocess.Popen[str]:
        """Start a program on a host; it is ended with the namespaces."""
        process = subprocess.Popen(
            [*self.within(self.hosts[side]), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.processes.append(process)
        return process

    def without_offload(self) -> None:
        """Let both hosts compute checksums themselves: over a veth they else leave them out."""
        for side in self.hosts:
            self.host(side, "ethtool", "-K", "eth0", "tx", "off")

    def silence(self) -> None:
        """Let the kernels of both hosts send nothing by themselves."""
        for host in self.hosts.values():
            with entered(host):
                Path("/proc/sys/net/ipv6/conf/eth0/disable_ipv6").write_text("1")

    def wire(self, side: str) -> socket.socket:
        """A socket that sends and receives frames at the interface of a host."""
        with entered(self.hosts[side]):
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        made.setsockopt(socket.SOL_SOCKET, 33, 1 << 27)  # SO_RCVBUFFORCE
        made.bind(("eth0", ETH_P_ALL))
        made.settimeout(TIMEOUT)
        self._sockets.append(made)
        return made

    def attached(self, side: str) -> bool:
        """Whether an XDP program is attached to the interface in the middle."""
        shown = json.loads(ip("-n", self.middle, "-j", "link", "show", f"v{side}"))
        return "xdp" in shown[0]

    def counters(self, side: str) -> dict[str, Any]:
        """`ip -s link` of the interface in the middle: rx and tx."""
        shown = json.loads(ip("-n", self.middle, "-j", "-s", "link", "show", f"v{side}"))
        found: dict[str, Any] = shown[0]["stats64"]
        return found

    def received(self, side: str) -> int:
        """The bytes that have arrived at the interface of a host."""
        shown = json.loads(ip("-n", self.hosts[side], "-j", "-s", "link", "show", "eth0"))
        return int(shown[0]["stats64"]["rx"]["bytes"])

    def close(self) -> None:
        for made in self._sockets:
            made.close()
        for process in self.processes:
            process.kill()
            process.communicate()
        for namespace in (*self.hosts.values(), self.middle):
            if (FOLDER / namespace).exists():
                ip("netns", "del", namespace)


def needs_kind(veths: Veths, kind: str) -> None:
    """Skip the test when this kernel has no interfaces of the kind."""
    lower = ["link", "va"] if kind in ("vlan", "macvlan") else []
    command = ["ip", "-n", veths.middle, "link", "add", *lower, "name", "x", "type", kind]
    made = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    if made.returncode == 0:
        ip("-n", veths.middle, "link", "del", "x")
    if "Unknown device type" in made.stderr:
        pytest.skip(f"needs a kernel with AF_XDP and interfaces of the kind {kind}")


def wait_until(condition: Callable[[], Any], what: str, seconds: float = TIMEOUT) -> Any:
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"{what} did not happen within {seconds:g} s"
        time.sleep(0.01)
    return value


def port(side: str, kind: str = "xdp", **keys: Any) -> str:
    """The table of a port of this kind on one of the interfaces in the middle."""
    lines = [f"[port.{side}]", f'device = "{kind}:v{side}"']
    return "\n".join([*lines, *(f"{key} = {json.dumps(value)}" for key, value in keys.items())])


def receive(
    wire: socket.socket, wanted: Callable[[bytes], bool], count: int, silence: float = 1.0
) -> list[bytes]:
    """The next `count` frames that arrive at the wire and are `wanted`; fewer after `silence`
    seconds without a frame."""
    found: list[bytes] = []
    end = time.monotonic() + TIMEOUT
    wire.settimeout(silence)
    while len(found) < count and time.monotonic() < end:
        try:
            frame, address = wire.recvfrom(65536)
        except TimeoutError:
            break
        if address[2] != socket.PACKET_OUTGOING and wanted(frame):
            found.append(frame)
    return found


def send_file(veths: Veths, address: str, path: Path, amount: int) -> float:
    """A program on host a sends a file of `amount` bytes, a multiple of 1,000,000; host b must get
    it with the right SHA-256. Returns MB/s."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    piece = os.urandom(1_000_000)
    wanted = hashlib.sha256()
    with path.open("wb") as file:
        for number in range(amount // len(piece)):
            part = number.to_bytes(4, "big") + piece[4:]  # no two parts are the same
            file.write(part)
            wanted.update(part)
    with contextlib.ExitStack() as opened:
        with entered(veths.hosts["b"]):
            server = opened.enter_context(socket.create_server((address, 7777), family=family))
        with entered(veths.hosts["a"]):
            sender = opened.enter_context(socket.socket(family, socket.SOCK_STREAM))
        server.settimeout(TIMEOUT)
        sender.settimeout(TIMEOUT)
        sender.connect((address, 7777))
        receiver = opened.enter_context(server.accept()[0])
        receiver.settimeout(TIMEOUT)
        sender.setblocking(True)
        began = time.monotonic()
        child = subprocess.Popen(["cat", str(path)], stdout=sender.fileno())
        veths.processes.append(child)  # type: ignore[arg-type]
        sender.close()
        digest, size = hashlib.sha256(), 0
        while data := receiver.recv(1 << 18):
            digest.update(data)
            size += len(data)
        seconds = time.monotonic() - began
        assert child.wait(TIMEOUT) == 0
    assert (size, digest.digest()) == (amount, wanted.digest())
    path.unlink()
    return size / 1e6 / seconds


def arrive(source: socket.socket, target: socket.socket) -> None:
    """Ten numbered frames arrive, once the ports have seen what happened to their interfaces."""

    def do() -> bool:
        for frame in numbered(range(10)):
            source.send(frame)
        return len(receive(target, is_numbered, 10)) == 10

    wait_until(do, "their arrival")


def numbered(numbers: Sequence[int], flow: int = 0, length: int = 60) -> Iterator[bytes]:
    """Frames of UDP over IPv4 with a number in their payload; each flow has a port of its own."""
    total = length - 14
    ip4 = bytes.fromhex("4500") + total.to_bytes(2, "big") + bytes.fromhex("0000400040110000")
    ip4 += bytes.fromhex("0a4d00010a4d0002")
    checksum = sum(int.from_bytes(ip4[at : at + 2], "big") for at in range(0, 20, 2))
    while checksum >> 16:
        checksum = (checksum & 0xFFFF) + (checksum >> 16)
    head = bytes.fromhex("0200000000020200000000010800")
    head += ip4[:10] + (checksum ^ 0xFFFF).to_bytes(2, "big") + ip4[12:]
    head += (5000 + flow).to_bytes(2, "big") + (9).to_bytes(2, "big")
    head += (total - 20).to_bytes(2, "big") + b"\0\0"
    for number in numbers:
        yield (head + number.to_bytes(8, "big")).ljust(length, b"\xaa")


def number_of(frame: bytes) -> tuple[int, int]:
    """The flow and the number of such a frame."""
    return int.from_bytes(frame[34:36], "big") - 5000, int.from_bytes(frame[42:50], "big")


def is_numbered(frame: bytes) -> bool:
    return frame[:6] == bytes.fromhex("020000000002") and len(frame) >= 50
