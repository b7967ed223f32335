"""ringline drives QEMU's virtio-net over VFIO, in a guest with an IOMMU.

Both the device and Linux's driver of it were written by others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from .booted import PROOF, booted
from .cards import card
from .exchange import exchange, flood
from .gigabit import PER_1000
from .machine import Guest
from .test_killed import DRIVER, kill
from .test_vfio_ixgbe import Bench, check, numbered, only_proof

DEVICES = ("0000:00:10.0", "0000:00:11.0")
# Behind the IOMMU with a device that goes around it, and with a legacy device.
OTHERS = ("0000:00:12.0", "0000:00:13.0")
CARDS = ("virtio-net-mapped", "virtio-net-mapped", "virtio-net", "virtio-net-legacy")
FRAMES = 20_000 if PROOF else 2000
OURS = bytes.fromhex("020000000077")
OTHER = bytes.fromhex("020000000078")
MORE = bytes.fromhex("020000000079")
TAG = bytes.fromhex("81006123")

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with booted(lambda: Guest([*map(card, CARDS)], iommu=True, hugepages=64)) as guest:
        made = Bench(guest, guest.cables[:2], DEVICES)
        made.bind("vfio-pci", "DMA")
        yield made


def test_frames_pass_both_ways_over_vfio(
    bench: Bench, record_property: Callable[[str, object], None]
) -> None:
    """All of them, once, in order, as they were: of 60 to 1514 bytes."""
    bench.start()
    one, other = bench.cards
    frames = list(numbered(FRAMES))
    ways = [frames, frames[::-1]]
    found = exchange((one, other, ways[0]), (other, one, ways[1]))
    report = bench.stop()
    rung = sum(
        count
        for port in report["ports"].values()
        for name, count in port["card"].items()
        if name.endswith("_doorbells")
    )
    record_property(PER_1000, f"{500 * rung / len(frames):.1f} doorbells, by the port")
    assert [len(each) for each in found] == [len(frames)] * 2
    assert found == ways
    check(bench, len(frames), report)
    assert "DMAR: [DMA" not in bench.guest.checked("dmesg"), "the IOMMU has stopped the card"


@only_proof
def test_filters_and_tags(bench: Bench) -> None:
    """Frames for other addresses do not come; a tag that was taken out of a frame is in it again
    when it leaves."""
    keys = 'promiscuous = false\nmac = "02:00:00:00:00:77"\nmore_macs = ["02:00:00:00:00:79"]\n'
    bench.start(keys + "vlan_strip = true\nvlan_filter = [291]\n")
    one, other = bench.cards

    def frame(destination: bytes, tag: bytes = b"") -> bytes:
        return (destination + OTHER + tag + b"\x88\xb5").ljust(60, b"\x11")

    passing = [frame(OURS), frame(OURS, TAG), frame(b"\xff" * 6), frame(b"\xff" * 6, TAG)]
    passing += [frame(MORE), frame(OURS, b"\x81\0\xe0\0")]  # VLAN 0: a priority
    before = len(other.frames())
    others = [frame(OTHER), frame(b"\x01" + OURS[1:])]
    for each in [*others, frame(OURS, b"\x81\0\1\x24"), *passing]:
        one.send(each)
    other.wait_for(before + len(passing), 60.0)
    report = bench.stop()
    assert other.frames()[before:] == passing
    assert report["ports"]["wan"]["received"]["packets"] == len(passing)
    # After that, a port that takes every address gets them, and without a list every VLAN.
    bench.start("vlan_filter = [291]")
    assert exchange((one, other, others + passing)) == [others + passing]
    one.send(frame(OURS, b"\x81\0\1\x24"))
    assert exchange((one, other, passing)) == [passing]
    bench.stop()
    bench.start()
    every = [*others, *passing, frame(OURS, b"\x81\0\1\x24")]
    assert exchange((one, other, every)) == [every]
    bench.stop()


LINK = """until ringline status vfio --json | python -c '
import json, sys
sys.exit(json.load(sys.stdin)["ports"]["wan"]["link"]["up"] != {up})'
do sleep 0.2; done"""


@only_proof
def test_the_link_goes_down_and_up(bench: Bench) -> None:
    """By QEMU's monitor. Meanwhile frames for the port are dropped, and the run goes on."""
    bench.start()
    one, other = bench.cards
    frames = list(numbered(500))
    assert exchange((one, other, frames), (other, one, frames)) == [frames, frames]
    bench.guest.set_link(0, up=False)
    bench.guest.checked(LINK.format(up=False))
    for frame in frames:
        other.send(frame)
    bench.guest.set_link(0, up=True)
    bench.guest.checked(LINK.format(up=True))
    assert exchange((one, other, frames), (other, one, frames)) == [frames, frames]
    report = bench.stop()
    assert report["ports"]["lan"]["drops"]["tx_down"] == len(frames)
    assert report["ports"]["wan"]["forwarded"] == 2 * len(frames)
    assert report["ports"]["lan"]["forwarded"] == 2 * len(frames)


