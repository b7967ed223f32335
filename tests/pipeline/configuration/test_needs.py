"""The buffers and the blanks that a configuration needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ringline.pipeline.configuration import schema


@pytest.mark.parametrize(("device", "posted"), [("xdp:v0", 64), ("packet:v0", 0), ("tap:v0", 0)])
def test_buffers_are_counted_where_they_are_posted(device: str, posted: int) -> None:
    """A port on packet sockets, or on a TAP, posts no buffers for receiving."""
    text = {"wan": {"device": device, "rx_descriptors": 64, "tx_descriptors": 128}}
    needed = schema.read({"port": text}, Path("/nowhere"), []).needed_buffers()
    assert [number for what, number in needed if "RX" in what] == ([posted] if posted else [])
    assert [number for what, number in needed if "TX" in what] == [128]


@pytest.mark.parametrize(
    ("plugin", "ports", "more", "blanks"),
    [
        ("switch", 2, {}, 0),
        ("switch", 3, {}, 256),
        ("switch", 4, {}, 512),
        ("switch", 16, {}, 512),
        ("switch", 3, {"blanks": 0}, 0),
        ("router", 2, {}, 64),
        ("router", 2, {"blanks": 8}, 8),
        ("forward", 3, {}, 0),
    ],
)
def test_plugins_that_create_packets_have_blanks(
    plugin: str, ports: int, more: dict[str, Any], blanks: int
) -> None:
    """For each port above two, a switch has four batches of 64. A configuration may say more."""
    devices = {f"p{number}": {"device": "sim:82599"} for number in range(ports)}
    values = {"port": devices, "worker": {"plugin": plugin, **more}}
    found = schema.read(values, Path("/nowhere"), [])
    assert found.worker(0).blanks == blanks
    values = {"port": devices, "worker": {"0": {"plugin": plugin, **more}}}
    found = schema.read(values, Path("/nowhere"), [])
    assert found.worker(0).blanks == blanks, "in a table of its own"
