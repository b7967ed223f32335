"""Linux's own driver of the 82599, unmodified, on the card that `ringline serve-card` offers.

Whatever the model does wrong for a driver that others wrote shows here. The other end of the wire
is a TAP in a network namespace of its own.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .kernel import Missing
from .machine import Guest

PROOF = os.environ.get("RINGLINE_PROOF") == "1"
RINGLINE = Path(sys.executable).with_name("ringline")
SECONDS = 60.0
HOST, GUEST = "10.77.0.1", "10.77.0.2"
DEVICE = "0000:00:18.0"
JUMBO = 9000
UP = (
    f"ip addr replace {GUEST}/24 dev eth0 && ip link set eth0 up && "
    "until grep -q up /sys/class/net/eth0/operstate; do sleep 0.1; done"
)
REACHED = f"until ping -c 1 -W 1 -q {HOST} >/dev/null; do sleep 0.1; done"

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not PROOF, reason="needs RINGLINE_PROOF=1: QEMU 11 is a big download"),
]


@dataclass
class Bench:
    """The guest, the namespace with the other end of its wire, and what the card said."""

    guest: Guest
    namespace: str
    card: subprocess.Popen[str]

    def host(self, *command: str) -> str:
        line = ["ip", "netns", "exec", self.namespace, *command]
        return subprocess.run(line, capture_output=True, text=True, check=True, timeout=120).stdout


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    if os.geteuid() != 0:
        pytest.skip("needs root, for a network namespace")
    path = tmp_path_factory.mktemp("card") / "card"
    name = f"ringline-t{os.getpid()}-ixgbe"
    with contextlib.ExitStack() as stack:
        subprocess.run(["ip", "netns", "add", name], check=True)
        stack.callback(subprocess.run, ["ip", "netns", "del", name], check=True)
        line = [str(RINGLINE), "serve-card", "--socket", str(path), "--wire", "tap:card0"]
        card = subprocess.Popen(
            ["ip", "netns", "exec", name, *line], stdout=subprocess.PIPE, text=True
        )
        stack.callback(_end, card)
        end = time.monotonic() + SECONDS
        while not path.exists():
            assert time.monotonic() < end, "the card was not served"
            time.sleep(0.05)
        for words in (f"addr add {HOST}/24 dev card0", f"link set card0 mtu {JUMBO} up"):
            subprocess.run(["ip", "-n", name, *words.split()], check=True)
        try:
            guest = Guest(modules=["ixgbe"], processors=4, served=[str(path)])
        except Missing as error:
            pytest.skip(str(error))
        stack.enter_context(guest)
        guest.checked(UP)
        guest.checked(REACHED)
        yield Bench(guest, name, card)


def _end(card: subprocess.Popen[str]) -> None:
    card.send_signal(signal.SIGTERM)
    with card:
        card.communicate(timeout=SECONDS)


def _counters(guest: Guest) -> dict[str, int]:
    said = guest.checked("ethtool -S eth0")
    return {name: int(number) for name, number in re.findall(r"(\w+): (\d+)", said)}


def test_ten_pings_of_each_size_come_back(bench: Bench) -> None:
    """With checksums by the card and without. The shortest frame has 60 bytes, the longest 1514."""
    for state in ("off", "on"):
        bench.guest.checked(f"ethtool -K eth0 tx {state} rx {state}")
        sizes = " ".join(map(str, (*range(18, 1472, 97), 1472)))
        bench.guest.checked(
            f"for s in {sizes}; do ping -c 10 -i 0.01 -W 5 -q -s $s {HOST} | "
            "grep -q ' 0% packet loss' || exit 1; done",
            deadline=600,
        )


def test_jumbo_frames_pass(bench: Bench) -> None:
    bench.guest.checked(f"ip link set eth0 mtu {JUMBO}; {REACHED}")
    said = bench.guest.checked(f"ping -c 10 -i 0.05 -W 5 -q -M do -s {JUMBO - 28} {HOST}")
    assert " 0% packet loss" in said, said
    bench.guest.checked(f"ip link set eth0 mtu 1500; {REACHED}")


def test_four_queues_share_the_flows(bench: Bench) -> None:
    assert "Combined:\t4" in bench.guest.checked("ethtool -l eth0")
    before = _counters(bench.guest)
    with _iperf_server(bench):
        bench.guest.checked(f"iperf3 -c {HOST} -t 2 -P 8 -R")
    after = _counters(bench.guest)
    busy = [n for n in range(4) if after[f"rx_queue_{n}_packets"] > before[f"rx_queue_{n}_packets"]]
    assert len(busy) >= 2, "eight connections are on several queues"


@pytest.mark.parametrize("offload", ["on", "off"])
def test_tcp_runs_both_ways_with_segmentation_and_without(bench: Bench, offload: str) -> None:
    bench.guest.checked(f"ethtool -K eth0 tso {offload} gso {offload}")
    with _iperf_server(bench):
        for way in ("", "-R"):
            said = bench.guest.checked(f"iperf3 -c {HOST} -t 2 {way}")
            assert re.search(r"\d [MG]bits/sec.*receiver", said), said
    bench.guest.checked("ethtool -K eth0 tso on gso on")


def test_the_card_counts_what_the_kernel_counts(bench: Bench) -> None:
    """Of TSO, the card counts the segments. A reset of the card clears what the kernel has not read
    yet, so only what one test adds is compared."""
    before = _counters(bench.guest)
    with _iperf_server(bench):
        bench.guest.checked(f"iperf3 -c {HOST} -t 1")
    end = time.monotonic() + SECONDS
    while True:  # frames may be under way
        after = _counters(bench.guest)
        added = {name: number - before.get(name, 0) for name, number in after.items()}
        sent = added["tx_pkts_nic"] - added["tx_packets"]
        if sent == 0 and added["rx_pkts_nic"] == added["rx_packets"]:
            break
        assert time.monotonic() < end, {name: n for name, n in added.items() if n}
        time.sleep(0.5)
    assert added["tx_packets"] > 1000
    assert added["rx_bytes_nic"] == added["rx_bytes"] + 4 * added["rx_packets"]
    assert added["tx_bytes_nic"] == added["tx_bytes"] + 4 * added["tx_packets"]


def test_the_self_test_online_passes(bench: Bench) -> None:
    assert "PASS" in bench.guest.checked("ethtool -t eth0 online")


def test_it_goes_down_and_up_and_is_bound_again(bench: Bench) -> None:
    guest = bench.guest
    guest.checked("for i in $(seq 20); do ip link set eth0 down; ip link set eth0 up; done")
    driver = "/sys/bus/pci/drivers/ixgbe"
    guest.checked(
        f"for i in $(seq 20); do echo {DEVICE} > {driver}/unbind && "
        f"echo {DEVICE} > {driver}/bind || exit 1; done",
        deadline=600,
    )
    guest.checked(UP)
    guest.checked(REACHED)
    assert "Hardware Error" not in guest.checked("dmesg")


@contextlib.contextmanager
def _iperf_server(bench: Bench) -> Iterator[None]:
    line = ["ip", "netns", "exec", bench.namespace, "iperf3", "-s", "--forceflush"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        while "listening" not in server.stdout.readline():
            assert server.poll() is None, "iperf3 did not start"
        try:
            yield
        finally:
            server.kill()
