"""The port of virtio-net over a device that the test plays.

tests/guest/test_virtio.py has QEMU's device.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from ringline.pipeline._pipeline import ffi, lib
from ringline.pipeline.ports.port import Link
from ringline.pipeline.ports.rss import rss_key
from ringline.shm.errors import ConfigurationError, EnvironmentLacks, HardwareError

from .fake_virtio import (
    ADDRESS,
    CONTROL,
    DEVICE,
    EVENT_IDX,
    HASH_REPORT,
    MQ,
    PLAIN,
    RSS,
    RX_EXTRA,
    RX_MODE,
    STATUS,
    UNTOUCHED,
    VERSION_1,
    VLAN,
    FakeDevice,
    FakeVirtio,
)
from .port_harness import RIGHT

NEEDS_CSUM, DATA_VALID, GSO_TCPV4 = 1, 2, 1
FRAME = bytes(range(100))
Make = Callable[..., FakeVirtio]


@pytest.fixture
def make(instance: Callable[[], str]) -> Iterator[Make]:
    """Makes a port over a device with these features."""
    with ExitStack() as stack:

        def made(
            offered: int = PLAIN, *, pairs: int = 1, size: int = 64, **config: Any
        ) -> FakeVirtio:
            device = FakeDevice(offered, pairs, size)
            return stack.enter_context(FakeVirtio(instance(), device, **config))

        yield made


def test_the_device_is_brought_up_in_the_order_of_the_specification(make: Make) -> None:
    card = make(PLAIN | EVENT_IDX | 1 << 7).start()
    assert card.device.accepted == PLAIN | EVENT_IDX  # not GUEST_TSO4
    assert card.device.words[STATUS] == 1 | 2 | 4 | 8
    assert card.port.bus_mastering
    assert card.device.commands == [b"\0\0\1", b"\0\1\1"]  # promiscuous, all multicast
    assert (card.port.mac, card.port.link()) == (ADDRESS.hex(":"), Link(True, 10000))
    assert card.port.posted() == (64, 0)
    assert card.residuals() == RIGHT
    card.port.stop()
    assert card.device.words[STATUS] == 0
    assert not card.port.bus_mastering
    assert card.port.posted() == (0, 0)
    assert card.residuals() == RIGHT


def test_an_address_and_filters_go_through_the_control_queue(make: Make) -> None:
    card = make(mac="02:00:00:00:00:77", promiscuous=False).start()
    assert card.device.commands == [bytes.fromhex("0101020000000077"), b"\0\0\0", b"\0\1\0"]
    assert card.port.mac == "02:00:00:00:00:77"


def test_more_addresses_go_to_the_tables_of_their_kind(make: Make) -> None:
    card = make(more_macs=("02:00:00:00:00:79", "01:00:5e:00:00:01"), promiscuous=False).start()
    tables = "0100 01000000 020000000079 01000000 01005e000001"
    assert card.device.commands == [bytes.fromhex(tables), b"\0\0\0", b"\0\1\0"]


@pytest.mark.parametrize("everything", [True, False])
def test_a_vlan_filter_holds_for_all_addresses(make: Make, everything: bool) -> None:
    """In its promiscuous mode, QEMU's device receives all VLANs."""
    card = make(PLAIN | VLAN | RX_EXTRA, promiscuous=everything, vlan_filter=(7, 0x123)).start()
    assert card.device.accepted & VLAN
    modes = [b"\0\0\0", bytes((0, 1, everything)), bytes((0, 2, everything))]
    vlans = [b"\2\0\0\0", b"\2\0\7\0", b"\2\0\x23\1"]
    assert card.device.commands == modes + vlans
    card = make(PLAIN | VLAN | RX_EXTRA).start()
    assert not card.device.accepted & VLAN


