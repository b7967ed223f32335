"""A run of ringline on interfaces of a guest, and numbered frames through it.

The frames are UDP over IPv4, in flows, of lengths around those at which cards and kernels begin to
treat a frame differently.
"""

from __future__ import annotations

import json
import shlex
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .cards import End
from .machine import Guest

FLOWS = 16
LENGTHS = (60, 61, 128, 1000, 1024, 1025, 1513, 1514)
CHUNK = 100
SILENCE = 60.0  # seconds without a frame, after which the rest counts as lost
CONFIG = """
name = "guest"
metrics.listen = "off"
memory.hugepages = "off"
[worker]
plugin = "forward"
"""
UP = "echo 1 > /proc/sys/net/ipv6/conf/{0}/disable_ipv6 && ip link set {0} up"
CARRIER = "until grep -q 1 /sys/class/net/{0}/carrier; do sleep 0.1; done"
# Ends when the run is ready, or has ended too early.
_START = """
ringline run /tmp/guest.toml --report /tmp/report.json > /tmp/said 2>&1 & echo $! > /tmp/pid
until grep -q state=running /tmp/said; do
    kill -0 $(cat /tmp/pid) || { cat /tmp/said; exit 1; }
    sleep 0.5
done
cat /tmp/said"""
_STOP = """kill $(cat /tmp/pid)
while kill -0 $(cat /tmp/pid) 2> /dev/null; do sleep 0.2; done
cat /tmp/report.json"""
_HEAD = bytes.fromhex("020000000002 020000000001 0800")
_SOURCE, _TARGET = bytes((10, 78, 0, 1)), bytes((10, 78, 0, 2))
_IP = struct.Struct(">BBHHHBBH4s4s")


@dataclass
class Run:
    """What a run said until it was ready, and its report after its end."""

    said: str
    report: dict[str, Any] = field(default_factory=dict)


def bring_up(guest: Guest, names: list[str]) -> None:
    """Bring interfaces up, on which the kernel says nothing itself, and wait for their links."""
    lines = [UP.format(name) for name in names] + [CARRIER.format(name) for name in names]
    guest.checked("set -e\n" + "\n".join(lines))


def start(guest: Guest, ports: Mapping[str, str]) -> Run:
    """Start a run that forwards between the first and the second interface, the third and the
    fourth, and so on. `ports` has the keys of the port of each interface, as lines of TOML."""
    text = CONFIG
    for name, keys in ports.items():
        text += f'[port.{name}]\ndevice = "xdp:{name}"\n{keys}\n'
    guest.checked(f"echo {shlex.quote(text)} > /tmp/guest.toml")
    run = Run(guest.checked(_START))
    # Some drivers restart the card, and so its link, for a program or for zero-copy.
    guest.checked("\n".join(CARRIER.format(name) for name in ports))
    return run


def stop(guest: Guest, run: Run) -> None:
    """Stop the run. Its report must say that everything is well."""
    run.report = report = json.loads(guest.checked(_STOP))
    assert report["exit"] == {"code": 0, "reason": "all well"}, report["exit"]
    assert not any(report["balance"].values()), report["balance"]
    assert "prog/xdp" not in guest.checked("ip -d link"), "a program is attached"


def frames(count: int) -> Iterator[bytes]:
    for number in range(count):
        length = LENGTHS[number % len(LENGTHS)]
        # The pattern differs in each frame, so that a part of another frame does not pass.
        payload = (number.to_bytes(4, "big") * (length // 4))[: length - 42]
        head = [0x45, 0, length - 14, 0, 0, 64, 17, 0, _SOURCE, _TARGET]
        total = sum(struct.unpack(">10H", _IP.pack(*head)))
        head[7] = 0xFFFF - (total % 0xFFFF)
        port = 5000 + number // len(LENGTHS) % FLOWS
        udp = struct.pack(">4H", port, 7, length - 34, 0)
        yield _HEAD + _IP.pack(*head) + udp + payload


def flow(frame: bytes) -> bytes:
    return frame[34:36]


def pass_frames(sender: End, receiver: End, count: int) -> None:
    """Frames that `sender` sends to a card arrive at `receiver` from its neighbour: all of them,
    once, as they were, and those of a flow in order."""
    expected = list(frames(count))
    before = len(receiver.wait_for(0, 0.0, _is_ours))
    found: list[bytes] = []
    for begin in range(0, count, CHUNK):
        for frame in expected[begin : begin + CHUNK]:
            sender.send(frame)
        found = receiver.wait_for(before + min(begin + CHUNK, count), SILENCE, _is_ours)
    found = found[before:]
    lengths = sorted(len(frame) for frame in set(expected) - set(found))
    assert not lengths, f"{len(lengths)} frames did not come, of these lengths: {set(lengths)}"
    assert len(found) == count
    assert sorted(found, key=flow) == sorted(expected, key=flow)


def counts(run: Run, port: str) -> list[int]:
    """The received packets of each queue of a port."""
    return [queue["rx_packets"] for queue in run.report["ports"][port]["queues"]]


def _is_ours(frame: bytes) -> bool:
    return frame.startswith(_HEAD)
