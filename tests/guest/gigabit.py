"""What the cards of 1 Gbit/s have to show, each on the card that QEMU emulates, which others wrote:
the 82574L (test_e1000e.py) and the 82576 (test_igb.py)."""

from __future__ import annotations

import shlex
import struct
from collections.abc import Callable, Iterator, Mapping

from ringline.pipeline.ports.rss import rss_key
from ringline.shm._shm import lib

from .exchange import exchange
from .machine import ROOT
from .test_vfio_ixgbe import ALONE, Bench, check, numbered

MAC = "02:00:00:00:00:77"
OURS, MORE, OTHER = (bytes.fromhex(f"0200000000{end}") for end in ("77", "79", "78"))
MULTICAST, BROADCAST = bytes.fromhex("01005e000001"), b"\xff" * 6
FLOWS = 48
RUNS = 5
STARTS = 20
_TAG, _OTHER_TAG = bytes.fromhex("81006123"), bytes.fromhex("81006124")
_V4 = bytes((10, 78, 0, 1, 10, 78, 0, 2))
_V6 = bytes.fromhex("20010db8" + "0" * 23 + "1" + "20010db8" + "0" * 23 + "2")
_TCP, _UDP = 6, 17
_PATIENCE = 120.0  # seconds without a frame
_SAYS = "until tail -n 1 /tmp/said | grep -q port.wan.{} ; do sleep 0.2; done"
PER_1000 = "for 1,000 packets"  # the name of a recorded figure
_ACCESSES = ("e1000e_core_read", "e1000e_core_write")  # QEMU notes those of an 82576 so too
_TAILS = ("0x2818", "0x3818", "0xc018", "0xe018")  # of queue 0: of an 82574L, of an 82576
TELL = f"{ROOT}/tests/guest/tell.py:Tell"


class Flow:
    """A frame of a flow over IP, with the bytes that its RSS hash covers. Its checksum of TCP or
    UDP is `right` or not."""

    def __init__(
        self, number: int, addresses: bytes, protocol: int, ports: bool = True, right: bool = True
    ) -> None:
        numbers = struct.pack(">HH", 5000 + number, 7)
        self.hashed = addresses + (numbers if ports else b"")
        self.right = right
        self.over_ipv4 = len(addresses) == 8
        payload = number.to_bytes(13, "big") + bytes(5)
        if protocol == _TCP:
            above = numbers + struct.pack(">IIBBHHH", number, 0, 0x50, 0, 0, 0, 0) + payload
            place = 16
        else:
            above = numbers + struct.pack(">HH", 8 + len(payload), 0) + payload
            place = 6
        whole = addresses + struct.pack(">HH", protocol, len(above)) + above
        above = _with(above, place, _checksum(whole) ^ (not right))
        if self.over_ipv4:
            head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(above), number, 0, 64, protocol, 0)
            head = _with(head + addresses, 10, _checksum(head + addresses))
        else:
            head = struct.pack(">IHBB", 0x60000000, len(above), protocol, 64) + addresses
        kind = b"\x08\x00" if self.over_ipv4 else b"\x86\xdd"
        self.frame = (OURS + OTHER + kind + head + above).ljust(60, b"\0")

    def told(self, tag: bytes = b"") -> bytes:
        """The frame as the plugin `Tell` sends it; the card has taken the tag out of it."""
        flags = lib.RL_FLAG_HASH | (lib.RL_FLAG_L3_OK if self.over_ipv4 else 0)
        flags |= lib.RL_FLAG_L4_OK if self.right else lib.RL_FLAG_CHECKSUM_BAD
        flags |= lib.RL_FLAG_VLAN if tag else 0
        end = bytes([flags]) + toeplitz(self.hashed).to_bytes(4, "big")
        return self.frame[:12] + tag + self.frame[12:-5] + end


