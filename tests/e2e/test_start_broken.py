"""At any moment of a start, the supervisor is killed or the interface is removed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .operator_harness import HEAD, Operator, is_a_sentence, shared_memory
from .run_harness import SEED, kill
from .tap_harness import Taps, tap
from .veth_harness import TIMEOUT, Veths, arrive, ip, needs, port, wait_until
from .xdp_harness import status

PROOF = os.environ.get("RINGLINE_PROOF") == "1"
MOMENTS = 50 if PROOF else 1
KINDS = ["xdp", "packet", "tap"]


@pytest.fixture
def hosts(request: pytest.FixtureRequest) -> Iterator[Veths]:
    needs()
    with contextlib.closing(Taps("a") if request.param == "tap" else Veths()) as made:
        yield made


def each_kind(test: Callable[..., None]) -> Callable[..., None]:
    together = [pytest.param(kind, kind, id=kind) for kind in KINDS]
    return pytest.mark.parametrize(("hosts", "kind"), together, indirect=["hosts"])(test)


def configured(kind: str) -> str:
    """Port a is of this kind; port b is on AF_XDP."""
    return HEAD + (tap("a") if kind == "tap" else port("a", kind)) + "\n" + port("b") + "\n"


def starting(
    operator: Operator, hosts: Veths, config: Path
) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    within = Veths.within(hosts.middle)
    return operator.started("run", config, within=within, keep_instance=True)


def is_running(operator: Operator) -> bool:
    return status(operator.name).get("state") == "running"


def moments(operator: Operator, hosts: Veths, config: Path) -> Iterator[float]:
    """Moments of a start in seconds after its begin, spread over the length that a start has."""
    with starting(operator, hosts, config) as process:
        began = time.monotonic()
        wait_until(lambda: is_running(operator), "the run")
        length = time.monotonic() - began
        process.terminate()
        process.communicate(timeout=TIMEOUT)
    chance = random.Random(SEED)
    for number in range(MOMENTS):
        yield length * (number + chance.random()) / MOMENTS


def names(hosts: Veths) -> set[str]:
    return {each["ifname"] for each in json.loads(ip("-n", hosts.middle, "-j", "link", "show"))}


def is_free(hosts: Veths, before: set[str]) -> bool:
    """Whether nothing is attached to the interfaces in the middle, and no TAP is left."""
    shown = json.loads(ip("-n", hosts.middle, "-j", "link", "show"))
    packets = ["cat", "/proc/self/net/packet"]
    opened = subprocess.run(
        [*Veths.within(hosts.middle), *packets], capture_output=True, text=True, check=True
    )
    free = not any("xdp" in each for each in shown) and len(opened.stdout.splitlines()) == 1
    return free and {each["ifname"] for each in shown} == before


@each_kind
@pytest.mark.timeout(1200)
def test_a_start_that_is_killed_leaves_nothing_and_the_next_one_starts(
    operator: Operator, hosts: Veths, kind: str
) -> None:
    config, before = operator.write(configured(kind)), names(hosts)
    for number, moment in enumerate(moments(operator, hosts, config)):
        with starting(operator, hosts, config) as process:
            time.sleep(moment)
            kill(process.pid)
            process.communicate(timeout=TIMEOUT)
        why = f"after {moment:.3f} s, seed {SEED}"
        wait_until(lambda: is_free(hosts, before), f"the end of what was attached {why}", 5.0)
        if (number + SEED) % 2:
            operator.run("cleanup", operator.name)
            assert not shared_memory(operator.name), why
        with starting(operator, hosts, config) as process:
            wait_until(lambda: process.poll() is not None or is_running(operator), "the next run")
            assert process.poll() is None, (why, process.communicate())
            if number == MOMENTS - 1:
                if isinstance(hosts, Taps):
                    hosts.adopt("a")
                arrive(hosts.wire("a"), hosts.wire("b"))
            process.terminate()
            process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0, why
        assert not shared_memory(operator.name), why


@each_kind
@pytest.mark.timeout(1200)
def test_an_interface_that_is_removed_during_the_start_gets_a_sentence_or_is_waited_for(
    operator: Operator, hosts: Veths, kind: str
) -> None:
    config = operator.write(configured(kind))
    name = "ta" if kind == "tap" else "va"
    for moment in moments(operator, hosts, config):
        with starting(operator, hosts, config) as process:
            if kind == "tap":
                wait_until(lambda: process.poll() is not None or name in names(hosts), "the TAP")
                moment /= 3  # noqa: PLW2901
            time.sleep(moment)
            ip("-n", hosts.middle, "link", "del", name)
            why = f"removed after {moment:.3f} s, seed {SEED}"
            wait_until(lambda: process.poll() is not None or is_running(operator), f"the run {why}")
            if process.poll() is None:
                process.terminate()
            _, errors = process.communicate(timeout=TIMEOUT)
        assert process.returncode in (0, 3), (why, errors)
        assert all(map(is_a_sentence, errors.splitlines())), (why, errors)
        if process.returncode == 3:
            assert f"port.a.device: {name}" in errors or f"interface {name}" in errors, why
        assert not shared_memory(operator.name), why
        if kind != "tap":
            pair = ["link", "add", name, "type", "veth", "peer", "name", "eth0"]
            ip("-n", hosts.middle, *pair, "netns", hosts.hosts["a"])
            ip("-n", hosts.hosts["a"], "link", "set", "eth0", "up")
            ip("-n", hosts.middle, "link", "set", name, "up")
        wait_until(lambda: is_free(hosts, names(hosts)), f"the end of what was attached {why}", 5.0)
