"""`ringline rss` tells the truth: a run has the same packets and bytes on each queue."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

DATA = Path(__file__).parents[1] / "data"
TIMEOUT = 120


def ringline(*arguments: str) -> str:
    done = subprocess.run(
        ["ringline", *arguments], capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run(instance: str, capture: Path, queues: int, key: str, folder: Path) -> Any:
    config, report = folder / "edge.toml", folder / "report.json"
    config.write_text(
        f'name = "{instance}"\n'
        "[port.wan]\n"
        'device = "sim:82599"\n'
        f'queues = {queues}\nrss_key = "{key}"\n'
        f'wire = {{ replay = "{capture}" }}\n'
        '[worker]\nplugin = "drop"\n'
        '[metrics]\nlisten = "off"\n'
    )
    ringline("run", str(config), "--report", str(report))
    return json.loads(report.read_text())["ports"]["wan"]["queues"]


@pytest.mark.parametrize("key", ["default", "symmetric"])
@pytest.mark.parametrize("name", ["mixed.pcap", "sections.pcapng"])
def test_a_run_has_the_same_packets_on_each_queue(
    instance: Callable[[], str], tmp_path: Path, name: str, key: str
) -> None:
    told = json.loads(ringline("rss", str(DATA / name), "--queues", "4", "--key", key, "--json"))
    queues = run(instance(), DATA / name, 4, key, tmp_path)
    assert [(each["packets"], each["bytes"]) for each in told["queues"]] == [
        (each["rx_packets"], each["rx_bytes"]) for each in queues
    ]


def test_standard_input_is_a_capture() -> None:
    with (DATA / "mixed.pcap").open("rb") as file:
        done = subprocess.run(
            ["ringline", "rss", "-"],
            stdin=file,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("standard input: 194 packets")
