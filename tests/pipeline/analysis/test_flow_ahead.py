"""`flow_stats` counts a packet some packets later (flow_ahead.py), and none is left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ringline.pipeline.bench.analyses import capture, peers
from ringline.pipeline.bench.analyses.flows import Precision, difference
from ringline.workers.plugins import flow_ahead

AHEAD = flow_ahead.AHEAD
MIX = capture.MIXES[1]  # IPv4 and IPv6, TCP and UDP


def test_no_packet_is_left_out(tmp_path: Path) -> None:
    for packets in (1, AHEAD - 1, AHEAD, AHEAD + 1, 5 * AHEAD + 3):
        capture.make(path := tmp_path / "made.pcap", MIX, packets)
        expected, found = peers.dpkt(str(path))(), peers.ringline(str(path))()
        assert difference(expected, found, Precision()) == ""


def test_notes_are_taken_once() -> None:
    notes = np.arange(AHEAD * flow_ahead.WORDS).reshape(AHEAD, flow_ahead.WORDS)
    noted = np.array([3])
    assert flow_ahead.left(notes, noted).tolist() == notes[:3].tolist()
    assert len(flow_ahead.left(notes, noted)) == 0
    noted[0] = 3 * AHEAD
    assert len(flow_ahead.left(notes, noted)) == AHEAD
