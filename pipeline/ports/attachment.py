"""What the supervisor opens for a port on an interface of the kernel.

Sockets, programs and memberships need rights that the driver process does not have. So the
supervisor opens them and hands on descriptors that need no right. They live as long as the
supervisor: when it ends, however it ends, the kernel has its interface back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod


class Attachment(ABC):
    """One port's part of the kernel, held by the supervisor.

    `descriptors` go to the driver. `description` says in a few words how the port is attached, for
    the status; `remarks` are sentences for the operator.
    """

    descriptors: list[int]
    description: str
    remarks: list[str]

    @abstractmethod
    def take(self) -> None:
        """Direct frames to the port from now on. The driver has posted its buffers."""

    @abstractmethod
    def give_back(self) -> None:
        """Leave frames to the kernel from now on. May be called again."""

    @abstractmethod
    def renew(self) -> bool:
        """Attach again if the interface was removed and is there again. Returns whether that
        happened: then `descriptors` are new, and `take` follows when the driver has them.

        Raises EnvironmentLacks when the new interface cannot be used; it may be called again.
        """

    @abstractmethod
    def close(self) -> None:
        """Detach from the interface and restore what was changed. May be called again."""
