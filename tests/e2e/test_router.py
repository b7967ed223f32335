"""The plugin `router` between hosts in network namespaces. The kernel, ping and iperf3 judge: each
host has a network of its own, and the router is its way to the others."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
from collections.abc import Iterator

import pytest

from .operator_harness import Operator
from .test_switch import crossing, warm
from .test_xdp import Forwarding
from .veth_harness import SIDES, TIMEOUT, Veths, entered, ip, needs, port, wait_until

pytestmark = pytest.mark.timeout(600)  # the first test compiles the plugin
IP_RECVERR, MSG_ERRQUEUE = 11, 0x2000  # linux/in.h, linux/socket.h


@pytest.fixture
def veths(request: pytest.FixtureRequest) -> Iterator[Veths]:
    needs("ping", "iperf3", "ethtool")
    hosts, queues = request.param
    with contextlib.closing(Veths(queues, hosts=hosts)) as made:
        made.without_offload()
        for side, host in made.hosts.items():
            number = SIDES[side]
            ip("-n", host, "addr", "flush", "dev", "eth0", "scope", "global")
            ip("-n", host, "addr", "add", f"10.{number}.0.2/24", "dev", "eth0")
            ip("-n", host, "addr", "add", f"fd0{number}::2/64", "dev", "eth0", "nodad")
            ip("-n", host, "route", "add", "default", "via", f"10.{number}.0.1")
            ip("-n", host, "route", "add", "default", "via", f"fd0{number}::1")
        yield made


def configuration(operator: Operator, veths: Veths, queues: int, routes: str = "") -> str:
    ports = [port(side, queues=queues, rx_descriptors=2048) for side in veths.hosts]
    lines = ["[worker]", 'plugin = "router"', "[worker.options]"]
    if routes:
        (operator.folder / "routes.csv").write_text(routes)
        lines.append('routes = "routes.csv"')
    lines.append("[worker.options.addresses]")
    for side in veths.hosts:
        number = SIDES[side]
        lines.append(f'{side} = ["10.{number}.0.1/24", "fd0{number}::1/64"]')
    return "\n".join([*ports, *lines, ""])


def pings(veths: Veths, side: str, address: str) -> bool:
    """The first packets may be lost: they become the requests for the addresses."""
    said = veths.host(side, "ping", "-c", "6", "-i", "0.3", "-W", "5", address)
    return int(said.split(" packets transmitted, ")[1].split()[0]) >= 4


@pytest.mark.parametrize(
    "veths", [(2, 1), (3, 2)], indirect=True, ids=["2 ports 1 queue", "3 ports 2 queues"]
)
def test_hosts_reach_each_other_through_the_router(veths: Veths, operator: Operator) -> None:
    number = len(veths.hosts)
    last = list(veths.hosts)[-1]
    # A network behind the last host, by the file of routes.
    ip("-n", veths.hosts[last], "addr", "add", "172.16.0.1/32", "dev", "lo")
    routes = f"172.16.0.0/12,{last},10.{number}.0.2\n"
    text = configuration(operator, veths, 1 if number == 2 else 2, routes)
    run = Forwarding(operator, veths, text)
    warm("router", addresses={"a": ["10.1.0.1/24"]})
    with run.running():
        for address in (f"10.{number}.0.2", f"fd0{number}::2", "10.1.0.1", "fd01::1", "172.16.0.1"):
            assert pings(veths, "a", address)
        found = json.loads(veths.host("a", "ip", "-j", "neigh", "show", "10.1.0.1"))
        assert found[0]["lladdr"] == "02:00:0a:01:00:01"
        for address in (f"10.{number}.0.2", f"fd0{number}::2"):
            server = veths.start(last, "iperf3", "-s", "-1")
            wait_until(lambda: "5201" in veths.host(last, "ss", "-ltn"), "the server")
            said = veths.host("a", "iperf3", "-c", address, "-t", "1", "--json", "-P", "2")
            server.communicate(timeout=TIMEOUT)
            assert json.loads(said)["end"]["sum_received"]["bytes"] > 100_000
        assert hop(veths, f"10.{number}.0.2", 1) == ("10.1.0.1", 11, 0)  # time exceeded
        assert hop(veths, "10.1.0.1", 5) == ("10.1.0.1", 3, 3)  # port unreachable
        assert hop(veths, "198.51.100.1", 5) == ("10.1.0.1", 3, 0)  # no route
    said_by = [worker["metrics"]["said"] for worker in run.report["workers"]]
    assert sum(each["icmp_error"] for each in said_by) >= 3
    assert sum(each["arp_reply"] for each in said_by) >= 1


def hop(veths: Veths, target: str, ttl: int) -> tuple[str, int, int]:
    """Who answers a UDP packet with this time to live, and the type and code of its ICMP error."""
    with (
        entered(veths.hosts["a"]),
        contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe,
    ):
        probe.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        probe.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
        probe.sendto(b"probe", (target, 33434))

        def error() -> list[tuple[int, int, bytes]]:
            with contextlib.suppress(BlockingIOError, ConnectionError, OSError):
                return probe.recvmsg(512, 512, MSG_ERRQUEUE | socket.MSG_DONTWAIT)[1]
            return []

        found = wait_until(error, f"an answer to time to live {ttl}")[0][2]
    # struct sock_extended_err, then the address of who sent it (linux/errqueue.h)
    _, _, kind, code = struct.unpack_from("IBBB", found)
    return socket.inet_ntoa(found[20:24]), kind, code


@pytest.mark.parametrize("veths", [(2, 2)], indirect=True, ids=[""])
def test_tcp_goes_on_when_the_workers_are_killed(veths: Veths, operator: Operator) -> None:
    text = configuration(operator, veths, 2)
    run = Forwarding(operator, veths, text)
    warm("router", addresses={"a": ["10.1.0.1/24"]})
    with run.running():
        assert pings(veths, "a", "10.2.0.2")
        crossing(run, veths, "10.2.0.2", os.kill, signal.SIGKILL)
        assert pings(veths, "a", "10.2.0.2")
    assert [worker["restarts"] for worker in run.report["workers"]] == [1, 1]
