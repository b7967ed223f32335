"""The simulated 82599 as a receiver: sizes, filters, descriptors, and frames without room."""

from __future__ import annotations

import struct
import time
import zlib

import pytest

from .bare_82599 import RING, Bare82599, Received, table
from .frames import BROADCAST, CARD, MULTICAST, OTHER, ethernet, ipv4, packet

V4 = ("192.0.2.1", "192.0.2.2")
V6 = ("2001:db8::1", "2001:db8::2")
UDP, TCP = 17, 6
L4CS, IPCS, TCPE, IPE = 1 << 5, 1 << 6, 1 << 30, 1 << 31
VP = 1 << 3


def receive(*frames: bytes, promiscuous: bool = True, **options: int) -> list[Received]:
    with Bare82599() as driver:
        driver.bring_up(promiscuous=promiscuous, **options)
        driver.sim.load(table(list(frames)))
        for _ in range(4):
            driver.sim.step()
        assert driver.sim.faults() == []
        assert driver.sim.finished
        return driver.receive()


def corrupt(frame: bytes, at: int) -> bytes:
    return frame[:at] + bytes([frame[at] ^ 1]) + frame[at + 1 :]


def without_udp_checksum(frame: bytes) -> bytes:
    return frame[:40] + b"\0\0" + frame[42:]


# -- lengths ------------------------------------------------------------------------------


def test_frames_arrive_unchanged_and_in_order() -> None:
    frames = [ethernet(bytes([n]) * n) for n in range(46, 256)]
    with Bare82599() as driver:
        driver.bring_up()
        driver.sim.load(table(frames))
        received: list[Received] = []
        for _ in range(10):
            driver.sim.step()
            received += driver.receive()
    assert [r.data for r in received] == frames
    assert all(r.last and r.status & 1 for r in received)


def test_runts_and_oversize_are_dropped_and_counted() -> None:
    frames = [ethernet(b"")[:59], ethernet(b""), ethernet(bytes(1500)), ethernet(bytes(1501))]
    frames += [ethernet(bytes(1500), vlan=7), ethernet(bytes(1501), vlan=7), b"\2" * 10]
    with Bare82599() as driver:
        driver.bring_up()
        driver.read(0x40D0)
        driver.sim.load(table(frames))
        driver.sim.step()
        assert [r.data for r in driver.receive()] == [frames[1], frames[2], frames[4]]
        wire = driver.sim.wire()
        assert (wire["dropped_undersize"], wire["dropped_oversize"]) == (2, 2)
        assert wire["offered"] == len(frames) == wire["delivered"] + 4
        assert wire["offered_bytes"] == sum(map(len, frames))
        assert (driver.read(0x40A4), driver.read(0x40AC)) == (2, 2)  # RUC, ROC
        assert driver.read(0x4074) == 3  # GPRC
        assert driver.read(0x4088) == sum(len(frames[n]) + 4 for n in (1, 2, 4))  # GORCL
        assert driver.read(0x40D0) == len(frames)  # TPR


def test_jumbo_frames_up_to_maxfrs() -> None:
    frames = [ethernet(bytes(8982)), ethernet(bytes(8983))]
    with Bare82599() as driver:
        driver.bring_up(srrctl=10 | 1 << 25)
        driver.change(0x4240, set_=1 << 2)
        driver.write(0x4268, 9000 << 16)
        driver.post(0, 0, 0x1_0010_0000)
        driver.sim.load(table(frames))
        driver.sim.step()
        assert driver.packets[0x10_0000 : 0x10_0000 + 8996] == frames[0]
        assert driver.sim.wire()["dropped_oversize"] == 1


def test_frames_longer_than_a_buffer_take_several_with_eop_on_the_last() -> None:
    frame = ethernet(bytes(range(256)) * 5)
    pieces = receive(frame, ethernet(b""), srrctl=1 | 1 << 25 | 1 << 28)
    assert [len(p.data) for p in pieces] == [1024, len(frame) - 1024, 60]
    assert [p.last for p in pieces] == [False, True, True]
    assert pieces[0].data + pieces[1].data == frame


def test_a_frame_waits_for_as_many_descriptors_as_it_needs() -> None:
    frame = ethernet(bytes(1400))
    with Bare82599() as driver:
        driver.bring_up(srrctl=1 | 1 << 25, rdt=1)
        driver.sim.load(table([frame]))
        driver.sim.step()
        assert driver.sim.wire()["offered"] == 0
        driver.give(0, 2)
        driver.sim.step()
        assert driver.sim.wire()["delivered"] == 1


