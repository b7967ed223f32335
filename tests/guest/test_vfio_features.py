"""What ringline's port of an 82599 has beyond frames that pass, over VFIO in a guest: filters, 16
queues, a card with a backplane, and how often it uses registers and interrupts.

The first card has a cage for a module, the second one a backplane.
"""

from __future__ import annotations

import contextlib
import re
import struct
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from ringline.pipeline.driver.process import STATISTICS_EVERY
from ringline.pipeline.ports.ixgbe.registers import QUEUE_STATISTICS, REGISTERS, STATISTICS

from .booted import booted
from .exchange import exchange
from .gigabit import OTHER, OURS, PER_1000, toeplitz
from .machine import Guest
from .served import Accesses, ServedEnd, served_card
from .test_vfio_ixgbe import Bench, numbered, only_proof

pytestmark = pytest.mark.timeout(1800)

ADDRESSES = bytes((10, 78, 0, 1, 10, 78, 0, 2))
FLOWS = 512
FRAMES = 5000  # each way
SINGLES = 10  # frames that come alone
IDLE = 5.0  # seconds of the guest that are counted
# Of the driver: its process, and how often its card raised an interrupt.
DRIVER = "pgrep -f [r]ingline.pipeline.driver.process"
TICKS = f"cut -d' ' -f14,15 /proc/$({DRIVER})/stat; getconf CLK_TCK; cut -d' ' -f1 /proc/uptime"
# Wait until it waits for its cards: ppoll(2) on x86.
ASLEEP = f"until grep -q '^271 ' /proc/$({DRIVER})/syscall; do sleep 0.02; done"
INTERRUPTS = "grep vfio-msix /proc/interrupts"
Ends = tuple[Sequence[str], Sequence[ServedEnd]]  # sockets of the cards, and ends of their cables


@pytest.fixture(scope="module")
def ends(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Ends]:
    with contextlib.ExitStack() as stack:
        made = [
            stack.enter_context(served_card(tmp_path_factory.mktemp("card"), device))
            for device in ("10fb", "10f7")
        ]
        yield [path for path, _ in made], [end for _, end in made]


@pytest.fixture(scope="module")
def bench(ends: Ends) -> Iterator[Bench]:
    paths, cards = ends
    with booted(lambda: Guest(iommu=True, hugepages=64, served=paths)) as guest:
        bench = Bench(guest, cards)
        bench.bind("vfio-pci", "DMA")
        yield bench


def tcp(flow: int, destination: bytes = OURS, tag: bytes = b"") -> bytes:
    """A TCP segment without options or checksums; the source port is that of the flow."""
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 46, flow, 0, 64, 6, 0) + ADDRESSES
    segment = struct.pack(">HHIIBBHHH", 5000 + flow, 7, flow, 0, 0x50, 0, 0, 0, 0)
    return destination + OTHER + tag + b"\x08\x00" + ip + segment + bytes(6)


def queue_of(flow: int, queues: int) -> int:
    """The queue of a flow: RETA names the queues in turn."""
    return toeplitz(ADDRESSES + struct.pack(">HH", 5000 + flow, 7)) % 128 % queues


def accesses(cards: Sequence[ServedEnd]) -> Accesses:
    counts = [card.accesses() for card in cards]
    return Accesses(
        sum(each.read for each in counts),
        sum(each.written for each in counts),
        sum(each.doorbells for each in counts),
    )


def read_by_a_look() -> int:
    """How many registers the driver reads of a card with one queue when it looks at it: the
    statistics, STATUS, and LINKS twice."""
    words = 3
    for names, elements in ((STATISTICS, None), (QUEUE_STATISTICS, 1)):
        for name in names.values():
            counter = REGISTERS[name]
            halves = 2 if counter.mode == "RC64" else 1
            words += halves * (elements or counter.count or 1)
    return words


def used(bench: Bench) -> tuple[float, float]:
    """CPU time of the driver, and the clock of the guest, in seconds."""
    user, system, hertz, now = bench.guest.checked(TICKS).split()
    return (int(user) + int(system)) / int(hertz), float(now)


def interrupts(bench: Bench) -> int:
    lines = bench.guest.checked(INTERRUPTS).splitlines()
    return sum(int(number) for line in lines for number in re.findall(r"\s(\d+)(?=\s)", line))


