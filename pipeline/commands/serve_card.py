"""`ringline serve-card`: the simulated 82599 for other programs, over vfio-user."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import stat
import sys
import types
from collections.abc import Iterator
from pathlib import Path

from ringline.pipeline.configuration import deadlines
from ringline.pipeline.configuration.machine_checks import same, unwritable
from ringline.pipeline.ports.served.card import BACKPLANE, ServedCard
from ringline.pipeline.ports.served.serving import serve
from ringline.pipeline.ports.served.wires import Wire, open_wire
from ringline.pipeline.ports.sim82599.model import Sim82599
from ringline.shm.errors import EnvironmentLacks, UsageError, reason_of
from ringline.shm.owners import is_file_at
from ringline.shm.text import counted

PATH_BYTES = 107  # of a socket's path (unix(7))


def serve_card(given: argparse.Namespace) -> int:
    """Serve a card until SIGINT or SIGTERM; the exit code.

    Raises UsageError and EnvironmentLacks.
    """
    device = int(given.device, 16)
    ending = _Ending()
    with contextlib.ExitStack() as stack:
        _check_paths(given)
        wire: Wire | None = None
        if given.wire is not None:
            wire = stack.enter_context(open_wire(given.wire))
        model = stack.enter_context(
            Sim82599(
                given.mac,
                left_running=False,
                foreign=True,
                backplane=device == BACKPLANE,
                broken=given.broken,
            )
        )
        if wire is not None:
            model.live(wire.fd, wire.peer)
        if given.record:
            model.record(given.record)
        listening = stack.enter_context(_listening(given.socket))
        card = ServedCard(model, device, given.mac)
        stack.enter_context(ending.on_signals(card))
        _say(f"an 8086:{given.device} is ready at {given.socket}; Ctrl-C ends it")
        serve(listening, card, model, wire.fd if wire else -1, ending.asked, _say)
        model.flush()
        _summarise(model, card)
    return 0


def _check_paths(given: argparse.Namespace) -> None:
    """Nothing that others need is overwritten, and no path has two purposes."""
    if not given.socket:
        raise UsageError("--socket must be the path of a socket, not empty")
    _, _, ends = (given.wire or "").partition(":")
    for other in (given.record, *ends.split(",")):
        if other and same(Path(given.socket), Path(other)):
            raise UsageError(
                f"--socket: {other} has another purpose here already; choose two paths"
            )
    if given.record:
        for problem in unwritable("--record", Path(given.record)):
            raise UsageError(problem)


class _Ending:
    """Whether a signal has asked for the end."""

    def __init__(self) -> None:
        self._asked = False

    def asked(self) -> bool:
        return self._asked

    @contextlib.contextmanager
    def on_signals(self, card: ServedCard) -> Iterator[None]:
        """SIGUSR1 asks for the counts until now, as with dd(1)."""

        def note(number: int, frame: types.FrameType | None) -> None:
            self._asked = True

        def count(number: int, frame: types.FrameType | None) -> None:
            os.write(sys.stderr.fileno(), f"ringline: {card.accesses}\n".encode())

        wanted = {signal.SIGINT: note, signal.SIGTERM: note, signal.SIGUSR1: count}
        before = {number: signal.signal(number, handler) for number, handler in wanted.items()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def _listening(path: str) -> Iterator[socket.socket]:
    """The socket at `path`, in place of one that nobody has open; removed at the end."""
    if len(os.fsencode(path)) > PATH_BYTES:
        raise UsageError(f"--socket must have at most {PATH_BYTES} bytes")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
        try:
            _remove_stale(path)
            if os.path.lexists(path):
                raise EnvironmentLacks(f"{path}: exists and is no socket; choose another path")
            made.bind(path)
            os.chmod(path, 0o600)
            made.listen(1)
        except OSError as error:
            raise EnvironmentLacks(f"{path}: cannot be made: {reason_of(error)}") from None
        status = os.lstat(path)
        try:
            yield made
        finally:
            with contextlib.suppress(OSError):
                if is_file_at(path, status):  # it may be that of another command by now
                    os.unlink(path)


def _remove_stale(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.settimeout(deadlines.STATUS_PROBE)
            try:
                asking.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)
                return
            except (BlockingIOError, TimeoutError):  # it has clients, and more of them wait
                pass
            raise EnvironmentLacks(f"{path}: another process serves a card there already")


def _summarise(model: Sim82599, card: ServedCard) -> None:
    wire = model.wire()
    print(
        f"received {counted(wire['delivered'], 'frame')}, {wire['delivered_bytes']:,} bytes; "
        f"sent {counted(wire['transmitted'], 'frame')}, {wire['transmitted_bytes']:,} bytes"
    )
    for name, number in wire.items():
        if number and (name.startswith("dropped_") or name in {"lost", "refused"}):
            print(f"  {name.replace('_', ' ')}: {number}")
    if card.accesses.read or card.accesses.written:
        print(f"  {card.accesses}")
    if trouble := model.record_error:
        print(trouble)
    faults = model.faults()
    for fault in faults:
        print(f"the card refused: {fault}")


def _say(sentence: str) -> None:
    print(f"ringline: {sentence}", file=sys.stderr, flush=True)
