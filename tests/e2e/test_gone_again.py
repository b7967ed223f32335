"""An interface that is there again, and is removed once more while the driver takes its sockets."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .operator_harness import HEAD, Operator
from .veth_harness import TIMEOUT, Veths, arrive, ip, needs, port, wait_until
from .xdp_harness import child, status

STATISTICS = 1.2  # seconds in which the driver sends its statistics once


@pytest.fixture
def veths() -> Iterator[Veths]:
    needs()
    made = Veths()
    yield made
    made.close()


def make_again(veths: Veths) -> None:
    host = veths.hosts["b"]
    pair = ["link", "add", "vb", "type", "veth", "peer", "name", "eth0", "netns", host]
    ip("-n", veths.middle, *pair)
    ip("-n", host, "link", "set", "eth0", "up")
    ip("-n", veths.middle, "link", "set", "vb", "up")


def has_sockets(veths: Veths, process: int, kind: str) -> bool:
    """Whether the supervisor has opened the interface again."""
    if kind == "xdp":
        return veths.attached("b")
    number = json.loads(ip("-n", veths.middle, "-j", "link", "show", "vb"))[0]["ifindex"]
    lines = Path(f"/proc/{process}/net/packet").read_text().splitlines()[1:]
    return any(line.split()[4] == str(number) for line in lines)


def has_link(operator: Operator) -> bool:
    told = status(operator.name)
    return bool(told) and bool(told["ports"]["b"]["link"]["up"])


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("kind", ["xdp", "packet"])
def test_an_interface_that_is_gone_again_before_it_is_used_is_waited_for(
    operator: Operator, veths: Veths, kind: str
) -> None:
    config = operator.write(f"{HEAD}{port('a', kind)}\n{port('b', kind)}\n")
    report = operator.folder / "report.json"
    within = Veths.within(veths.middle)
    with operator.started("run", config, "--report", report, within=within) as process:
        wait_until(lambda: status(operator.name).get("state") == "running", "the run")
        driver = child(process, "pipeline.driver")
        ip("-n", veths.middle, "link", "del", "vb")
        wait_until(lambda: not has_link(operator), "no link")
        with contextlib.ExitStack() as stack:
            with stopped(process.pid):
                time.sleep(STATISTICS)  # they wait for the supervisor, which then looks for vb
                stack.enter_context(stopped(driver))
                make_again(veths)
            wait_until(lambda: has_sockets(veths, process.pid, kind), "new sockets")
            ip("-n", veths.middle, "link", "del", "vb")
        make_again(veths)
        wait_until(lambda: has_link(operator), "a link")
        arrive(veths.wire("a"), veths.wire("b"))
        assert child(process, "pipeline.driver") == driver
        process.terminate()
        process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0
    assert not any(json.loads(report.read_text())["balance"].values())
