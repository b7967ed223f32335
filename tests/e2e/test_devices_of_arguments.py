"""A plugin on interfaces of the kernel, without a configuration file."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pytest

from .operator_harness import Operator
from .veth_harness import TIMEOUT, Veths, needs, wait_until


@pytest.fixture
def veths() -> Iterator[Veths]:
    needs("ping")
    with contextlib.closing(Veths(queues=2)) as made:
        yield made


def test_a_plugin_runs_on_the_devices_of_the_arguments(operator: Operator, veths: Veths) -> None:
    within = Veths.within(veths.middle)
    report = operator.folder / "report.json"
    words = ["forward", "--device", "a=xdp:va", "--device", "b=xdp:vb", "--name", operator.name]
    with operator.started("run", *words, "--report", report, within=within) as process:
        wait_until(lambda: veths.attached("a") and veths.attached("b"), "the run")
        veths.host("a", "ping", "-c", "1", "-w", "20", "10.77.0.2")
        assert " 0% packet loss" in veths.host("a", "ping", "-c", "3", "-i", "0.2", "10.77.0.2")
        process.terminate()
        _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, errors
    found = json.loads(report.read_text())
    assert not any(found["balance"].values())
    assert list(found["ports"]) == ["a", "b"]
    assert len(found["workers"]) == 2, "the interfaces have two queues"
    assert not veths.attached("a")


def test_an_interface_that_is_not_there_is_named(operator: Operator, veths: Veths) -> None:
    words = ["forward", "--device", "a=xdp:va", "--device", "b=xdp:nothing"]
    with operator.started("run", *words, within=Veths.within(veths.middle)) as process:
        _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode != 0
    assert "port.b.device: there is no network interface nothing" in errors
    assert not veths.attached("a")
