"""The simulated 82599 behind vfio-user, driven by a client that shares no code with the server."""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringline.pipeline.ports.served.card import BACKPLANE, Files, ServedCard
from ringline.pipeline.ports.served.serving import serve
from ringline.pipeline.ports.served.wires import open_wire
from ringline.pipeline.ports.sim82599.model import Sim82599
from ringline.shm.errors import EnvironmentLacks, UsageError

from .bare_82599 import DATA, DEXT, EOP, IFCS, MAC, PACKETS_BUS, RS, Received
from .frames import BROADCAST, ethernet
from .vfio_user_client import BAR0, CONFIGURATION, RESET, WRITE, Client, Refused, Remote82599

SECONDS = 30.0
COMMAND, BUS_MASTER = 0x04, 1 << 2
EIMS, IVAR, GPIE, EITR = 0x0880, 0x0900, 0x0898, 0x0820


class Served:
    """A served card with a wire of two sockets, and its loop in a thread."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "card")
        self.said: list[str] = []
        self.ended = False
        self.host = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.host.bind(str(folder / "host"))
        self.host.settimeout(SECONDS)
        self.wire = open_wire(f"unix:{folder}/wire,{folder}/host")
        self.host.connect(str(folder / "wire"))
        self.model = Sim82599(MAC, left_running=False, foreign=True)
        self.model.live(self.wire.fd, self.wire.peer)
        self.card = ServedCard(self.model, BACKPLANE, MAC)
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.bind(self.path)
        self._listening.listen()
        self._loop = threading.Thread(
            target=serve,
            args=(self._listening, self.card, self.model, self.wire.fd),
            kwargs={"ended": lambda: self.ended, "say": self.said.append},
        )
        self._loop.start()

    def client(self) -> Client:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.connect(self.path)
        client = Client(made)
        client.greet()
        client.write(CONFIGURATION, COMMAND, BUS_MASTER | 2, 2)
        return client

    def wait_for(self, sentence: str) -> None:
        end = time.monotonic() + SECONDS
        while not any(sentence in each for each in self.said):
            assert time.monotonic() < end, f"{sentence!r} was not said: {self.said}"
            time.sleep(0.01)

    def close(self) -> None:
        self.ended = True
        self._loop.join()
        self.model.close()
        self.wire.__exit__(None, None, None)
        self._listening.close()
        self.host.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path)
    try:
        yield made
    finally:
        made.close()


def received(driver: Remote82599, count: int) -> list[Received]:
    taken: list[Received] = []
    end = time.monotonic() + SECONDS
    while len(taken) < count:
        assert time.monotonic() < end, f"{len(taken)} of {count} frames came"
        taken += driver.receive()
    return taken


def test_it_is_a_card_of_intel(served: Served) -> None:
    with served.client() as client:
        assert client.read(CONFIGURATION, 0, 4) == 0x10F7_8086
        capability, found = client.read(CONFIGURATION, 0x34, 1), []
        while capability:
            found.append(client.read(CONFIGURATION, capability, 1))
            capability = client.read(CONFIGURATION, capability + 1, 1)
        assert found == [0x01, 0x11, 0x10], "power management, MSI-X, PCI Express"
        client.write(CONFIGURATION, 0x10, 0xFFFFFFFF)
        assert client.read(CONFIGURATION, 0x10, 4) == 0xFFFE0004, "BAR0 has 128 KiB"


def test_accesses_to_registers_are_counted_and_doorbells_among_them(served: Served) -> None:
    with served.client() as client:
        client.read(BAR0, 0x8, 4)
        for tail in (0x1018, 0xD018, 0x6018, 0x7FD8):
            client.write(BAR0, tail, 0, 4)
        for other in (0x1010, 0x1028, 0x5018, 0x8018, 0x1060):
            client.write(BAR0, other, 0, 4)
    accesses = served.card.accesses
    assert (accesses.read, accesses.written, accesses.doorbells) == (1, 9, 4)


@pytest.mark.parametrize(("offset", "size"), [(0, 1), (2, 2), (1, 4)])
def test_registers_have_four_bytes(served: Served, offset: int, size: int) -> None:
    with served.client() as client, pytest.raises(Refused) as refused:
        client.read(BAR0, offset, size)
    assert refused.value.args == (errno.EINVAL,)


def test_frames_pass_both_ways(served: Served) -> None:
    frames = [ethernet(bytes([n]) * 40, destination=BROADCAST) for n in range(20)]
    with served.client() as client, Remote82599(client) as driver:
        driver.bring_up()
        for frame in frames:
            served.host.send(frame)
        assert [each.data for each in received(driver, 20)] == frames
        for frame in frames:
            driver.send(frame)
        assert [served.host.recv(2000) for _ in frames] == frames
        assert served.model.wire()["lost"] == 0


def test_a_short_frame_is_padded(served: Served) -> None:
    with served.client() as client, Remote82599(client) as driver:
        driver.bring_up()
        served.host.send(BROADCAST + bytes(36))
        assert received(driver, 1)[0].data == BROADCAST + bytes(54)


def test_a_frame_may_lie_in_pages_that_are_not_neighbours(served: Served) -> None:
    """As behind an IOMMU: the last piece of device addresses is the first of the file."""
    piece, pieces = 3 << 10, 200
    frames = [BROADCAST + bytes([n]) * 1400 for n in range(20)]
    with served.client() as client, Remote82599(client) as driver:
        client.unmap(PACKETS_BUS, 4 << 20)
        for number in range(pieces):
            place = (pieces - 1 - number) * piece
            client.map(PACKETS_BUS + number * piece, piece, driver.files[PACKETS_BUS], place)

        def places(start: int, length: int) -> Iterator[int]:
            """Where the bytes of a buffer are in the file."""
            for at in range(start, start + length):
                yield (pieces - 1 - at // piece) * piece + at % piece

        driver.bring_up()
        for frame in frames:
            served.host.send(frame)
        received(driver, len(frames))
        for number, frame in enumerate(frames):
            found = places(driver.buffer(0, number), len(frame))
            assert bytes(driver.packets[at] for at in found) == frame
            sending = places(driver.buffer(0, number, tx=True), len(frame))
            for at, byte in zip(sending, frame, strict=True):
                driver.packets[at] = byte
            command = EOP | IFCS | RS | DEXT | DATA | len(frame) | len(frame) << 46
            driver.send_raw(0, PACKETS_BUS + driver.buffer(0, number, tx=True), command)
        assert [served.host.recv(2000) for _ in frames] == frames
        assert not served.model.faults()


def test_memory_that_was_unmapped_is_out_of_reach(served: Served) -> None:
    with served.client() as client, Remote82599(client) as driver:
        driver.bring_up()
        client.unmap(PACKETS_BUS, 4 << 20)
        driver.send(bytes(60))
        end = time.monotonic() + SECONDS
        while not any("DMA read of 60 bytes" in each for each in served.model.faults()):
            assert time.monotonic() < end, served.model.faults()


def test_memory_is_mapped_once(served: Served) -> None:
    fd = os.memfd_create("memory", 0)
    os.ftruncate(fd, 8192)
    with served.client() as client:
        client.map(1 << 40, 8192, fd)
        with pytest.raises(Refused) as refused:
            client.map((1 << 40) + 4096, 4096, fd)
        assert refused.value.args == (errno.EEXIST,)
        with pytest.raises(Refused) as refused:
            client.map(1 << 41, 12288, fd)
        assert refused.value.args == (errno.EINVAL,), "beyond the end of the file"
    os.close(fd)


def test_a_file_that_grows_takes_no_memory_away() -> None:
    """A client may enlarge a file, of which a part is mapped, and map more of it."""
    fd, files = os.memfd_create("growing", 0), Files()
    os.ftruncate(fd, 4096)
    os.pwrite(fd, b"first", 0)
    first = files.address(fd, 0, 4096)
    os.ftruncate(fd, 8192)
    second = files.address(fd, 4096, 4096)
    begins = [int(line.partition("-")[0], 16) for line in _maps("growing")]
    assert first in begins
    assert second - 4096 in begins
    files.forget()
    assert not _maps("growing")
    os.close(fd)


def _maps(name: str) -> list[str]:
    lines = Path("/proc/self/maps").read_text().splitlines()
    return [line for line in lines if f"/memfd:{name} " in line]


def test_a_wire_that_is_gone_is_told_once(served: Served) -> None:
    """An interface that is deleted stays readable for ever: only an error."""
    with served.client() as client:
        with socket.socket(fileno=os.dup(served.wire.fd)) as gone:
            gone.shutdown(socket.SHUT_RDWR)
        served.wait_for("--wire: its interface is gone")
        assert client.read(BAR0, 0x8, 4) != 0, "the card is still served"
    assert sum("--wire" in each for each in served.said) == 1


def test_an_interrupt_comes_when_its_queue_has_something(served: Served) -> None:
    event = os.eventfd(0, os.EFD_NONBLOCK)
    with served.client() as client, Remote82599(client) as driver:
        driver.bring_up()
        client.set_vectors(3, [event])
        driver.write(GPIE, 1 << 4)
        driver.write(IVAR, 0x83)
        served.host.send(ethernet(b"", destination=BROADCAST))
        received(driver, 1)
        assert not select.select([event], [], [], 0.05)[0], "it is masked"
        driver.write(EIMS, 1 << 3)
        assert select.select([event], [], [], SECONDS)[0], "the cause waited"
    os.close(event)


def test_nothing_of_a_client_is_left(served: Served) -> None:
    before = set(os.listdir("/proc/self/fd"))
    event = os.eventfd(0)
    with served.client() as client, Remote82599(client) as driver:
        driver.bring_up()
        client.set_vectors(0, [event, event])
    served.wait_for("the client has gone; the card is reset")
    os.close(event)
    assert set(os.listdir("/proc/self/fd")) == before
    with served.client() as client:
        assert client.read(BAR0, 0x1028, 4) == 0, "no queue is enabled"


def test_a_reset_stops_the_card(served: Served) -> None:
    with served.client() as client, Remote82599(client) as driver:
        driver.bring_up()
        client.ask(RESET)
        assert client.read(CONFIGURATION, COMMAND, 2) == 0
        assert driver.read(0x1028) == 0


def test_a_client_with_another_protocol_is_named(served: Served) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.connect(served.path)
        other.send(b"GET / HTTP/1.0\r\n\r\n")
        served.wait_for("disconnected, because it sent a message of type")


def test_a_client_may_write_words_of_two_registers(served: Served) -> None:
    with served.client() as client:
        client.write(BAR0, 0x5C80, 0x0000_0002_0000_0001, 8)
        assert (client.read(BAR0, 0x5C80, 4), client.read(BAR0, 0x5C84, 4)) == (1, 2)
        with pytest.raises(Refused):
            client.ask(WRITE, bytes(16) + b"more than it says")


@pytest.mark.parametrize("text", ["tap:", "unix:/a", "unix:/a,/a", "udp:7", "tap:name-of-16-bytes"])
def test_a_wrong_wire_is_named(text: str) -> None:
    with pytest.raises(UsageError, match="--wire"):
        open_wire(text)


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (errno.EBUSY, "another program has the TAP lab0; end it, or choose another name"),
        (errno.EINVAL, "an interface lab0 that is no TAP"),
        (errno.EPERM, "Operation not permitted; become root, or let root make it"),
    ],
)
def test_a_tap_that_cannot_be_had_is_named(
    monkeypatch: pytest.MonkeyPatch, error: int, what: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    really_open = os.open  # /dev/net/tun is not on every machine
    monkeypatch.setattr("os.open", lambda _, flags: really_open(os.devnull, flags))
    monkeypatch.setattr("fcntl.ioctl", refuse)
    with pytest.raises(EnvironmentLacks, match=what):
        open_wire("tap:lab0")