def _with(data: bytes, at: int, number: int) -> bytes:
    return data[:at] + number.to_bytes(2, "big") + data[at + 2 :]


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of data in which its own field is 0."""
    total = sum(struct.unpack(f">{len(data) // 2}H", data[: len(data) // 2 * 2]))
    return 0xFFFF - (total + (data[-1] << 8 if len(data) % 2 else 0)) % 0xFFFF


def toeplitz(data: bytes) -> int:
    """The hash of receive-side scaling, as Microsoft defines it, with the default key."""
    key = int.from_bytes(rss_key("default"), "big")
    hashed = 0
    for bit in range(8 * len(data)):
        if data[bit // 8] >> 7 - bit % 8 & 1:
            hashed ^= key >> 320 - 32 - bit & 0xFFFFFFFF
    return hashed


def flows(udp_ports: bool) -> Iterator[Flow]:
    """TCP and UDP over IPv4 and IPv6; in some the checksum of TCP or UDP is wrong. `udp_ports`: the
    card hashes ports of UDP."""
    for number in range(FLOWS):
        addresses = _V6 if number % 3 == 2 else _V4
        protocol = _UDP if number % 4 == 3 else _TCP
        ports = udp_ports or protocol == _TCP
        yield Flow(number, addresses, protocol, ports, right=number % 5 != 4)


def accesses(lines: list[str], packets: int) -> str:
    """How often registers were read and written for 1,000 packets, by what QEMU has noted."""
    written = [line for line in lines if "core_write" in line]
    rung = sum(any(f"register {tail}," in line for tail in _TAILS) for line in written)
    read, write, ring = (
        1000 * each / packets for each in (len(lines) - len(written), len(written), rung)
    )
    return f"{read:.1f} registers read, {write:.1f} written, {ring:.1f} of them doorbells"


def pass_both_ways(
    bench: Bench, count: int, keys: str = "", record: Callable[[str, object], None] | None = None
) -> None:
    """Frames that arrive at one card leave by the other: all of them, once, in order, as they were,
    of 60 to 1514 bytes; the cards count them. `keys` are those of the ports. `record` gets how
    often registers were used."""
    bench.start(keys)
    one, other = bench.cards
    frames = list(numbered(count))
    ways = [frames, frames[::-1]]
    with bench.guest.traced(*_ACCESSES if record is not None else ()) as lines:
        found = exchange((one, other, ways[0]), (other, one, ways[1]))
    report = bench.stop()
    if record is not None:
        record(PER_1000, accesses(lines, 2 * count))
    assert [len(each) for each in found] == [count] * 2
    assert found == ways
    check(bench, count, report)
    for port in report["ports"].values():
        card = port["card"]
        assert card["rx_packets"] == card["tx_packets"] == count
        size = sum(map(len, frames))  # QEMU 7 leaves the CRC out of what its 82574L counts
        assert {card["rx_bytes"], card["tx_bytes"]} <= {size, size + 4 * count}
        assert not any(port["card_drops"].values()), port["card_drops"]
    assert "DMAR: [DMA" not in bench.guest.checked("dmesg"), "the IOMMU has stopped the card"


def pass_with_filters_queues_and_tags(bench: Bench, queues: int, udp_ports: bool) -> None:
    """The queues get the flows that the hash says, and the plugin gets that hash and the checksums;
    frames for other addresses and other VLANs do not come; a tag that the card has stripped is in
    the frame again when it leaves."""
    keys = f"""
