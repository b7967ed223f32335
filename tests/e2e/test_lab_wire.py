"""`ringline lab --loss --delay --rate`: ping and iperf3 judge the wire.

It needs a kernel with netem. tests/guest/test_kinds.py runs this file in a guest, which has one.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from .lab_harness import needs_lab
from .operator_harness import Operator

PINGS = 400
LOSS = 0.2  # of each direction
DELAY = 50.0  # milliseconds of each direction
RATE = 4e6  # bits a second


@pytest.fixture(autouse=True)
def _possible() -> None:
    needs_lab("ping", "tc")


def has_netem() -> bool:
    made = subprocess.run(
        ["unshare", "-n", "tc", "qdisc", "add", "dev", "lo", "root", "netem"],
        capture_output=True,
        check=False,
    )
    return made.returncode == 0


@pytest.fixture
def netem() -> None:
    if not has_netem():
        pytest.skip("needs a kernel with netem")


@pytest.mark.usefixtures("netem")
def test_ping_sees_the_loss_and_the_delay(operator: Operator) -> None:
    """A ping arrives with probability 0.8 * 0.8. With 400 of them, the share is off by 6 standard
    deviations (6 * 0.024) less than once in 10^8 runs. Addresses are resolved before."""
    command = f"""
        of() {{ $1 ip -br link show eth0 | awk '{{print $3}}'; }}
        peer="nsenter --net=$RINGLINE_PEER_NETNS"
        ip neigh replace $RINGLINE_PEER lladdr $(of "$peer") dev eth0
        $peer ip neigh replace $RINGLINE_HERE lladdr $(of "") dev eth0
        tc qdisc show dev eth0; $peer tc qdisc show dev eth0
        ping -q -i 0.01 -c {PINGS} -W 5 $RINGLINE_PEER"""
    wire = ["--loss", f"{LOSS:.0%}", "--delay", f"{DELAY:g}ms"]
    said = operator.run("lab", *wire, "--exec", command, other_output=True)
    assert said.code == 0, said
    shown = [line for line in said.out.splitlines() if "netem" in line]
    assert len(shown) == 2, said
    assert all("delay 50ms" in line and "loss 20%" in line for line in shown), said
    sent, came = map(int, re.findall(r"(\d+) packets transmitted, (\d+) received", said.out)[0])
    assert sent == PINGS
    assert abs(came / sent - (1 - LOSS) ** 2) < 6 * 0.024, said
    fastest = float(said.out.rpartition("rtt")[2].partition("= ")[2].partition("/")[0])
    assert fastest >= 2 * DELAY, said  # each direction delays


@pytest.mark.usefixtures("netem")
def test_iperf3_gets_the_rate(operator: Operator) -> None:
    needs_lab("iperf3")
    server = "nsenter --net=$RINGLINE_PEER_NETNS iperf3 -s -1 -D"
    client = "until iperf3 -J -t 2 -c $RINGLINE_PEER > out.json; do sleep 0.1; done"
    rate = f"{RATE / 1e6:g}mbit"
    ended = operator.run("lab", "--rate", rate, "--exec", f"{server}; {client}", other_output=True)
    assert ended.code == 0, ended
    end = json.loads((operator.folder / Path("out.json")).read_text())["end"]
    came = end["sum_received"]["bits_per_second"]
    assert RATE / 2 < came < RATE, end  # payload; the wire carries headers, too


@pytest.mark.usefixtures("netem")
def test_a_wire_can_lose_everything(operator: Operator) -> None:
    command = "ping -c 3 -i 0.2 -W 1 $RINGLINE_PEER"
    lost = operator.run("lab", "--loss", "100", "--exec", command, other_output=True)
    assert (lost.code, "100% packet loss" in lost.out) == (1, True), lost


def test_a_kernel_without_netem_is_named(operator: Operator) -> None:
    if has_netem():
        pytest.skip("needs a kernel without netem")
    said = operator.refused(3, "lab", "--loss", "1", "--exec", "true")
    assert said.startswith("--loss, --delay and --rate need netem"), said
