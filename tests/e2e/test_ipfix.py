"""Flow records of a run, as nfdump collects them, against the counters of the run."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .. import nfdump
from .run_harness import RunHarness, kill_and_wait_for_successor, restarts, wait_until

pytestmark = [pytest.mark.slow, nfdump.needed]

PROOF = os.environ.get("RINGLINE_PROOF") == "1"
START = 240.0  # seconds: a busy machine takes long for the imports of numba alone
SIGNALS = [signal.SIGTERM, signal.SIGINT] if PROOF else [signal.SIGTERM]
KILLS = 2
OF_A_MESSAGE = (1400 - 24) // 48  # records of IPv4
OF_A_BATCH = 64  # packets

CONFIG = """
name = "{name}"
[port.wan]
device = "sim:82599"
queues = 2
wire = {{ flows = {{ count = 500, ip = "mixed" }}, rate_mpps = 0.05 }}
[worker]
plugin = "flow_stats"
options = {{ export = "{url}", idle = 1{more} }}
restart = {{ intensity = 1000, period = 1.0 }}
"""


def begun(start: Callable[..., RunHarness], url: str, more: str = ", active = 1") -> RunHarness:
    run = start(begin=False)
    run._config.write_text(CONFIG.format(name=run.name, url=url, more=more))
    run.start()
    wait_until(lambda: run.status().get("state") == "running" or over(run), "the start", START)
    run.serving()
    return run


def over(run: RunHarness) -> bool:
    assert run.process.poll() is None, run.output
    return False


def named(told: dict[str, Any], name: str) -> int:
    """A value that the plugin named, of all workers."""
    return sum(int(worker["metrics"].get(name, 0)) for worker in told.get("workers", ()))


def packets(told: dict[str, Any]) -> int:
    return sum(int(worker["counters"]["packets"]) for worker in told["workers"])


@pytest.mark.parametrize("end", SIGNALS)
def test_a_collector_has_every_packet_of_a_run(
    start: Callable[..., RunHarness], tmp_path: Path, end: signal.Signals
) -> None:
    with nfdump.Collector(tmp_path / "nfcapd") as collector:
        run = begun(start, collector.url)
        wait_until(lambda: named(run.status(), "flows_exported") > 1500, "the export of flows")
        run.process.send_signal(end)
        _, report = run.ended()
        collector.stop()
    records = collector.flows()
    assert sum(record["in_packets"] for record in records) == packets(report) > 1000
    assert named(report, "flows_exported") == len(records)
    assert named(report, "flows_not_exported") == named(report, "flows_without_place") == 0
    assert named(report, "flows_in_table") == 0
    assert {record["export_sysid"] for record in records} == {1, 2}


def test_a_killed_worker_loses_no_flow_and_repeats_none(
    start: Callable[..., RunHarness], tmp_path: Path
) -> None:
    with nfdump.Collector(tmp_path / "nfcapd") as collector:
        run = begun(start, collector.url, ", active = 60")
        wait_until(run.status, "a status")
        for queue in (0, 1):
            kill_and_wait_for_successor(run, queue)
        _, report = run.end()
        collector.stop(gaps=KILLS)
    records = collector.flows()
    assert restarts(report) == [1] * KILLS
    # The message that a worker was sending when it died counts as lost; it may have arrived.
    lost = named(report, "flows_not_exported")
    assert 0 <= lost <= KILLS * OF_A_MESSAGE
    exported = named(report, "flows_exported")
    assert exported <= len(records) <= exported + lost
    # What was in the hands of a worker that died is counted as received, and not by the plugin.
    found = sum(record["in_packets"] for record in records)
    unknown = lost * max(record["in_packets"] for record in records) + KILLS * OF_A_BATCH
    assert packets(report) - unknown <= found <= packets(report)
    keys = [(it.get("src4_addr") or it["src6_addr"], it["src_port"], it["first"]) for it in records]
    assert len(set(keys)) == len(keys), "a record came twice"


def test_a_run_goes_on_without_its_collector(
    start: Callable[..., RunHarness], tmp_path: Path
) -> None:
    port = nfdump.free_port()
    run = begun(start, f"udp://127.0.0.1:{port}")
    wait_until(lambda: named(run.status(), "flows_not_exported") > 500, "the loss of records")
    assert "the port of the collector is closed" in run.output
    with nfdump.Collector(tmp_path / "nfcapd", port=port) as collector:
        lost = named(run.status(), "flows_not_exported")
        wait_until(lambda: named(run.status(), "flows_exported") > 500, "the export of flows")
        _, report = run.end()
        collector.stop(gaps=2)  # one of each worker: what came before there was a collector
    assert len(collector.flows()) == named(report, "flows_exported")
    assert named(report, "flows_not_exported") >= lost
    assert sum(worker["errors"]["tick"] for worker in report["workers"]) == 0


def test_an_unknown_host_is_one_sentence_at_the_start(start: Callable[..., RunHarness]) -> None:
    run = start(begin=False)
    run._config.write_text(CONFIG.format(name=run.name, url="udp://nobody.invalid", more=""))
    run.start()
    assert run.process.wait(START) == 2
    assert "udp://nobody.invalid': nobody.invalid has no address: " in run.output
    assert "Traceback" not in run.output
