"""Laboratories beside each other, and where there is no IPv6."""

from __future__ import annotations

import errno
import os
import re
import subprocess
from pathlib import Path

import pytest

from ringline.pipeline.commands.laboratory import kernel, links
from ringline.pipeline.commands.laboratory.network import HERE, Network

from .lab_harness import TIMEOUT, needs_lab, running
from .operator_harness import Operator

TIMES = 10 if os.environ.get("RINGLINE_PROOF") == "1" else 1
PING = "ping -c 1 -W 30 $RINGLINE_PEER"
RUNS = "runs already: it answers on .*; stop it, or give this one another name"


@pytest.fixture(autouse=True)
def _possible() -> None:
    needs_lab("ping")


def test_a_second_one_with_the_same_name_is_refused_and_the_first_goes_on(
    operator: Operator,
) -> None:
    command = f"until test -e go; do sleep 0.1; done; {PING}"
    with running(operator, "--exec", command) as lab:
        second = operator.run(
            "lab", "--name", operator.name, "--exec", "touch ran", keep_instance=True
        )
        assert second.code == 3
        assert re.search(RUNS, second.last), second
        (operator.folder / "go").touch()
    assert lab.process.returncode == 0
    assert not (operator.folder / "ran").exists()


def test_of_two_that_start_at_once_with_one_name_one_runs(operator: Operator) -> None:
    """The other is refused with a sentence, unless it begins after the end of the first."""
    arguments = ["lab", "--name", operator.name, "--exec", f"{PING}; code=$?; sleep 1; exit $code"]
    for _ in range(TIMES):
        with (
            operator.started(*arguments, keep_instance=True) as one,
            operator.started(*arguments, keep_instance=True) as two,
        ):
            said = [each.communicate(timeout=TIMEOUT)[1] for each in (one, two)]
        codes = [each.returncode for each in (one, two)]
        assert 0 in codes, said
        for code, errors in zip(codes, said, strict=True):
            assert code == 0 or (code == 3 and re.search(RUNS, errors)), said
            assert "Traceback" not in errors
    operator.run("cleanup", operator.name)


def test_a_network_without_ipv6_around_it_does_not_matter(operator: Operator) -> None:
    """The namespaces of the laboratory are its own."""
    switch_off = "for each in all default lo; do echo 1 >/proc/sys/net/ipv6/conf/$each/disable_ipv6"
    within = ["unshare", "-n", "sh", "-c", f'{switch_off}; done; exec "$@"', "sh"]
    command = f"{PING} && ping -c 1 -W 30 $RINGLINE_PEER6"
    said = operator.run(
        "lab", "--name", operator.name, "--exec", command, within=within, other_output=True
    )
    assert said.code == 0, said


@pytest.mark.parametrize("number", [0, errno.EOPNOTSUPP, errno.EAFNOSUPPORT])
def test_hosts_without_ipv6_have_ipv4_alone(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """0: IPv6 is switched off at their interfaces; else the kernel has none."""
    set_up, add_address = links.set_up, links.add_address

    def without(name: str) -> None:
        set_up(name)
        if number == 0 and name == "eth0":
            Path("/proc/sys/net/ipv6/conf/eth0/disable_ipv6").write_text("1")

    def refuse(name: str, address: str) -> None:
        if number and ":" in address:
            raise OSError(number, os.strerror(number))
        add_address(name, address)

    monkeypatch.setattr(links, "set_up", without)
    monkeypatch.setattr(links, "add_address", refuse)
    network = Network(1)
    try:
        assert not network.ipv6
        assert network.environment() == {"RINGLINE_HERE": "10.0.0.1", "RINGLINE_PEER": "10.0.0.2"}
        with kernel.inside(network.hosts[HERE]):
            shown = subprocess.run(["ip", "addr"], capture_output=True, text=True, check=True)
        assert "10.0.0.1" in shown.stdout
        assert "fd00::" not in shown.stdout
    finally:
        network.close()
