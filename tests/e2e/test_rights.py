"""A user who is not root, with exactly the rights that a kind of port needs, and with one less."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from .operator_harness import HEAD, Operator, as_nobody
from .tap_harness import Taps, tap
from .veth_harness import TIMEOUT, Veths, arrive, needs, port
from .xdp_harness import child

NEEDED = {"xdp": ["net_admin", "net_raw", "bpf", "ipc_lock"], "packet": ["net_raw"]}
NEEDED |= {"tap": ["net_admin"]}


@pytest.fixture
def hosts(request: pytest.FixtureRequest) -> Iterator[Taps]:
    """Interfaces for the kind of port: TAPs are made by the run."""
    needs("setpriv")
    with contextlib.closing(Taps("ab" if request.param == "tap" else "")) as made:
        yield made


def text(kind: str) -> str:
    tables = [tap(side) if kind == "tap" else port(side, kind) for side in "ab"]
    return HEAD + "\n".join(tables)


def nobody_with(hosts: Veths, rights: list[str], memlock: str = "unlimited") -> list[str]:
    """The begin of a command line: user nobody in the middle with these capabilities alone."""
    kept = "".join(f",+{each}" for each in rights)
    identity = "setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs"
    identity += f" --inh-caps=-all{kept} --ambient-caps=-all{kept} --bounding-set=-all{kept}"
    reachable = as_nobody()
    begin = [*Veths.within(hosts.middle), "prlimit", f"--memlock={memlock}"]
    begin += reachable[: reachable.index("setpriv")]
    return [*begin, *identity.split(), "env", "-u", "XDG_RUNTIME_DIR", "-u", "HOME"]


@pytest.mark.parametrize(("hosts", "kind"), [(each, each) for each in NEEDED], indirect=["hosts"])
def test_a_user_with_these_rights_runs_it_and_workers_have_none(
    open_operator: Operator, hosts: Taps, kind: str
) -> None:
    operator = open_operator
    config = operator.write(text(kind))
    within = nobody_with(hosts, NEEDED[kind], memlock="65536")
    with operator.started("run", config, within=within) as process:
        worker = child(process, "start.py")  # the ports are opened before
        for side in hosts.taps:
            hosts.adopt(side)
        arrive(hosts.wire("a"), hosts.wire("b"))
        rights = Path(f"/proc/{worker}/status").read_text()
        process.terminate()
        _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, errors
    assert re.findall(r"Uid:\s*(\d+)", rights) == ["65534"]
    assert re.findall(r"Cap(?:Inh|Prm|Eff|Amb):\s*(\w+)", rights) == ["0" * 16] * 4


@pytest.mark.parametrize(("hosts", "kind"), [(each, each) for each in NEEDED], indirect=["hosts"])
def test_check_names_each_right_that_is_missing(
    open_operator: Operator, hosts: Taps, kind: str
) -> None:
    config = open_operator.write(text(kind))
    for missing in NEEDED[kind]:
        rights = [each for each in NEEDED[kind] if each != missing]
        within = nobody_with(hosts, rights, memlock="65536")
        said = open_operator.refused(3, "check", config, within=within, other_output=True)
        name = {"ipc_lock": "a limit of locked memory of"}.get(missing, f"CAP_{missing.upper()}")
        assert f"this process lacks {name}" in said
    within = nobody_with(hosts, NEEDED[kind], memlock="65536")
    assert "all well" in open_operator.run("check", config, within=within).out
