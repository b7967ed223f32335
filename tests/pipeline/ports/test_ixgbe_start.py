"""The initialisation of the 82599 against the device model: complete, without each step, and with
writes to each register ignored."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Container
from typing import Any

import pytest

from ringline.pipeline._pipeline import ffi, lib
from ringline.pipeline.configuration.deadlines import PortLimits
from ringline.pipeline.ports.ixgbe.card import Card
from ringline.pipeline.ports.ixgbe.initialisation import STEPS
from ringline.pipeline.ports.ixgbe.registers import REGISTERS, UNUSED_TABLES
from ringline.shm.errors import HardwareError

from .bare_82599 import table
from .fake_card import CTRL, STATUS, FakeCard, FakeRegisters
from .frames import BROADCAST, OTHER, packet
from .model_card import ModelCard

Step = Callable[[Card], None]
MAC = "02:00:00:00:00:77"
OURS = bytes.fromhex(MAC.replace(":", ""))
ALSO = bytes.fromhex("020000000088")
CONFIG: dict[str, Any] = {
    "queues": 4,
    "promiscuous": False,
    "mac": MAC,
    "more_macs": (ALSO.hex(":"),),
    "vlan_strip": True,
    "vlan_filter": (0x123,),
}
CRC = 4
TAG = 0x6123


def to(destination: bytes, frame: bytes) -> bytes:
    return destination + frame[6:]


UDP = [to(OURS, packet("10.0.0.1", "10.0.0.2", 17, (1000 + n, 53))) for n in range(64)]
TCP = [to(OURS, packet("fd00::1", "fd00::2", 6, (1000 + n, 80))) for n in range(64)]
PLAIN = [*UDP, *TCP, to(BROADCAST, UDP[0]), to(ALSO, UDP[1])]
TAGGED = to(OURS, packet("10.0.0.1", "10.0.0.2", 17, (1, 2), b"tagged payload, long", vlan=TAG))
FOREIGN = to(OTHER, UDP[0])
LONG = to(OURS, packet("10.0.0.1", "10.0.0.2", 17, (1, 2), bytes(1500)))
ELSEWHERE = to(OURS, packet("10.0.0.1", "10.0.0.2", 17, (1, 2), vlan=0x6124))
TRAFFIC = [*PLAIN, TAGGED, FOREIGN, ELSEWHERE, LONG]


def addresses_of(name: str) -> set[int]:
    definition = REGISTERS[name]
    halves = (0, 4) if definition.mode == "RW64" else (0,)
    return {
        definition.address + definition.stride * n + half
        for n in range(max(definition.count, 1))
        for half in halves
    }


def woken(card: ModelCard) -> list[int]:
    """How often the card raises its interrupt: for the frames before, once more armed, for a frame
    that it was armed for, and for the next one, when it is not armed any more."""
    events = []
    for armed, frames in ((True, []), (True, []), (False, PLAIN[:1]), (False, PLAIN[:1])):
        if armed:
            card.c_port.arm(card.c_port)
            card.port.follow()
        if frames:
            card.carry(frames)
        events.append(card.port.events())
    return events


def observe(
    instance: str, steps: tuple[Step, ...] = STEPS, ignored: Container[int] = ()
) -> dict[str, Any]:
    """All observable results of an initialisation followed by traffic."""
    seen: dict[str, Any] = {}
    with ModelCard(instance, **CONFIG) as card:
        card.port.steps, card.port.wakes = steps, True
        card.port.registers.ignored = ignored
        for name in UNUSED_TABLES:
            for address in addresses_of(name):
                card.sim.write32(address, 0xFFFFFFFF)  # another driver left it; a reset keeps it
        try:
            card.start()
        except HardwareError as error:
            seen["error"] = str(error)
        else:
            seen["link"] = card.port.link()
            seen["tables"] = {
                name: any(map(card.sim.read32, addresses_of(name))) for name in UNUSED_TABLES
            }
            seen["mac"] = card.port.mac
            seen["received"] = sorted(card.carry(TRAFFIC), key=repr)
            seen["statistics"] = card.port.statistics()
            seen["transmitted"] = card.sim.wire()["transmitted_bytes"]
            seen["woken"] = woken(card)
        seen["faults"] = card.sim.faults()
        card.port.stop()
        seen["stop"] = (card.port.faults(), card.sim.faults(), card.residuals())
    return seen


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    """The results of the complete initialisation."""
    return observe(f"t{os.getpid()}-ixgbe-start")


def test_traffic_flows_and_the_model_finds_no_fault(expected: dict[str, Any]) -> None:
    assert "error" not in expected
    assert expected["woken"] == [1, 0, 1, 0]
    assert expected["faults"] == []
    assert expected["tables"] == dict.fromkeys(UNUSED_TABLES, False)
    assert (expected["link"].up, expected["link"].mbps) == (True, 10000)
    assert expected["mac"] == MAC
    stripped = TAGGED[:12] + TAGGED[16:]
    frames = Counter(one.frame for one in expected["received"])
    assert frames == Counter([*PLAIN, stripped])
    checked = lib.RL_FLAG_L3_OK | lib.RL_FLAG_L4_OK
    for one in expected["received"]:
        wanted = lib.RL_FLAG_L4_OK if one.frame in TCP else checked
        assert one.flags & checked == wanted
        assert one.flags & lib.RL_FLAG_HASH
        assert one.tag == (TAG if one.frame == stripped else None)
    assert {one.queue for one in expected["received"]} == {0, 1, 2, 3}


def test_the_queue_is_the_redirection_of_the_hash(expected: dict[str, Any]) -> None:
    for one in expected["received"]:
        assert one.queue == one.rss_hash % 128 % 4


def test_the_card_counts_the_same_as_the_driver(expected: dict[str, Any]) -> None:
    statistics = expected["statistics"]
    frames = [*PLAIN, TAGGED]
    assert statistics["rx_good_packets"] == statistics["tx_good_packets"] == len(frames)
    size = sum(len(frame) + CRC for frame in frames)
    assert statistics["rx_good_bytes"] == statistics["tx_good_bytes"] == size
    assert (statistics["rx_oversize"], statistics["rx_undersize"]) == (1, 0)
    queues = Counter(one.queue for one in expected["received"])
    for queue in range(4):
        assert statistics[f"rx_queue{queue}_packets"] == queues[queue]
        assert statistics[f"tx_queue{queue}_packets"] == queues[queue]
        assert statistics[f"rx_queue{queue}_dropped"] == 0


def test_an_orderly_stop_leaves_every_buffer_free(expected: dict[str, Any]) -> None:
    port_faults, card_faults, residuals = expected["stop"]
    assert (port_faults, card_faults) == ([], [])
    assert set(residuals.values()) == {0}


# (earlier, later, why). The model shows that a step is missing, but not every wrong order.
ORDER = [
    ("mask_interrupts", "reset", "a card that was left running may still raise interrupts"),
    ("disable_master", "reset", "a reset in the middle of a DMA access can hang the bus"),
    ("reset", "await_eeprom", "a reset reads the EEPROM again"),
    ("reset", "await_dma", "a reset initialises the DMA engines again"),
    ("await_eeprom", "set_address", "the EEPROM would overwrite the address"),
    ("reset", "allow_dma", "DMA from before would resume, into memory of this run"),
    ("await_dma", "allow_dma", "the DMA engines are not initialised before"),
    ("reset", "map_statistics", "a reset clears the maps"),
    ("map_statistics", "clear_statistics", "a counter of another map may have counted"),
    ("reset", "prepare_interrupt", "a reset clears the vectors and masks"),
    ("reset", "clear_tables", "the card initialises its tables after a reset"),
    ("allow_dma", "enable_receive_queues", "an enabled queue fetches descriptors by DMA"),
    ("allow_dma", "enable_transmit_queues", "an enabled queue fetches descriptors by DMA"),
    ("place_receive_rings", "enable_receive_queues", "DMA would go to an old address"),
    ("describe_receive_buffers", "enable_receive_queues", "frames would overrun their buffers"),
    ("strip_vlan", "enable_receive_queues", "the first frames would keep their tag"),
    ("enable_receive_queues", "offer_descriptors", "the card ignores RDT of a disabled queue"),
    ("place_transmit_rings", "enable_transmit_queues", "DMA would go to an old address"),
    ("set_thresholds", "enable_transmit_queues", "WTHRESH decides which descriptors report"),
    ("size_transmit_buffer", "enable_transmit_dma", "the sizes must not change under traffic"),
    ("enable_transmit_dma", "enable_transmit_queues", "the datasheet wants TE before the queues"),
    *[
        (step.__name__, "enable_receiver", "the first frame must find the whole card set up")
        for step in STEPS
        if step.__name__ != "enable_receiver"
    ],
]


@pytest.mark.parametrize(("earlier", "later", "why"), ORDER)
def test_steps_that_depend_on_each_other_are_in_order(earlier: str, later: str, why: str) -> None:
    names = [step.__name__ for step in STEPS]
    assert names.index(earlier) < names.index(later), f"{later} before {earlier}: {why}"


LRST, RST, MASTER_DISABLE = 1 << 3, 1 << 26, 1 << 2


class SlowRegisters(FakeRegisters):
    """A model that polls its registers: each entry of `polls` is what it does at one poll."""

    def __init__(self, polls: list[Callable[[FakeRegisters], None]]) -> None:
        super().__init__()
        self.polls = polls
        self.log: list[tuple[int, int]] = []

    def write32(self, address: int, value: int) -> None:
        self.log.append((address, value))
        self.words[address // 4] = value

    def relax(self) -> None:
        if self.polls:
            self.polls.pop(0)(self)

    def clear(self, bits: int) -> None:
        self.words[CTRL // 4] &= ~bits


def start_on(card: FakeCard, access: FakeRegisters) -> None:
    card.port.access = access
    card.port._map_registers = lambda: access
    card.port.open(card.memory, card.descriptors, card.descriptors.device_addresses("offset"))
    card.start()


def started(instance: str, access: SlowRegisters) -> list[tuple[int, int]]:
    """All writes while a port starts on such a card."""
    with FakeCard(instance) as card:
        start_on(card, access)
        assert not access.words[CTRL // 4] & (LRST | RST | MASTER_DISABLE)
        return list(access.log)


@pytest.mark.parametrize("first", [LRST, RST])
def test_nothing_is_written_before_both_resets_are_over(
    instance: Callable[[], str], first: int
) -> None:
    over: list[int] = []
    access = SlowRegisters(
        [
            lambda card: card.clear(first),
            lambda card: None,
            lambda card: (over.append(len(card.log)), card.clear(LRST | RST)),
        ]
    )
    log = started(instance(), access)
    address, value = log[over[0] - 1]
    assert address == CTRL
    assert value & (LRST | RST) == LRST | RST
    assert len(log) > 100


def test_a_card_that_does_not_end_its_dma_is_reset_twice(instance: Callable[[], str]) -> None:
    def follow(card: SlowRegisters) -> None:
        card.clear(LRST | RST)
        card.polls.append(follow)

    access = SlowRegisters([follow])
    access.words[STATUS // 4] = 1 << 19
    log = started(instance(), access)
    assert sum(address == CTRL and value & RST > 0 for address, value in log) == 2


AUTOC, SWSM, SW_FW_SYNC = 0x42A0, 0x10140, 0x10160
MAC_HELD, FIRMWARE_HELD = 1 << 3, 1 << 8


class SharedRegisters(FakeRegisters):
    """`owners` are the bits of SW_FW_SYNC whenever AUTOC is written; the firmware, or the driver of
    the other port, gives the registers of the link free at the poll number `free_at`."""

    def __init__(self, held: int, free_at: int) -> None:
        super().__init__()
        self.words[SW_FW_SYNC // 4] = held
        self.free_at = free_at
        self.owners: list[int] = []

    def write32(self, address: int, value: int) -> None:
        if address == AUTOC:
            self.owners.append(self.read32(SW_FW_SYNC))
        super().write32(address, value)

    def relax(self) -> None:
        self.free_at -= 1
        if self.free_at == 0:
            self.words[SW_FW_SYNC // 4] = 0


@pytest.mark.parametrize(
    ("held", "free_at"), [(0, 0), (FIRMWARE_HELD, 3), (MAC_HELD, 3), (MAC_HELD, 0)]
)
def test_the_link_is_set_while_the_firmware_leaves_it(
    instance: Callable[[], str], held: int, free_at: int
) -> None:
    """The last case: a driver of the other port that was killed never gives it free."""
    access = SharedRegisters(held, free_at)
    with FakeCard(instance()) as card:
        card.port.limits = PortLimits(register=1.0, link=0.05, sent=0.05)  # a busy machine
        start_on(card, access)
    assert access.owners == [MAC_HELD, MAC_HELD]
    assert access.read32(SW_FW_SYNC) == access.read32(SWSM) == 0


def test_a_link_that_the_firmware_keeps_is_named(instance: Callable[[], str]) -> None:
    with (
        FakeCard(instance()) as card,
        pytest.raises(HardwareError, match=r"kept the link for .* \(SW_FW_SYNC.FW_MAC stays 1\);"),
    ):
        start_on(card, SharedRegisters(FIRMWARE_HELD, 0))


# Steps whose absence the model cannot show, because a reset leaves the same values. On a real card
# the EEPROM, or firmware that runs after the reset, may leave others.
UNDETECTED = {
    "check_eeprom": "the EEPROM of the model is right",
    "size_receive_buffer": "the first packet buffer has all 512 KiB after a reset",
    "bound_frames": "a reset switches jumbo frames off, and MAXFRS only counts for those",
    "finish_frames": "CRC and padding are on after a reset",
    "set_thresholds": "WTHRESH is 0 after a reset; PTHRESH and HTHRESH only say when to prefetch",
}
UNDETECTED_REGISTERS = {
    "HLREG0": "CRC in both directions and padding are on after a reset, jumbo frames off",
    "MAXFRS": UNDETECTED["bound_frames"],
    "RXPBSIZE": UNDETECTED["size_receive_buffer"],
    "TXPBSIZE": "the first packet buffer has all 160 KiB after a reset",
    "MTQC": "0 after a reset, which is one traffic class",
    "SW_FW_SYNC": "the model has no firmware, and no second port, that take the link meanwhile",
    "EITR": "it only limits how often messages come (test_ixgbe_interrupts.py)",
    "RDH": "0 after a reset",
    "TDH": "0 after a reset",
    "TDT": "0 after a reset",
}


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
def test_a_missing_step_is_detected(
    instance: Callable[[], str], expected: dict[str, Any], step: Step
) -> None:
    steps = tuple(each for each in STEPS if each is not step)
    assert (observe(instance(), steps) == expected) is (step.__name__ in UNDETECTED)


@pytest.mark.parametrize(
    "name", [n for n, r in REGISTERS.items() if r.mode in ("RW", "RW64", "WO")]
)
def test_ignored_writes_to_a_register_are_detected(
    instance: Callable[[], str], expected: dict[str, Any], name: str
) -> None:
    seen = observe(instance(), ignored=addresses_of(name))
    assert (seen == expected) is (name in UNDETECTED_REGISTERS)


def test_no_frame_is_written_past_its_buffer(
    instance: Callable[[], str],
) -> None:
    """A jumbo frame, with jumbo frames switched on by the test, takes several buffers: dropped."""
    hlreg0, jumboen, maxfrs = 0x4240, 1 << 2, 0x4268
    with ModelCard(instance(), **CONFIG) as card:
        card.start()
        card.sim.write32(hlreg0, card.sim.read32(hlreg0) | jumboen)
        card.sim.write32(maxfrs, 9000 << 16)
        jumbo = to(OURS, packet("10.0.0.1", "10.0.0.2", 17, (1, 2), b"\xff" * 5000))
        received = card.carry([jumbo, PLAIN[0]])
        assert [one.frame for one in received] == [PLAIN[0]]
        assert sum(card.counters(queue).drop_rx_error for queue in range(4)) == 1
        memory = card.memory
        for buffer in range(memory.buffers):
            start = memory.base + buffer * memory.stride
            assert not any(bytes(ffi.buffer(start, memory.headroom))), buffer
        assert set(card.residuals().values()) == {0}


def test_descriptors_of_an_earlier_start_are_not_taken_for_new(instance: Callable[[], str]) -> None:
    """Completed descriptors that the driver had not read, in both directions."""
    with ModelCard(instance(), **CONFIG) as card:
        card.start()
        card.carry(PLAIN, steps=3)
        card.sim.load(table(PLAIN))
        for _ in range(5):
            card.sim.step()
        card.port.stop()
        in_flight = card.lane.in_flight
        card.port.start()
        assert [card.rx_burst(queue) for queue in range(4)] == [[]] * 4
        assert [card.reclaim(queue) for queue in range(4)] == [0] * 4
        assert card.lane.in_flight == in_flight
        assert sorted(one.frame for one in card.carry(PLAIN)) == sorted(PLAIN)
        assert card.sim.faults() == []
