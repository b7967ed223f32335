"""Linux at the other end of a card's cable: a network namespace of this machine, with an address.

The cable is a TAP interface in the namespace. Nothing here touches the network of the machine. A
namespace ends with all its interfaces; tests/conftest.py removes those of a test run that was
killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence

import pytest

CABLE = "cable"  # the interface
DEADLINE = 240.0  # seconds, for a command
_CLONE_NEWNET = 0x40000000
_numbers = itertools.count(1)
# Gets a file, and says its length and SHA-256.
RECEIVE = """
import hashlib, socket, sys
with socket.create_server((sys.argv[1], 7777)) as server:
    print("listening", flush=True)
    digest, size = hashlib.sha256(), 0
    with server.accept()[0] as stream:
        while data := stream.recv(1 << 18):
            digest.update(data)
            size += len(data)
print(size, digest.hexdigest())
"""
# Sends so many random bytes, and says their length and SHA-256.
SEND = """
import hashlib, os, socket, sys
data = os.urandom(int(sys.argv[2]))
with socket.create_connection((sys.argv[1], 7777), 60) as stream:
    stream.settimeout(200)
    stream.sendall(data)
print(len(data), hashlib.sha256(data).hexdigest())
"""


class Program:
    """A program that runs on a host; its output is in the file `output`."""

    def __init__(self, process: subprocess.Popen[str], output: int) -> None:
        self._process = process
        self._output = output

    def said(self) -> str:
        size = os.fstat(self._output).st_size
        return os.pread(self._output, size, 0).decode(errors="replace")

    def wait_for(self, words: str) -> None:
        until = time.monotonic() + DEADLINE
        while words not in self.said():
            assert self._process.poll() is None, f"it has ended: {self.said()}"
            assert time.monotonic() < until, f"it did not say {words!r}: {self.said()}"
            time.sleep(0.02)

    def end(self, number: int = 0) -> str:
        """What it said until its end; the signal `number` asks for the end, unless it is 0."""
        if number:
            self._process.send_signal(number)
        code = self._process.wait(DEADLINE)
        assert code == 0, f"exit code {code}: {self.said()}"
        return self.said()


class Host:
    """A namespace; `address` is an IPv4 address with the length of its network."""

    def __init__(self, name: str, address: str) -> None:
        self.name, self.network = name, address
        self.address = address.partition("/")[0]

    def come_up(self, mtu: int = 1500) -> None:
        """Bring the cable up, once it is there."""
        for words in (f"addr add {self.network} dev {CABLE}", f"link set {CABLE} mtu {mtu} up"):
            subprocess.run(["ip", "-n", self.name, *words.split()], check=True)

    def line(self, *command: str) -> list[str]:
        """The command, so that it runs here."""
        return ["ip", "netns", "exec", self.name, *command]

    def run(self, *command: str, deadline: float = DEADLINE) -> str:
        """The output of a command whose exit code must be 0."""
        done = subprocess.run(
            self.line(*command), capture_output=True, text=True, timeout=deadline, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    @contextlib.contextmanager
    def started(self, command: Sequence[str], ready: str = "") -> Iterator[Program]:
        """A program that runs meanwhile, and has said `ready`."""
        with tempfile.TemporaryFile("w+") as output:
            process = subprocess.Popen(
                self.line(*command), stdout=output, stderr=subprocess.STDOUT, text=True
            )
            program = Program(process, output.fileno())
            try:
                program.wait_for(ready)
                yield program
            finally:
                process.kill()
                process.wait()

    @contextlib.contextmanager
    def iperf_server(self) -> Iterator[None]:
        with self.started(["iperf3", "-s", "--forceflush"], "listening"):
            yield

    @contextlib.contextmanager
    def receiver(self) -> Iterator[Program]:
        """A program that gets a file; see RECEIVE."""
        with self.started([sys.executable, "-c", RECEIVE, self.address], "listening") as program:
            yield program

    def send_file(self, address: str, size: int) -> str:
        """Send random bytes to a receiver; what RECEIVE must say."""
        return self.run(sys.executable, "-c", SEND, address, str(size))

    def reach(self, address: str) -> None:
        """Wait until the address answers a ping."""
        self.run("sh", "-c", f"until ping -c 1 -W 1 -q {address} > /dev/null; do sleep 0.1; done")

    def pings(self, address: str, *options: str) -> None:
        """All of some pings come back."""
        said = self.run("ping", "-q", "-W", "20", *options, address)
        assert " 0% packet loss" in said, said


@contextlib.contextmanager
def entered(host: Host) -> Iterator[None]:
    """This thread is in the namespace of the host. What is made here stays there."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as before, open(f"/run/netns/{host.name}") as target:
        assert libc.setns(target.fileno(), _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        try:
            yield
        finally:
            assert libc.setns(before.fileno(), _CLONE_NEWNET) == 0


@contextlib.contextmanager
def host(address: str) -> Iterator[Host]:
    """A host with this IPv4 address and the length of its network, as in 10.0.0.1/24."""
    if os.geteuid() != 0:
        pytest.skip("needs root, for a network namespace")
    name = f"ringline-t{os.getpid()}-guest{next(_numbers)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        yield Host(name, address)
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)
