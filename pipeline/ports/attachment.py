"""What the supervisor opens for a port on an interface of the kernel.

Sockets, programs and memberships need rights that the driver process does not have. So the
supervisor opens them and hands on descriptors that need no right. They live as long as the
supervisor: when it ends, however it ends, the kernel has its interface back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol

from ringline.pipeline.ports.port import Port

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ringline.pipeline.configuration.config import PortConfig
    from ringline.shm.packets import PacketMemory


class Attachment(ABC):
    """One port's part of the kernel, held by the supervisor.

    `descriptors` go to the driver. `description` says in a few words how the port is attached, for
    the status; `remarks` are sentences for the operator. `channels` is that of the message
    `Sockets` (shm/messages.py).
    """

    descriptors: list[int]
    description: str
    remarks: list[str]
    channels: Sequence[int] = ()
    waiting: str = ""
    """While the interface is gone: a sentence that says for which name the port waits."""

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
        """Detach from the interface and restore what was changed. May be called again. `renew`
        attaches again."""


class AttachedPort(Port):
    """The driver's part of such a port: it works on the descriptors of an `Attachment`.

    Call `use_sockets` before `open`.
    """

    @abstractmethod
    def use_sockets(self, descriptors: Sequence[int]) -> None:
        """Take over the descriptors of the attachment, in their order; the port closes them."""

    @abstractmethod
    def replace_sockets(self, descriptors: Sequence[int]) -> None:
        """The interface was removed and is there again: use new descriptors in place of the old
        ones, which have no interface any more. What was to be sent is dropped as `tx_down`.

        Raises EnvironmentLacks when the new interface is gone again: then the new descriptors are
        closed, and the port keeps the old ones.
        """


class Kind(Protocol):
    """A kind of port on an interface of the kernel: the module `kind` of its folder."""

    def check(self, config: PortConfig, packet_bytes: int) -> None:
        """Check the interface as far as that is possible without opening anything.

        `packet_bytes` is the size of packet memory. Raises `EnvironmentLacks`.
        """

    def attach(self, config: PortConfig, packets: PacketMemory) -> Attachment:
        """Open what needs rights, in the supervisor. Raises `EnvironmentLacks`, and then nothing
        is open."""

    def create(self, config: PortConfig, index: int) -> AttachedPort:
        """The driver's part; `index` is the port's number in the instance."""


def wait_for(config: PortConfig) -> str:
    """`Attachment.waiting`. The interface may have had another name when it went."""
    return (
        f"port {config.name}: its interface is gone from this network namespace; the port waits "
        f"for one with the name {config.address}"
    )


def remarks_together(ports: Sequence[PortConfig]) -> list[str]:
    """Sentences about ports that use one interface in two ways."""
    copied = {port.address: port for port in ports if port.packet is not None}
    found = []
    for port in ports:
        if port.xdp is not None and (copy := copied.get(port.address)) is not None:
            found.append(
                f"port {copy.name} gets no copy of the frames that port {port.name} takes from "
                f"{port.address} or sends there: AF_XDP is before the packet sockets; it gets "
                "those that the kernel receives and sends"
                + ("" if port.xdp.take else f" (take is not set, so port {port.name} takes all)")
            )
    return found
