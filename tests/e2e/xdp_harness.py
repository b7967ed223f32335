"""A run with ports on the interfaces between two hosts, as the tests of its life start it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .operator_harness import HEAD, Operator
from .veth_harness import TIMEOUT, Veths, needs, numbered, port, wait_until

RESTART = "[worker]\nrestart = { intensity = 1000, period = 1.0 }\n"
BOTH = port("a") + "\n" + port("b") + "\n" + RESTART


def status(name: str) -> dict[str, Any]:
    """What `ringline status NAME --json` prints, {} if there is no such instance. One that the
    machine keeps from answering in time is asked again."""
    end = time.monotonic() + TIMEOUT
    while True:
        done = subprocess.run(
            ["ringline", "status", name, "--json"],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        if done.returncode == 0:
            found: dict[str, Any] = json.loads(done.stdout)
            return found
        if "no instance" in done.stderr:
            return {}
        assert "does not answer" in done.stderr, done.stderr
        assert time.monotonic() < end, done.stderr


def is_running(process: subprocess.Popen[str], name: str) -> bool:
    """Whether the instance runs. One that ended instead fails the test with what it said."""
    assert process.poll() is None, process.communicate()
    return status(name).get("state") == "running"


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
def streaming(veths: Veths) -> Iterator[tuple[subprocess.Popen[str], Callable[[], int]]]:
    """iperf3 sends with TCP from host a to host b all the time; gives the client, and a function
    for the number of bytes that have arrived at b."""
    needs("iperf3")
    veths.without_offload()
    server = veths.start("b", "iperf3", "-s", "-1")
    wait_until(lambda: "5201" in veths.host("b", "ss", "-ltn"), "the server")
    client = veths.start("a", "iperf3", "-c", "10.77.0.2", "-t", "3600", "-b", "20M")

    def received() -> int:
        return veths.received("b")

    wait_until(lambda: received() > 200_000, "the connection")
    try:
        yield client, received
    finally:
        for process in (client, server):
            process.kill()
            process.communicate(timeout=TIMEOUT)


@contextlib.contextmanager
def started(
    operator: Operator, veths: Veths, *options: str, text: str = BOTH
) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A run in the middle with the ports of `text`, and the path of its report."""
    report = operator.folder / "report.json"
    config = operator.write(HEAD + text)
    within = Veths.within(veths.middle)
    with operator.started("run", config, "--report", report, *options, within=within) as process:
        wait_until(lambda: is_running(process, operator.name), "the run")
        yield process, report