@only_proof
def test_a_burst_notifies_the_device_once_and_idle_queues_never(
    bench: Bench, record_property: Callable[[str, object], None]
) -> None:
    """The port counts what it writes to doorbells; QEMU notes what it got, also from the other
    devices of the guest."""
    guest = bench.guest
    with guest.traced("virtio_queue_notify") as before:
        guest.checked("ls / > /dev/null")
    bench.start()
    one, other = bench.cards
    frames = list(numbered(FRAMES))
    with guest.traced("virtio_queue_notify") as busy:
        assert exchange((one, other, frames), (other, one, frames)) == [frames, frames]
    with guest.traced("virtio_queue_notify") as idle:
        guest.checked("sleep 2")
    report = bench.stop()

    def devices(lines: list[str]) -> list[str]:
        return [line.split()[2] for line in lines]

    ours = set(devices(busy)) - set(devices(before))
    assert len(ours) == 2
    assert not ours & set(devices(idle))
    for name in ("wan", "lan"):
        [queue], told = report["ports"][name]["queues"], report["ports"][name]["card"]
        assert 0 < told["tx_queue0_doorbells"] <= queue["tx_bursts"]
        assert told["rx_queue0_doorbells"] <= queue["rx_bursts"] + 1  # one at the start
    got = sum(device in ours for device in devices(busy))
    record_property(PER_1000, f"{500 * got / len(frames):.1f} doorbells, by QEMU")
    rung = sum(sum(port["card"].values()) for port in report["ports"].values())
    assert 0 < got <= rung


@only_proof
def test_a_card_starts_twenty_times(bench: Bench) -> None:
    one, other = bench.cards
    frames = list(numbered(100))
    for _ in range(20):
        bench.start()
        assert exchange((one, other, frames), (other, one, frames)) == [frames, frames]
        check(bench, len(frames), bench.stop())


@only_proof
@pytest.mark.parametrize(
    ("first", "words"),
    [
        (0, "VIRTIO_F_ACCESS_PLATFORM, so it goes around the IOMMU"),
        (1, "no structures of Virtio 1.0 or later in memory"),
    ],
)
def test_a_device_that_cannot_be_used_is_refused_with_the_remedy(
    bench: Bench, first: int, words: str
) -> None:
    guest = bench.guest
    cables = (guest.cables[2 + first], guest.cables[0])
    others = Bench(guest, cables, (OTHERS[first], DEVICES[0]))
    others.bind("vfio-pci", "DMA")
    with pytest.raises(AssertionError, match=rf"port wan \(pci:{OTHERS[first]}\): .*{words}"):
        others.start()
    assert others.masters() == [False, False]


def test_a_killed_driver_ends_the_run_and_the_dma(bench: Bench) -> None:
    """The last test of this guest: the frames that nobody took come to the next run."""
    bench.start()
    with flood(bench.cards, b"\x5a" * 60):
        kill(bench, DRIVER)
        assert bench.masters() == [False, False]
    assert "the driver was ended by SIGKILL" in bench.guest.checked("cat /tmp/said")
