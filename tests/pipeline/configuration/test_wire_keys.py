"""The keys of a wire that replays a capture: pace, speed, cut."""

from __future__ import annotations

from pathlib import Path

import pytest

from ringline.pipeline.configuration import schema
from ringline.pipeline.configuration.config import WireConfig
from ringline.pipeline.configuration.machine_checks import remarks_here
from ringline.shm.errors import ConfigurationError

DATA = Path(__file__).parents[2] / "data"
MIXED = (DATA / "mixed.pcap").read_bytes()


@pytest.fixture
def edge(tmp_path: Path) -> Path:
    """A configuration file to be written, beside a capture."""
    (tmp_path / "in.pcap").write_bytes(MIXED)
    return tmp_path / "edge.toml"


def write(edge: Path, wire: str) -> None:
    edge.write_text(f'[port.wan]\ndevice = "sim:82599"\nwire = {{ {wire} }}\n')


def test_a_paced_replay_is_read(edge: Path) -> None:
    write(edge, 'replay = "in.pcap", repeat = 3, pace = "captured", speed = 2, cut = "play"')
    [port] = schema.load(edge).ports
    capture = str(edge.parent / "in.pcap")
    assert port.wire == WireConfig(capture, repeat=3, pace="captured", speed=2.0, cut="play")
    write(edge, 'replay = "in.pcap"')
    [port] = schema.load(edge).ports
    assert port.wire == WireConfig(capture, pace="rate", speed=1.0, cut="refuse")


@pytest.mark.parametrize(
    ("wire", "key", "told"),
    [
        ('pace = "captured"', "pace", "has no effect without replay; add replay or remove pace"),
        ('cut = "play"', "cut", "has no effect without replay; add replay or remove cut"),
        (
            'replay = "in.pcap", pace = 1',
            "pace",
            "must be one of rate, captured, not an integer (1)",
        ),
        ('replay = "in.pcap", pace = "capture"', "pace", 'must be one of rate, captured, not "cap'),
        ('replay = "in.pcap", cut = "off"', "cut", 'must be one of refuse, play, not "off"'),
        ('replay = "in.pcap", speed = 2', "speed", 'has no effect without pace = "captured"; add'),
        (
            'replay = "in.pcap", pace = "captured", speed = 0',
            "speed",
            "must be a number from 0.001 to 1000000, not 0",
        ),
        (
            'replay = "in.pcap", pace = "captured", rate_mpps = 1',
            "rate_mpps",
            'has no effect with pace = "captured"; remove one of them',
        ),
    ],
)
def test_a_mistake_has_its_place_and_its_remedy(edge: Path, wire: str, key: str, told: str) -> None:
    write(edge, wire)
    with pytest.raises(ConfigurationError) as raised:
        schema.load(edge)
    [problem] = raised.value.problems
    assert problem.startswith(f"{edge}: port.wan.wire.{key}: {told}")


def test_a_cut_and_a_clock_are_told_before_the_run(edge: Path) -> None:
    (edge.parent / "in.pcap").write_bytes(MIXED[:5000])
    write(edge, 'replay = "in.pcap"')
    with pytest.raises(ConfigurationError, match=r'copy it again, or .* cut = "play"'):
        schema.load(edge)
    write(edge, 'replay = "in.pcap", cut = "play"')
    [remark] = remarks_here(schema.load(edge))
    assert "the file is cut short, and the 15 before it are used" in remark
    (edge.parent / "in.pcap").write_bytes(MIXED + MIXED[24:])
    write(edge, 'replay = "in.pcap"')
    assert remarks_here(schema.load(edge)) == []
    write(edge, 'replay = "in.pcap", pace = "captured"')
    [remark] = remarks_here(schema.load(edge))
    assert "the clock of the capture steps back: 1 of 388 frames" in remark
