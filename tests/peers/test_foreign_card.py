"""Any device model can replace a card: the real command drives a model that shares no code with
ringline, in a process of its own, and the model checks that every frame came back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PROOF = os.environ.get("RINGLINE_PROOF") == "1"
SECONDS = 300 if PROOF else 60

Carry = Callable[..., tuple[dict[str, Any], dict[str, Any]]]


@pytest.fixture
def carry(make_card: Callable[..., Any], tmp_path: Path) -> Carry:
    """Run ringline on a card: carry(frames, queues, plugin) -> (counts of the card, report)."""

    def carry(
        frames: int, queues: int, plugin: str = "forward", more: str = ""
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        card = make_card(frames, SECONDS, swap=plugin == "mac_swap")
        report = tmp_path / "report.json"
        config = tmp_path / "config.toml"
        config.write_text(
            f'name = "{card.instance}"\n'
            f'[port.wan]\ndevice = "pci:{card.address}"\nqueues = {queues}\ndma = "offset"\n{more}'
            f'[worker]\nplugin = "{plugin}"\n'
            f'[metrics]\nlisten = "off"\n'
        )
        with subprocess.Popen(
            ["ringline", "run", str(config), "--report", str(report)],
            env={**os.environ, "RINGLINE_SYSFS": str(card.sysfs)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as ringline:
            try:
                counts = card.counts(SECONDS + 10, ringline)
                ringline.send_signal(signal.SIGINT)
                output, _ = ringline.communicate(timeout=60)
            finally:
                ringline.kill()
        assert ringline.returncode == 0, f"exit code {ringline.returncode}, card {counts}\n{output}"
        return counts, json.loads(report.read_text())

    return carry


def all_well(counts: dict[str, Any], report: dict[str, Any], frames: int, queues: int) -> None:
    """The card counted every frame, and the report of ringline has the same numbers."""
    assert counts["fault"] is None
    assert counts["complete"], counts
    assert counts["sent"] == counts["returned"] == frames
    assert counts["damaged"] == counts["duplicates"] == counts["out_of_order"] == 0
    assert sum(counts["received"]) == sum(counts["transmitted"]) == frames
    port = report["ports"]["wan"]
    assert not any(report["balance"].values()), report["balance"]
    assert port["received"]["packets"] == port["transmitted"]["packets"] == frames
    assert port["forwarded"] == frames
    assert [queue["rx_packets"] for queue in port["queues"]] == counts["received"]
    assert len(counts["received"]) == queues
    assert min(counts["received"]) > frames / queues / 4, "the queues are loaded unevenly"
    assert all(number == 0 for holder, number in report["buffers"].items() if holder != "free")


@pytest.mark.parametrize("queues", [1, 3])
def test_a_foreign_card_forwards_every_frame(carry: Carry, queues: int) -> None:
    frames = 50_000
    all_well(*carry(frames, queues), frames, queues)


def test_frames_return_with_addresses_swapped(carry: Carry) -> None:
    frames = 20_000
    all_well(*carry(frames, 2, "mac_swap"), frames, 2)


def test_without_promiscuous_mode_frames_pass(carry: Carry) -> None:
    """They pass only because their destination is the address in the EEPROM."""
    frames = 20_000
    all_well(*carry(frames, 2, more="promiscuous = false\n"), frames, 2)


@pytest.mark.skipif(not PROOF, reason="a million frames: needs RINGLINE_PROOF=1")
@pytest.mark.parametrize("queues", [1, 2, 4])
def test_a_million_frames(carry: Carry, queues: int) -> None:
    frames = 1_000_000
    all_well(*carry(frames, queues), frames, queues)
