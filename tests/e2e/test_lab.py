"""`ringline lab`: real ping and TCP through a plugin, and the exit code of a command."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from .lab_harness import needs_lab, running, wait_until
from .operator_harness import TIMEOUT, Operator

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
# Counts pings, and drops UDP unless an option lets it pass.
PLUGIN = """
from ringline.workers.api import ICMP, ICMPV6, UDP, Option, headers


class Guard:
    options = [Option("udp", bool, False, "whether UDP passes")]

    def setup(self, worker):
        self.udp = worker.options["udp"]
        self.pings = worker.counter("pings")

    def process(self, batch):
        for packet in batch:
            h = headers(packet.data)
            if h.l4 and h.protocol in (ICMP, ICMPV6) and packet.data[h.l4] in (8, 128):
                self.pings.add()
            if h.protocol != UDP or self.udp:
                packet.verdict = 1 - packet.port
"""
PING = "ping -c 1 -W 30"  # however busy the machine is
# Starts a server on the other host, which sends back the digest of what it receives; sends
# 4 MB to it.
TRANSFER = """
import hashlib, os, socket, subprocess, sys

SERVER = '''
import hashlib, socket, sys
server = socket.create_server(("", 7000), family=socket.AF_INET6, dualstack_ipv6=True)
print(flush=True)
peer, _ = server.accept()
digest = hashlib.sha256()
while data := peer.recv(1 << 16):
    digest.update(data)
peer.sendall(digest.digest())
'''
within = ["nsenter", "--net=" + os.environ["RINGLINE_PEER_NETNS"]]
server = subprocess.Popen([*within, sys.executable, "-c", SERVER], stdout=subprocess.PIPE)
server.stdout.readline()
content = os.urandom(4_000_000)
here, peer = (os.environ["RINGLINE_" + name + sys.argv[1]] for name in ("HERE", "PEER"))
with socket.create_connection((peer, 7000), source_address=(here, 0)) as to:
    to.sendall(content)
    to.shutdown(socket.SHUT_WR)
    assert to.recv(32, socket.MSG_WAITALL) == hashlib.sha256(content).digest()
