"""The port of a card with descriptor rings: found on PCI, initialised step by step, driven by C
bursts. A family of cards (ixgbe, e1000e) adds its card, its steps and its bursts.

A simulated card is the same port over other registers: it overrides `_map_registers` and
`_set_bus_mastering`; the rest of the driver is the same.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ringline.pipeline._pipeline import ffi, lib
from ringline.pipeline.configuration.config import PortConfig
from ringline.pipeline.ports.descriptor_rings.card import RingCard
from ringline.pipeline.ports.descriptor_rings.watch import GONE, Watch
from ringline.pipeline.ports.pci.card_port import CardPort
from ringline.pipeline.ports.pci.sysfs import PciDevice
from ringline.pipeline.ports.registers import Register, RegisterAccess
from ringline.shm.errors import ConfigurationError
from ringline.shm.frames import MTU

if TYPE_CHECKING:
    from ringline.shm.packets import DescriptorMemory, DeviceAddresses


class RingPort(CardPort):
    """One card; see `CardPort`. The device string names a PCI address below `sysfs`.

    The step `disable_master` of `steps` also ends a run.
    """

    chip: str
    """The name of the chip, for errors."""
    queues_max: int
    """How many queues receive-side scaling of the chip can address."""
    mtu_max = MTU
    """The largest MTU in bytes for which the steps set the card up."""
    card_class: type[RingCard]
    disable_master: Callable[[Any], None]
    struct, scan_rings, return_all = "struct rl_card", lib.rl_card_scan, lib.rl_card_return_all

    def __init__(self, config: PortConfig, index: int, sysfs: Path) -> None:
        if not 1 <= config.queues <= self.queues_max:
            raise ConfigurationError(
                f"port.{config.name}.queues: must be 1 to {self.queues_max} queues, not "
                f"{config.queues}: receive-side scaling of the {self.chip} addresses no more"
            )
        self._refuse_filters(config)
        if config.mtu > self.mtu_max:
            raise ConfigurationError(
                f"port.{config.name}.mtu: must be at most {self.mtu_max} bytes, not {config.mtu}: "
                f"the driver of the {self.chip} receives no longer frames"
            )
        super().__init__(config, index, sysfs)
        flags = self._descriptor_flags(config.vlan_strip)
        self._c.port_and_flags = [index << 48 | each << 56 for each in flags]
        self._receiving = False

    def _let_the_card_wake_the_lane(self) -> None:
        """Only where a process can get interrupts of the card, which is with VFIO."""
        unmask = self._card.unmask()
        event = self._event() if unmask is not None else -1
        if unmask is not None and event >= 0:
            self._c.unmask, self._c.interrupt = self._pointer(unmask[0]), unmask[1]
            self.c_port.arm, self.c_port.event = ffi.addressof(lib, "rl_card_arm"), event

    def _refuse_filters(self, config: PortConfig) -> None:
        """Filters that the card, or this driver of it, does not have."""
        room = getattr(self.card_class.definitions.get("RA_MORE"), "count", 0)
        if len(config.more_macs) > room:
            raise ConfigurationError(
                f"port.{config.name}.more_macs: {len(config.more_macs)} addresses, and the "
                f"{self.chip} has room for {room} beside its own"
            )
        if config.vlan_filter is not None and "VFTA" not in self.card_class.definitions:
            raise ConfigurationError(
                f"port.{config.name}.vlan_filter: the driver of the {self.chip} has no VLAN filter"
            )

    # -- a simulated card overrides these ------------------------------------------------

    def _map_registers(self) -> RegisterAccess:
        """Take the card for this process alone, and map its registers."""
        device = PciDevice(self._config.device.removeprefix("pci:"), self._sysfs)
        size = max(register.end for register in self.card_class.definitions.values())
        return self._taken.take(device, size, self._config, self.container)

    def _event(self) -> int:
        """The eventfd that the first interrupt of the card counts up; -1: there is none."""
        return self._taken.event()

    def _pointer(self, register: Register) -> Any:
        """Where C writes a register that is no tail."""
        return register.pointer()

    @staticmethod
    @abstractmethod
    def _descriptor_flags(vlan_strip: bool) -> list[int]:
        """The packet flags for each index of `port_and_flags`."""

    # -- life cycle ------------------------------------------------------------------------

    def open(self, memory: Any, descriptors: DescriptorMemory, addresses: DeviceAddresses) -> None:
        self.c_port.memory = memory
        self._access = self._map_registers()
        card = self.card_class(
            self._access, self._config, self._set_bus_mastering, self.limits.register
        )

        def place(c_ring: Any, tail: Register, count: int) -> tuple[int, int]:
            address, offset = descriptors.allocate(count * ffi.sizeof("struct rl_descriptor"))
            c_ring.descriptors = ffi.cast("struct rl_descriptor *", address)
            c_ring.tail = tail.pointer()
            c_ring.mask = count - 1
            return addresses.of(offset), count

        for q in range(self._config.queues):
            card.rx.append(place(self._c.rx[q], card.RDT[q], self._config.rx_descriptors))
            card.tx.append(place(self._c.tx[q], card.TDT[q], self._config.tx_descriptors))
        card.real = self._taken.real
        self._card, self._note = card, descriptors.segment

    def _prepare(self) -> None:
        lib.rl_card_post(self._c)
        self._receiving = True
        self._watch = Watch(self._c, self._config.queues)

    def start(self) -> None:
        super().start()
        self._let_the_card_wake_the_lane()

    def stop_receiving(self) -> None:
        self._card.begin_call(self.limits.stop_receiving)
        with self._noting_errors(self._card.name):
            self._stop_receiver()

    def _stop_receiver(self) -> None:
        if self._receiving:
            self._receiving = False
            self._card.switch_receiver(on=False)

    def _stop_taking(self) -> None:
        self._stop_receiver()
        self._card.stop_receive_queues()

    def _stop_card(self) -> None:
        self._card.stop_transmit_queues()
        self.disable_master(self._card)

    def _why_it_fails(self) -> str:
        if not self._taken.real:
            return ""
        why = self._taken.wanted_back()
        if not why and self._card.STATUS.read() == GONE:
            why = "it does not answer any more; was it removed?"
        if not why and self._totals:
            stopped = self._watch.look(self._arrived(), up=bool(self.c_port.ready))
            why = stopped and f"{stopped}; {self._taken.who_stops_it()}"
        return why

    def _arrived(self) -> int:
        """The frames that the card has accepted or dropped, as last read. A frame may be both."""
        dropped = sum(n for name, n in self._totals.items() if name.endswith("_dropped"))
        return self._totals["rx_good_packets"] + self._totals["rx_missed"] + dropped

    def _use_no_more(self) -> None:
        for burst in ("rx", "tx"):
            setattr(self.c_port, f"{burst}_burst", ffi.addressof(lib, f"rl_card_{burst}_nothing"))
        self._c.unmask, self.c_port.event = ffi.NULL, -1

    # -- state and counters ------------------------------------------------------------------

    def statistics(self) -> dict[str, int]:
        if self.failed:
            return self._totals
        card = self._card
        totals = {name: getattr(card, counter).sum() for name, counter in card.statistics.items()}
        for name, counter in card.queue_statistics.items():
            for queue in range(self._config.queues):
                totals[name.format(queue)] = getattr(card, counter)[queue].read()
        self._totals = totals
        return totals
