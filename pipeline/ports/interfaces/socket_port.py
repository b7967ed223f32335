"""What ports on sockets of an interface share, in the supervisor and in the driver: `xdp:` and
`packet:`. The kernel shares rings with such a socket, and unbinds it when its interface is gone.

Guarantees (tests in tests/e2e/test_start_broken.py):
 - a supervisor that is killed during the start leaves nothing attached
   (test_a_start_that_is_killed_leaves_nothing_and_the_next_one_starts)
 - an interface that is removed during the start is named or waited for
   (test_an_interface_that_is_removed_during_the_start_gets_a_sentence_or_is_waited_for)
"""

from __future__ import annotations

import contextlib
import time
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Protocol

from ringline.pipeline._pipeline import ffi
from ringline.pipeline.ports.attachment import AttachedPort, Attachment, wait_for
from ringline.pipeline.ports.interfaces import interface
from ringline.shm.errors import EnvironmentLacks, reason_of

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from ringline.pipeline.configuration.config import PortConfig

PAUSE = 0.001  # seconds between two looks at the rings of a port that stops


class SocketAttachment(Attachment):
    """The sockets of one port, one for each queue."""

    _config: PortConfig
    _gone: bool
    """The sockets are closed, since the interface is gone."""

    @abstractmethod
    def _open_all(self) -> None:
        """Open everything, and set `_gone` to False. Raises EnvironmentLacks; then nothing is
        open."""

    @abstractmethod
    def _is_bound(self) -> bool:
        """Whether the sockets have their interface. It may have been away for a moment only."""

    def renew(self) -> bool:
        if not self._gone:
            if self._is_bound():
                return False
            # An interface that somebody moved to another network namespace is theirs from now on.
            # It may come back with its number, but the kernel has unbound the sockets.
            self.close()
        if interface.find(self._config.address) is None:
            self.waiting = wait_for(self._config)
            return False
        self._open_all()
        self.waiting = ""
        return True


class _Mapped(Protocol):
    def close(self) -> None: ...


class SocketPort(AttachedPort):
    """The driver's part: the sockets and their rings, mapped."""

    _interface: str
    _c: Any
    """The C struct of the port: its `queues` are those that the lane works on."""
    _sockets: list[socket.socket]
    _rings: Sequence[_Mapped]
    _running: bool

    @abstractmethod
    def _reclaim(self, queue: int) -> None:
        """Book the frames of a queue that the kernel has sent."""

    @abstractmethod
    def _return_all(self) -> None:
        """Take all buffers back; what is not sent is not sent any more."""

    def stop(self, seconds: float | None = None) -> None:
        if not self._running:
            return
        self._running = False
        self.c_port.ready = 0
        deadline = time.monotonic() + (self.limits.sent if seconds is None else seconds)
        while self.posted()[1] > 0 and self.link().up and time.monotonic() < deadline:
            for queue in range(self.queue_pairs):
                self._reclaim(queue)
            time.sleep(PAUSE)
        self._return_all()

    def close(self) -> None:
        if self._rings:
            self.stop(self.limits.abandon)
        self._release()

    @abstractmethod
    def _map_queue(self, descriptor: int, place: Any) -> Any:
        """Map the rings of a socket and describe them in `place`, the C struct of a queue. Raises
        OSError."""

    def _mapped_anew(
        self, descriptors: Sequence[int]
    ) -> tuple[interface.Interface, list[Any], Any]:
        """`_mapped` for these sockets, which take the place of those of the port. Raises
        EnvironmentLacks; then the port has its own as before, and these are closed."""
        old = self._sockets
        self.use_sockets(descriptors)
        try:
            return self._mapped()
        except EnvironmentLacks:
            self._release_these([], self._sockets)
            self._sockets = old
            raise

    def _mapped(self) -> tuple[interface.Interface, list[Any], Any]:
        """The interface, the rings of the sockets, and an array with the C structs that describe
        them. Nothing that the lane works on is changed.

        Raises EnvironmentLacks when the interface is gone; then nothing is mapped.
        """
        where = f"port.{self.name}.device: {self._interface}"
        queues = ffi.new(f"{ffi.typeof(self._c.queues).item.cname}[]", self.queue_pairs)
        with contextlib.ExitStack() as stack:
            mapped = []
            removed = f"{where} was removed during the start; start the run again when it is there"
            try:
                for queue, each in enumerate(self._sockets):
                    made = self._map_queue(each.fileno(), ffi.addressof(queues, queue))
                    stack.callback(made.close)
                    mapped.append(made)
            except OSError as error:
                if interface.find(self._interface) is None:  # AF_XDP says "busy" then
                    raise EnvironmentLacks(removed) from None
                raise EnvironmentLacks(
                    f"{where}: the rings of its sockets cannot be mapped: {reason_of(error)}; if "
                    "it was removed during the start, start again when it is there"
                ) from None
            found = interface.find(self._interface)
            if found is None:
                raise EnvironmentLacks(removed)
            stack.pop_all()
        return found, mapped, queues

    def _release(self) -> None:
        self._release_these(self._rings, self._sockets)
        self._rings, self._sockets = [], []

    @staticmethod
    def _release_these(rings: Sequence[_Mapped], sockets: Sequence[socket.socket]) -> None:
        for mapped in rings:
            mapped.close()
        for each in sockets:
            each.close()