queues = {queues}
promiscuous = false
mac = "{MAC}"
more_macs = ["{MORE.hex(":")}"]
vlan_strip = true
vlan_filter = [{0x123}]
"""
    bench.start(keys, plugin=TELL)
    one, other = bench.cards
    hashed = list(flows(udp_ports))
    tagged = Flow(FLOWS, _V4, _TCP)
    without = BROADCAST + OTHER + b"\x88\xb5" + bytes(46)  # not IP: no hash, and queue 0
    expected = [*(flow.told() for flow in hashed), tagged.told(_TAG)]
    before = len(other.frames())
    for address in (OTHER, MULTICAST):
        one.send(address + hashed[0].frame[6:])
    one.send(tagged.frame[:12] + _OTHER_TAG + tagged.frame[12:])
    one.send(MORE + without[6:])
    for flow in hashed:
        one.send(flow.frame)
    one.send(tagged.frame[:12] + _TAG + tagged.frame[12:])
    one.send(without)
    other.wait_for(before + len(expected) + 2, _PATIENCE)
    report = bench.stop()
    found = sorted(other.frames()[before:])
    assert found == sorted([*expected, without, MORE + without[6:]])
    counts = [0] * queues
    for flow in [*hashed, tagged]:
        counts[(toeplitz(flow.hashed) & 127) % queues] += 1
    counts[0] += 2
    wan = report["ports"]["wan"]
    assert [each["rx_packets"] for each in wan["queues"]] == counts
    assert all(counts)


def pass_everything_with_tags_in_place(bench: Bench) -> None:
    """A promiscuous port gets the frames for others, and those with a tag as they are."""
    bench.start(f'promiscuous = true\nmac = "{MAC}"')
    one, other = bench.cards
    begin = Flow(0, _V4, _TCP).frame
    frames = [address + begin[6:] for address in (OURS, OTHER, MULTICAST, BROADCAST)]
    frames.append(begin[:12] + _TAG + begin[12:])
    assert exchange((one, other, frames)) == [frames]
    assert bench.stop()["ports"]["wan"]["card"]["rx_packets"] == len(frames)


def lose_the_link_and_find_it(bench: Bench) -> None:
    """A cable that is pulled takes the link down, and the run goes on when it is back."""
    bench.start()
    one, other = bench.cards
    bench.guest.set_link(0, up=False)
    bench.guest.checked(_SAYS.format("link_mbits=0"))
    assert "port.lan.link_mbits=1000" in bench.guest.checked("tail -n 1 /tmp/said")
    bench.guest.set_link(0, up=True)
    bench.guest.checked(_SAYS.format("link_mbits=1000"))
    frames = list(numbered(1000))
    assert exchange((one, other, frames), (other, one, frames)) == [frames] * 2
    report = bench.stop()
    assert not any(port["faults"] for port in report["ports"].values())


def lose_a_link_and_a_card(bench: Bench) -> None:
    """Each card has two queues, and sends back what it receives. The first one loses its link and
    finds it again; then the second one is taken out of the machine, and the first one goes on."""
    bench.start("queues = 2", ALONE)
    one, other = bench.cards
    frames = sorted(flow.frame for flow in flows(udp_ports=False))
    bench.guest.set_link(0, up=False)
    bench.guest.checked(_SAYS.format("link_mbits=0"))
    bench.guest.set_link(0, up=True)
    bench.guest.checked(_SAYS.format("link_mbits=1000"))
    for found in exchange((one, one, frames), (other, other, frames)):
        assert sorted(found) == frames
    bench.guest.unplug(1)
    bench.wait_for("port lan has failed: the kernel takes it back: it is being removed")
    [found] = exchange((one, one, frames))
    assert sorted(found) == frames
    ports = bench.stop()["ports"]
    assert ports["wan"]["faults"] == []
    assert [ports[name]["forwarded"] for name in ("wan", "lan")] == [2 * FLOWS, FLOWS]
    for port in ports.values():
        assert all(queue["rx_packets"] for queue in port["queues"]), port["queues"]


def ring_once_for_a_burst(
    bench: Bench, tails: Mapping[str, str], record: Callable[[str, object], None]
) -> None:
    """Under load, the driver writes no register but the tails, once for each burst; it writes none
    when nothing moves. Among the registers that it reads is no head of a ring. `tails` are the
    addresses of the tails of queue 0, "rx" and "tx"; the heads lie 8 bytes before them. `record`
    gets how often registers were used."""
    bench.start()
    one, other = bench.cards
    frames = list(numbered(1000))
    with bench.guest.traced(*_ACCESSES) as loaded:
        assert exchange((one, other, frames), (other, one, frames)) == [frames] * 2
    with bench.guest.traced("e1000e_core_write") as idle:
        bench.guest.checked("sleep 2")
    report = bench.stop()
    record(PER_1000, accesses(loaded, 2 * len(frames)))
    assert idle == []
    for way, tail in tails.items():
        bursts = sum(port["queues"][0][f"{way}_bursts"] for port in report["ports"].values())
        rung = sum(f"register {tail}," in line for line in loaded if "core_write" in line)
        assert 0 < rung <= bursts
        head = f"register {int(tail, 16) - 8:#x},"
        assert not any(head in line for line in loaded)
    written = {line for line in loaded if "core_write" in line}
    assert all(any(f"register {tail}," in line for tail in tails.values()) for line in written)


# Starts and stops the port of a card again and again, in one process, and sends back what comes.
_STARTS = """
import sys
from dataclasses import replace
from pathlib import Path
from ringline.pipeline.configuration.config import PortConfig
from ringline.pipeline.ports import create
from ringline.pipeline.ports.pci.vfio import Container, Region
from ringline.shm.packets import DESCRIPTORS_BASE, PACKETS_BASE
from tests.pipeline.ports.port_harness import PortHarness, RIGHT

address, starts, frames = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

class Real(PortHarness):
    @staticmethod
    def port_class(config, index, sysfs):
        return create.create_port(replace(config, device="pci:" + address), index)

    def prepare(self):
        memories = (DESCRIPTORS_BASE, self.descriptors), (PACKETS_BASE, self.packets)
        regions = [Region(base, it.segment.address, it.segment.size) for base, it in memories]
        self.port.container = Container(regions)

with Real("starts", rx_descriptors=256, tx_descriptors=256, buffers=1024) as card:
    for number in range(starts):
        card.start()
        assert card.port.link().up, "no link"
        print("started", flush=True)
        sent = 0
        while sent < frames:
            refs = [card.held(ref) for ref in card.rx_burst()]
            posted = card.tx_burst(refs)
            assert posted == len(refs)
            sent += card.reclaim()
        assert card.residuals() == RIGHT, card.residuals()
        card.port.stop()
        assert card.port.trouble() is None, card.port.trouble()
card.port.container.close()
"""


def start_again_and_again(bench: Bench) -> None:
    """Each time, all frames come, in order. First whole runs have both cards; then the first card
    starts and stops more often, in one process, and frames come back."""
    frames = list(numbered(100))
    cable, other = bench.cards
    for _ in range(RUNS):
        bench.start()
        assert exchange((cable, other, frames), (other, cable, frames)) == [frames, frames]
        check(bench, len(frames), bench.stop())
    before = len(cable.frames())
    said: list[bytes] = []

    def hear(output: bytes) -> None:
        said.append(output)
        for _ in range(output.count(b"started")):
            for frame in frames:
                cable.send(frame)

    command = f"python -c {shlex.quote(_STARTS)} {bench.devices[0]} {STARTS} {len(frames)}"
    result = bench.guest.run(command, 1200.0, hear)
    assert result.code == 0, result.output
    assert cable.frames()[before:] == frames * STARTS
    assert not bench.masters()[0]