def test_frames_have_the_flags_of_their_headers(make: Make) -> None:
    card = make().start()
    partial = bytearray(FRAME[:34]) + struct.pack(">4H", 1, 2, 20, 0x1234) + bytes(range(12))
    assert card.receive(FRAME)
    assert card.receive(FRAME, header=bytes((DATA_VALID,)))
    start = struct.pack("<BBHHHH", NEEDS_CSUM, 0, 0, 0, 34, 6)
    assert card.receive(bytes(partial), header=start)
    first, second, third = map(card.held, card.rx_burst())
    assert (first.length, first.flags, card.frame(first)) == (100, 0, FRAME)
    assert (second.length, second.flags) == (100, lib.RL_FLAG_L4_OK)
    done = card.frame(third)
    total = sum(struct.unpack(">10H", partial[34:]))
    total = (total & 0xFFFF) + (total >> 16)
    assert struct.unpack_from(">H", done, 40) == (0xFFFF - total,)
    assert done[:40] + done[42:] == bytes(partial[:40] + partial[42:])
    assert card.port.statistics()["rx_checksums_completed"] == 1
    assert card.residuals() == RIGHT


def test_a_udp_checksum_is_never_written_as_zero(make: Make) -> None:
    card = make().start()
    frame = bytes(34) + struct.pack(">4H", 0xFFFF, 0, 0, 0)
    assert card.receive(frame, header=struct.pack("<BBHHHH", NEEDS_CSUM, 0, 0, 0, 34, 6))
    [ref] = map(card.held, card.rx_burst())
    assert card.frame(ref)[40:42] == b"\xff\xff"


@pytest.mark.parametrize(
    ("frame", "header", "written"),
    [
        (FRAME, b"", 12 + 13),
        (FRAME, b"", 5),
        (FRAME, b"", 12 + 1519),
        (FRAME, b"", 1 << 31),
        (FRAME, bytes((0, GSO_TCPV4)), 0),
        (FRAME, struct.pack("<BBHHHH", NEEDS_CSUM, 0, 0, 0, 90, 9), 0),
        (FRAME, struct.pack("<BBHHHH", NEEDS_CSUM, 0, 0, 0, 0xFFFF, 0xFFFF), 0),
    ],
)
def test_what_is_no_frame_is_dropped_and_counted(
    make: Make, frame: bytes, header: bytes, written: int
) -> None:
    card = make().start()
    assert card.receive(frame, header=header, written=written)
    assert card.receive(FRAME)
    assert [card.frame(card.held(ref)) for ref in card.rx_burst()] == [FRAME]
    assert card.counters(0).drop_rx_error == 1
    assert card.residuals() == RIGHT
    assert card.port.posted()[0] == 64


def test_jumbo_frames_come_whole_and_leave_whole(make: Make) -> None:
    card = make(mtu=9000).start()
    frame = bytes(range(251)) * 36
    for length in (2048, 2049, 9018, 9019):
        assert card.receive(frame.ljust(length, b"\1")[:length])
    refs = [card.held(ref) for ref in card.rx_burst()]
    assert [ref.length for ref in refs] == [2048, 2049, 9018]
    assert card.counters(0).drop_rx_error == 1
    refs[2].offset = 0
    ffi.memmove(card.data(refs[2]), frame, len(frame))
    refs[2].length = len(frame)
    assert card.tx_burst(refs) == 3
    assert [len(sent) for _, sent in card.transmit()] == [2048, 2049, len(frame)]
    assert card.reclaim() == 3
    assert card.residuals() == RIGHT


def test_a_tag_moves_to_the_reference_and_back_into_the_frame(make: Make) -> None:
    card = make(vlan_strip=True).start()
    tagged = FRAME[:12] + bytes.fromhex("81006123") + FRAME[12:]
    assert card.receive(tagged)
    assert card.receive(FRAME)
    first, second = map(card.held, card.rx_burst())
    assert (first.flags, first.vlan_tci, card.frame(first)) == (lib.RL_FLAG_VLAN, 0x6123, FRAME)
    assert second.flags == 0
    assert card.tx_burst([first]) == 1
    assert card.transmit() == [(bytes(12), tagged)]


def test_frames_are_sent_behind_a_header_and_come_back(make: Make) -> None:
    card = make().start()
    refs = [card.packet(FRAME + bytes([n])) for n in range(3)]
    refs[1].offset = 3
    ffi.memmove(card.data(refs[1]), FRAME, 100)
    refs[1].length = 100
    assert card.tx_burst(refs) == 3
    assert card.device.doorbell(1)[0] == 1
    assert card.transmit() == [
        (bytes(12), FRAME + b"\0"),
        (bytes(12), FRAME),
        (bytes(12), FRAME + b"\2"),
    ]
    assert card.port.posted() == (64, 3)
    assert card.reclaim() == 3
    assert card.counters(0).tx_bytes == 302
    assert card.port.posted() == (64, 0)
    assert card.residuals() == RIGHT


