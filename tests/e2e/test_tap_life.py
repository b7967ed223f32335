"""Processes die while traffic flows through a TAP; interfaces come and go; errors leave nothing."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from . import xdp_harness
from .operator_harness import HEAD, Operator
from .run_harness import SEED, alive, kill
from .tap_harness import Taps, tap
from .test_xdp_life import WITHOUT_RIGHTS
from .veth_harness import (
    TIMEOUT,
    Veths,
    arrive,
    ip,
    needs,
    numbered,
    wait_until,
)
from .xdp_harness import RESTART, child, status, traffic

KILLS = 50 if os.environ.get("RINGLINE_PROOF") == "1" else 2
BOTH = tap("a") + "\n" + tap("b") + "\n" + RESTART


@pytest.fixture
def hosts() -> Iterator[Taps]:
    needs("setpriv")
    with contextlib.closing(Taps()) as made:
        yield made


def started(
    operator: Operator, hosts: Taps, text: str = BOTH
) -> contextlib.AbstractContextManager[tuple[subprocess.Popen[str], Path]]:
    return xdp_harness.started(operator, hosts, text=text)


def balanced(report: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(report.read_text())
    assert not any(found["balance"].values()), (found["balance"], SEED)
    return found


def ended(process: subprocess.Popen[str]) -> None:
    process.terminate()
    _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, errors


def linked(operator: Operator, side: str) -> bool:
    return bool(status(operator.name)["ports"][side]["link"]["up"])


@pytest.mark.timeout(1200)
def test_nothing_is_left_after_a_kill(operator: Operator, hosts: Taps) -> None:
    """A worker dies at any moment, then the driver or the supervisor does."""
    chance = random.Random(SEED)
    last = ["driver", "supervisor"] * (KILLS // 2)
    for victim in last:
        with started(operator, hosts) as (process, report):
            for side in "ab":
                hosts.adopt(side)
            with traffic(hosts):
                driver = child(process, "pipeline.driver")
                kill(child(process, "start.py"))
                time.sleep(chance.uniform(0.0, 0.5))
                kill(driver if victim == "driver" else process.pid)
                process.communicate(timeout=TIMEOUT)
                wait_until(lambda driver=driver: not alive(driver), "the end of the driver")
            for side in "ab":
                wait_until(lambda side=side: not hosts.has_interface(side), "its end", 5.0)
            if victim == "driver":
                assert process.returncode == 4
                balanced(report)
            else:
                operator.run("cleanup", operator.name, keep_instance=True)


def test_the_driver_needs_no_privilege(operator: Operator, hosts: Taps) -> None:
    config = operator.write(HEAD + BOTH)
    process = subprocess.Popen(
        [*Veths.within(hosts.middle), sys.executable, "-c", WITHOUT_RIGHTS, str(config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: status(operator.name).get("state") == "running", "the run")
        for side in "ab":
            hosts.adopt(side)
        driver = child(process, "pipeline.driver")
        rights = re.search(r"CapEff:\s*(\w+)", Path(f"/proc/{driver}/status").read_text())
        assert rights is not None
        assert int(rights[1], 16) == 0
        source, target = hosts.wire("a"), hosts.wire("b")
        arrive(source, target)
    finally:
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=TIMEOUT)
    assert out.strip() == "all well", errors


def test_an_interface_that_goes_down_or_is_removed_works_again(
    operator: Operator, hosts: Taps
) -> None:
    """In a namespace of its own, and with another name than that of the configuration. A worker
    is killed on the way."""
    with started(operator, hosts) as (process, report):
        for side in "ab":
            hosts.adopt(side)
        source = hosts.wire("a")
        ip("-n", hosts.hosts["b"], "link", "set", "eth0", "down")
        wait_until(lambda: not linked(operator, "b"), "no link")
        for frame in numbered(range(10)):
            source.send(frame)
        wait_until(
            lambda: status(operator.name)["ports"]["a"]["drops"]["tx_down"] >= 10, "their drop"
        )
        ip("-n", hosts.hosts["b"], "link", "set", "eth0", "up")
        wait_until(lambda: linked(operator, "b"), "a link")
        arrive(source, hosts.wire("b"))
        kill(child(process, "start.py"))
        for _ in range(2):
            ip("-n", hosts.hosts["b"], "link", "del", "eth0")
            hosts.adopt("b")
            wait_until(lambda: linked(operator, "b"), "a link")
            arrive(source, hosts.wire("b"))
        ended(process)
    found = balanced(report)
    assert found["ports"]["b"]["transmitted"]["packets"] >= 30
    assert found["workers"][0]["restarts"] == 1


def test_an_interface_that_was_there_stays(operator: Operator, hosts: Taps) -> None:
    """Removed and made again by its owner, it is used again."""
    middle = hosts.middle
    ip("-n", middle, "tuntap", "add", "ta", "mode", "tap", "vnet_hdr")
    ip("-n", middle, "link", "set", "ta", "up")
    with started(operator, hosts, tap("a")) as (process, report):
        assert status(operator.name)["ports"]["a"]["attached"] == "TAP that was there"
        ip("-n", middle, "link", "del", "ta")
        wait_until(lambda: not linked(operator, "a"), "no link")
        ip("-n", middle, "tuntap", "add", "ta", "mode", "tap", "multi_queue")
        ip("-n", middle, "link", "set", "ta", "up")
        wait_until(lambda: linked(operator, "a"), "a link")
        ended(process)
    balanced(report)
    assert hosts.there("ta")


def test_settings_reach_the_interface(operator: Operator, hosts: Taps) -> None:
    keys = {"mtu": 1400, "mac": "02:00:00:00:77:01", "addresses": ["10.79.0.1/24", "fd79::1/64"]}
    text = tap("a", queues=2, rx_descriptors=256, **keys) + "\n" + tap("b", up=False)
    with started(operator, hosts, text) as (process, _):
        wait_until(lambda: linked(operator, "a"), "a link")
        found = {each["ifname"]: each for each in hosts.links(hosts.middle)}
        assert found["ta"]["mtu"] == 1400
        assert found["ta"]["address"] == "02:00:00:00:77:01"
        assert found["ta"]["txqlen"] == 256
        assert found["ta"]["linkinfo"]["info_data"]["numqueues"] == 2
        assert "UP" in found["ta"]["flags"]
        assert "UP" not in found["tb"]["flags"]
        said = ip("-n", hosts.middle, "addr", "show", "ta")
        assert "10.79.0.1/24" in said
        assert "fd79::1/64" in said
        assert status(operator.name)["ports"]["a"]["mac"] == "02:00:00:00:77:01"
        ended(process)
    assert not hosts.there("ta")
    assert not hosts.there("tb")


MAKE = ["tuntap", "add", "ta", "mode", "tap"]
BAD = {
    "another kind": (
        'device = "tap:ta"',
        [["link", "add", "ta", "type", "veth", "peer", "name", "tz"]],
        "ta is there already, and is no TAP but of the kind veth; choose another name, or write "
        'device = "xdp:ta"',
    ),
    "a TUN": (
        'device = "tap:ta"',
        [["tuntap", "add", "ta", "mode", "tun"]],
        "ta is there already, and is no TAP but a TUN",
    ),
    "one queue": (
        'device = "tap:ta"\nqueues = 2',
        [MAKE],
        "ta has one queue, and 2 are configured; set queues = 1, or make it again",
    ),
    "mtu": (
        'device = "tap:ta"',
        [MAKE, ["link", "set", "ta", "mtu", "9000"]],
        "ta has an MTU of 9000 bytes, and a packet buffer has room for an MTU of at most 1500; "
        "run: ip link set dev ta mtu 1500",
    ),
    "settings": (
        'device = "tap:ta"\nmtu = 1400\nmac = "02:00:00:00:77:01"',
        [MAKE],
        "ta is there already and keeps its settings; remove mtu, mac, or let ringline make the "
        "interface: ip tuntap del ta mode tap",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_sentence_and_leaves_nothing(
    operator: Operator, hosts: Taps, case: str
) -> None:
    keys, before, sentence = BAD[case]
    for command in before:
        ip("-n", hosts.middle, *command)
    seen = hosts.links(hosts.middle)
    config = operator.write(f"{HEAD}[port.wan]\n{keys}\n")
    for what in ("run", "check"):
        said = operator.refused(3, what, config, within=Veths.within(hosts.middle))
        assert sentence in said
    assert [each["ifname"] for each in hosts.links(hosts.middle)] == [
        each["ifname"] for each in seen
    ]


def test_a_tap_in_use_is_refused(operator: Operator, hosts: Taps, tmp_path: Path) -> None:
    with started(operator, hosts) as (process, _):
        other = Operator(tmp_path, lambda: f"{operator.name}x")
        config = other.write(HEAD + tap("a"), "other.toml")
        for command in ("run", "check"):
            said = other.refused(3, command, config, within=Veths.within(hosts.middle))
            assert "ta is in use by another program; end it, or choose another name" in said
        ended(process)


def test_an_address_that_the_kernel_refuses_leaves_nothing(operator: Operator, hosts: Taps) -> None:
    """Without IPv6, which needs an MTU of 1280 bytes."""
    config = operator.write(HEAD + tap("a", mtu=1000, addresses=["fd79::1/64"]))
    said = operator.refused(3, "run", config, within=Veths.within(hosts.middle))
    assert "ta: it cannot have the address fd79::1/64" in said
    assert not hosts.there("ta")


def test_missing_rights_are_named(operator: Operator, hosts: Taps) -> None:
    within = [*Veths.within(hosts.middle), "setpriv", "--bounding-set=-net_admin"]
    config = operator.write(HEAD + tap("a"))
    for command in ("run", "check"):
        said = operator.refused(3, command, config, within=within)
        assert "ta cannot be made: this process lacks CAP_NET_ADMIN; run as root" in said
    ip("-n", hosts.middle, *MAKE, "user", "12345")
    for command in ("run", "check"):
        said = operator.refused(3, command, config, within=within)
        assert "ta belongs to user 12345, and this process lacks CAP_NET_ADMIN" in said


def test_the_owner_of_a_tap_needs_no_right(operator: Operator, hosts: Taps) -> None:
    ip("-n", hosts.middle, *MAKE, "user", "0")
    ip("-n", hosts.middle, "link", "set", "ta", "up")
    within = [*Veths.within(hosts.middle), "setpriv", "--bounding-set=-all"]
    config = operator.write(HEAD + tap("a"))
    done = operator.run("run", config, "--for", "0.5", within=within)
    assert done.code == 0, done
    assert hosts.there("ta")


def test_the_right_that_is_named_is_enough(operator: Operator, hosts: Taps) -> None:
    within = [*Veths.within(hosts.middle), "setpriv", "--bounding-set=-all,+net_admin"]
    text = tap("a", mac="02:00:00:00:77:01", addresses=["10.79.0.1/24"])
    done = operator.run("run", operator.write(HEAD + text), "--for", "0.5", within=within)
    assert done.code == 0, done
    assert not hosts.there("ta")


def test_without_the_device_of_the_kernel_a_sentence_says_so(
    operator: Operator, hosts: Taps
) -> None:
    config = operator.write(HEAD + tap("a"))
    hidden = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none /dev/net && exec "$@"', "sh"]
    for command in ("run", "check"):
        said = operator.refused(3, command, config, within=[*Veths.within(hosts.middle), *hidden])
        assert "there is no /dev/net/tun: load the module of the kernel (modprobe tun)" in said
