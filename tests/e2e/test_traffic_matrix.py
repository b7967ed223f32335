"""Real traffic through every plugin that bridges or routes, over every kind of interface.

One cell is a run of ringline between two hosts: plugin, kinds of port, queues, network. In each,
ping, iperf3 and a file with a checksum must pass, and the books must balance. `xdp:` is at both
hosts, native or generic. In "packet+tap" host a is behind a packet socket, and host b has a TAP. A
packet socket gets a copy, so the kernel in the middle must not answer itself: it has no address
there and does not route.

Each test prints the figures of its cell: `pytest -rP` shows them. With RINGLINE_PROOF=1 all cells
run, with a file of 100 MB, else a few.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from .operator_harness import Operator
from .tagging import tagged
from .tap_harness import Taps, tap
from .test_switch import warm
from .test_xdp import Forwarding
from .veth_harness import SIDES, TIMEOUT, ip, needs, port, send_file, wait_until

pytestmark = pytest.mark.timeout(600)  # the first test of a plugin may compile it
PROOF = os.environ.get("RINGLINE_PROOF") == "1"
FILE_BYTES = 100_000_000 if PROOF else 8_000_000
TCP_BYTES, UDP_BYTES = ("20M", "5M") if PROOF else ("2M", "1M")
VLAN = 5


class Cell(NamedTuple):
    plugin: str
    ports: str
    queues: int
    network: str  # "VLAN": IPv4, and every frame has a tag


SAMPLE = [
    Cell("forward", "native", 1, "IPv4"),
    Cell("forward", "generic", 2, "VLAN"),
    Cell("switch", "packet+tap", 2, "IPv6"),
    Cell("router", "packet+tap", 1, "VLAN"),
    Cell("router", "native", 2, "IPv6"),
]
ALL = [
    Cell(*each)
    for each in itertools.product(
        ("forward", "switch", "router"),
        ("native", "generic", "packet+tap"),
        (1, 2),
        ("IPv4", "IPv6", "VLAN"),
    )
]
ATTACHED = {
    "native": ("native XDP, copy", "native XDP, copy"),
    "generic": ("generic XDP, copy", "generic XDP, copy"),
    "packet+tap": ("packet sockets, a copy of the traffic", "TAP, made here"),
}
# The ways of iperf3, by the name of their figure.
WAYS = {
    "tcp": [],
    "tcp_back": ["-R"],
    "tcp_4": ["-P", "4"],
    "tcp_4_back": ["-R", "-P", "4"],
    "udp": ["-u", "-b", "50M", "-l", "1200"],
}


def configuration(cell: Cell) -> str:
    keys: dict[str, Any] = {"queues": cell.queues, "rx_descriptors": 2048}
    if cell.ports == "packet+tap":
        lines = [port("a", "packet", outgoing=False, **keys), tap("b", **keys)]
    else:
        lines = [port(side, attach=cell.ports, **keys) for side in "ab"]
    lines += ["[worker]", f'plugin = "{cell.plugin}"']
    if cell.plugin == "router":
        lines.append("[worker.options.addresses]")
        for side in "ab":
            name = f'"{side}.{VLAN}"' if cell.network == "VLAN" else side
            lines.append(f'{name} = ["10.{SIDES[side]}.0.1/24", "fd0{SIDES[side]}::1/64"]')
    return "\n".join([*lines, ""])


def route(hosts: Taps) -> None:
    """Give each host a network of its own, with the router as the way to the other one."""
    for side, host in hosts.hosts.items():
        number = SIDES[side]
        ip("-n", host, "addr", "flush", "dev", "eth0", "scope", "global")
        ip("-n", host, "addr", "add", f"10.{number}.0.2/24", "dev", "eth0")
        ip("-n", host, "addr", "add", f"fd0{number}::2/64", "dev", "eth0", "nodad")
        ip("-n", host, "route", "add", "default", "via", f"10.{number}.0.1")
        ip("-n", host, "route", "add", "default", "via", f"fd0{number}::1")


@contextlib.contextmanager
def running(cell: Cell, hosts: Taps, operator: Operator) -> Iterator[Forwarding]:
    run = Forwarding(operator, hosts, configuration(cell))
    with run.running():
        for side in hosts.taps:
            hosts.adopt(side)

        def linked() -> bool:
            ports = run.status().get("ports", {})
            return bool(ports) and all(each["link"]["up"] for each in ports.values())

        wait_until(linked, "the links")
        for side in "ab":
            # The hosts cut TCP into segments, compute checksums and write tags themselves.
            words = ["tx", "off", "tso", "off", "gso", "off"]
            hosts.host(side, "ethtool", "-K", "eth0", *words)
            if side not in hosts.taps:
                hosts.host(side, "ethtool", "-K", "eth0", "txvlan", "off")
        if cell.plugin == "router":
            route(hosts)
        yield run


def transfer(hosts: Taps, address: str, *way: str) -> dict[str, Any]:
    """iperf3 from host a to b; the sums at its end."""
    server = hosts.start("b", "iperf3", "-s", "-1")
    wait_until(lambda: "5201" in hosts.host("b", "ss", "-ltn"), "the server")
    amount = UDP_BYTES if "-u" in way else TCP_BYTES
    said = hosts.host("a", "iperf3", "-c", address, "-n", amount, "--json", *way)
    server.communicate(timeout=TIMEOUT)
    end: dict[str, Any] = json.loads(said)["end"]
    return end


@pytest.mark.parametrize(
    "cell", ALL if PROOF else SAMPLE, ids=lambda cell: "-".join(map(str, cell))
)
def test_ping_iperf3_and_a_file_pass(cell: Cell, operator: Operator) -> None:
    figures: dict[str, float] = {}
    needs("ping", "iperf3", "ethtool")
    if cell.plugin == "switch":
        warm("switch")
    if cell.plugin == "router":
        warm("router", addresses={"a": ["10.1.0.1/24"]})
    v4, v6 = ("10.2.0.2", "fd02::2") if cell.plugin == "router" else ("10.77.0.2", "fd77::2")
    address = v6 if cell.network == "IPv6" else v4
    with contextlib.ExitStack() as until_end:
        taps = "b" if cell.ports == "packet+tap" else ""
        hosts = until_end.enter_context(contextlib.closing(Taps(taps, cell.queues)))
        with running(cell, hosts, operator) as run, contextlib.ExitStack() as tags:
            if cell.network == "VLAN":
                for side in "ab":
                    tags.enter_context(tagged(hosts.hosts[side], "eth0", VLAN))
            # The first packets may be lost: a router sends a request in place of them.
            hosts.host("a", "ping", "-c", "1", "-w", "30", address)
            said = hosts.host("a", "ping", "-c", "5", "-i", "0.1", "-W", "5", address)
            assert " 0% packet loss" in said, (said, run.status()["ports"])
            figures["ping_ms"] = float(said.rpartition(" = ")[2].split("/")[1])
            for name, way in WAYS.items():
                end = transfer(hosts, address, *way)
                total = end["sum"] if "-u" in way else end["sum_received"]
                if "-u" in way:
                    assert total["lost_packets"] < total["packets"] / 2
                    figures["udp_lost_percent"] = round(total["lost_percent"], 2)
                else:
                    assert total["bytes"] > 100_000
                figures[name] = round(total["bits_per_second"] / 1e6)
            figures["file"] = round(
                send_file(hosts, address, operator.folder / "content", FILE_BYTES), 1
            )
            status = run.status()
    assert tuple(status["ports"][side]["attached"] for side in "ab") == ATTACHED[cell.ports]
    workers = run.report["workers"]
    assert len(workers) == cell.queues
    assert sum(each["received"]["packets"] for each in run.report["ports"].values()) > 1000
    # Milliseconds, Mbit/s, percent, MB/s.
    print(json.dumps({"cell": "-".join(map(str, cell)), **figures}))
