"""The key `mtu`: how long buffers are, and what excludes jumbo frames."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from ringline.pipeline.configuration import config as c
from ringline.pipeline.configuration import schema


@pytest.fixture
def problems_of(tmp_path: Path) -> Callable[[str], list[str]]:
    """The mistakes in a configuration with this text."""

    def problems(text: str) -> list[str]:
        file = tmp_path / "edge.toml"
        file.write_text(text)
        return schema.examine(file).problems

    return problems


def port(lines: str) -> str:
    return f'[port.wan]\ndevice = "sim:82599"\n{lines}\n'


@pytest.mark.parametrize(
    ("mtus", "units", "longest"),
    [((1500,), 1, 1518), ((9000,), 5, 9018), ((1500, 9000), 5, 9018), ((4000,), 2, 4018)],
)
def test_the_largest_mtu_decides_how_long_buffers_are(
    mtus: tuple[int, ...], units: int, longest: int
) -> None:
    ports = tuple(c.PortConfig(f"p{n}", "sim:82599", mtu=mtu) for n, mtu in enumerate(mtus))
    found = c.Config(ports=ports, workers=(c.WorkerConfig(),))
    assert (found.buffer_units, found.frame_max) == (units, longest)
    assert found.buffer_bytes == units * c.BUFFER_STRIDE
    plain = c.Config(ports=tuple(c.PortConfig(port.name, port.device) for port in ports))
    assert found.buffers == dataclasses.replace(plain, workers=found.workers).buffers


def test_the_sizes_of_flows_go_up_to_the_mtu(problems_of: Callable[[str], list[str]]) -> None:
    wire = "wire = { flows = { sizes = %s } }"
    assert problems_of(port("mtu = 9000\n" + wire % "[64, 9018, 9022]")) == []
    (problem,) = problems_of(port("mtu = 9000\n" + wire % "9023"))
    assert "integers from 64 to 9022 (bytes with CRC), not 9023" in problem
    (problem,) = problems_of(port(wire % "9018"))
    assert "integers from 64 to 1522 (bytes with CRC), not 9018" in problem


def test_zero_copy_and_jumbo_frames_exclude_each_other(
    problems_of: Callable[[str], list[str]],
) -> None:
    zero_copy = '[port.lan]\ndevice = "xdp:eth9"\nmode = "%s"\n'
    (problem,) = problems_of(port("mtu = 9000") + zero_copy % "zero-copy")
    assert "port.lan.mode: zero-copy needs buffers that lie in one page" in problem
    assert problems_of(port("mtu = 9000") + zero_copy % "copy") == []
