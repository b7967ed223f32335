"""Linux's own driver of the 82599, unmodified, on the card that `ringline serve-card` offers.

Whatever the model does wrong for a driver that others wrote shows here. The other end of the wire
is a TAP in a network namespace of its own.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from .booted import PROOF, booted
from .hosts import CABLE, Host, host
from .machine import Guest
from .served import served_to

SECONDS = 60.0
TIMES = 20 if PROOF else 2
HOST, GUEST = "10.77.0.1", "10.77.0.2"
DEVICE = "0000:00:18.0"
JUMBO = 9000
CONNECTIONS = 32  # one of four queues gets none of them once in 2500 times
UP = (
    f"ip addr replace {GUEST}/24 dev eth0 && ip link set eth0 up && "
    "until grep -q up /sys/class/net/eth0/operstate; do sleep 0.1; done"
)
REACHED = f"until ping -c 1 -W 1 -q {HOST} >/dev/null; do sleep 0.1; done"

# Exchanges ten echo requests of each size, and compares all answers. Linux gives a ping socket the
# number and the checksum (net/ipv4/ping.c), and leaves all other answers out. At most four requests
# are under way: Linux throws answers away when it has more than 128 KiB of them to send (sk_sndbuf
# in net/ipv4/icmp.c).
PING = """
import random, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as ping:
    ping.settimeout(30)
    ping.setsockopt(socket.SOL_SOCKET, 33, 1 << 22)  # SO_RCVBUFFORCE: room for all answers
    ping.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO: no fragments
    ping.connect((sys.argv[1], 0))
    for size in range(*map(int, sys.argv[2:])):
        expected = {number: random.randbytes(size) for number in range(10)}
        requests = list(expected.items())
        while expected:
            while requests and len(expected) - len(requests) < 4:
                number, payload = requests.pop(0)
                ping.send(struct.pack("!BBHHH", 8, 0, 0, 0, number) + payload)
            try:
                answer = ping.recv(65535)
            except TimeoutError:
                sys.exit(f"{len(expected)} of 10 answers with {size} bytes are missing")
            kind, _, _, _, number = struct.unpack_from("!BBHHH", answer)
            if kind != 0 or expected.pop(number, None) != answer[8:]:
                sys.exit(f"an answer with {size} bytes is wrong: {answer.hex()}")
"""
STEP = 1 if PROOF else 97
SIZES = range(18, 1473, STEP)  # of the payload: 60 to 1514 bytes of a frame
JUMBO_SIZES = range(JUMBO - 28 - 15 * 500, JUMBO - 27, 500)
PERMIT = "sysctl -qw net.ipv4.ping_group_range='0 0'"  # ping sockets, for root

# The self test of registers (ixgbe_reg_test in ixgbe_ethtool.c) writes STATUS, to see that some of
# its bits stay, and enables receive queues that have no ring.
SELF_TEST = (
    r"STATUS \(0x00008\) = \w+: it is read-only",
    r"receive queue [0-3] cannot be enabled: ",
)

# What rmmod and insmod do: delete_module(2), finit_module(2).
RELOAD = """
import ctypes, os, sys
system_call = ctypes.CDLL(None, use_errno=True).syscall
module, works, times = sys.argv[1:]
file = os.open(module, os.O_RDONLY)
for _ in range(int(times)):
    for call in ((176, b"ixgbe", os.O_NONBLOCK), (313, file, b"", 0)):
        if system_call(*call) != 0:
            sys.exit(os.strerror(ctypes.get_errno()))
    if os.system(works) != 0:
        sys.exit("it does not work after it was loaded")
