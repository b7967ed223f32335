"""Processes die while traffic flows through interfaces of the kernel; interfaces come and go."""

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
from pathlib import Path

import pytest

from .operator_harness import HEAD, Operator
from .run_harness import SEED, alive, kill
from .veth_harness import (
    TIMEOUT,
    Veths,
    arrive,
    ip,
    is_numbered,
    needs,
    numbered,
    port,
    receive,
    run,
    wait_until,
)
from .xdp_harness import BOTH, child, started, status, streaming, traffic

KILLS = 50 if os.environ.get("RINGLINE_PROOF") == "1" else 5


def test_a_killed_worker_is_replaced_and_the_books_balance(
    operator: Operator, veths: Veths
) -> None:
    target = veths.wire("b")
    with traffic(veths), started(operator, veths) as (process, report):
        for _ in range(3):
            before = wait_until(
                lambda: (found := status(operator.name)["workers"][0])["up"] and found, "a worker"
            )
            kill(before["pid"])
            wait_until(
                lambda before=before: (
                    (now := status(operator.name)["workers"][0])["up"]
                    and now["generation"] > before["generation"]
                ),
                "a successor",
            )
        assert receive(target, is_numbered, 100)
        process.terminate()
        process.communicate(timeout=TIMEOUT)
    found = json.loads(report.read_text())
    assert not any(found["balance"].values())
    assert found["workers"][0]["restarts"] == 3


def test_the_death_of_the_driver_ends_the_run_and_gives_the_interface_back(
    operator: Operator, veths: Veths
) -> None:
    with traffic(veths), started(operator, veths) as (process, report):
        kill(child(process, "pipeline.driver"))
        _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 4
    assert "the driver was ended by SIGKILL" in errors
    found = json.loads(report.read_text())
    assert not any(found["balance"].values()), found["balance"]
    assert not veths.attached("a")
    assert not veths.attached("b")


def test_after_sigkill_of_the_supervisor_the_kernel_has_its_interface_back(
    operator: Operator, veths: Veths
) -> None:
    """Its program is gone when the supervisor is, without any help of the other processes."""
    with traffic(veths), started(operator, veths) as (process, _):
        driver = child(process, "pipeline.driver")
        assert veths.attached("a")
        os.kill(driver, signal.SIGSTOP)
        process.kill()
        process.wait(TIMEOUT)
        wait_until(lambda: not veths.attached("a") and not veths.attached("b"), "detaching", 1.0)
        process.communicate(timeout=TIMEOUT)
        wait_until(lambda: not alive(driver), "the end of the driver", 10.0)
        operator.run("cleanup", operator.name)


def test_a_connection_goes_on_when_workers_are_killed(operator: Operator, veths: Veths) -> None:
    with started(operator, veths) as (process, report):
        with streaming(veths) as (client, received):
            for _ in range(3):
                kill(child(process, "start.py"))
                before = received()
                wait_until(lambda before=before: received() > before + 200_000, "more of TCP")
            assert client.poll() is None
        process.terminate()
        process.communicate(timeout=TIMEOUT)
    found = json.loads(report.read_text())
    assert not any(found["balance"].values()), found["balance"]
    assert found["workers"][0]["restarts"] >= 3


@pytest.mark.timeout(1200)
def test_random_kills_leave_balanced_books_and_free_interfaces(
    operator: Operator, veths: Veths
) -> None:
    """A worker dies at any moment, then the driver or the supervisor does, during iperf3."""
    chance = random.Random(SEED)
    killed = 0
    while killed < KILLS:
        last = chance.choice(["driver", "supervisor"])
        with started(operator, veths) as (process, report), streaming(veths):
            driver = child(process, "pipeline.driver")
            for _ in range(chance.randrange(3)):
                kill(child(process, "start.py"))
                time.sleep(chance.uniform(0.0, 0.5))
                killed += 1
            kill(driver if last == "driver" else process.pid)
            killed += 1
            process.wait(TIMEOUT)
            wait_until(
                lambda: not veths.attached("a") and not veths.attached("b"), "detaching", 1.0
            )
            process.communicate(timeout=TIMEOUT)
            wait_until(lambda driver=driver: not alive(driver), "the end of the driver")
            if last == "driver":
                assert process.returncode == 4, SEED
                found = json.loads(report.read_text())
                assert not any(found["balance"].values()), (found["balance"], SEED)
            else:
                operator.run("cleanup", operator.name, keep_instance=True)


