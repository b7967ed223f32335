"""The report: its equations, and its file, which must be writable before a run starts."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringline.pipeline.configuration.dataclass_json import from_json, to_json
from ringline.pipeline.telemetry.report import ReportFile, latency_quantile, lay_out, of_a_run
from ringline.pipeline.telemetry.snapshot import Snapshot
from ringline.pipeline.terminal.table import summary
from ringline.shm.errors import BooksError, EnvironmentLacks, UsageError

from ..idle_instance import Idle, idle_instance

# How a report begins; nothing else in it says what it is.
OLDER = '{\n  "ringline": "0.1.0",\n  "name": "edge",\n  "state": "ended",\n'


@pytest.fixture
def idle(instance: Callable[[], str]) -> Iterator[Idle]:
    with idle_instance(instance(), ports=2) as made:
        yield made


def test_every_drop_has_its_reason_and_the_sums_agree(idle: Idle) -> None:
    idle.count()
    told = lay_out(idle.take())
    for port in told["ports"].values():
        for reason, number in port["drops"].items():
            assert number == sum(queue[f"drop_{reason}"] for queue in port["queues"])
        assert set(port["card_drops"]) == {"no_descriptor", "missed", "oversize", "runt", "crc"}
        numbers = list(port["card_drops"].values())
        assert all(numbers)
        assert len(set(numbers)) == len(numbers), "two reasons share a counter"
    for reason, number in told["drops"].items():
        per_port = [(p["drops"] | p["card_drops"])[reason] for p in told["ports"].values()]
        assert number == sum(per_port)


def test_a_balanced_port_satisfies_its_equation(idle: Idle) -> None:
    block = idle.books.queues[0]
    block.rx_packets, block.transmitted, block.drop_plugin, block.drop_worker_lost = 100, 80, 12, 3
    idle.books.balance.in_flight[0] = 5
    port = lay_out(idle.take())["ports"]["wan"]
    forwarded, lost = port["forwarded"], sum(port["drops"].values())
    assert port["received"]["packets"] == forwarded + lost + port["in_flight"]


def test_balance_has_one_number_per_equation(idle: Idle) -> None:
    assert set(lay_out(idle.take())["balance"]) == {
        *("packets.wan", "packets.lan", "descriptors.wan", "descriptors.lan"),
        *("worker.0", "worker.1", "buffers", "blanks", "scan_missing", "scan_duplicates"),
    }
    assert idle.take().balanced
    balance = idle.books.balance
    balance.packets_residual[1], balance.worker_residual[1] = -3, 4
    balance.scan_missing = 1
    told = lay_out(idle.take())["balance"]
    assert {name: n for name, n in told.items() if n} == {
        "packets.lan": -3,
        "worker.1": 4,
        "scan_missing": 1,
    }
    assert not idle.take().balanced


def test_balances_of_two_moments_are_never_mixed(idle: Idle) -> None:
    balance, stop = idle.books.balance, threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            balance.sequence += 1
            balance.free = number
            time.sleep(0)
            balance.unusable = number
            balance.sequence += 1
            time.sleep(0.0001)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(300):
            held = idle.take().holders()
            assert held["free"] == held["unusable"]
    finally:
        stop.set()
        writer.join()


def test_while_a_balance_is_written_the_last_one_is_read(idle: Idle) -> None:
    balance = idle.books.balance
    balance.sequence, balance.free = 6, 9
    assert idle.take().holders()["free"] == 9
    balance.sequence, balance.free = 7, 3
    assert idle.take().holders()["free"] == 9
    balance.sequence = 8
    assert idle.take().holders()["free"] == 3


def test_buffers_are_counted_by_holder(idle: Idle) -> None:
    balance = idle.books.balance
    balance.free, balance.card_rx[1], balance.card_tx[0], balance.worker[1] = 9, 8, 7, 6
    held = {name: n for name, n in lay_out(idle.take())["buffers"].items() if n}
    assert held == {"free": 9, "card_rx.lan": 8, "card_tx.wan": 7, "worker.1": 6}


def test_the_report_has_the_exit_code_and_its_reason(idle: Idle) -> None:
    well = of_a_run(idle.take(), None, {1: {"flows": 3}})
    assert well["exit"] == {"code": 0, "reason": "all well"}
    assert [worker["report"] for worker in well["workers"]] == [{}, {"flows": 3}]
    assert "ended" in well
    assert "taken" not in well
    idle.sources.workers[0].restarts = 2
    flawed = of_a_run(idle.take(), None, {})
    assert flawed["exit"] == {"code": 0, "reason": "2 restarts"}
    ill = of_a_run(idle.take(), BooksError("off by 3"), {})
    assert ill["exit"] == {"code": 5, "reason": "off by 3"}


def test_setting_the_clock_changes_no_duration(idle: Idle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 0.0)
    told = lay_out(idle.take())
    assert told["taken"].startswith("1970-01-01")
    assert 0 <= told["seconds"] < 3600
    assert "-" not in summary(idle.take()).splitlines()[0].removeprefix(idle.sources.name)


def test_metrics_of_plugins_are_in_the_report(idle: Idle) -> None:
    worker = idle.plugin(0)
    worker.counter("seen").add(7)
    worker.table("top", "flow", ["packets", "bytes"], 3).write([("a > b", [2, 120])])
    worker.histogram("sizes", 3).observe(3)
    told = lay_out(idle.take())["workers"][0]
    assert told["metrics"] == {"seen": 7}
    assert told["histograms"] == {"sizes": {"sum": 3, "buckets": [0, 0, 1]}}
    assert told["tables"] == {"top": [{"flow": "a > b", "packets": 2, "bytes": 120}]}


def test_a_snapshot_travels_as_json(idle: Idle) -> None:
    idle.count()
    idle.plugin(0).histogram("sizes").observe(3)
    idle.plugin(0).table("top", "flow", ["n"], 3).write([("a", [2])])
    snapshot = idle.take()
    assert from_json(Snapshot, json.loads(json.dumps(to_json(snapshot)))) == snapshot


def test_the_report_replaces_an_older_one_as_a_whole(tmp_path: Path) -> None:
    new, old = tmp_path / "new.json", tmp_path / "old.json"
    old.write_text(OLDER + "and much longer" * 100)
    for path in (new, old):
        file = ReportFile(str(path))
        assert old.read_text().startswith(OLDER), "an older report was lost before the new one"
        file.write({"name": "edge"})
        file.close()
        assert json.loads(path.read_text()) == {"name": "edge"}


def test_no_report_leaves_no_file_and_an_older_one_alone(tmp_path: Path) -> None:
    new, old = tmp_path / "new.json", tmp_path / "old.json"
    old.write_text(OLDER)
    for path in (new, old):
        ReportFile(str(path)).close()
    assert not new.exists()
    assert old.read_text() == OLDER


def test_a_report_may_go_to_a_pipe() -> None:
    read, write = os.pipe()
    file = ReportFile(f"/proc/self/fd/{write}")
    file.write({"name": "edge"})
    file.close()
    os.close(write)
    with os.fdopen(read) as pipe:
        assert json.load(pipe) == {"name": "edge"}


def test_an_unwritable_report_is_refused_with_its_path(tmp_path: Path) -> None:
    for path in (tmp_path / "none" / "report.json", tmp_path):
        with pytest.raises(UsageError, match=f"the report cannot be written to {path}: "):
            ReportFile(str(path))


@pytest.mark.parametrize(
    "content",
    [
        'name = "edge"\n',  # as in `run --report edge.toml`
        '{"name": "my-package", "dependencies": {"left-pad": "1"}}',
        '{"ringline": {"version": "0.1.0"}}',
        "{\\rtf1 my thesis}",
        "{",
        " " + OLDER,
    ],
)
def test_what_is_no_report_is_not_replaced(tmp_path: Path, content: str) -> None:
    path = tmp_path / "file"
    path.write_text(content)
    with pytest.raises(UsageError, match="it exists and is not a report of ringline; remove it"):
        ReportFile(str(path))
    assert path.read_text() == content


def test_a_report_is_replaced_by_the_next(idle: Idle, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    for _ in range(2):
        file = ReportFile(str(path))
        file.write(of_a_run(idle.take(), None, {}))
        file.close()
    path.write_text("")
    ReportFile(str(path)).close()  # as mktemp makes it
    path.write_text(json.dumps(lay_out(idle.take())))
    ReportFile(str(path)).close()  # as `status --json` makes it


def test_a_pipe_without_a_reader_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="No such device or address"):
        ReportFile(str(tmp_path / "pipe"))


def test_a_pipe_whose_reader_does_not_read_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ringline.pipeline.telemetry.report.READER_SECONDS", 0.1)
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    file = ReportFile(str(path))
    with pytest.raises(EnvironmentLacks, match="nobody reads it"):
        file.write({"name": "edge" * 100_000})
    file.close()
    os.close(reader)


def test_a_full_disk_does_not_destroy_an_older_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, offset: int, length: int) -> None:
        os.ftruncate(fd, length)  # a file system may have reserved a part
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "old.json"
    path.write_text(OLDER)
    file = ReportFile(str(path))
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(EnvironmentLacks, match="No space left"):
        file.write({"name": "edge" * 100})
    file.close()
    assert path.read_text() == OLDER


def test_a_full_disk_is_told() -> None:
    file = ReportFile("/dev/full")
    with pytest.raises(EnvironmentLacks, match="/dev/full: No space left"):
        file.write({"name": "edge"})
    file.close()


@given(st.lists(st.integers(0, 1000), min_size=32, max_size=32), st.sampled_from([0.5, 0.99, 1.0]))
def test_a_quantile_is_bounded_by_its_bucket(buckets: list[int], quantile: float) -> None:
    found = latency_quantile(tuple(buckets), quantile)
    if sum(buckets) == 0:
        assert found is None
        return
    assert found is not None
    below = sum(n for b, n in enumerate(buckets) if 2**b * 64e-9 <= found)
    before = sum(n for b, n in enumerate(buckets) if 2**b * 64e-9 < found)
    assert below >= quantile * sum(buckets) > before or before == 0
