"""Processes die while traffic flows through interfaces of the kernel; errors leave nothing."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ringline.pipeline.configuration.config import PortConfig, XdpConfig
from ringline.pipeline.ports.interfaces import interface
from ringline.pipeline.ports.xdp import bpf, sockets
from ringline.pipeline.ports.xdp.sockets import XdpAttachment
from ringline.shm.errors import EnvironmentLacks
from ringline.shm.packets import PacketMemory

from .operator_harness import Operator
from .run_harness import SEED, alive, kill
from .veth_harness import (
    TIMEOUT,
    Veths,
    entered,
    ip,
    is_numbered,
    needs,
    numbered,
    port,
    receive,
    run,
    wait_until,
)

HEAD = 'name = "NAME"\nmetrics.listen = "off"\nmemory.hugepages = "off"\n'
KILLS = 50 if os.environ.get("RINGLINE_PROOF") == "1" else 4
RESTART = "[worker]\nrestart = { intensity = 1000, period = 1.0 }\n"
BOTH = port("a") + "\n" + port("b") + "\n" + RESTART


@pytest.fixture
def veths() -> Iterator[Veths]:
    needs("ethtool")
    with contextlib.closing(Veths()) as made:
        yield made


def status(name: str) -> dict[str, Any]:
    done = subprocess.run(
        ["ringline", "status", name, "--json"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    found: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {}
    return found


def child(process: subprocess.Popen[str], mark: str) -> int:
    """The process id of a child of `ringline run`."""

    def find() -> int:
        assert process.poll() is None
        for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            with contextlib.suppress(OSError):
                if mark in Path(f"/proc/{pid}/cmdline").read_text():
                    return int(pid)
        return 0

    return int(wait_until(find, f"the start of {mark}"))


@contextlib.contextmanager
def traffic(veths: Veths) -> Iterator[None]:
    """Frames arrive at both interfaces all the time."""
    wires, stop = [veths.wire(side) for side in "ab"], threading.Event()

    def send() -> None:
        while not stop.is_set():
            for wire in wires:
                for frame in numbered(range(20)):
                    with contextlib.suppress(OSError):
                        wire.send(frame)
            time.sleep(0.001)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield
    finally:
        stop.set()
        sender.join()


@contextlib.contextmanager
def started(
    operator: Operator, veths: Veths, *options: str
) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    report = operator.folder / "report.json"
    config = operator.write(HEAD + BOTH)
    within = Veths.within(veths.middle)
    with operator.started("run", config, "--report", report, *options, within=within) as process:
        wait_until(lambda: status(operator.name).get("state") == "running", "the run")
        yield process, report


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
    with traffic(veths), started(operator, veths) as (process, _):
        driver = child(process, "pipeline.driver")
        assert veths.attached("a")
        process.kill()
        process.communicate(timeout=TIMEOUT)
        wait_until(lambda: not veths.attached("a") and not veths.attached("b"), "detaching", 5.0)
        wait_until(lambda: not alive(driver), "the end of the driver", 10.0)
        operator.run("cleanup", operator.name)


@pytest.mark.timeout(1200)
def test_random_kills_leave_balanced_books_and_free_interfaces(
    operator: Operator, veths: Veths
) -> None:
    """A worker dies at any moment, then the driver or the supervisor does."""
    chance = random.Random(SEED)
    for _ in range(KILLS):
        last = chance.choice(["driver", "supervisor"])
        with traffic(veths), started(operator, veths) as (process, report):
            driver = child(process, "pipeline.driver")
            kill(child(process, "start.py"))
            time.sleep(chance.uniform(0.0, 0.5))
            kill(driver if last == "driver" else process.pid)
            process.communicate(timeout=TIMEOUT)
            wait_until(lambda driver=driver: not alive(driver), "the end of the driver")
            wait_until(
                lambda: not veths.attached("a") and not veths.attached("b"), "detaching", 5.0
            )
            if last == "driver":
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
            host = veths.hosts["b"]
            ip(
                "-n",
                veths.middle,
                "link",
                "add",
                "vb",
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                host,
            )
            ip("-n", host, "link", "set", "eth0", "up")
            ip("-n", veths.middle, "link", "set", "vb", "up")
            wait_until(lambda: status(operator.name)["ports"]["b"]["link"]["up"], "a link")
            target = veths.wire("b")

            def arrives(target: socket.socket = target) -> bool:
                for frame in numbered(range(10)):
                    source.send(frame)
                return len(receive(target, is_numbered, 10)) == 10

            wait_until(arrives, "their arrival")
            for frame in numbered(range(10), flow=1):
                target.send(frame)
            back = receive(source, lambda frame: is_numbered(frame) and frame[35] == 0x89, 10)
            assert len(back) == 10
        process.terminate()
        process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0
    assert not any(json.loads(report.read_text())["balance"].values())


BAD = {
    "missing": (3, 'device = "xdp:nope"', None, "there is no network interface nope here"),
    "loopback": (3, 'device = "xdp:lo"', None, "lo is the loopback interface"),
    "mtu": (3, 'device = "xdp:va"', ["link", "set", "va", "mtu", "3000"], "an MTU of 3000 bytes"),
    "queues": (
        3,
        'device = "xdp:va"\nqueues = 2',
        None,
        "va receives on 1 queues, and 2 are configured; set queues = 1: it has at most 1",
    ),
    "zero-copy": (
        3,
        'device = "xdp:va"\nmode = "zero-copy"',
        None,
        "va does not work without copies",
    ),
    "default route": (
        3,
        'device = "xdp:va"',
        ["route", "add", "default", "dev", "va"],
        "va carries the default route of this machine",
    ),
    "bridge": (
        3,
        'device = "xdp:va"',
        ["link", "add", "br0", "type", "bridge"],
        "va belongs to a bridge",
    ),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("command", ["run", "check"])
def test_bad_input_gets_one_sentence_and_leaves_nothing(
    operator: Operator, veths: Veths, case: str, command: str
) -> None:
    code, keys, before, sentence = BAD[case]
    if command == "check" and case == "zero-copy":
        return  # only an attempt shows it
    if before:
        ip("-n", veths.middle, *before)
    if case == "bridge":
        ip("-n", veths.middle, "link", "set", "va", "master", "br0")
    config = operator.write(f"{HEAD}[port.wan]\n{keys}\n")
    said = operator.refused(code, command, config, within=Veths.within(veths.middle))
    assert sentence in said
    assert not veths.attached("a")


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_second_program_on_an_interface_is_refused_by_its_number(
    operator: Operator, veths: Veths, command: str, tmp_path: Path
) -> None:
    with started(operator, veths) as (process, _):
        other = Operator(tmp_path, lambda: f"{operator.name}x")
        config = other.write(HEAD + port("a"), "other.toml")
        said = other.refused(3, command, config, within=Veths.within(veths.middle))
        assert re.search(r"va has an XDP program already \(number \d+, native\)", said)
        process.terminate()
        process.communicate(timeout=TIMEOUT)


def test_missing_rights_are_named(operator: Operator, veths: Veths) -> None:
    needs("setpriv")
    config = operator.write(HEAD + port("a"))
    within = [*Veths.within(veths.middle), "setpriv", "--bounding-set=-net_admin,-net_raw"]
    for command in ("run", "check"):
        said = operator.refused(3, command, config, within=within)
        assert "this process lacks CAP_NET_ADMIN and CAP_NET_RAW" in said
    within = [*Veths.within(veths.middle), "prlimit", "--memlock=65536"]
    within += ["setpriv", "--bounding-set=-ipc_lock"]
    said = operator.refused(3, "run", config, within=within)
    assert "a limit of locked memory of" in said


def test_the_rights_that_are_named_are_enough(operator: Operator, veths: Veths) -> None:
    needs("setpriv")
    config = operator.write(HEAD + port("a"))
    kept = "-all,+net_admin,+net_raw,+bpf,+ipc_lock"
    within = [*Veths.within(veths.middle), "setpriv", f"--bounding-set={kept}"]
    ended = operator.run("run", config, "--for", "1", within=within)
    assert ended.code == 0, ended


def test_zero_copy_is_left_with_a_sentence(operator: Operator, veths: Veths) -> None:
    config = operator.write(HEAD + port("a", mode="auto"))
    ended = operator.run("run", config, "--for", "1", within=Veths.within(veths.middle))
    assert ended.code == 0
    assert "va is used in copy mode, because zero-copy does not work" in ended.errors


def test_channels_are_set_and_restored(operator: Operator) -> None:
    needs("ethtool")
    with contextlib.closing(Veths(queues=2)) as veths:
        within = Veths.within(veths.middle)
        run(*within, "ethtool", "-L", "va", "rx", "1", "tx", "1")
        veths.host("a", "ethtool", "-L", "eth0", "rx", "1", "tx", "1")
        config = operator.write(HEAD + port("a", queues=2, channels="set"))
        with operator.started("run", config, within=within) as process:
            wait_until(lambda: status(operator.name).get("state") == "running", "the run")
            assert queues(veths) == 2
            process.terminate()
            process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0
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


def test_generic_xdp_is_used_when_the_driver_refuses_native(operator: Operator) -> None:
    """A veth refuses a program when its other end has more queues for sending."""
    needs("ethtool")
    with contextlib.closing(Veths(queues=1, far=2)) as veths:
        within = Veths.within(veths.middle)
        config = operator.write(HEAD + port("a"))
        ended = operator.run("run", config, "--for", "0.5", within=within)
        assert ended.code == 0
        assert "va uses generic XDP, which is slower (native XDP: " in ended.errors
        assert "generic XDP, copy, queues 1" in ended.errors
        config = operator.write(HEAD + port("a", attach="native"), "native.toml")
        said = operator.refused(3, "run", config, within=within)
        assert "no program can be attached (native XDP: " in said


def test_the_start_test_of_zero_copy_sends_a_frame(
    veths: Veths, instance: Callable[[], str]
) -> None:
    """It works in copy mode too. Of an interface that is down, no frame is reported as sent."""
    target = veths.wire("a")
    config = PortConfig("wan", "xdp:va", xdp=XdpConfig())
    with entered(veths.middle), PacketMemory.create(instance(), 64) as packets:
        attachment = XdpAttachment(config, packets)
        queue = sockets.ffi.new("struct rl_xdp_queue *")
        sizes = config.rx_descriptors, config.tx_descriptors
        mapped = sockets.rings.SocketRings(attachment.descriptors[0], queue, *sizes)
        try:
            attachment._probe([queue])
            (frame,) = receive(target, lambda frame: frame[12:14] == b"\x88\xb5", 1)
            assert frame[:6] == frame[6:12]
            ip("-n", veths.middle, "link", "set", "va", "down")
            with pytest.raises(TimeoutError, match=r"a frame on queue 0 was not sent within"):
                attachment._probe([queue])
        finally:
            mapped.close()
            attachment.close()


def test_a_port_that_cannot_be_opened_leaves_nothing(
    veths: Veths, instance: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step fails once; then no program is attached, and no descriptor is open."""

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "a test")

    steps = [
        (bpf, "create_socket_map"),
        (bpf, "load_program"),
        (bpf, "attach"),
        (sockets, "_new_socket"),
        (interface, "promiscuous"),
    ]
    config = PortConfig("wan", "xdp:va", xdp=XdpConfig())
    with entered(veths.middle), PacketMemory.create(instance(), 64) as packets:
        before = os.listdir("/proc/self/fd")
        for place, name in steps:
            with monkeypatch.context() as patch:
                patch.setattr(place, name, fail)
                with pytest.raises(EnvironmentLacks, match=r"port\.wan\.device: va.*a test"):
                    XdpAttachment(config, packets)
            assert os.listdir("/proc/self/fd") == before, name
            assert not veths.attached("a")
