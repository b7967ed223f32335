"""ringline drives an 82599 over VFIO, in a guest with an IOMMU, and through sysfs without one.

The cards are those that `ringline serve-card` offers; QEMU 11 shows them to the guest as cards on
PCI Express.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ringline.workers.captures.captures import read_capture

from .cards import End
from .exchange import exchange
from .kernel import Missing
from .machine import Guest
from .served import served_card

PROOF = os.environ.get("RINGLINE_PROOF") == "1"
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
BIND = """for d in {devices}; do
    [ ! -e $d/driver ] || echo ${{d##*/}} > $d/driver/unbind
    echo {kind} > $d/iommu_group/type
    echo {driver} > $d/driver_override
    echo ${{d##*/}} > /sys/bus/pci/drivers_probe
done"""
# Ends when the run is ready, or has ended too early.
START = """
ringline run /tmp/vfio.toml --report /tmp/report.json > /tmp/said 2>&1 & echo $! > /tmp/pid
until grep -q state=running /tmp/said; do
    kill -0 $(cat /tmp/pid) || { cat /tmp/said; exit 1; }
    sleep 0.2
done
"""
STOP = """kill $(cat /tmp/pid)
while kill -0 $(cat /tmp/pid) 2> /dev/null; do sleep 0.2; done
cat /tmp/report.json"""

pytestmark = pytest.mark.timeout(1800)
only_proof = pytest.mark.skipif(not PROOF, reason="needs RINGLINE_PROOF=1: each run takes 20 s")


@dataclass
class Bench:
    """The guest, and the ends of the cables of its cards, in the order of DEVICES."""

    guest: Guest
    cards: Sequence[End]

    def bind(self, driver: str, kind: str) -> None:
        """Give the cards to `driver` ("": to none), with addresses of the IOMMU (`kind` "DMA") or
        physical ones ("identity")."""
        folders = " ".join(f"/sys/bus/pci/devices/{each}" for each in DEVICES)
        self.guest.checked(BIND.format(devices=folders, driver=driver or "''", kind=kind))

    def masters(self) -> list[bool]:
        """Whether each card may do DMA: bit 2 of the command register."""
        said = self.guest.checked(
            "".join(f"od -An -tu1 -j4 -N1 /sys/bus/pci/devices/{each}/config;" for each in DEVICES)
        )
        return [bool(int(word) & 4) for word in said.split()]

    def start(self, keys: str = "") -> None:
        ports = "".join(
            f'[port.{name}]\ndevice = "pci:{at}"\n{keys}\n'
            for name, at in zip(("wan", "lan"), DEVICES, strict=True)
        )
        self.guest.checked(f"echo {shlex.quote(CONFIG + ports)} > /tmp/vfio.toml")
        self.guest.checked(START)

    def stop(self) -> dict[str, Any]:
        """Stop the run. Returns its report, in which everything must be well."""
        report: dict[str, Any] = json.loads(self.guest.checked(STOP))
        assert report["exit"]["code"] == 0, report["exit"]
        assert not any(report["balance"].values()), report["balance"]
        return report


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with contextlib.ExitStack() as stack:
        folders = [tmp_path_factory.mktemp("card") for _ in DEVICES]
        made = [stack.enter_context(served_card(folder, "10fb")) for folder in folders]
        paths, cards = zip(*made, strict=True)
        try:
            guest = Guest(iommu=True, hugepages=64, served=paths)
        except Missing as error:
            pytest.skip(str(error))
        yield Bench(stack.enter_context(guest), cards)


def numbered(count: int) -> Iterator[bytes]:
    """Frames with a number, of all sizes from 60 to 1514 bytes; the EtherType is one for local
    experiments (IEEE 802)."""
    for number in range(count):
        head = bytes.fromhex("02000000000202000000000188b5") + number.to_bytes(46, "big")
        yield head + bytes(number % 1455)


def captured() -> Iterator[bytes]:
    """The frames of captures as they are on a wire: with at least 60 bytes."""
    real = sorted(Path(os.environ.get("RINGLINE_CAPTURES", DATA)).glob("*.pcap*")) if PROOF else []
    for path in [DATA / "mixed.pcap", DATA / "sections.pcapng", *real]:
        for frame in read_capture(path).frames:
            if len(frame) <= 1514:
                yield bytes(frame).ljust(60, b"\0")


def pass_frames(bench: Bench) -> int:
    """Frames that arrive at one card leave by the other: all of them, once, in order. Returns how
    many passed each way."""
    frames = [*numbered(FRAMES), *captured()]
    ways = [frames, frames[::-1]]
    one, other = bench.cards
    found = exchange((one, other, ways[0]), (other, one, ways[1]))
    assert [len(each) for each in found] == [len(frames)] * 2
    assert found == ways
    return len(frames)


def check(bench: Bench, passed: int, report: dict[str, Any]) -> None:
    for port in report["ports"].values():
        assert port["forwarded"] == passed
        assert not port["faults"], port["faults"]
    assert bench.masters() == [False, False]


def test_frames_pass_both_ways_over_vfio(bench: Bench) -> None:
    bench.bind("vfio-pci", "DMA")
    bench.start()
    passed = pass_frames(bench)
    check(bench, passed, bench.stop())
    assert "DMAR: [DMA" not in bench.guest.checked("dmesg"), "the IOMMU has stopped the card"


@only_proof
def test_frames_pass_both_ways_with_physical_addresses(bench: Bench) -> None:
    """The IOMMU is told to translate nothing, so addresses are physical."""
    bench.bind("", "identity")
    bench.start('dma = "physical"')
    passed = pass_frames(bench)
    assert 'dma = "physical": no IOMMU keeps' in bench.guest.checked("cat /tmp/said")
    check(bench, passed, bench.stop())
