"""The plugin `switch` between hosts in network namespaces. The kernel, ping and iperf3 judge."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from struct import Struct
from typing import Any

import pytest

from ringline.workers.testing import run_plugin

from .operator_harness import Operator
from .test_xdp import Forwarding
from .veth_harness import TIMEOUT, Veths, needs, port, receive, wait_until
from .xdp_harness import status

pytestmark = pytest.mark.timeout(600)  # the first test compiles the plugin
ETHERTYPE = 0x88B5  # for experiments (IEEE 802.3)
# linux/if_packet.h
SOL_PACKET, PACKET_AUXDATA = 263, 8
AUXDATA = Struct("IIIHHHH")  # struct tpacket_auxdata


@pytest.fixture
def veths(request: pytest.FixtureRequest) -> Iterator[Veths]:
    needs("ping", "iperf3", "ethtool")
    hosts, queues = request.param
    with contextlib.closing(Veths(queues, hosts=hosts)) as made:
        made.without_offload()
        yield made


def configuration(veths: Veths, queues: int) -> str:
    ports = [port(side, queues=queues, rx_descriptors=2048) for side in veths.hosts]
    return "\n".join(ports) + '\n[worker]\nplugin = "switch"\n'


def transfer(veths: Veths, to: str, address: str, *more: str) -> dict[str, Any]:
    """One second of iperf3 from host a; the sums at its end."""
    server = veths.start(to, "iperf3", "-s", "-1")
    wait_until(lambda: "5201" in veths.host(to, "ss", "-ltn"), "the server")
    said = veths.host("a", "iperf3", "-c", address, "-t", "1", "--json", *more)
    server.communicate(timeout=60)
    end: dict[str, Any] = json.loads(said)["end"]
    return end


def pings(veths: Veths, side: str, address: str) -> bool:
    said = veths.host(side, "ping", "-c", "3", "-i", "0.2", "-W", "5", address)
    return " 0% packet loss" in said


def crosses(veths: Veths, to: str, vlan: int) -> bool:
    """Whether a broadcast with a tag comes from host a to host `to` with that tag."""
    sender, receiver = veths.wire("a"), veths.wire(to)
    receiver.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    tag = b"\x81\x00" + vlan.to_bytes(2, "big")
    rest = ETHERTYPE.to_bytes(2, "big") + bytes(46)
    sender.send(b"\xff" * 6 + b"\x02\0\0\0\0\x0a" + tag + rest)
    while True:  # until it comes, or the time of the socket is over
        data, beside, _, _ = receiver.recvmsg(2048, 256)
        if data[12:14] == ETHERTYPE.to_bytes(2, "big"):  # the kernel puts the tag beside the frame
            found = [content for level, _, content in beside if level == SOL_PACKET]
            return bool(found) and AUXDATA.unpack(found[0])[5] == vlan


@pytest.mark.parametrize(
    "veths", [(2, 1), (3, 2)], indirect=True, ids=["2 ports 1 queue", "3 ports 2 queues"]
)
def test_hosts_talk_through_the_switch(veths: Veths, operator: Operator) -> None:
    queues = 2 if len(veths.hosts) > 2 else 1
    text = configuration(veths, queues)
    run = Forwarding(operator, veths, text)
    warm("switch")
    last = list(veths.hosts)[-1]
    number = len(veths.hosts)
    with run.running():
        assert crosses(veths, last, vlan=5)
        for address in (f"10.77.0.{number}", f"fd77::{number}"):
            assert pings(veths, "a", address)
        if number > 2:
            # What host a says to host c does not go to host b: its interface tells.
            before = veths.counters("b")["tx"]["packets"]
        end = transfer(veths, last, f"10.77.0.{number}")
        assert end["sum_received"]["bytes"] > 100_000
        if number > 2:
            sent = run_packets(end)
            flooded = veths.counters("b")["tx"]["packets"] - before
            assert flooded < sent / 10, (flooded, sent)
        for more in (("-R", "-P", "2"), ("-u", "-b", "5M", "-l", "1200")):
            end = transfer(veths, last, f"10.77.0.{number}", *more)
            assert (end.get("sum_received") or end["sum"])["bytes"] > 100_000
    workers = run.report["workers"]
    assert sum(worker["metrics"]["learned"] for worker in workers) >= number
    assert all(worker["metrics"]["table_full"] == 0 for worker in workers)


def run_packets(end: dict[str, Any]) -> int:
    """The fewest full frames for the bytes that iperf3 received."""
    received: int = end["sum_received"]["bytes"]
    return received // 1448


def warm(plugin: str, **options: Any) -> None:
    """Compile the plugin into the cache: a run waits for it, but not for ever."""
    run_plugin(plugin, [bytes(60)], ports=["a", "b"], options=options, debug=False)


def crossing(
    run: Forwarding, veths: Veths, address: str, act: Callable[[int, int], None], how: int
) -> None:
    """TCP from host a to host b. In the middle of it, `act(pid, how)` on each worker."""
    server = veths.start("b", "iperf3", "-s", "-1")
    wait_until(lambda: "5201" in veths.host("b", "ss", "-ltn"), "the server")
    before = run.status()
    received = before["ports"]["a"]["received"]["packets"]
    # So many bytes must arrive, and no faster than in two seconds: the transfer is in its middle
    # when the workers end, and is not over before all bytes are there.
    client = veths.start("a", "iperf3", "-c", address, "-n", "20M", "-P", "2", "-b", "40M")
    wait_until(
        lambda: run.status()["ports"]["a"]["received"]["packets"] > received + 500, "traffic"
    )
    assert client.poll() is None, "the transfer ended too early"
    for worker in before["workers"]:
        act(worker["pid"], how)
    said, _ = client.communicate(timeout=2 * TIMEOUT)
    server.communicate(timeout=TIMEOUT)
    assert client.returncode == 0, said
    wait_until(lambda: all(worker["up"] for worker in run.status()["workers"]), "the successors")


@pytest.mark.parametrize("veths", [(3, 1)], indirect=True, ids=[""])
def test_arguments_make_a_switch_that_floods_to_all_ports(veths: Veths, operator: Operator) -> None:
    """Without a configuration: each broadcast comes to both other hosts."""
    warm("switch")
    veths.silence()
    sender = veths.wire("a")
    receivers = [veths.wire(side) for side in "bc"]
    devices = [word for side in veths.hosts for word in ("--device", f"{side}=xdp:v{side}")]
    report = operator.folder / "report.json"
    arguments = ["run", "switch", *devices, "--name", operator.name, "--report", report]
    within = Veths.within(veths.middle)
    with operator.started(*arguments, within=within) as process:
        wait_until(lambda: status(operator.name).get("state") == "running", "the run")
        for number in range(200):  # more than a batch
            rest = ETHERTYPE.to_bytes(2, "big") + number.to_bytes(46, "big")
            sender.send(b"\xff" * 6 + b"\x02\0\0\0\0\x0a" + rest)
        for receiver in receivers:
            assert len(receive(receiver, lambda frame: frame[12:14] == b"\x88\xb5", 200)) == 200
        process.terminate()
        _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, errors
    found = json.loads(report.read_text())
    assert found["workers"][0]["metrics"]["without_blank"] == 0
    assert not any(found["balance"].values()), found["balance"]


@pytest.mark.parametrize("veths", [(2, 2)], indirect=True, ids=[""])
def test_tcp_goes_on_when_the_workers_are_killed(veths: Veths, operator: Operator) -> None:
    text = configuration(veths, 2)
    run = Forwarding(operator, veths, text)
    warm("switch")
    with run.running():
        assert pings(veths, "a", "10.77.0.2")
        crossing(run, veths, "10.77.0.2", os.kill, signal.SIGKILL)
        assert pings(veths, "a", "10.77.0.2")
    assert [worker["restarts"] for worker in run.report["workers"]] == [1, 1]
