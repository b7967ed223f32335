"""`ringline serve-card`: how it begins, ends, and what it says of wrong arguments."""

from __future__ import annotations

import contextlib
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ringline.pipeline.commands.arguments.serve_card import BROKEN
from ringline.pipeline.ports.sim82599.model import DEFECTS

from ..ports.frames import ethernet
from ..ports.vfio_user_client import CONFIGURATION, Client, Remote82599

COMMAND = str(Path(sys.executable).with_name("ringline"))
SECONDS = 60.0
GPTC = 0x4080


def serve(*arguments: str) -> subprocess.Popen[str]:
    line = [COMMAND, "serve-card", *arguments]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def refused(*arguments: str) -> tuple[int, str]:
    """Exit code and message of a command that cannot work."""
    with serve(*arguments) as process:
        _, said = process.communicate(timeout=SECONDS)
        return process.returncode, said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_in_order_and_leaves_no_socket(tmp_path: Path, number: signal.Signals) -> None:
    path, own = tmp_path / "card", tmp_path / "own"
    with serve("--socket", str(path), "--wire", f"unix:{own},{tmp_path}/peer") as process:
        assert process.stderr is not None
        assert "an 8086:10f7 is ready" in process.stderr.readline()
        assert own.is_socket()
        assert path.stat().st_mode & 0o777 == 0o600
        process.send_signal(number)
        out, _ = process.communicate(timeout=SECONDS)
        assert process.returncode == 0
    assert out == "received 0 frames, 0 bytes; sent 0 frames, 0 bytes\n"
    assert not path.exists()
    assert not own.exists()


def test_a_signal_asks_how_often_registers_were_used(tmp_path: Path) -> None:
    with serve("--socket", str(tmp_path / "card")) as process:
        assert process.stderr is not None
        assert "is ready" in process.stderr.readline()
        process.send_signal(signal.SIGUSR1)
        line = process.stderr.readline()
        assert line == "ringline: registers: 0 read, 0 written; 0 of these were doorbells\n"
        process.terminate()
        process.communicate(timeout=SECONDS)


def test_a_stale_socket_is_replaced_and_a_served_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "card"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stale:
        stale.bind(str(path))
    with serve("--socket", str(path)) as process:
        assert process.stderr is not None
        assert "is ready" in process.stderr.readline()
        code, said = refused("--socket", str(path))
        assert (code, "another process serves a card there already" in said) == (3, True)
        process.terminate()
        process.communicate(timeout=SECONDS)


def test_a_card_for_which_clients_wait_is_a_served_one(tmp_path: Path) -> None:
    path = tmp_path / "card"
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(serve("--socket", str(path)))
        assert process.stderr is not None
        assert "is ready" in process.stderr.readline()
        clients = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(8)]
        for client in clients:
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.connect(str(path))
        code, said = refused("--socket", str(path))
        assert (code, "another process serves a card there already" in said) == (3, True)
        process.terminate()
        process.communicate(timeout=SECONDS)


def test_a_socket_that_another_command_has_made_meanwhile_stays(tmp_path: Path) -> None:
    path = tmp_path / "card"
    with serve("--socket", str(path)) as first:
        assert first.stderr is not None
        assert "is ready" in first.stderr.readline()
        path.unlink()
        with serve("--socket", str(path)) as second:
            assert second.stderr is not None
            assert "is ready" in second.stderr.readline()
            first.terminate()
            first.communicate(timeout=SECONDS)
            assert path.is_socket()
            second.terminate()
            second.communicate(timeout=SECONDS)
    assert not path.exists()


@contextlib.contextmanager
def client(path: Path) -> Iterator[Client]:
    """A client that has switched on memory space and bus mastering."""
    connected = socket.socket(socket.AF_UNIX)
    connected.connect(str(path))
    with Client(connected) as made:
        made.greet()
        made.write(CONFIGURATION, 0x04, 0x6, 2)
        yield made