print("all arrived")
"""


@pytest.fixture(autouse=True)
def _possible() -> None:
    needs_lab("ping")


def test_a_plugin_is_between_the_hosts(operator: Operator) -> None:
    """ping passes it with IPv4 and IPv6; the exit code and the output are those of the command."""
    operator.write(PLUGIN, "guard.py")
    command = (
        f"for to in $RINGLINE_PEER $RINGLINE_PEER $RINGLINE_PEER6; do {PING} $to; done; exit 7"
    )
    ended = operator.run(
        "lab", "./guard.py:Guard", "--exec", command, "--report", "r.json", other_output=True
    )
    assert ended.code == 7, ended
    assert ended.out.count(" 0% packet loss") == 3, ended
    report = json.loads((operator.folder / "r.json").read_text())
    assert not any(report["balance"].values())
    assert report["workers"][0]["metrics"]["pings"] == 3
    assert "balance: 0" in ended.errors


def test_the_example_of_the_readme_loses_every_third_ping(operator: Operator) -> None:
    (plugin,) = (b for b in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "third" in b)
    operator.write(plugin, "third.py")
    command = "ping -c 4 -W 30 $RINGLINE_PEER"
    ended = operator.run("lab", "./third.py:third", "--exec", command, other_output=True)
    assert ended.code == 0, ended
    assert re.findall(r"icmp_seq=(\d)", ended.out) == ["1", "2", "4"], ended


@pytest.mark.parametrize(("version", "queues"), [("", "2"), ("6", "1")])
def test_tcp_passes(operator: Operator, version: str, queues: str) -> None:
    operator.write(TRANSFER, "transfer.py")
    command = f"{sys.executable} transfer.py '{version}'"
    ended = operator.run("lab", "forward", "--queues", queues, "--exec", command, other_output=True)
    assert (ended.code, ended.out) == (0, "all arrived\n"), ended


def test_iperf3_passes(operator: Operator) -> None:
    needs_lab("iperf3")
    # With -D, the server goes into the background before it listens; a client with -J that is
    # refused then says so in its JSON alone, and ends with 0.
    server = "nsenter --net=$RINGLINE_PEER_NETNS iperf3 -s -1 --forceflush > server.txt &"
    listens = "until grep -q listening server.txt; do sleep 0.1; done"
    client = "iperf3 -J -t 1 -c $RINGLINE_PEER > out.json"
    ended = operator.run("lab", "--exec", f"{server} {listens}; {client}", other_output=True)
    assert ended.code == 0, ended
    result = json.loads((operator.folder / "out.json").read_text())
    assert "error" not in result, result
    assert result["end"]["sum_received"]["bytes"] > 100_000


def test_a_plugin_that_drops_everything_fails_the_command(operator: Operator) -> None:
    ended = operator.run(
        "lab", "drop", "--exec", "ping -c 1 -W 1 $RINGLINE_PEER", other_output=True
    )
    assert ended.code == 1
    assert "100% packet loss" in ended.out


def test_a_command_that_takes_too_long_is_ended(operator: Operator) -> None:
    ended = operator.run("lab", "--for", "0.5", "--exec", "sleep 1000", other_output=True)
    assert ended.code == 124
    assert "the command was ended after 0.5 s" in ended.errors


def test_time_limits_a_laboratory_without_a_command(operator: Operator) -> None:
    """It says what to try, and the lines of a run go to standard output."""
    operator.write(PLUGIN, "guard.py")
    ended = operator.run("lab", "./guard.py:Guard", "-o", "udp=true", "--for", "1.5")
    assert ended.code == 0
    assert f"{operator.name} " not in ended.errors.splitlines()
    assert "iperf3 -c 10.0.0.2" in ended.errors
    assert "port.peer.link_mbits=10000" in ended.out
    assert "all well" in ended.out


def test_the_commands_to_try_work(operator: Operator) -> None:
    """The lines name namespaces that can be entered."""
    errors = operator.folder / "errors"
    with errors.open("w") as stream, running(operator, stderr=stream) as lab:
        wait_until(lambda: "iperf3 -c" in errors.read_text(), "the lines")
        lines = [line.partition(":   ")[2] for line in errors.read_text().splitlines()]
        ping = next(line for line in lines if " ping " in line).partition(" (")[0]
        said = subprocess.run(
            [*ping.split(), "-c", "1", "-W", "30"], capture_output=True, text=True, check=False
        )
        assert " 0% packet loss" in said.stdout, said
        lab.process.terminate()
        lab.process.wait(TIMEOUT)


def test_laboratories_do_not_meet(operator: Operator) -> None:
    """Two at once have the same addresses; each host talks to its own other one."""
    script = textwrap.dedent("""
        wait_for() { until test -e $1; do sleep 0.05; done; }
        touch ready.$NUMBER; wait_for ready.1; wait_for ready.2
        ping -c 1 -W 30 $RINGLINE_PEER > /dev/null || exit 1
        of_peer=$(nsenter --net=$RINGLINE_PEER_NETNS ip -br link show eth0 | awk '{print $3}')
        ip neigh show $RINGLINE_PEER | grep -q $of_peer || exit 2
        touch done.$NUMBER; wait_for done.1; wait_for done.2
    """)
    operator.write(script, "both.sh")
    second = subprocess.Popen(
        ["ringline", "lab", "--name", f"{operator.name}-2", "--exec", "NUMBER=2 . ./both.sh"],
        cwd=operator.folder,
        stderr=subprocess.PIPE,
        text=True,
    )
    first = operator.run("lab", "--exec", "NUMBER=1 . ./both.sh", other_output=True)
    _, errors = second.communicate(timeout=TIMEOUT)
    assert (first.code, second.returncode) == (0, 0), (first, errors)


def test_a_command_may_have_years(operator: Operator) -> None:
    """The time of the command is longer than one wait of the kernel can be."""
    ended = operator.run("lab", "--for", "1e9", "--exec", "echo done", other_output=True)
    assert (ended.code, ended.out) == (0, "done\n"), ended


def test_a_report_that_cannot_be_written_is_refused_before_the_command(operator: Operator) -> None:
    said = operator.refused(
        2, "lab", "--exec", "touch ran", "--report", "none/r.json", other_output=True
    )
    assert "none/r.json" in said
    assert not (operator.folder / "ran").exists()


def test_missing_rights_are_named(operator: Operator) -> None:
    within = ["setpriv", "--bounding-set", "-sys_admin,-net_admin", "--inh-caps", "-all"]
    said = operator.refused(3, "lab", "--exec", "true", within=within)
    assert "this process lacks CAP_SYS_ADMIN, CAP_NET_ADMIN: run it as root" in said


def test_the_ports_have_the_given_names(operator: Operator) -> None:
    options = ["-o", 'map={ wan = "lan", lan = "wan" }', "--ports", "wan,lan"]
    path = Path("r.json")
    ended = operator.run(
        *("lab", "forward", *options, "--exec", f"{PING} $RINGLINE_PEER", "--report", path),
        other_output=True,
    )
    assert ended.code == 0, ended
    report = json.loads((operator.folder / path).read_text())
    assert list(report["ports"]) == ["wan", "lan"]