@pytest.mark.parametrize("offset", [0, 3, 192])
def test_a_worker_cannot_write_the_header_of_a_frame_that_is_sent(make: Make, offset: int) -> None:
    """It may write into packet memory at any time."""
    card = make().start()
    ref = card.packet(b"")
    ref.offset, ref.length = offset, len(FRAME)
    assert card.tx_burst([ref]) == 1
    begin = card.memory.base + ref.buffer * card.memory.stride
    ffi.memmove(begin, b"\xff" * card.memory.room, card.memory.room)
    assert card.transmit() == [(bytes(12), b"\xff" * 100)]


def test_bytes_are_counted_whatever_the_device_writes_into_descriptors(make: Make) -> None:
    card = make().start()
    assert card.tx_burst([card.packet(FRAME)]) == 1
    assert card.transmit()
    descriptors, _, _, size = card.device.parts(1)
    for at in range(size):
        descriptors[at].length = 1 << 31
    assert card.reclaim() == 1
    assert card.counters(0).tx_bytes == 100


def test_a_full_queue_takes_no_more_and_order_does_not_matter(make: Make) -> None:
    """The device may return descriptors in another order than it got them."""
    card = make(buffers=300).start()
    refs = [card.packet(bytes([n]) * 60) for n in range(38)]
    assert card.tx_burst(refs) == 32
    heads = [card.device.take(1) for _ in range(32)]
    for found in reversed(heads):
        assert found is not None
        card.device.use(1, found[0], 0)
    assert card.reclaim() == 32
    assert card.tx_burst(refs[32:]) == 6
    assert [frame[0] for _, frame in card.transmit()] == list(range(32, 38))
    assert card.reclaim() == 6
    assert card.residuals() == RIGHT


def test_without_a_free_buffer_nothing_is_taken(make: Make) -> None:
    card = make().start()
    free, card.memory.free_count = card.memory.free_count, 0
    assert card.receive(FRAME)
    assert card.rx_burst() == []
    assert card.counters(0).rx_starved == 1
    card.memory.free_count = free
    assert len(card.rx_burst()) == 1


@pytest.mark.parametrize("events", [False, True])
def test_a_burst_rings_once_and_only_when_the_device_wants_that(make: Make, events: bool) -> None:
    card = make(PLAIN | (EVENT_IDX if events else 0)).start()

    def rings(want: int | None) -> bool:
        """Whether a burst of three frames rings. The device wants that at entry `want`."""
        card.device.ring_seen(1)
        _, available, used, _ = card.device.parts(1)
        used.flags = 1 if want is None and not events else 0
        card.device.wants(1, (available.index + (want if want is not None else 3)) & 0xFFFF)
        assert card.tx_burst([card.packet(FRAME) for _ in range(3)]) == 3
        rung = card.device.doorbell(1)[0] != UNTOUCHED
        assert card.transmit()
        assert card.reclaim() == 3
        return rung

    assert rings(0)
    assert rings(2)
    assert not rings(None)
    assert rings(1)
    assert card.port.statistics()["tx_queue0_doorbells"] == 3
    card.device.ring_seen(0)
    card.device.ring_seen(1)
    assert (card.rx_burst(), card.reclaim()) == ([], 0)
    assert card.device.doorbell(0)[0] == card.device.doorbell(1)[0] == UNTOUCHED


def test_no_interrupt_is_wanted(make: Make) -> None:
    """Without events a flag says so; with them the wanted index stays half a round away."""
    card = make().start()
    assert card.device.parts(0)[1].flags == 1
    card = make(PLAIN | EVENT_IDX).start()
    _, available, _, size = card.device.parts(0)
    assert (available.flags, available.ring[size]) == (0, 0x8000)
    assert card.receive(FRAME)
    assert len(card.rx_burst()) == 1
    assert available.ring[size] == 0x8001


def test_indices_wrap(make: Make) -> None:
    card = make(tx_descriptors=128, size=128).start()
    for turn in range(1100):
        frames = [struct.pack("<I", turn * 60 + n) * 20 for n in range(60)]
        assert all(map(card.receive, frames))
        refs = [card.held(ref) for ref in card.rx_burst()]
        assert card.tx_burst(refs) == 60
        assert [frame for _, frame in card.transmit()] == frames
        assert card.reclaim() == 60
    assert card.residuals() == RIGHT


