"""`bench plugin`: the frames for `switch` and `router` are forwarded, so that is measured."""

from __future__ import annotations

import pytest

from ringline.pipeline.bench.measurements import plugin
from ringline.workers.testing import Frame, run_plugin

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # compiles the plugins
OTHER = [1 - host % 2 for host in range(plugin.HOSTS)]  # the port at which the target is


def from_ports(frames: list[bytes]) -> list[Frame]:
    assert {len(each) for each in frames} == {plugin.FRAME}
    return [Frame(each, number % 2) for number, each in enumerate(frames)]


def test_the_switch_knows_the_target_of_every_frame() -> None:
    learnt, frames = plugin.switched(learning=True), plugin.switched()
    run = run_plugin("switch", from_ports(learnt + frames), ports=2)
    assert [each.verdict for each in run][len(learnt) :] == OTHER
    assert run.named["flooded"] == len(learnt)


def test_the_router_forwards_every_frame() -> None:
    learnt, frames = plugin.arp(), plugin.routed()
    run = run_plugin(
        "router", from_ports(learnt + frames), ports=plugin.PORTS, options=plugin.ROUTER
    )
    forwarded = [*run][len(learnt) :]
    assert [each.verdict for each in forwarded] == OTHER
    assert [each.frame[:6] for each in forwarded] == [
        plugin._mac(host ^ 1) for host in range(plugin.HOSTS)
    ]