def test_crc_stays_on_unless_both_strip_it() -> None:
    frame = ethernet(b"crc")
    with Bare82599() as driver:
        driver.bring_up(skip="rdrxctl_strip")
        driver.sim.load(table([frame]))
        driver.sim.step()
        (only,) = driver.receive()
        assert only.data == frame + struct.pack("<I", zlib.crc32(frame))
        assert driver.sim.fault_counts() == {"receive": 1}


# -- filters ------------------------------------------------------------------------------


def test_the_exact_filter_accepts_only_the_card_and_broadcast() -> None:
    frames = [ethernet(b"", destination=d) for d in (CARD, OTHER, BROADCAST, MULTICAST)]
    received = receive(*frames, promiscuous=False)
    assert [r.data[:6] for r in received] == [CARD, BROADCAST]


def test_promiscuous_modes_and_the_address_valid_bit() -> None:
    frames = [ethernet(b"", destination=d) for d in (CARD, OTHER, BROADCAST, MULTICAST)]
    with Bare82599() as driver:
        driver.bring_up(promiscuous=False)

        def arrived() -> list[bytes]:
            driver.sim.load(table(frames))
            driver.sim.step()
            return [r.data[:6] for r in driver.receive()]

        driver.change(0x5080, set_=1 << 9)
        assert arrived() == [CARD, OTHER, BROADCAST]
        driver.change(0x5080, 1 << 9, 1 << 8)
        assert arrived() == [CARD, BROADCAST, MULTICAST]
        driver.change(0x5080, 1 << 8 | 1 << 10)
        assert arrived() == [CARD]
        driver.change(0x5404, 1 << 31)  # RAH.AV
        assert arrived() == []
        assert driver.sim.wire()["dropped_filtered"] == 1 + 1 + 3 + 4


