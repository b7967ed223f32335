"""Malformed frames through the plugin `router`: it reads only what is in the frame, and does
what a model of the RFCs does, and what the kernel of this machine does."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from ringline.workers.packets import DROP
from ringline.workers.testing import ERROR, Frame, Run, run_plugin

from ..e2e.operator_harness import Operator
from ..e2e.run_harness import SEED
from ..e2e.veth_harness import TIMEOUT, Veths, entered, ip, needs, port, receive
from ..e2e.xdp_harness import started
from .malformed import HOST, ICMPV6, LAN, TARGET, WAN, forwarded, frames
from .test_router import ADDRESSES, KNOWN, KNOWN6, PORTS, ROUTER

pytestmark = pytest.mark.timeout(900)  # the first test compiles the plugin
PROOF = os.environ.get("RINGLINE_PROOF") == "1"
COUNT = 50_000 if PROOF else 1000
ON_WIRE = 5000 if PROOF else 500
IP = (b"\x08\0", b"\x86\xdd")


def routed(given: Sequence[bytes], beside: int, debug: bool) -> Run:
    """Each frame lies in a buffer that is full of the byte `beside`."""
    before = Frame(WAN[:5] + b"\x77" + bytes([beside]) * 1508, 0)
    sent = [frame for each in given for frame in (before, Frame(each, 0))]
    heard = [Frame(each.data, each.port) for each in (KNOWN, KNOWN6)]
    options = {"addresses": ADDRESSES, "icmp_rate": 1_000_000}
    return run_plugin(ROUTER, [*heard, *sent], ports=PORTS, options=options, batch=1, debug=debug)


def test_malformed_frames_are_judged_by_their_own_bytes_as_the_rfcs_say() -> None:
    """The same whatever lies behind the frame in its buffer; each has one fate in the books."""
    given = list(frames(SEED, COUNT))
    run = routed(given, 0x00, PROOF)
    results = list(run)[3::2]
    other = list(routed(given, 0xFF, PROOF))[3::2]
    crossed = 0
    for number, (each, first, second) in enumerate(zip(given, results, other, strict=True)):
        why = (SEED, number, each.hex(), first)
        assert first.verdict != ERROR, why
        assert first.error is None, why
        assert first == second, (why, second)
        wanted = forwarded(each)
        # Else it is a request for the address of a host that the frame names by accident.
        passed = first.verdict == 1 and first.frame[:6] in (HOST, TARGET)
        assert passed == (wanted is not None), why
        if wanted is not None:
            crossed += 1
            assert first.frame[: len(wanted)] == wanted, (why, wanted.hex())
            assert len(first.frame) == len(wanted) or len(each) <= 64, why
    assert crossed > COUNT // 20
    sent = run.counters["forwarded"]
    assert sent + run.counters["dropped"] == run.counters["packets"] == len(run)
    assert sum(run.drops.values()) == run.counters["dropped"]
    assert not any(each.verdict == DROP for each in results)


@pytest.fixture
def operator(tmp_path: Path, instance: Callable[[], str]) -> Operator:
    return Operator(tmp_path, instance)


@pytest.fixture
def veths() -> Iterator[Veths]:
    needs()
    with contextlib.closing(Veths()) as made:
        yield made


def crossing(given: Sequence[bytes], wires: Sequence[socket.socket]) -> list[bytes]:
    """What arrives of these frames, which `forwarded` lets through or does not."""
    source, target = wires
    wanted = [out for each in given if (out := forwarded(each)) is not None]
    for each in given:
        source.send(each)
    return receive(
        target, lambda frame: frame[:6] in (HOST, TARGET) and frame[12:14] in IP, len(wanted) + 1
    )


def settings(veths: Veths) -> None:
    """The middle is a router of the kernel, with the addresses of ours."""
    middle = veths.middle
    for name, mac, four, six in (
        ("va", WAN, "192.0.2.1/24", "2001:db8:1::1/64"),
        ("vb", LAN, "198.51.100.1/24", "2001:db8:2::1/64"),
    ):
        with entered(middle):
            Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("0")
            for setting in (f"ipv4/conf/{name}/rp_filter", "ipv4/conf/all/rp_filter"):
                Path("/proc/sys/net", setting).write_text("0")
        ip("-n", middle, "link", "set", name, "address", mac.hex(":"))
        ip("-n", middle, "addr", "add", four, "dev", name)
        ip("-n", middle, "addr", "add", six, "dev", name, "nodad")
    for address, mac in (("198.51.100.9", TARGET), ("2001:db8:2::9", HOST)):
        ip("-n", middle, "neigh", "add", address, "lladdr", mac.hex(":"), "dev", "vb")
    with entered(middle):
        for setting in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            Path("/proc/sys/net", setting).write_text("1")


def test_the_kernel_forwards_the_same_frames(veths: Veths, operator: Operator) -> None:
    """First the kernel has the interfaces, then a run with the router has them."""
    veths.silence()
    settings(veths)
    given = [each for each in frames(SEED, ON_WIRE) if len(each) >= 34]
    wanted = [out for each in given if (out := forwarded(each)) is not None]
    wires = [veths.wire(side) for side in "ab"]
    assert cut(crossing(given, wires), wanted) == wanted, SEED
    text = [port("a"), port("b"), "[worker]", 'plugin = "router"', "[worker.options]"]
    names = {"a": ADDRESSES["wan"], "b": ADDRESSES["lan"]}
    text += ["icmp_rate = 0", "[worker.options.addresses]"]
    text += [f"{side} = {json.dumps(each)}" for side, each in names.items()]
    with started(operator, veths, text="\n".join(text)) as (process, report):
        for each in (KNOWN, KNOWN6):
            wires[1].send(each.data)
        answer = receive(
            wires[1], lambda frame: frame[20] == ICMPV6 and frame[6:12] == LAN, 1, 20.0
        )
        assert answer, SEED
        assert cut(crossing(given, wires), wanted) == wanted, SEED
        process.terminate()
        process.communicate(timeout=TIMEOUT)
    assert not any(json.loads(report.read_text())["balance"].values()), SEED


def cut(found: Sequence[bytes], wanted: Sequence[bytes]) -> list[bytes]:
    """The frames without what pads them behind their packet."""
    kept = [each[: len(out)] for each, out in zip(found, wanted, strict=False)]
    return kept + list(found[len(wanted) :])
