"""ringline drives an 82599 over VFIO, in a guest with an IOMMU, and through sysfs without one.

The cards are those that `ringline serve-card` offers; QEMU 11 shows them to the guest as cards on
PCI Express. Their DMA does not pass the IOMMU of the guest. What a card refuses, such as an address
that is not mapped, fails the test file at its end (served.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ringline.workers.captures.captures import read_capture

from .booted import PROOF, booted
from .cards import End
from .exchange import exchange, flood
from .machine import Guest
from .served import NO_DMA, served_card

FRAMES = 100_000 if PROOF else 5000
DATA = Path(__file__).parents[1] / "data"
DEVICES = ("0000:00:18.0", "0000:00:19.0")
CONFIG = """
name = "vfio"
metrics.listen = "off"
memory.hugepages = "require"
[worker]
plugin = "forward"
"""
# Each card sends its own frames back, so they do not need each other.
ALONE = '[worker.options]\nmap = { wan = "wan", lan = "lan" }\n'
BIND = """for d in {devices}; do
    [ ! -e $d/driver ] || echo ${{d##*/}} > $d/driver/unbind
    echo {kind} > $d/iommu_group/type
    echo {driver} > $d/driver_override
    echo ${{d##*/}} > /sys/bus/pci/drivers_probe
done"""
# Ends when the run is ready, or has ended too early.
START = """
export PYTHONPATH=/tmp/first
ringline run /tmp/vfio.toml --report /tmp/report.json > /tmp/said 2>&1 & echo $! > /tmp/pid
until grep -q state=running /tmp/said; do
    kill -0 $(cat /tmp/pid) || { cat /tmp/said; exit 1; }
    sleep 0.2
done
"""
# Run `ringline` with a driver that gives cards addresses which the IOMMU does not know: those of
# all buffers, or those of the transmit rings.
WRONG_BUFFERS = """
import sys
if "ringline.pipeline.driver.process" in sys.orig_argv:
    from ringline.shm.packets import PACKETS_BASE, PacketMemory
    PacketMemory.device_addresses.__defaults__ = (PACKETS_BASE + (1 << 32),)
"""
WRONG_RINGS = """
import sys
if "ringline.pipeline.driver.process" in sys.orig_argv:
    from ringline.pipeline.ports.descriptor_rings.card import RingCard
    begin_call = RingCard.begin_call
    def wrong(card, seconds):
        card.tx = [(address | 1 << 32, count) for address, count in card.tx]
        begin_call(card, seconds)
    RingCard.begin_call = wrong
"""
# Fills all free hugepages and much other memory with a pattern, waits, and looks at it again.
PATTERN = """
import mmap, sys, time
from pathlib import Path
free = int(Path("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages").read_text())
assert free > 0
pieces = [mmap.mmap(-1, free << 21, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000)]
pieces.append(mmap.mmap(-1, 200 << 20))
for piece in pieces:
    for at in range(0, len(piece), 1 << 20):
        piece[at : at + (1 << 20)] = bytes([0xA5]) * (1 << 20)
time.sleep(float(sys.argv[1]))
whole = bytes([0xA5]) * 4096
wrong = sum(
    piece[at : at + 4096] != whole for piece in pieces for at in range(0, len(piece), 4096)
)
print(free, "hugepages,", wrong, "wrong pages")
"""
STOP = """kill $(cat /tmp/pid)
while kill -0 $(cat /tmp/pid) 2> /dev/null; do sleep 0.2; done
cat /tmp/report.json"""

pytestmark = pytest.mark.timeout(1800)
only_proof = pytest.mark.skipif(not PROOF, reason="needs RINGLINE_PROOF=1: each run takes 20 s")

START_SECONDS = 900.0  # 16 workers on a busy machine take minutes


@dataclass
class Bench:
    """The guest, and the ends of the cables of its cards, in the order of `devices`."""

    guest: Guest
    cards: Sequence[End]
    devices: Sequence[str] = DEVICES

    def bind(self, driver: str, kind: str) -> None:
        """Give the cards to `driver` ("": to none), with addresses of the IOMMU (`kind` "DMA") or
        physical ones ("identity")."""
        folders = " ".join(f"/sys/bus/pci/devices/{each}" for each in self.devices)
        self.guest.checked(BIND.format(devices=folders, driver=driver or "''", kind=kind))

    def masters(self) -> list[bool]:
        """Whether each card may do DMA: bit 2 of the command register."""
        said = self.guest.checked(
            "".join(
                f"od -An -tu1 -j4 -N1 /sys/bus/pci/devices/{each}/config;" for each in self.devices
            )
        )
        return [bool(int(word) & 4) for word in said.split()]

    def start(self, keys: str = "", more: str = "", plugin: str = "forward") -> None:
        """Start a run on both cards; `keys` are those of both ports."""
        ports = "".join(
            f'[port.{name}]\ndevice = "pci:{at}"\n{keys}\n'
            for name, at in zip(("wan", "lan"), self.devices, strict=True)
        )
        text = CONFIG.replace('"forward"', f'"{plugin}"') + more + ports
        self.guest.checked(f"echo {shlex.quote(text)} > /tmp/vfio.toml")
        self.guest.checked(START, START_SECONDS)

    def start_with(self, program: str, more: str = "") -> None:
        """Start a run whose processes run this program of Python first."""
        text = shlex.quote(program)
        self.guest.checked(f"mkdir -p /tmp/first; echo {text} > /tmp/first/sitecustomize.py")
        try:
            self.start(more=more)
        finally:
            self.guest.checked("rm -r /tmp/first")

    def wait_for(self, sentence: str) -> None:
        """Wait until the run has said the sentence."""
        self.guest.checked(f"until grep -q {shlex.quote(sentence)} /tmp/said; do sleep 0.2; done")

    def stop(self) -> dict[str, Any]:
        """Stop the run. Returns its report, in which everything must be well."""
        report: dict[str, Any] = json.loads(self.guest.checked(STOP))
        assert report["exit"]["code"] == 0, report["exit"]
        assert not any(report["balance"].values()), report["balance"]
        return report


@contextlib.contextmanager
def two_served_cards(folders: pytest.TempPathFactory) -> Iterator[Bench]:
    """A guest with two cards that are served."""
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(served_card(folders.mktemp("card"), "10fb")) for _ in DEVICES]
        paths, cards = zip(*made, strict=True)
        guest = stack.enter_context(booted(lambda: Guest(iommu=True, hugepages=64, served=paths)))
        yield Bench(guest, cards)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with two_served_cards(tmp_path_factory) as made:
        yield made


def numbered(count: int) -> Iterator[bytes]:
    """Frames with a number, of all sizes from 60 to 1514 bytes; the EtherType is one for local
    experiments (IEEE 802)."""
    for number in range(count):
        head = bytes.fromhex("02000000000202000000000188b5") + number.to_bytes(46, "big")
        yield head + bytes(number % 1455)


def captured(longest: int, longer_than: int = 0) -> Iterator[bytes]:
    """The frames of captures up to a length, as they are on a wire: with at least 60 bytes."""
    real = sorted(Path(os.environ.get("RINGLINE_CAPTURES", DATA)).glob("*.pcap*")) if PROOF else []
    for path in [DATA / "mixed.pcap", DATA / "sections.pcapng", *real]:
        for frame in read_capture(path).frames:
            if longer_than < len(frame) <= longest:
                yield bytes(frame).ljust(60, b"\0")


def pass_frames(bench: Bench) -> int:
    """Frames that arrive at one card leave by the other: all of them, once, in order. Returns how
    many passed each way. The longer frames of captures pass with a larger MTU (`jumbo_frames`)."""
    frames = [*numbered(FRAMES), *captured(1514)]
    ways = [frames, frames[::-1]]
    one, other = bench.cards
    found = exchange((one, other, ways[0]), (other, one, ways[1]))
    assert [len(each) for each in found] == [len(frames)] * 2
    assert found == ways
    return len(frames)


def jumbo_frames() -> list[bytes]:
    """Frames of the lengths around all limits, some tagged, and many of the longest; and those of
    captures that are longer than 1514 bytes, up to 9014, which is the longest without a tag."""
    edges = (60, 1514, 1518, 1519, 2047, 2048, 2049, 4096, 8191, 8192, 8999, 9000, 9014)
    lengths = [*(range(60, 9015) if PROOF else edges), *[9014] * (FRAMES // 50)]
    made = []
    for number, length in enumerate(lengths):
        tag = b"\x81\x00\x00\x07" if number % 3 == 0 else b""
        head = bytes.fromhex("020000000002020000000001") + tag + b"\x88\xb5"
        frame = head + number.to_bytes(4, "big")
        made.append(frame + bytes(at % 251 for at in range(length + len(tag) - len(frame))))
    long = list(captured(9014, longer_than=1514))
    assert len(long) >= 8, "those of tests/data"
    return made + long


def check(bench: Bench, passed: int, report: dict[str, Any]) -> None:
    for port in report["ports"].values():
        assert port["forwarded"] == passed
        assert not port["faults"], port["faults"]
    assert bench.masters() == [False, False]


def test_frames_pass_both_ways_over_vfio(
    bench: Bench, record_property: Callable[[str, object], None]
) -> None:
    bench.bind("vfio-pci", "DMA")
    bench.start()
    before = [card.accesses() for card in bench.cards]
    passed = pass_frames(bench)
    used = [card.accesses().since(then) for card, then in zip(bench.cards, before, strict=True)]
    report = bench.stop()
    check(bench, passed, report)
    for port, each in zip(report["ports"].values(), used, strict=True):
        bursts = sum(queue["rx_bursts"] + queue["tx_bursts"] for queue in port["queues"])
        assert 0 < each.doorbells <= bursts
    read, written, rung = (
        500 * sum(each) / passed
        for each in zip(*((each.read, each.written, each.doorbells) for each in used), strict=True)
    )
    record_property(
        "for 1,000 packets",
        f"{read:.1f} registers read, {written:.1f} written, {rung:.1f} of them doorbells",
    )


def test_jumbo_frames_pass_both_ways_over_vfio(bench: Bench) -> None:
    """Longer ones are dropped by the cards, and counted."""
    bench.bind("vfio-pci", "DMA")
    bench.start("mtu = 9000\nrx_descriptors = 128\ntx_descriptors = 128")
    frames = jumbo_frames()
    too_long = [frames[0][:12] + b"\x88\xb5" + bytes(length) for length in (9001, 9005, 12000)]
    one, other = bench.cards
    for frame in too_long:
        one.send(frame)
    found = exchange((one, other, frames), (other, one, frames[::-1]))
    assert [len(each) for each in found] == [len(frames)] * 2
    assert found == [frames, frames[::-1]]
    report = bench.stop()
    check(bench, len(frames), report)
    assert report["ports"]["wan"]["card_drops"]["oversize"] == len(too_long)


@only_proof
def test_frames_pass_both_ways_with_physical_addresses(bench: Bench) -> None:
    """The IOMMU is told to translate nothing, so addresses are physical."""
    bench.bind("", "identity")
    bench.start('dma = "physical"')
    passed = pass_frames(bench)
    assert 'dma = "physical": no IOMMU keeps' in bench.guest.checked("cat /tmp/said")
    check(bench, passed, bench.stop())


@only_proof
def test_a_card_that_is_removed_fails_by_name_and_the_rest_runs(bench: Bench) -> None:
    bench.bind("vfio-pci", "DMA")
    bench.start(more=ALONE)
    wan, lan = bench.cards
    frames = list(numbered(1000))
    assert exchange((wan, wan, frames), (lan, lan, frames)) == [frames, frames]
    bench.guest.checked(f"echo 1 > /sys/bus/pci/devices/{DEVICES[1]}/remove")
    bench.wait_for("port lan has failed: the kernel takes it back: it is being removed")
    assert exchange((wan, wan, frames)) == [frames]
    report = bench.stop()
    assert report["ports"]["wan"]["forwarded"] == 2000
    assert report["ports"]["lan"]["forwarded"] == 1000
    assert report["ports"]["lan"]["faults"] == [
        "the port has failed: the kernel takes it back: it is being removed, or unbound from "
        "vfio-pci"
    ]
    bench.guest.checked("echo 1 > /sys/bus/pci/rescan")
    bench.bind("vfio-pci", "DMA")
    assert bench.masters() == [False, False]


@only_proof
def test_a_wrong_address_reaches_no_memory_and_the_port_fails(bench: Bench) -> None:
    """Of a buffer. The served card stops at it; its DMA does not pass the kernel's IOMMU, so what
    the kernel says is in test_e1000e.py."""
    bench.bind("vfio-pci", "DMA")
    bench.cards[0].may_refuse.append(NO_DMA)
    bench.start_with(WRONG_BUFFERS, ALONE)
    with flood(bench.cards[:1], b"\xff" * 60):
        bench.wait_for("port wan has failed: frames arrive, and it writes none of them to memory")
    report = bench.stop()
    assert report["ports"]["lan"]["faults"] == []
    assert report["ports"]["wan"]["received"]["packets"] == 0


@only_proof
def test_a_refused_start_leaves_the_cards_as_they_were(bench: Bench) -> None:
    """The second card has no driver, so the run is refused; the first one is not written to."""
    bench.bind("vfio-pci", "DMA")
    bench.guest.checked(f"echo {DEVICES[1]} > /sys/bus/pci/devices/{DEVICES[1]}/driver/unbind")
    look = "".join(f"od -An -tx1 -N64 /sys/bus/pci/devices/{each}/config;" for each in DEVICES)
    before = bench.guest.checked(look)
    with pytest.raises(AssertionError, match=r"port\.lan: PCI device 0000:00:19\.0 has no driver"):
        bench.start()
    assert bench.guest.checked(look) == before
