"""DPDK's driver for AF_XDP (net_af_xdp) at the other end of a veth pair exchanges frames with us.

DPDK's own program, dpdk-testpmd, takes the interface of host a and sends every frame back with its
addresses exchanged. Neither its rings nor its packet memory have any code of ringline.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .operator_harness import Operator
from .veth_harness import TIMEOUT, Veths, is_numbered, needs, numbered, receive, wait_until
from .xdp_harness import started

FRAMES = 100_000 if os.environ.get("RINGLINE_PROOF") == "1" else 20_000
CHUNK = 200  # frames: a veth has room for 256 while nobody takes them


class Peer:
    """dpdk-testpmd on host a. `finish` ends it and gives its numbers of packets, RX and TX."""

    def __init__(self, veths: Veths, folder: Path) -> None:
        cpus = ",".join(map(str, sorted(os.sched_getaffinity(0))))
        command = [*Veths.within(veths.hosts["a"]), "dpdk-testpmd", "--no-pci", "--no-huge"]
        command += ["-m", "128", "--no-shconf", "--no-telemetry", "--lcores", f"(0,1)@({cpus})"]
        command += ["--vdev", "net_af_xdp0,iface=eth0", "--", "--interactive", "--auto-start"]
        command += ["--forward-mode=macswap", "--total-num-mbufs=8192", "--no-lsc-interrupt"]
        self._path = folder / "testpmd"
        with self._path.open("w") as out:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=out, stderr=out, text=True
            )

    @property
    def said(self) -> str:
        return self._path.read_text(errors="replace")

    def finish(self) -> tuple[int, int]:
        self._process.communicate("stop\nquit\n", timeout=TIMEOUT)
        found = re.search(r"RX-packets: (\d+).*?TX-packets: (\d+)", self.said, re.DOTALL)
        assert found is not None, self.said
        return int(found[1]), int(found[2])

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def peer(veths: Veths, tmp_path: Path) -> Iterator[Callable[[], Peer]]:
    needs("dpdk-testpmd")
    if not list(Path("/usr/lib").glob("*/dpdk/pmds-*/librte_net_af_xdp.so*")):
        pytest.skip("the driver net_af_xdp of DPDK is missing")
    with contextlib.ExitStack() as stack:

        def start() -> Peer:
            made = Peer(veths, tmp_path)
            stack.callback(made.close)
            return made

        yield start


@pytest.mark.timeout(600)
def test_frames_go_to_dpdk_and_back(
    operator: Operator, veths: Veths, peer: Callable[[], Peer]
) -> None:
    veths.silence()
    wire = veths.wire("b")
    with started(operator, veths) as (process, report):
        other = peer()

        def swapped(frame: bytes) -> bool:
            return is_numbered(frame[6:12] + frame[:6] + frame[12:])

        def answers() -> bool:
            wire.send(next(numbered([0], flow=1)))
            return bool(receive(wire, swapped, 1, 0.2))  # a frame before its start has none

        wait_until(answers, "the first answer of dpdk-testpmd")
        receive(wire, swapped, FRAMES)  # late answers to other attempts
        for begin in range(0, FRAMES, CHUNK):
            sent = list(numbered(range(begin, begin + CHUNK)))
            for frame in sent:
                wire.send(frame)
            came = receive(wire, swapped, CHUNK, TIMEOUT)
            assert [frame[6:12] + frame[:6] + frame[12:] for frame in came] == sent
        received, sent_back = other.finish()
        process.terminate()
        process.communicate(timeout=TIMEOUT)
    found = json.loads(report.read_text())
    assert not any(found["balance"].values()), found["balance"]
    # What host a got before the start of dpdk-testpmd, nobody answered.
    assert found["ports"]["a"]["transmitted"]["packets"] >= received > FRAMES
    assert found["ports"]["a"]["received"]["packets"] == sent_back == received
