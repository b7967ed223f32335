"""`bench xdp`: its namespaces, its processes, its table."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ringline.pipeline.bench.figures import table
from ringline.pipeline.bench.machine import Machine
from ringline.pipeline.bench.measurements import xdp
from ringline.pipeline.bench.measurements.xdp import Places, Turns
from ringline.pipeline.bench.sampling.windows import Windows
from ringline.pipeline.bench.veths import links
from ringline.shm.errors import EnvironmentLacks
from ringline.shm.segments import segments_of

BENCH = [sys.executable, "-P", "-m", "ringline.pipeline.commands.cli", "bench", "xdp", "--json"]
SHORT = ["--runs", "1", "--seconds", "0.05"]
TIMEOUT = 100.0


@pytest.fixture
def able() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to make network namespaces")
    if shutil.which("ip") is None:
        pytest.skip("ip is missing")
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two CPUs")
    try:
        socket.socket(44, socket.SOCK_RAW, 0).close()
    except OSError:
        pytest.skip("needs a kernel with AF_XDP")


def namespaces() -> dict[str, str]:
    """The network namespace of each process, by process id."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            found[process.name] = os.readlink(process / "ns/net")
        except OSError:
            continue
    return found


def in_other_namespaces(pid: int) -> set[str]:
    """The processes below `pid` that are in another network namespace than this process."""
    below, own = {str(pid)}, os.readlink("/proc/self/ns/net")
    found = set()
    for name, namespace in namespaces().items():
        try:
            stat = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if (name in below or stat[1] in below or stat[2] == str(os.getpgid(pid))) and (
            namespace != own
        ):
            found.add(name)
    return found


def left(pid: int, held: set[str]) -> list[Path]:
    """The segments of a benchmark and of its processes."""
    return [file for each in {str(pid), *held} for file in segments_of(f"bench-{each}")]


@pytest.mark.slow
def test_everything_is_measured_once(able: None) -> None:
    before = {each.name for each in Path("/sys/class/net").iterdir()}
    done = subprocess.run(
        [*BENCH, *SHORT], capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)["figures"]
    rates = {each["what"].strip(): each["value"] for each in figures if each["unit"] == "Mpps"}
    assert {"xdp, forward between two veths", "bare loop in C", "Linux's bridge"} <= set(rates)
    assert all(value > 0 for value in rates.values()), rates
    assert figures[0]["limit"] == rates["bare loop in C"]
    (packet,) = (each for each in figures if each["what"].startswith("packet"))
    assert packet["limit"] > 0
    assert {each.name for each in Path("/sys/class/net").iterdir()} == before


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_of_a_benchmark(able: None, number: signal.Signals) -> None:
    with subprocess.Popen(
        [*BENCH, "--runs", "50"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as bench:
        try:
            end = time.monotonic() + TIMEOUT
            while not segments_of(f"bench-{bench.pid}") and time.monotonic() < end:
                time.sleep(0.05)
            assert segments_of(f"bench-{bench.pid}"), "a run of ringline has begun"
            held = in_other_namespaces(bench.pid)
            assert held, "the source and the run are in namespaces of the benchmark"
        finally:
            bench.send_signal(number)
    end = time.monotonic() + TIMEOUT
    while (held & set(namespaces()) or left(bench.pid, held)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not held & set(namespaces()), "namespaces without a name end with their processes"
    assert left(bench.pid, held) == []


def test_without_root_a_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(EnvironmentLacks, match="bench xdp: root is needed"), links.links():
        pass


def test_without_ip_a_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(EnvironmentLacks, match="the command ip is missing"), links.links():
        pass


def test_one_cpu_is_too_few() -> None:
    with pytest.raises(EnvironmentLacks, match="two CPUs are needed"):
        xdp.places(Machine(cpus=(0,), arithmetic=1.0, round_trip=None, strays={}))


def test_the_table_has_ratios_and_says_who_had_which_cpu() -> None:
    def turn(rate: float) -> Windows:
        return Windows((0.1,), {"sent": (rate * 1e5,), "offered": (rate * 1e5,)})

    rates = {"source": 3.0, "ringline": 0.9, "bare": 1.0, "bridge": 0.6, "sockets": 0.1}
    rates |= {"packet": 1.4, "packets": 1.5}
    figures = xdp.figures(Turns({what: [turn(r)] for what, r in rates.items()}), Places(0, 1, 1))
    first, *others = figures
    assert (first.value, first.limit, first.verdict) == (pytest.approx(0.9), 1.0, "yes")
    ratios = {each.what.strip(): each for each in others if each.unit == "x"}
    assert ratios["ringline to Linux's bridge"].value == pytest.approx(1.5)
    assert ratios["ringline to Linux's bridge"].verdict == "yes"
    (packet,) = (each for each in others if each.what.startswith("packet"))
    assert (packet.value, packet.limit, packet.verdict) == (pytest.approx(1.4), 1.5, "yes")
    assert "the source and the kernel are its limit" in packet.note
    said = " ".join(table(figures).split())
    assert "the source and the kernel's receiving have CPU 0; what forwards has CPU 1" in said
    assert "the worker of ringline shares it; Scapy is not installed" in said
    assert "hardly faster" not in said


def test_a_slow_source_is_named_as_the_limit() -> None:
    turn = Windows((0.1,), {"sent": (1e5,), "offered": (1e5,)})
    names = ("source", "ringline", "bare", "packet", "packets")
    found = Turns({what: [turn] for what in names})
    (note, *_) = xdp.figures(found, Places(0, 1, 2))[0].notes()
    assert "the source is hardly faster than what it feeds" in note
    assert "the worker of ringline has CPU 2" in note


def test_a_port_that_loses_packets_is_not_limited_by_the_source() -> None:
    lossy = Windows((0.1,), {"sent": (0.5e5,), "offered": (1e5,)})
    whole = Windows((0.1,), {"sent": (1.01e5,), "offered": (1e5,)})
    found = Turns({"packet": [lossy], "packets": [whole]})
    packet, *shares = xdp.receiving(found)
    assert (packet.note, packet.verdict) == ("", "no")
    assert [each.value for each in shares] == [50.0, 100.0]


def test_what_cannot_start_at_once_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xdp, "PAUSE", 0)
    tries = []

    def start(failures: int) -> int:
        tries.append(failures)
        if len(tries) <= failures:
            raise EnvironmentLacks("another socket is bound to queue 0")
        return len(tries)

    assert xdp._patiently(lambda: start(2)) == 3
    tries.clear()
    with pytest.raises(EnvironmentLacks, match="another socket"):
        xdp._patiently(lambda: start(99))
    assert len(tries) == xdp.TRIES