def test_rss_has_key_table_and_queues(make: Make) -> None:
    card = make(PLAIN | MQ | RSS | HASH_REPORT, pairs=4, queues=2, buffers=1024).start()
    key = rss_key("default")
    table = [entry % 2 for entry in range(128)]
    wanted = struct.pack("<BBIHH", 4, 1, 0x3F, 127, 0) + struct.pack("<128HHB", *table, 2, 40) + key
    assert card.device.commands[0] == wanted
    header = bytes(12) + struct.pack("<IH", 0xABCD1234, 2)
    assert card.receive(FRAME, queue=1, header=header)
    assert card.receive(FRAME, queue=1)
    first, second = card.rx_burst(queue=1)
    assert (first.rss_hash, first.flags, first.length) == (0xABCD1234, lib.RL_FLAG_HASH, 100)
    assert (second.rss_hash, second.flags) == (0, 0)
    assert card.tx_burst([card.held(first, 1)], queue=1) == 1
    assert card.transmit(queue=1) == [(bytes(20), FRAME)]


def test_several_queues_without_rss(make: Make) -> None:
    card = make(PLAIN | MQ, pairs=4, queues=2, buffers=1024).start()
    assert card.device.commands[0] == bytes((4, 0, 2, 0))
    card = make(PLAIN | HASH_REPORT).start()
    hashing = struct.pack("<BBI8xB", 4, 2, 0x3F, 40) + rss_key("default")
    assert card.device.commands[0] == hashing


def test_queues_are_as_long_as_device_and_configuration_allow(make: Make) -> None:
    card = make(size=256, rx_descriptors=128, tx_descriptors=512, buffers=1024).start()
    assert [card.device.parts(number)[3] for number in range(2)] == [128, 256]
    assert card.port.posted() == (128, 0)
    assert card.residuals() == RIGHT