"""

pytestmark = pytest.mark.timeout(1800)


@dataclass
class Bench:
    """The guest, and the host at the other end of its wire."""

    guest: Guest
    host: Host


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("card")
    with host(f"{HOST}/24") as peer, served_to(peer, folder, "10f7", SELF_TEST) as card:
        # Its solicitations of routers would go to a group that the card filters.
        peer.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
        peer.come_up(JUMBO)
        with booted(lambda: Guest(modules=["ixgbe"], processors=4, served=[card])) as guest:
            guest.checked(UP)
            guest.checked(REACHED)
            yield Bench(guest, peer)


def _counters(guest: Guest) -> dict[str, int]:
    said = guest.checked("ethtool -S eth0")
    return {name: int(number) for name, number in re.findall(r"(\w+): (\d+)", said)}


def _passed(host: Host) -> list[list[int]]:
    """Frames and bytes that have come to the other end of the wire, and that have left it."""
    [shown] = json.loads(host.run("ip", "-j", "-s", "link", "show", CABLE))
    ways = (shown["stats64"][way] for way in ("rx", "tx"))
    return [[way["packets"], way["bytes"]] for way in ways]


def _exchange_pings(bench: Bench, sizes: range) -> None:
    """Of the guest, and of the host."""
    numbers = [str(sizes.start), str(sizes.stop), str(sizes.step)]
    command = f"python -c {shlex.quote(PING)} {HOST} {' '.join(numbers)}"
    bench.guest.checked(f"{PERMIT} && {command}", deadline=700)
    bench.host.run("sh", "-c", PERMIT)
    bench.host.run(sys.executable, "-c", PING, GUEST, *numbers, deadline=700)


@pytest.mark.parametrize("state", ["off", "on"])
def test_ten_pings_of_each_size_come_back(bench: Bench, state: str) -> None:
    """With checksums by the card and without; then in jumbo frames."""
    bench.guest.checked(f"ethtool -K eth0 tx {state} rx {state}; {REACHED}")
    _exchange_pings(bench, SIZES)
    bench.guest.checked(f"ip link set eth0 mtu {JUMBO}; {REACHED}")
    _exchange_pings(bench, JUMBO_SIZES)
    bench.guest.checked(f"ip link set eth0 mtu 1500; {REACHED}")


def test_four_queues_share_the_flows(bench: Bench) -> None:
    assert "Combined:\t4" in bench.guest.checked("ethtool -l eth0")
    before = _counters(bench.guest)
    with bench.host.iperf_server():
        bench.guest.checked(f"iperf3 -c {HOST} -t 2 -P {CONNECTIONS} -R")
    after = _counters(bench.guest)
    names = [f"rx_queue_{number}_packets" for number in range(4)]
    came = [after[name] - before[name] for name in names]
    assert min(came) > 10, came


@pytest.mark.parametrize("offload", ["on", "off"])
def test_tcp_runs_both_ways_with_segmentation_and_without(bench: Bench, offload: str) -> None:
    bench.guest.checked(f"ethtool -K eth0 tso {offload} gso {offload}")
    with bench.host.iperf_server():
        for way in ("", "-R"):
            said = bench.guest.checked(f"iperf3 -c {HOST} -t 2 {way}")
            assert re.search(r"\d [MG]bits/sec.*receiver", said), said
    bench.guest.checked("ethtool -K eth0 tso on gso on")


def test_the_card_counts_what_was_sent(bench: Bench) -> None:
    """As the kernel and the other end of the wire do. Of TSO, the card counts the segments. A reset
    of the card clears what the kernel has not read yet, so only what one test adds is compared."""
    before, arrived, left = _counters(bench.guest), *_passed(bench.host)
    with bench.host.iperf_server():
        for way in ("", "-R"):
            bench.guest.checked(f"iperf3 -c {HOST} -t 1 {way}")
    end = time.monotonic() + SECONDS
    while True:  # frames may be under way
        after = _counters(bench.guest)
        added = {name: number - before.get(name, 0) for name, number in after.items() if number}
        sent = [now - then for now, then in zip(_passed(bench.host)[0], arrived, strict=True)]
        got = _passed(bench.host)[1][0] - left[0]
        packets = [added["tx_packets"], added["tx_pkts_nic"], added["rx_packets"]]
        if packets == [sent[0], sent[0], got] and added["rx_pkts_nic"] == got:
            break
        assert time.monotonic() < end, (packets, sent, got, added["rx_pkts_nic"])
        time.sleep(0.5)
    assert min(packets) > 1000
    assert added["rx_bytes_nic"] == added["rx_bytes"] + 4 * got
    # The kernel does not count what the card adds to frames of less than 60 bytes.
    assert added["tx_bytes_nic"] == sent[1] + 4 * sent[0]


def test_all_self_tests_pass(bench: Bench) -> None:
    """Of registers, EEPROM, interrupts, loopback and link (ixgbe_ethtool.c). With MSI-X, that of
    interrupts tests none."""
    for how in ("online", "offline"):
        said = bench.guest.checked(f"ethtool -t eth0 {how}")
        assert "The test result is PASS" in said, said
        assert len(re.findall(r"test +\(.*offline\)\s+0$", said, re.MULTILINE)) == 5, said
    bench.guest.checked(REACHED)


def test_it_goes_down_and_up_and_is_bound_again(bench: Bench) -> None:
    guest = bench.guest
    guest.checked(
        f"for i in $(seq {TIMES}); do ip link set eth0 down && {UP} && {REACHED} || exit 1; done",
        deadline=600,
    )
    driver = "/sys/bus/pci/drivers/ixgbe"
    guest.checked(
        f"for i in $(seq {TIMES}); do echo {DEVICE} > {driver}/unbind && "
        f"echo {DEVICE} > {driver}/bind && {UP} && {REACHED} || exit 1; done",
        deadline=900,
    )


def test_its_module_is_unloaded_and_loaded(bench: Bench) -> None:
    """The last test: the kernel has complained of nothing."""
    guest = bench.guest
    module = guest.kernel.modules["ixgbe"]
    works = shlex.quote(f"{UP} && {REACHED}")
    guest.checked(f"python -c {shlex.quote(RELOAD)} {module} {works} {TIMES}", deadline=900)
    said = guest.checked("dmesg")
    for words in ("Hardware Error", "WARNING", "Tx hang", "Reset adapter", "BUG"):
        assert words not in said, said
