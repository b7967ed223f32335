"""The port of a simulated 82599: the driver of the real card over the registers of the model.

The configuration selects where the model runs.

In the driver process (the default): the lane steps the model once per pass, on the driver's
core. The model ends with the driver.

In a process of its own (`process = true`): it goes on when the driver is killed, as a card
would. The supervisor starts it as

    python -m ringline.pipeline.ports.sim82599.process      RINGLINE_CONTROL=<fd>

and speaks to it with the messages ToCard and FromCard of shm/messages.py.

The segment `.card.<port>` (`card_segment` makes it) goes to the driver too, which hands
its descriptor to `use_card` before `open`; register accesses then go through the mailbox in
it. The supervisor may read the wire's counters and the faults there at any time.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ringline.pipeline._pipeline import ffi, lib
from ringline.pipeline.configuration.config import PortConfig
from ringline.pipeline.ports.ixgbe.port import IxgbePort
from ringline.pipeline.ports.registers import RegisterAccess
from ringline.pipeline.ports.sim82599 import model
from ringline.pipeline.ports.sim82599.mailbox import Mailbox
from ringline.pipeline.ports.sim82599.replay import frame_table
from ringline.pipeline.ports.sim82599.transits import Transits
from ringline.pipeline.ports.sim82599.wire import CARD_MAC, FrameTable
from ringline.shm.errors import Bug, ConfigurationError
from ringline.shm.segments import Segment
from ringline.workers.captures import headers

if TYPE_CHECKING:
    from ringline.shm.packets import DescriptorMemory, DeviceAddresses

CARD_BYTES: int = ffi.sizeof("struct rl_sim_card")


def card_segment(instance: str, config: PortConfig) -> Segment:
    """Create the segment `.card.<port>` of a card in a process of its own; the supervisor calls
    this."""
    return Segment.create(instance, f"card.{config.name}", CARD_BYTES, kind=lib.RL_SEGMENT_CARD)


def card_in(segment: Segment) -> Any:
    """The cdata `struct rl_sim_card *` in a segment made by `card_segment`."""
    return ffi.cast("struct rl_sim_card *", segment.address)


def card_mac(index: int) -> bytes:
    """The MAC address in the EEPROM of the card of port `index`, six bytes."""
    return CARD_MAC[:5] + bytes([CARD_MAC[5] + index])


def connect(config: PortConfig, index: int, *, card: Any = None) -> model.Sim82599:
    """Make the card and the wire that `config` describes.

    `card` is cdata `struct rl_sim_card *` of a segment, for a card in a process of its own. Such a
    card is just powered on; a card in the driver process is running, as a previous owner left it.
    Raises `CaptureError` when a capture cannot be read or the record cannot be written.
    """
    sim = model.Sim82599(card_mac(index), left_running=card is None, card=card)
    try:
        if config.wire is not None:
            mac = card_mac(index) if config.mac is None else headers.parse_mac(config.mac)
            table = frame_table(config.wire, mac)
            if table is not None:
                sim.load(table, config.wire.rate_mpps)
            if config.wire.record is not None:
                sim.record(config.wire.record)
    except BaseException:
        sim.close()
        raise
    return sim


class Sim82599Port(IxgbePort):
    """See `Port`; the device string is sim:82599.

    `faults()` is empty for a correct driver and a complete recording.
    """

    def __init__(self, config: PortConfig, index: int, sysfs: Path) -> None:
        super().__init__(config, index, sysfs)
        self._model: model.Sim82599 | None = None
        self._segment: Segment | None = None
        self._sim_card: Any = None  # cdata struct rl_sim_card *, wherever the model runs
        self._windows: list[tuple[int, int, int]] = []
        self._wire: dict[str, int] = {}
        self._replaced = False  # by `replay`
        self._final_faults: list[str] = []
        self._bad_input: str | None = None
        self._stamps: Any = None  # cdata struct rl_sim_stamps *, for a wire with times of its own

    def use_stamps(self, descriptors: Any) -> None:
        """Give packets the times of the frames on the wire. Call it before the lane gets workers.

        `descriptors` is cdata `int64_t[16][4096]` or a pointer to its first number: the time of
        the frame in each RX descriptor by queue, nanoseconds since 1970. The model writes it
        before it writes the descriptor back.
        """
        self._stamps = ffi.new("struct rl_sim_stamps *")
        self._stamps.descriptors = ffi.cast("const int64_t *", descriptors)
        self.c_port.stamps = self._stamps.of_burst
        self.c_port.rx_burst = ffi.addressof(lib, "rl_sim_rx_burst")

    def use_card(self, fd: int) -> None:
        """Attach the segment of a card in another process. Takes ownership of `fd`."""
        self._segment = Segment.attach(fd, kind=lib.RL_SEGMENT_CARD)

    def open(self, memory: Any, descriptors: DescriptorMemory, addresses: DeviceAddresses) -> None:
        if len(addresses.page_bus) != 1:
            raise ConfigurationError(
                f"port.{self.name}.dma: a simulated card cannot use physical addresses; write auto "
                "or offset"
            )
        packets = int(ffi.cast("uintptr_t", memory.base))
        segment = descriptors.segment
        self._windows = [
            (memory.bus[0], packets, memory.buffers * memory.stride),
            (addresses.page_bus[0], segment.address, segment.size),
        ]
        super().open(memory, descriptors, addresses)

    def _map_registers(self) -> RegisterAccess:
        if self._config.process:
            if self._segment is None:
                raise Bug(f"port {self.name}: use_card was not called before open")
            self._sim_card = card_in(self._segment)
            self._use_times_of_the_wire()
            return Mailbox(self._sim_card, self.name)
        sim = connect(self._config, self.index)
        for bus, address, bytes_ in self._windows:
            sim.map_window(bus, address, bytes_)
        self._model, self._sim_card, self.step = sim, sim.card, sim.step_function
        self._use_times_of_the_wire()
        return sim

    def _use_times_of_the_wire(self) -> None:
        """Packets of a replay with the pace of its capture have the times of the capture."""
        wire = self._config.wire
        if wire is not None and wire.pace == "captured":
            self.use_stamps(self._sim_card.stamps)

    def _set_bus_mastering(self, on: bool) -> None:
        if isinstance(self._access, model.Sim82599 | Mailbox):
            self._access.bus_master(on)

    def close(self) -> None:
        self.stop(self.limits.abandon)
        if self._sim_card is not None:
            self._wire, self._final_faults = self.wire_statistics(), self.faults()
            self._bad_input = self.bad_input()
            self._model = self._sim_card = self.step = None
        super().close()
        if self._segment is not None:
            self._segment.close()
            self._segment = None

    def replay(self, table: FrameTable, rate_mpps: float = 0.0) -> None:
        """Let the frames of `table` arrive instead of those of the configuration, at `rate_mpps`
        or, with 0, as fast as there is room. The model must run in this process."""
        self._own_model().load(table, rate_mpps)
        self._replaced = True

    def measure_transits(self) -> Transits:
        """Measure from now on how long frames are under way. The wire must have a rate or a pace,
        and the model must run in this process."""
        return self._own_model().measure_transits()

    def wire_counters(self) -> Any:
        """The cdata `struct rl_sim_wire` of a model in this process, up to date. Much faster than
        `wire_statistics`."""
        return self._own_model().publish()

    def _own_model(self) -> model.Sim82599:
        if self._model is None:
            raise Bug(f"port {self.name}: its model is not in this process")
        return self._model

    def step_once(self) -> int:
        """Step the model once; returns the number of frames and descriptors moved."""
        return 0 if self._model is None else self._model.step()

    def wire_finished(self) -> bool:
        wire = self._config.wire
        if not self._replaced and (wire is None or (wire.replay is None and wire.flows is None)):
            return True  # no traffic arrives
        if self._model is not None:
            return self._model.finished
        return self._sim_card is None or bool(self._sim_card.wire.finished)

    def wire_statistics(self) -> dict[str, int]:
        """The counters of `struct rl_sim_wire`, by name."""
        if self._model is not None:
            self._model.flush()
            return self._model.wire()
        return self._wire if self._sim_card is None else model.wire_counters(self._sim_card)

    def faults(self) -> list[str]:
        if self._sim_card is None:
            return self._final_faults or super().faults()
        ended = self._recording_ended()
        return super().faults() + model.faults(self._sim_card) + ([ended] if ended else [])

    def trouble(self) -> str | None:
        """Why the card could not be stopped, or recording stopped early."""
        return super().trouble() or self._recording_ended()

    def bad_input(self) -> str | None:
        return self._bad_input if self._model is None else self._model.bad_input

    def _recording_ended(self) -> str | None:
        if self._sim_card is None:
            return None
        path = (self._config.wire and self._config.wire.record) or ""
        return model.record_error(self._sim_card, path)