WITHOUT_RIGHTS = """
import sys
from ringline.pipeline.configuration.schema import load
from ringline.pipeline.supervisor.children import Programs
from ringline.pipeline.supervisor.supervisor import Supervisor

none = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all")
programs = Programs(driver=(*none, *Programs().driver))
outcome = Supervisor(load(sys.argv[1]), programs=programs).run()
print(outcome.error or "all well")
"""


def test_the_driver_needs_no_privilege(operator: Operator, veths: Veths) -> None:
    needs("setpriv")
    config = operator.write(HEAD + BOTH)
    source, target = veths.wire("a"), veths.wire("b")
    process = subprocess.Popen(
        [*Veths.within(veths.middle), sys.executable, "-c", WITHOUT_RIGHTS, str(config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: status(operator.name).get("state") == "running", "the run")
        driver = child(process, "pipeline.driver")
        rights = re.search(r"CapEff:\s*(\w+)", Path(f"/proc/{driver}/status").read_text())
        assert rights is not None
        assert int(rights[1], 16) == 0
        for frame in numbered(range(50)):
            source.send(frame)
        assert len(receive(target, is_numbered, 50)) == 50
    finally:
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=TIMEOUT)
    assert out.strip() == "all well", errors


def test_an_interface_that_goes_down_and_up_works_again(operator: Operator, veths: Veths) -> None:
    source, target = veths.wire("a"), veths.wire("b")
    with started(operator, veths) as (process, report):
        ip("-n", veths.middle, "link", "set", "vb", "down")
        wait_until(lambda: not status(operator.name)["ports"]["b"]["link"]["up"], "no link")
        for frame in numbered(range(10)):
            source.send(frame)
        wait_until(
            lambda: status(operator.name)["ports"]["a"]["drops"]["tx_down"] >= 10, "their drop"
        )
        ip("-n", veths.middle, "link", "set", "vb", "up")
        wait_until(lambda: status(operator.name)["ports"]["b"]["link"]["up"], "a link")
        for frame in numbered(range(10)):
            source.send(frame)
        assert len(receive(target, is_numbered, 10)) == 10
        process.terminate()
        process.communicate(timeout=TIMEOUT)
    assert not any(json.loads(report.read_text())["balance"].values())


def test_an_interface_that_is_removed_has_no_link_and_the_books_balance(
    operator: Operator, veths: Veths
) -> None:
    with traffic(veths), started(operator, veths) as (process, report):
        ip("-n", veths.middle, "link", "del", "vb")
        wait_until(lambda: not status(operator.name)["ports"]["b"]["link"]["up"], "no link")
        process.terminate()
        process.communicate(timeout=TIMEOUT)
    assert not any(json.loads(report.read_text())["balance"].values())


def test_an_interface_that_is_made_again_is_used_again(operator: Operator, veths: Veths) -> None:
    source = veths.wire("a")
    with started(operator, veths) as (process, report):
        for frame in numbered(range(10)):
            source.send(frame)
        for _ in range(2):
            ip("-n", veths.middle, "link", "del", "vb")
            wait_until(lambda: not status(operator.name)["ports"]["b"]["link"]["up"], "no link")
            for frame in numbered(range(10)):
                source.send(frame)
            wait_until(
                lambda: status(operator.name)["ports"]["a"]["drops"]["tx_down"] > 0, "a drop"
            )
            veths.join("b")
            wait_until(lambda: status(operator.name)["ports"]["b"]["link"]["up"], "a link")
            target = veths.wire("b")
            arrive(source, target)
            for frame in numbered(range(10), flow=1):
                target.send(frame)
            back = receive(source, lambda frame: is_numbered(frame) and frame[35] == 0x89, 10)
            assert len(back) == 10
        process.terminate()
        process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0
    assert not any(json.loads(report.read_text())["balance"].values())


def test_an_interface_that_is_moved_belongs_to_its_new_place_until_it_is_back(
    operator: Operator, veths: Veths
) -> None:
    """It keeps its number, so nothing but its absence tells that the sockets have lost it."""
    source, elsewhere = veths.wire("a"), veths.hosts["a"]
    ip("-n", veths.hosts["b"], "addr", "add", "10.78.0.2/24", "dev", "eth0")
    with started(operator, veths) as (process, report):
        for _ in range(2):
            ip("-n", veths.middle, "link", "set", "vb", "netns", elsewhere)
            wait_until(lambda: not status(operator.name)["ports"]["b"]["link"]["up"], "no link")
            ip("-n", elsewhere, "addr", "add", "10.78.0.9/24", "dev", "vb")
            ip("-n", elsewhere, "link", "set", "vb", "up")
            assert " 0% packet loss" in veths.host(
                "b", "ping", "-c", "3", "-i", "0.2", "-W", "5", "10.78.0.9"
            )
            ip("-n", elsewhere, "link", "set", "vb", "netns", veths.middle)
            ip("-n", veths.middle, "link", "set", "vb", "up")
            wait_until(lambda: status(operator.name)["ports"]["b"]["link"]["up"], "a link")
            target = veths.wire("b")
            arrive(source, target)
        process.terminate()
        process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0
    assert not any(json.loads(report.read_text())["balance"].values())


def test_an_interface_that_is_away_for_a_moment_is_used_again(
    operator: Operator, veths: Veths
) -> None:
    source, target, elsewhere = veths.wire("a"), veths.wire("b"), veths.hosts["a"]
    with started(operator, veths) as (process, _):
        ip("-n", veths.middle, "link", "set", "vb", "netns", elsewhere)
        ip("-n", elsewhere, "link", "set", "vb", "netns", veths.middle)
        ip("-n", veths.middle, "link", "set", "vb", "up")
        arrive(source, target)
        process.terminate()
        process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0


def test_an_interface_that_is_renamed_works_on(operator: Operator, veths: Veths) -> None:
    source, target = veths.wire("a"), veths.wire("b")
    with started(operator, veths) as (process, report):
        ip("-n", veths.middle, "link", "set", "vb", "name", "renamed")
        for frame in numbered(range(10)):
            source.send(frame)
        assert len(receive(target, is_numbered, 10)) == 10
        shown = status(operator.name)["ports"]["b"]["link"]
        assert shown["up"]
        assert shown["mbps"] == 10_000
        process.terminate()
        process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0
    assert not any(json.loads(report.read_text())["balance"].values())


@pytest.mark.parametrize("stopping", [signal.SIGTERM, signal.SIGKILL])
def test_channels_are_set_and_restored(operator: Operator, stopping: signal.Signals) -> None:
    """By the supervisor, or by the driver when the supervisor is killed."""
    with contextlib.closing(Veths(queues=2)) as veths:
        within = Veths.within(veths.middle)
        run(*within, "ethtool", "-L", "va", "rx", "1", "tx", "1")
        veths.host("a", "ethtool", "-L", "eth0", "rx", "1", "tx", "1")
        config = operator.write(HEAD + port("a", queues=2, channels="set"))
        with operator.started("run", config, within=within) as process:
            wait_until(lambda: status(operator.name).get("state") == "running", "the run")
            assert queues(veths) == 2
            process.send_signal(stopping)
            process.communicate(timeout=TIMEOUT)
            wait_until(lambda: queues(veths) == 1, "restoring the channels")
            if stopping == signal.SIGKILL:
                operator.run("cleanup", operator.name, keep_instance=True)
        assert process.returncode == (0 if stopping == signal.SIGTERM else -stopping)


def test_cleanup_restores_channels_when_the_driver_is_killed_too(operator: Operator) -> None:
    with contextlib.closing(Veths(queues=2)) as veths:
        within = Veths.within(veths.middle)
        run(*within, "ethtool", "-L", "va", "rx", "1", "tx", "1")
        veths.host("a", "ethtool", "-L", "eth0", "rx", "1", "tx", "1")
        config = operator.write(HEAD + port("a", queues=2, channels="set"))
        with operator.started("run", config, within=within) as process:
            wait_until(lambda: status(operator.name).get("state") == "running", "the run")
            driver = child(process, "pipeline.driver")
            os.kill(process.pid, signal.SIGSTOP)
            kill(driver)
            process.kill()
            process.communicate(timeout=TIMEOUT)
            assert queues(veths) == 2
            done = operator.run("cleanup", operator.name, within=within, keep_instance=True)
            assert "the channels of va were restored" in done.out
            assert queues(veths) == 1


def queues(veths: Veths) -> int:
    shown = run(*Veths.within(veths.middle), "ethtool", "-l", "va")
    return int(shown.rpartition("RX:")[2].split()[0])


def test_nothing_is_left_in_the_middle(operator: Operator, veths: Veths) -> None:
    """An orderly run gives everything back: the next one finds the interface as it was."""
    config = operator.write(HEAD + BOTH)
    for _ in range(2):
        ended = operator.run("run", config, "--for", "0.5", within=Veths.within(veths.middle))
        assert ended.code == 0, ended
        assert not veths.attached("a")
        assert os.listdir("/sys/fs/bpf") == []