def test_multicast_table_and_vlan_filter() -> None:
    frames = [ethernet(b"", destination=MULTICAST), ethernet(b"", vlan=100), ethernet(b"", vlan=99)]
    with Bare82599() as driver:
        driver.bring_up(promiscuous=False)
        bits = (MULTICAST[4] >> 4 | MULTICAST[5] << 4) & 0xFFF
        driver.write(0x5200 + bits // 32 * 4, 1 << bits % 32)
        driver.write(0x5090, 1 << 2)
        driver.write(0xA000 + 100 // 32 * 4, 1 << 100 % 32)
        driver.change(0x5088, set_=1 << 30)
        driver.sim.load(table(frames))
        driver.sim.step()
        assert [r.data for r in driver.receive()] == frames[:2]


# -- VLAN and checksums -------------------------------------------------------------------


def test_vlan_tags_are_stripped_where_configured() -> None:
    frame = packet(*V4, UDP, (1, 2), vlan=0x6123)
    (left,) = receive(frame)
    assert (left.data, left.vlan, left.status & VP) == (frame, 0, VP)
    (stripped,) = receive(frame, strip=1)
    assert (stripped.data, stripped.vlan) == (frame[:12] + frame[16:], 0x6123)
    assert stripped.status & VP
    assert stripped.hash == left.hash != 0
    (untagged,) = receive(packet(*V4, UDP, (1, 2)), strip=1)
    assert (untagged.vlan, untagged.status & VP) == (0, 0)


@pytest.mark.parametrize(
    ("frame", "status"),
    [
        (packet(*V4, UDP, (5, 6)), IPCS | L4CS),
        (packet(*V4, TCP, (5, 6)), IPCS | L4CS),
        (packet(*V6, UDP, (5, 6), b"odd"), L4CS),
        (packet(*V6, TCP, (5, 6), bytes(400)), L4CS),
        (packet(*V4, UDP, (5, 6), vlan=9), IPCS | L4CS),
        (corrupt(packet(*V4, UDP, (5, 6)), 44), IPCS | L4CS | TCPE),
        (corrupt(packet(*V6, TCP, (5, 6)), 76), L4CS | TCPE),
        (corrupt(packet(*V4, 1), 22), IPCS | IPE),
        (without_udp_checksum(packet(*V4, UDP, (5, 6))), IPCS),
        (packet(*V4, 1), IPCS),
        (ethernet(ipv4(*V4, UDP, bytes(40), fragment=0x2000), 0x0800), IPCS),
        (ethernet(ipv4(*V4, TCP, bytes(40), fragment=100), 0x0800), IPCS),
        (packet(*V4, TCP, (5, 6), bytes(100))[:80], IPCS),
        (ethernet(b""), 0),
    ],
    ids=[
        "UDP", "TCP", "UDP over IPv6", "TCP over IPv6", "tagged", "bad UDP", "bad TCP",
        "bad IPv4 header", "UDP without", "ICMP", "first fragment", "last fragment", "cut",
        "not IP",
    ],
)  # fmt: skip
def test_checksum_status_is_that_of_the_chip(frame: bytes, status: int) -> None:
    (only,) = receive(frame)
    assert only.status & (IPCS | L4CS | TCPE | IPE) == status


def test_without_pcsd_the_descriptor_holds_the_ip_identification() -> None:
    frame = packet(*V4, UDP, (5, 6))
    (only,) = receive(frame, rxcsum=0)
    assert only.hash == 7  # the identification in frames of `ipv4`


# -- room ---------------------------------------------------------------------------------


def test_a_closed_loop_step_delivers_at_most_64_frames_times_the_queues() -> None:
    with Bare82599() as driver:
        driver.bring_up(rdlen=256 * 16, rdt=0)
        for n in range(200):
            driver.post(0, n)
        driver.give(0, 200)
        driver.sim.load(table([ethernet(b"")], repeat=150))
        assert [driver.sim.step() for _ in range(4)] == [64, 64, 22, 0]
        assert driver.sim.faults() == []


def test_a_closed_loop_wire_waits_for_descriptors_and_drops_nothing() -> None:
    frames = [ethernet(n.to_bytes(2, "big")) for n in range(300)]
    with Bare82599() as driver:
        driver.bring_up()
        driver.sim.load(table(frames))
        received: list[Received] = []
        for _ in range(50):
            for _ in range(5):
                driver.sim.step()
            assert driver.sim.wire()["delivered"] - len(received) <= RING - 1
            received += driver.receive()
        assert [r.data for r in received] == frames
        assert driver.sim.finished
        wire = driver.sim.wire()
        assert {name: n for name, n in wire.items() if name.startswith("dropped") and n} == {}


def serve_queue_1(driver: Bare82599, enough: int, seconds: float) -> int:
    """Take frames from queue 1 alone until they are `enough` or `seconds` have passed."""
    taken, until = 0, time.monotonic() + seconds
    while taken < enough and time.monotonic() < until:
        driver.sim.step()
        taken += len(driver.receive(1))
    return taken


@pytest.mark.parametrize("repeat", [0, 1000])
def test_a_wire_without_end_passes_by_a_queue_that_stays_full(repeat: int) -> None:
    """All frames of a wire with an end must arrive, so it waits."""
    with Bare82599() as driver:
        driver.bring_up(2)
        sources = [packet("10.0.0.1", "10.0.0.2", UDP, (n, 9)) for n in range(64)]
        driver.sim.load(table(sources, repeat=repeat))
        enough = 20 * RING
        if repeat:
            assert serve_queue_1(driver, enough, 0.05) < enough
        else:
            assert serve_queue_1(driver, enough, 30.0) >= enough
        waiting = driver.sim.step()
        assert waiting == 0 or not repeat
        assert len(driver.receive(0)) == RING - 1
        again, until = 0, time.monotonic() + 30.0
        while not again and time.monotonic() < until:
            driver.sim.step()
            driver.receive(1)
            again = len(driver.receive(0))
        assert again, "it is served again"
        wire = driver.sim.wire()
        assert wire["offered"] == wire["delivered"]
        assert driver.sim.faults() == []


def test_a_wire_that_passes_by_all_queues_moves_nothing() -> None:
    with Bare82599() as driver:
        driver.bring_up(2)
        driver.sim.load(
            table([packet("10.0.0.1", "10.0.0.2", UDP, (n, 9)) for n in range(64)], repeat=0)
        )
        until = time.monotonic() + 0.02
        while time.monotonic() < until:
            driver.sim.step()
        assert driver.sim.step() == 0
        assert driver.sim.wire()["delivered"] == 2 * (RING - 1)


def wait_finished(driver: Bare82599, held: int = 0) -> None:
    until = time.monotonic() + 30
    while not driver.sim.finished and time.monotonic() < until:
        driver.sim.step()
        if held and driver.sim.wire()["held"] == held:
            return


def test_an_open_loop_wire_drops_without_descriptors_and_counts_per_queue() -> None:
    with Bare82599() as driver:
        driver.bring_up(2)
        sources = [packet("10.0.0.1", "10.0.0.2", UDP, (n, 9)) for n in range(64)]
        driver.sim.load(table(sources, repeat=10), rate_mpps=1.0)
        wait_finished(driver)
        wire = driver.sim.wire()
        assert wire["offered"] == 640 == wire["delivered"] + wire["dropped_no_descriptor"]
        assert wire["delivered"] == 2 * (RING - 1)
        by_queue = [driver.read(0x1430 + 0x40 * q) for q in range(2)]
        assert sum(by_queue) == wire["dropped_no_descriptor"]
        assert all(by_queue)


def test_without_drop_en_frames_are_held_until_the_packet_buffer_is_full() -> None:
    frame = ethernet(bytes(1000))
    count = 700  # about 700 KiB: more than the packet buffer holds
    with Bare82599() as driver:
        driver.bring_up(srrctl=2 | 1 << 25)
        driver.sim.load(table([frame], repeat=count), rate_mpps=1.0)
        capacity = (512 << 10) // len(frame)
        wait_finished(driver, held=capacity)
        for _ in range(200):
            driver.sim.step()
        until = time.monotonic() + 30
        while driver.sim.wire()["offered"] < count and time.monotonic() < until:
            driver.sim.step()
        wire = driver.sim.wire()
        assert wire["held"] == capacity
        assert wire["dropped_no_space"] == count - capacity - (RING - 1)
        assert driver.read(0x3FA0) == wire["dropped_no_space"]
        received = 0
        while not driver.sim.finished:
            received += len(driver.receive())
            driver.sim.step()
        wire = driver.sim.wire()
        assert wire["delivered"] == capacity + RING - 1
        assert wire["offered"] == wire["delivered"] + wire["dropped_no_space"] == count


def test_an_open_loop_wire_drops_while_the_receiver_is_off() -> None:
    with Bare82599() as driver:
        driver.bring_up()
        driver.sim.load(table([ethernet(b"")], repeat=1000), rate_mpps=0.1)
        while driver.sim.wire()["offered"] < 10:
            driver.sim.step()
        driver.receiver(False)
        wait_finished(driver)
        wire = driver.sim.wire()
        assert wire["dropped_disabled"] > 0
        assert wire["offered"] == 1000
        assert (
            wire["offered"]
            == wire["delivered"] + wire["dropped_disabled"] + (wire["dropped_no_descriptor"])
        )


def test_a_frame_for_a_disabled_queue_blocks_the_wire_and_is_a_fault() -> None:
    with Bare82599() as driver:
        driver.bring_up(1)
        driver.set_rss(8)
        driver.sim.load(table([packet("10.0.0.1", "10.0.0.2", UDP, (n, 9)) for n in range(16)]))
        until = time.monotonic() + 30
        while not driver.sim.faults() and time.monotonic() < until:
            driver.sim.step()
        assert driver.sim.fault_counts() == {"queue": 1}
        assert "which is not enabled" in driver.sim.faults()[0]


def test_a_descriptor_offered_with_dd_set_is_a_fault() -> None:
    with Bare82599() as driver:
        driver.bring_up()
        struct.pack_into("<Q", driver.descriptors, driver.rx_at(0, 0) + 8, 1)
        driver.sim.load(table([ethernet(b"")]))
        driver.sim.step()
        assert driver.sim.fault_counts() == {"rx_descriptor": 1}
        assert len(driver.receive()) == 1


def test_queues_of_the_second_bank_work() -> None:
    with Bare82599() as driver:
        driver.bring_up()
        bank = driver.rx_bank(100)
        assert bank == 0xD900
        for offset, value in ((0, 0x1000_8000), (4, 0), (8, 1024), (0x14, 2 | 1 << 25)):
            driver.write(bank + offset, value)
        driver.write(bank + 0x28, 1 << 25)
        assert driver.wait(bank + 0x28, 25)
