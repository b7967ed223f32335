"""What ports on sockets of an interface share, in the supervisor and in the driver: `xdp:` and
`packet:`. The kernel shares rings with such a socket, and unbinds it when its interface is gone."""

from __future__ import annotations

import time
from abc import abstractmethod
from typing import TYPE_CHECKING, Protocol

from ringline.pipeline.ports.attachment import AttachedPort, Attachment
from ringline.pipeline.ports.interfaces import interface

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from ringline.pipeline.configuration.config import PortConfig

PAUSE = 0.001  # seconds between two looks at the rings of a port that stops


class SocketAttachment(Attachment):
    """The sockets of one port, one for each queue."""

    _config: PortConfig
    _gone: bool
    """The interface is gone, and the sockets are closed."""

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
            self._gone = True
            self.close()
        if interface.find(self._config.address) is None:
            return False
        self._open_all()
        return True


class _Mapped(Protocol):
    def close(self) -> None: ...


class SocketPort(AttachedPort):
    """The driver's part: the sockets and their rings, mapped."""

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

    def _release(self) -> None:
        for mapped in self._rings:
            mapped.close()
        for each in self._sockets:
            each.close()
        self._rings, self._sockets = [], []