@pytest.mark.parametrize(
    ("offered", "options", "error", "words"),
    [
        (PLAIN & ~VERSION_1, {}, EnvironmentLacks, "VIRTIO_F_VERSION_1.*disable-legacy=on"),
        (
            PLAIN,
            {"size": 32},
            EnvironmentLacks,
            "queue 0 .* 32 .*needs 64.*rx_queue_size",
        ),
        (PLAIN, {"queues": 2}, ConfigurationError, "1 pair of queues, not 2; set queues = 1"),
        (PLAIN | MQ, {"pairs": 2, "queues": 3}, ConfigurationError, "2 pairs of queues, not 3"),
        (PLAIN, {"vlan_filter": (5,)}, ConfigurationError, "CTRL_VLAN.*remove vlan_filter"),
        (PLAIN | VLAN, {"vlan_filter": (5,)}, ConfigurationError, "CTRL_RX_EXTRA.*promisc"),
        (PLAIN & ~RX_MODE, {"promiscuous": False}, ConfigurationError, "set promiscuous = true"),
        (VERSION_1, {"mac": "02:00:00:00:00:77"}, ConfigurationError, "remove mac"),
    ],
)
def test_what_the_device_lacks_is_a_sentence(
    make: Make, offered: int, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    card = make(offered, buffers=1024, **options)
    with pytest.raises(error, match=words) as caught:
        card.start()
    assert "port" in str(caught.value)
    card.port.close()
    assert card.device.words[STATUS] == 0
    assert card.residuals() == RIGHT


def test_more_addresses_than_the_driver_gives_are_refused_before_a_start(make: Make) -> None:
    """So `ringline check` finds them."""
    with pytest.raises(ConfigurationError, match="more_macs: 128 addresses"):
        make(more_macs=("02:00:00:00:00:01",) * 128, promiscuous=False)


def test_a_device_that_goes_around_the_iommu_is_refused(make: Make) -> None:
    card = make()
    card.port._card.translated = True
    with pytest.raises(EnvironmentLacks, match=r"VIRTIO_F_ACCESS_PLATFORM.*iommu_platform=on"):
        card.start()


def test_a_device_that_does_not_agree_or_not_answer_is_a_sentence(make: Make) -> None:
    card = make()
    card.device.agrees = False
    with pytest.raises(HardwareError, match="FEATURES_OK stays 0"):
        card.start()
    for answer, words in ((1, "answers 1"), (None, "has not answered for")):
        card = make()
        card.device.answer = answer
        with pytest.raises(HardwareError, match=rf"told to .*{words}.*command 0\.0"):
            card.start()
        card.port.stop()
        assert card.residuals() == RIGHT


def test_a_device_without_a_control_queue_works(make: Make) -> None:
    card = make(VERSION_1).start()
    assert (card.port.mac, card.port.link()) == ("", Link(True, 0))
    assert card.receive(FRAME)
    assert len(card.rx_burst()) == 1
    assert not card.device.offered & CONTROL


def test_the_link_goes_down_and_up(make: Make) -> None:
    card = make().start()
    assert card.c_port.ready
    card.device.words[DEVICE + 6] = 0
    assert card.port.link() == Link(False, 0)
    assert not card.c_port.ready
    card.device.words[DEVICE + 6] = 1
    assert card.port.link() == Link(True, 10000)
    assert card.c_port.ready


def test_a_port_that_drains_posts_no_more(make: Make) -> None:
    card = make().start()
    card.port.stop_receiving()
    assert sum(card.receive(FRAME) for _ in range(100)) == 64
    assert len([card.held(ref) for ref in card.rx_burst()]) == 64
    assert card.port.posted() == (0, 0)
    assert card.residuals() == RIGHT
    card.port.stop()
    card.start()
    assert card.port.posted() == (64, 0)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("head", [7, 64, 1 << 30])
def test_a_device_that_returns_what_it_does_not_have_fails(
    make: Make, number: int, head: int
) -> None:
    card = make().start()
    sent = [card.packet(FRAME) for _ in range(3)]
    card.tx_burst(sent)
    if number == 0 and head < 64:
        card.port.stop_receiving()
        assert all(card.receive(FRAME) for _ in range(64))
        assert len([card.held(ref) for ref in card.rx_burst()]) == 64
    card.device.use(number, head, 100)
    assert card.c_port.ready
    assert (card.rx_burst(), card.reclaim()) == ([], 0)
    assert not card.c_port.ready, "packets for it hold up those for other ports"
    assert card.port.examine() == f"it has returned on queue {number} what it did not have"
    assert card.port.link() == Link(False, 0)
    assert card.tx_burst([card.packet(FRAME)]) == 0
    assert card.port.posted() == (0, 0)
    assert card.residuals()["buffers"] == 0


def test_a_device_that_returns_a_buffer_twice_in_one_burst_fails(make: Make) -> None:
    """The second time, the descriptor has a new buffer that the device has never got."""
    card = make().start()
    assert card.receive(FRAME)
    assert card.receive(FRAME)
    used = card.device.parts(0)[2]
    used.ring[1] = used.ring[0]
    assert [card.frame(card.held(ref)) for ref in card.rx_burst()] == [FRAME]
    assert card.port.examine() == "it has returned on queue 0 what it did not have"
    assert card.residuals() == RIGHT


def test_a_used_index_that_jumps_fails_the_port(make: Make) -> None:
    card = make().start()
    card.device.parts(0)[2].index = 65
    assert card.rx_burst() == []
    assert not card.c_port.ready
    assert "queue 0" in card.port.examine()


def test_a_device_that_is_gone_or_wants_a_reset_fails_by_name(make: Make) -> None:
    for status, words in ((0xFF, "was it removed"), (0x4F, "DEVICE_NEEDS_RESET")):
        card = make().start()
        assert card.port.examine() == ""
        card.device.words[STATUS] = status
        assert words in card.port.examine()
        assert card.port.faults() == [f"the port has failed: {card.port.failed}"]
        assert card.residuals() == RIGHT


def test_a_port_starts_again(make: Make) -> None:
    card = make(PLAIN | EVENT_IDX)
    for _ in range(20):
        card.start()
        for _ in range(70):
            assert card.receive(FRAME)
            [ref] = map(card.held, card.rx_burst())
            assert card.tx_burst([ref]) == 1
            assert card.transmit() == [(bytes(12), FRAME)]
            assert card.reclaim() == 1
        card.port.stop()
        assert card.residuals() == RIGHT