def test_the_card_has_the_address_that_is_given(tmp_path: Path) -> None:
    """In RAL and RAH after each reset, as docs/served-card.md says, and not in the EEPROM."""
    path = tmp_path / "card"
    with serve("--socket", str(path), "--mac", "02:aB:03:00:00:fe") as process:
        assert process.stderr is not None
        assert "is ready" in process.stderr.readline()
        with client(path) as here, Remote82599(here) as driver:
            driver.reset()
            driver.eeprom()
            assert (driver.read(0xA200), driver.read(0xA204)) == (0x0003AB02, 0x8000FE00)
            words = []
            for word in range(0x40):
                driver.write(0x10014, 1 | word << 2)
                words.append(driver.read(0x10014) >> 16)
        process.terminate()
        process.communicate(timeout=SECONDS)
        assert process.returncode == 0
    assert words == [0] * 0x3F + [0xBABA]


def test_the_frames_that_leave_are_recorded(tmp_path: Path) -> None:
    path, record = tmp_path / "card", tmp_path / "left.pcap"
    frames = [ethernet(bytes([n]) * (40 + n)) for n in range(20)]
    with serve("--socket", str(path), "--id", "10fb", "--record", str(record)) as process:
        assert process.stderr is not None
        assert "is ready" in process.stderr.readline()
        with client(path) as here, Remote82599(here) as driver:
            driver.bring_up()
            for frame in frames:
                driver.send(frame)
            sent, end = 0, time.monotonic() + SECONDS
            while sent < len(frames):
                assert time.monotonic() < end, f"the card has sent {sent} frames"
                sent += driver.read(GPTC)
                time.sleep(0.01)
        process.terminate()
        out, _ = process.communicate(timeout=SECONDS)
        assert process.returncode == 0
    assert "; sent 20 frames, " in out
    assert recorded(record) == frames


def recorded(path: Path) -> list[bytes]:
    """The frames of a pcap file in the byte order of this machine (libpcap's pcap-savefile(5))."""
    data, at, frames = path.read_bytes(), 24, []
    assert struct.unpack_from("=I", data)[0] in {0xA1B2C3D4, 0xA1B23C4D}
    while at < len(data):
        kept, whole = struct.unpack_from("=II", data, at + 8)
        assert kept == whole
        frames.append(data[at + 16 : at + 16 + kept])
        at += 16 + kept
    return frames


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([], 2, "--socket"),
        (["--socket", "/nonexistent/card"], 3, "/nonexistent/card: cannot be made: "),
        (["--socket", "x" * 200], 2, "--socket must have at most 107 bytes"),
        (["--socket", ""], 2, "--socket must be the path of a socket, not empty"),
        (["--socket", "/dev/shm"], 3, "/dev/shm: exists and is no socket; choose another path"),
        (["--socket", "card", "--wire", ""], 2, "--wire must be tap:NAME or unix:OWN,PEER, not ''"),
        (["--socket", "card", "--wire", "unix:card,b"], 2, "card has another purpose here already"),
        (["--socket", "card", "--record", "card"], 2, "card has another purpose here already"),
        (["--socket", "card", "--record", "/dev"], 2, "--record: /dev is a folder; name a file"),
        (
            ["--socket", "card", "--record", "/etc/passwd"],
            2,
            "is not a capture that ringline wrote",
        ),
        (["--socket", "card", "--id", "1234"], 2, "10f7"),
        (["--socket", "card", "--mac", "1:2"], 2, "must be an address such as 02:00"),
        (["--socket", "card", "--mac", "ff:ff:ff:ff:ff:ff"], 2, "the address of one card"),
        (["--socket", "card", "--broken", "all"], 2, "'eeprom', 'link', 'stop'"),
        (["--socket", "card", "--wire", "udp:7"], 2, "--wire must be tap:NAME or unix:OWN,PEER"),
        (["--socket", "card", "--wire", "unix:/nonexistent/a,b"], 3, "cannot be made"),
    ],
)
def test_wrong_arguments_get_a_sentence(arguments: Sequence[str], code: int, says: str) -> None:
    returned, said = refused(*arguments)
    assert returned == code
    assert says in said
    assert "Traceback" not in said


def test_a_file_in_place_of_the_socket_stays(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("mine")
    code, said = refused("--socket", str(path))
    assert (code, "exists and is no socket" in said) == (3, True)
    assert path.read_text() == "mine"


def test_the_defects_are_those_of_the_model() -> None:
    assert sorted(BROKEN) == sorted(DEFECTS)
