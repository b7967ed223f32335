"""The scrape configuration: accepted by promtool, and a real Prometheus scrapes a run with it."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"
CONFIG = DEPLOY / "prometheus.yml"
ALERTS = DEPLOY / "ringline-alerts.yml"
CASES = Path(__file__).parent / "alerts_test.yml"
TARGET = "127.0.0.1:9464"
TIMEOUT = 60.0  # seconds


def tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"needs {name}, from the Debian package prometheus")
    return path


def free_port() -> int:
    with socket.socket() as end:
        end.bind(("127.0.0.1", 0))
        port: int = end.getsockname()[1]
        return port


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5.0) as answer:
        text: str = answer.read().decode()
        return text


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + TIMEOUT
    while True:
        try:
            found = condition()
        except OSError:
            found = None
        if found:
            return found
        assert time.monotonic() < end, f"no {what} within {TIMEOUT:g} s"
        time.sleep(0.1)


@pytest.fixture
def run(tmp_path: Path, instance: Callable[[], str]) -> Iterator[str]:
    """A run under light traffic; yields the address of its metrics."""
    name, port = instance(), free_port()
    config = tmp_path / f"{name}.toml"
    config.write_text(
        f'name = "{name}"\n[port.wan]\ndevice = "sim:82599"\nqueues = 2\n'
        "wire = { flows = { count = 64 }, rate_mpps = 0.05 }\n"
        f'[metrics]\nlisten = "127.0.0.1:{port}"\n'
    )
    process = subprocess.Popen(
        ["ringline", "run", str(config)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: fetch(f"http://127.0.0.1:{port}/metrics"), "answer of the run")
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        assert process.wait(TIMEOUT) == 0


@pytest.fixture
def prometheus(tmp_path: Path, run: str) -> Iterator[str]:
    """A Prometheus with the shipped configuration that scrapes `run`; yields its address."""
    config = tmp_path / "prometheus.yml"
    shutil.copy(ALERTS, tmp_path)
    text = CONFIG.read_text()
    assert text.count(TARGET) == 1
    # Scrape twice a second, so that the test need not wait five seconds.
    config.write_text(text.replace(TARGET, run).replace("5s", "500ms"))
    address = f"127.0.0.1:{free_port()}"
    with (tmp_path / "prometheus.log").open("w") as log:
        process = subprocess.Popen(
            [
                tool("prometheus"),
                f"--config.file={config}",
                f"--storage.tsdb.path={tmp_path / 'data'}",
                f"--web.listen-address={address}",
                "--log.level=warn",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        wait_until(lambda: fetch(f"http://{address}/-/ready"), "Prometheus that is ready")
        yield address
    finally:
        process.terminate()
        process.wait(TIMEOUT)


def query(address: str, expression: str) -> list[Any]:
    text = fetch(f"http://{address}/api/v1/query?" + urllib.parse.urlencode({"query": expression}))
    answer = json.loads(text)
    assert answer["status"] == "success", answer
    result: list[Any] = answer["data"]["result"]
    return result


def test_promtool_accepts_the_configuration() -> None:
    result = subprocess.run(
        [tool("promtool"), "check", "config", str(CONFIG)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_each_alert_fires_when_it_should(tmp_path: Path) -> None:
    cases = tmp_path / "cases.yml"
    cases.write_text(CASES.read_text().replace("RULES", str(ALERTS)))
    names = re.findall(r"alert: (\w+)", ALERTS.read_text())
    assert set(re.findall(r"alertname: (\w+)", CASES.read_text())) == set(names)
    for command in (["check", "rules", str(ALERTS)], ["test", "rules", str(cases)]):
        result = subprocess.run(
            [tool("promtool"), *command],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
def test_the_alerts_use_metrics_that_a_run_has(run: str) -> None:
    used = set(re.findall(r"\bringline_\w+", ALERTS.read_text()))
    there = set(re.findall(r"^(ringline_\w+)\{?", fetch(f"http://{run}/metrics"), re.MULTILINE))
    assert used - there == set()


@pytest.mark.slow
def test_promtool_accepts_the_metrics(run: str) -> None:
    result = subprocess.run(
        [tool("promtool"), "check", "metrics"],
        input=fetch(f"http://{run}/metrics"),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


@pytest.mark.slow
def test_a_prometheus_scrapes_a_run_and_answers(prometheus: str) -> None:
    def up() -> bool:
        series = query(prometheus, 'up{job="ringline"}')
        return [point["value"][1] for point in series] == ["1"]

    wait_until(up, "successful scrape")
    rate = "sum(rate(ringline_port_received_packets_total[30s])) > 0"
    wait_until(lambda: query(prometheus, rate), "rate of packets")
    received = query(prometheus, "ringline_port_received_packets_total")
    assert {point["metric"]["port"] for point in received} == {"wan"}
    assert sorted(point["metric"]["worker"] for point in received) == ["0", "1"]
    workers = query(prometheus, "ringline_worker_up == 1")
    assert sorted(point["metric"]["worker"] for point in workers) == ["0", "1"]
