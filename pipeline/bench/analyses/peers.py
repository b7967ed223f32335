"""A process of `bench analyze`: one program that counts the flows of captures.

    python -m ringline.pipeline.bench.analyses.peers NAME CPU EMPTY OUT CAPTURE...

runs on this CPU. For each capture it prints seconds of the processor and of the clock, without
those for the capture EMPTY, which has a few packets only: so neither the start of a program nor the
memory that it gets at first counts. The flows of capture number n go to the file OUT.n.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import mmap
import os
import pickle
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ringline.pipeline.analysis import captures, sources
from ringline.pipeline.bench._bench import ffi, lib
from ringline.pipeline.bench.analyses.flows import (
    Counts,
    Flows,
    Key,
    Precision,
    of_records,
    ordered,
    packed,
)
from ringline.shm.errors import EnvironmentLacks
from ringline.workers.analysis import children
from ringline.workers.named.part import Part

Rows = dict[Key, Counts]
# Counts the flows of a capture; what it returns gives them, which is not measured.
Count = Callable[[str], Callable[[], Rows]]

TCP, UDP = 6, 17
SLOTS = 65536
WINDOW = 1 << 17
FOREVER = 100_000  # seconds


def ringline(path: str) -> Callable[[], Rows]:
    """One task of an analysis with `flow_stats`, in the child process that does it."""
    of = {
        "plugin": "flow_stats",
        "options": {},
        "folder": os.getcwd(),
        "ports": ["port"],
        "state_bytes": 64 << 20,
        "debug": False,
    }
    [source], _ = sources.looked_at([path], to_cut=False)
    capture = captures.divided(0, source, source.bytes)
    answer, part = children.do(of, capture.job(capture.pieces[0], to_cut=False))
    if not part:
        raise EnvironmentLacks(f"bench analyze: the plugin flow_stats failed: {answer}")

    def rows() -> Rows:
        import numpy as np  # is there: the plugin needs it

        records = Part.unpack(part).state["flows"]
        octets = slice(10, 12)  # of IP, which the others do not count
        return of_records(np.delete(records, octets, axis=1).tolist())

    return rows


def bare(path: str) -> Callable[[], Rows]:
    """The loop in C, with its table in hugepages as that of ringline is."""
    memory = mmap.mmap(-1, SLOTS * ffi.sizeof("struct rl_bare_flow"), mmap.MAP_PRIVATE)
    with contextlib.suppress(OSError):  # a kernel without them
        memory.madvise(mmap.MADV_HUGEPAGE)
    table = ffi.cast("struct rl_bare_flow *", ffi.from_buffer(memory))
    window = ffi.new("uint8_t[]", WINDOW)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if not lib.rl_bare_flows(descriptor, table, SLOTS, window, WINDOW):
            raise EnvironmentLacks(f"bench analyze: the bare loop cannot read {path}")
    finally:
        os.close(descriptor)

    def rows() -> Rows:
        words = memoryview(memory).cast("q").tolist()
        records = (words[at : at + 16] for at in range(0, len(words), 16))
        return of_records(record for record in records if record[5])

    return rows


def dpkt(path: str) -> Callable[[], Rows]:
    """dpkt."""
    import dpkt as it

    flows = Flows()
    with open(path, "rb") as file:
        for seconds, frame in it.pcap.Reader(file):
            ip = it.ethernet.Ethernet(frame).data
            if isinstance(ip, (it.ip.IP, it.ip6.IP6)) and isinstance(
                ip.data, (it.tcp.TCP, it.udp.UDP)
            ):
                flows.count(
                    ip.p,
                    (ip.src, ip.data.sport),
                    (ip.dst, ip.data.dport),
                    len(frame),
                    round(seconds * 1_000_000),
                )
    return flows.rows


def scapy(path: str) -> Callable[[], Rows]:
    """Scapy."""
    from scapy.layers.inet import IP, TCP, UDP
    from scapy.layers.inet6 import IPv6
    from scapy.utils import PcapReader

    flows: dict[Any, list[int]] = {}
    counted = Flows()
    counted.found = flows
    with PcapReader(path) as reader:
        for packet in reader:
            ip = packet.getlayer(IP) or packet.getlayer(IPv6)
            inner = ip and (ip.getlayer(TCP) or ip.getlayer(UDP))
            if inner:
                counted.count(
                    6 if inner.name == "TCP" else 17,
                    (ip.src, inner.sport),
                    (ip.dst, inner.dport),
                    packet.wirelen,
                    int(packet.time * 1_000_000),
                )

    def rows() -> Rows:
        found = Flows()
        for (protocol, a, b), counts in flows.items():
            ends = (packed(a[0]), a[1]), (packed(b[0]), b[1])
            key, found.found[key] = ordered(protocol, *ends, counts)
        return found.rows()

    return rows


def nfstream(path: str) -> Callable[[], Rows]:
    """nfstream, without a look at what the packets contain."""
    from nfstream import NFStreamer

    streamer = NFStreamer(
        source=path,
        decode_tunnels=False,
        n_dissections=0,
        n_meters=1,
        idle_timeout=FOREVER,
        active_timeout=FOREVER,
    )
    flows = list(streamer)

    def rows() -> Rows:
        found = Flows()
        for flow in flows:
            counts = [
                int(getattr(flow, f"{way}_{name}")) * (1000 if name.endswith("ms") else 1)
                for way in ("src2dst", "dst2src")
                for name in ("packets", "bytes", "first_seen_ms", "last_seen_ms")
            ]
            ends = (packed(flow.src_ip), flow.src_port), (packed(flow.dst_ip), flow.dst_port)
            key, found.found[key] = ordered(flow.protocol, *ends, counts)
        return found.rows()

    return rows


_CONVERSATION = re.compile(
    r"(?P<a>\S+):(?P<port_a>\d+) +<-> +(?P<b>\S+):(?P<port_b>\d+) +"
    r"(?P<back>\d+) (?P<bytes_back>[\d,]+ \w+) +(?P<there>\d+) (?P<bytes_there>[\d,]+ \w+) +"
    r"\d+ [\d,]+ \w+ +(?P<start>[\d.]+) +(?P<lasted>[\d.]+)"
)
_UNITS = {"bytes": 1, "kB": 1000, "MB": 1_000_000, "GB": 1_000_000_000}


def tshark(path: str) -> Callable[[], Rows]:
    """The conversations of tshark."""
    command = ["tshark", "-n", "-q", "-r", path, "-z", "conv,tcp", "-z", "conv,udp"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    def rows() -> Rows:
        with open(path, "rb") as file:
            begin = file.read(32)
        first = int.from_bytes(begin[24:28], "little") * 1_000_000
        first += int.from_bytes(begin[28:32], "little")
        found: Rows = {}
        protocol = 0
        for line in done.stdout.splitlines():
            if line.endswith("Conversations"):
                protocol = TCP if line.startswith("TCP") else UDP
            if match := _CONVERSATION.match(line):
                ends = [(packed(match[at]), int(match[f"port_{at}"])) for at in "ab"]
                ways = []
                for way in ("there", "back"):
                    number, unit = match[f"bytes_{way}"].replace(",", "").split()
                    ways.append([int(match[way]), int(number) * _UNITS[unit], 0, 0])
                start = first + round(float(match["start"]) * 1_000_000)
                end = start + round(float(match["lasted"]) * 1_000_000)
                key, counts = ordered(protocol, ends[0], ends[1], ways[0] + ways[1])
                found[key] = [*counts[:2], start, end, *counts[4:6], None, None]
        return found

    return rows


class Peer(NamedTuple):
    """A program that counts flows.

    name: for the table.
    rate: packets a second that it counts at least, on a slow machine; 0: gets all packets.
    remedy: how it is installed; empty: it is always there.
    """

    name: str
    run: Count
    rate: int = 0
    remedy: str = ""
    precision: Precision = Precision()
    command: str = ""

    @property
    def is_installed(self) -> bool:
        """Whether it can be measured here."""
        if self.command:
            return shutil.which(self.command) is not None
        return not self.remedy or importlib.util.find_spec(self.run.__name__) is not None


PEERS = {
    peer.run.__name__: peer
    for peer in (
        Peer("ringline", ringline),
        Peer("bare loop in C", bare),
        Peer("dpkt", dpkt, 40_000, "pip install dpkt"),
        Peer("Scapy", scapy, 4_000, "pip install scapy"),
        Peer("nfstream", nfstream, 20_000, "pip install nfstream", Precision(time=999)),
        Peer(
            "tshark",
            tshark,
            40_000,
            "apt install tshark",
            Precision(bytes=0.06, time=51, whole=True),
            "tshark",
        ),
    )
}


def _processor() -> float:
    """Seconds of the processor that this process and its children have used."""
    used = time.process_time()
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    used += ended.ru_utime + ended.ru_stime
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text(encoding="ascii").split():
            with contextlib.suppress(OSError):  # it has ended
                used += time.clock_gettime(
                    ~int(child) << 3 | 2
                )  # its clock: clock_getcpuclockid(3)
    return used


def main() -> None:
    """The process of one program."""
    name, cpu, empty, out, *paths = sys.argv[1:]
    os.sched_setaffinity(0, {int(cpu)})
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a program prints is no answer
    count = PEERS[name].run

    def measured(path: str) -> tuple[float, float, Callable[[], Rows]]:
        used, clock = _processor(), time.perf_counter()
        rows = count(path)
        return _processor() - used, time.perf_counter() - clock, rows

    measured(empty)
    *start, _ = measured(empty)
    for number, path in enumerate(paths):
        *whole, rows = measured(path)
        Path(f"{out}.{number}").write_bytes(pickle.dumps(rows()))
        spent = [after - before for before, after in zip(start, whole, strict=True)]
        print(json.dumps(spent), file=answers, flush=True)
    children.close()


if __name__ == "__main__":
    main()