@only_proof
def test_registers_are_used_once_for_a_burst_and_not_at_all_while_idle(
    bench: Bench, ends: Ends, record_property: Callable[[str, object], None]
) -> None:
    """While no frame comes, the driver looks at its cards once a second, and reads and writes
    nothing else. Under load, it writes no register but tails: EIMS, which unmasks the interrupt, is
    written before a wait alone. An interrupt ends such a wait, and masks itself."""
    cards = ends[1]
    bench.start()
    one, other = cards
    frames = list(numbered(FRAMES))
    bench.guest.checked(ASLEEP)
    loaded, before = interrupts(bench), accesses(cards)
    assert exchange((one, other, frames), (other, one, frames)) == [frames, frames]
    load = accesses(cards).since(before)
    bench.guest.checked(ASLEEP)
    loaded = interrupts(bench) - loaded
    (cpu, began), before = used(bench), accesses(cards)
    bench.guest.checked(f"sleep {IDLE}")
    idle = accesses(cards).since(before)
    cpu, took = (now - then for now, then in zip(used(bench), (cpu, began), strict=True))
    woken = interrupts(bench)
    delays = []
    for frame in frames[:SINGLES]:
        bench.guest.checked(ASLEEP)
        began = time.monotonic()
        assert exchange((one, other, [frame])) == [[frame]]
        delays.append(time.monotonic() - began)
    woken = interrupts(bench) - woken
    report = bench.stop()
    per = 2 * FRAMES / 1000
    record_property(
        PER_1000,
        f"{load.read / per:.1f} registers read, {load.written / per:.1f} written, "
        f"{load.doorbells / per:.1f} of them doorbells; {load.written - load.doorbells} other "
        f"writes and {loaded} interrupts in all",
    )
    record_property("idle", f"in {took:.1f} s: {idle}, {100 * cpu / took:.1f} % of a CPU")
    record_property(
        "the first frame",
        f"{1000 * sorted(delays)[SINGLES // 2]:.2f} ms, {woken} interrupts for {SINGLES} frames",
    )
    ports = report["ports"].values()
    bursts = sum(
        queue["rx_bursts"] + queue["tx_bursts"] for port in ports for queue in port["queues"]
    )
    assert load.doorbells <= bursts
    # The first frame of each card ends a wait, and so does what came until the wait after the load.
    # The rest is for one more wait, if this machine stops the frames for 0.1 s.
    assert 1 <= loaded <= 4 * len(cards)
    assert load.written - load.doorbells <= loaded
    assert idle.doorbells == 0
    assert idle.written <= len(cards)
    assert idle.read <= (took / STATISTICS_EVERY + 1) * len(cards) * read_by_a_look()
    assert SINGLES <= woken <= 2 * SINGLES


@only_proof
def test_filters_keep_what_the_configuration_says(bench: Bench) -> None:
    one, other = bench.cards
    also = "02:00:00:00:00:88"
    keys = f'promiscuous = false\nmac = "{OURS.hex(":")}"\nmore_macs = ["{also}"]\n'
    bench.start(keys + "vlan_filter = [291]")
    mac = bytes.fromhex(also.replace(":", ""))
    vlan, elsewhere, priority = (bytes.fromhex(f"8100{tag}") for tag in ("6123", "6124", "6000"))
    passing = [tcp(0), tcp(1, mac), tcp(2, b"\xff" * 6), tcp(3, tag=vlan), tcp(4, mac, priority)]
    dropped = [tcp(5, mac[:5] + b"\x89"), tcp(6, tag=elsewhere), tcp(7, b"\x01" + OURS[1:])]
    assert exchange((one, other, [*dropped, *passing, *dropped, tcp(8)])) == [[*passing, tcp(8)]]
    report = bench.stop()
    assert report["ports"]["wan"]["received"]["packets"] == len(passing) + 1
    assert not any(report["ports"]["wan"]["card_drops"].values())


@only_proof
def test_16_queues_take_the_flows_that_the_hash_says(bench: Bench) -> None:
    one, other = bench.cards
    bench.start("queues = 16\nrx_descriptors = 128\ntx_descriptors = 128")
    flows = [tcp(flow) for flow in range(FLOWS)]
    expected = [0] * 16
    for flow in range(FLOWS):
        expected[queue_of(flow, 16)] += 1
    before = len(other.frames())
    for frame in flows:
        one.send(frame)
    other.wait_for(before + FLOWS, 60.0)
    report = bench.stop()
    assert sorted(other.frames()[before:]) == sorted(flows)
    assert bench.masters() == [False, False]
    wan = report["ports"]["wan"]
    assert [queue["rx_packets"] for queue in wan["queues"]] == expected
    assert all(expected)
    assert [wan["card"][f"rx_queue{queue}_packets"] for queue in range(16)] == expected
