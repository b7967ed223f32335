"""The metrics endpoint: Prometheus accepts it and its sums equal the report's.

Nothing that a worker writes or a client sends can break it.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import socket
import string
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families

from ringline.pipeline.configuration.config import MetricsConfig
from ringline.pipeline.supervisor.worker_states import Phase
from ringline.pipeline.telemetry import metrics, metrics_http, metrics_workers
from ringline.pipeline.telemetry.metrics_http import MetricsServer
from ringline.pipeline.telemetry.report import lay_out
from ringline.shm import counters
from ringline.shm._shm import ffi
from ringline.shm.errors import EnvironmentLacks
from ringline.shm.version import version
from ringline.workers import tables

from ..idle_instance import Idle, exposition, idle_instance, served

Parse = Callable[[str], Iterable[Metric]]
PARSE: Parse = text_string_to_metric_families
PARSE_OPENMETRICS: Parse = parse_openmetrics
ANY_FREE = MetricsConfig("127.0.0.1", 0)


@pytest.fixture
def idle(instance: Callable[[], str]) -> Iterator[Idle]:
    with idle_instance(instance(), ports=2) as made:
        yield made


@pytest.fixture
def url(idle: Idle) -> Iterator[str]:
    listener = metrics_http.listen(ANY_FREE)
    assert listener is not None
    server = MetricsServer(listener, idle.take)
    with served(server):
        yield server.url


def fetch(url: str, **fields: str) -> tuple[int, str, str]:
    """Return (status, content type, body) of a GET."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=fields), timeout=10) as got:
            return got.status, got.headers["Content-Type"], got.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Content-Type"], error.read().decode()


def families(text: str) -> dict[str, Metric]:
    """Parse an exposition; no family and no sample may be there twice."""
    found: dict[str, Metric] = {}
    for family in PARSE(text):
        assert family.name not in found, f"family {family.name} is there twice"
        found[family.name] = family
        seen = [(sample.name, tuple(sorted(sample.labels.items()))) for sample in family.samples]
        assert len(set(seen)) == len(seen), f"a sample of {family.name} is there twice"
    return found


def total(family: Metric, **labels: str) -> float:
    """Return the sum of all samples with these labels."""
    return sum(
        sample.value
        for sample in family.samples
        if all(sample.labels[name] == value for name, value in labels.items())
    )


def fill(idle: Idle) -> None:
    """Create one metric of each kind that a plugin can have."""
    worker = idle.plugin(1)
    worker.counter("seen").add(7)
    worker.counter("by_protocol", label="protocol", values=("tcp", 'ü "x"')).array[:] = (4, 5)
    worker.gauge("level").set(3)
    worker.gauge("share").set(-0.25)
    worker.gauge("hopeless").set(math.nan)
    worker.gauge("endless").set(-math.inf)
    worker.drop_reason("acl")
    histogram = worker.histogram("sizes", 8)
    for value in (0, 1, 5, 5, 1 << 40):
        histogram.observe(value)
    worker.table("top", "flow", ["packets", "bytes"], 4).write(
        [("10.0.0.1 > 10.0.0.2", [2, 120]), ('ü\n"\\', [1, 1 << 63])]
    )


def test_prometheus_parsers_accept_the_endpoint(idle: Idle, url: str) -> None:
    idle.count()
    fill(idle)
    status, kind, body = fetch(url)
    assert status == 200
    assert kind.startswith("text/plain")
    assert len(families(body)) > 50
    status, kind, body = fetch(url, Accept="application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert len(list(PARSE_OPENMETRICS(body))) > 50


def test_the_speed_of_a_link_is_in_bytes_per_second(idle: Idle) -> None:
    idle.sources.ports[0].link_up, idle.sources.ports[0].link_mbps = True, 10_000
    speed = families(exposition(idle))["ringline_link_speed_bytes_per_second"]
    assert [sample.value for sample in speed.samples] == [1.25e9, 0.0], "10 Gbit/s, and no link"


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is missing")
def test_promtool_accepts_the_metrics(idle: Idle) -> None:
    idle.count()
    fill(idle)
    checked = subprocess.run(
        ["promtool", "check", "metrics"],
        input=exposition(idle),
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_sums_equal_those_of_the_report(idle: Idle) -> None:
    idle.count()
    found, told = families(exposition(idle)), lay_out(idle.take())
    for name, port in told["ports"].items():
        got = {
            "received_packets": port["received"]["packets"],
            "received_bytes": port["received"]["bytes"],
            "sent_packets": port["transmitted"]["packets"],
            "sent_bytes": port["transmitted"]["bytes"],
            "forwarded_packets": port["forwarded"],
        }
        for metric, number in got.items():
            assert total(found[f"ringline_port_{metric}"], port=name) == number, metric
        for reason, number in (port["drops"] | port["card_drops"]).items():
            drops = found["ringline_port_dropped_packets"]
            assert total(drops, port=name, reason=reason) == number, reason
    for reason, number in told["drops"].items():
        assert total(found["ringline_port_dropped_packets"], reason=reason) == number
    assert total(found["ringline_buffers"]) == sum(told["buffers"].values())
    for worker in told["workers"]:
        queue = str(worker["queue"])
        for reason, number in worker["errors"].items():
            assert total(found["ringline_worker_errors"], worker=queue, reason=reason) == number
        for cause, number in worker["bad_references"].items():
            refused = total(found["ringline_worker_bad_references"], worker=queue, cause=cause)
            assert refused == number
        packets = total(found["ringline_worker_packets"], worker=queue)
        assert packets == worker["counters"]["packets"]


def test_every_counter_of_the_packet_path_is_exported_and_described() -> None:
    for struct, names in (
        ("struct rl_queue_counters", metrics.QUEUE),
        ("struct rl_worker_counters", metrics_workers.WORKER),
        ("struct rl_slot_counters", metrics_workers.SLOT),
        ("struct rl_lane_counters", metrics.LANE),
    ):
        fields = {
            name.removesuffix("_ticks") + "_seconds" if name.endswith("_ticks") else name
            for name in counters.field_names(struct)
            if not name.startswith("drop_") and name not in ("heartbeat", "latency")
        }
        assert fields == set(names), struct


def test_a_counter_without_description_is_exported_too() -> None:
    (family,) = metrics.counters("port", {}, ["port"], [(["wan"], {"new_field": 5})])
    assert family.name == "ringline_port_new_field"
    assert family.samples[0].value == 5


def test_latency_buckets_are_cumulative_and_end_at_infinity(idle: Idle) -> None:
    for bucket in (0, 3, 24, 31):
        idle.books.slots[0].latency[bucket] = bucket + 1
    family = families(exposition(idle))["ringline_worker_latency_seconds"]
    buckets = [
        (float(sample.labels["le"]), sample.value)
        for sample in family.samples
        if sample.name.endswith("_bucket") and sample.labels["worker"] == "0"
    ]
    assert buckets == sorted(buckets)
    assert dict(buckets)[64e-9] == 1
    assert dict(buckets)[64e-9 * 8] == 1 + 4
    assert dict(buckets)[64e-9 * 2**24] == 1 + 4 + 25
    assert dict(buckets)[float("inf")] == 1 + 4 + 25 + 32


def test_metrics_of_plugins_are_exported_with_their_names(idle: Idle) -> None:
    fill(idle)
    found = families(exposition(idle))
    plugin = idle.take().workers[1].plugin
    mine = {"plugin": plugin, "worker": "1"}
    assert total(found["ringline_plugin_events"], name="seen", **mine) == 7
    assert total(found["ringline_plugin_value"], name="level", **mine) == 3
    assert total(found["ringline_plugin_value"], name="share", **mine) == -0.25
    assert total(found["ringline_plugin_value"], name="endless", **mine) == -math.inf
    assert math.isnan(total(found["ringline_plugin_value"], name="hopeless", **mine))
    events = found["ringline_plugin_events"]
    assert total(events, name="by_protocol", label="protocol", value="tcp", **mine) == 4
    assert total(events, name="by_protocol", label="protocol", value='ü "x"', **mine) == 5
    assert total(events, name="seen", label="", value="", **mine) == 7
    told = lay_out(idle.take())["workers"][1]["metrics"]
    assert told == {
        "seen": 7,
        "by_protocol": {"tcp": 4, 'ü "x"': 5},
        "level": 3,
        "share": -0.25,
        "hopeless": "nan",
        "endless": "-inf",
    }
    top = found["ringline_plugin_table"]
    assert total(top, name="top", row="10.0.0.1 > 10.0.0.2", column="bytes", **mine) == 120
    buckets = {
        sample.labels["le"]: sample.value
        for sample in found["ringline_plugin_distribution"].samples
        if sample.name.endswith("_bucket")
    }
    assert (buckets["0.0"], buckets["1.0"], buckets["7.0"], buckets["+Inf"]) == (1, 2, 4, 5)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.data())
def test_hostile_slots_cannot_break_the_endpoint(hostile: Idle, data: st.DataObject) -> None:
    """A slot's directory and area, the rings and the counters have any bytes."""
    slot = hostile.instance.slots[0]
    memory = slot.segment.memory[4096:]
    area = ffi.offsetof("struct rl_slot_segment", "area") - 4096
    entry = ffi.sizeof("struct rl_slot_entry")
    for index in range(data.draw(st.integers(0, 6))):
        written = ffi.new("struct rl_slot_entry *")
        written.name = data.draw(
            st.one_of(st.binary(max_size=47), st.sampled_from([b"a", b"b"]), st.just(b"n" * 47))
        )
        written.type = data.draw(
            st.one_of(
                st.binary(max_size=55), st.sampled_from([b"flow n", b"a b b", b"x x", b"log2"])
            )
        )
        written.kind = data.draw(st.one_of(st.integers(0, 9), st.just(5), st.just(7)))
        written.columns = data.draw(
            st.one_of(st.integers(0, 70), st.sampled_from([9, 1 << 31, (1 << 32) - 1]))
        )
        written.offset = 4096 + area + 8 * data.draw(st.integers(0, 64))
        written.bytes = data.draw(
            st.one_of(st.integers(0, 1 << 21), st.integers(0, 300).map(lambda n: n * 72))
        )
        at = ffi.offsetof("struct rl_slot_segment", "entries") - 4096 + index * entry
        memory[at : at + entry] = bytes(ffi.buffer(written))
    scribble = data.draw(st.binary(max_size=600))
    memory[area : area + len(scribble)] = scribble
    counted = data.draw(st.binary(min_size=112, max_size=112))
    memory[: len(counted)] = counted
    rings = hostile.sources.workers[0].rings
    assert rings is not None
    rings.in_.producer = data.draw(st.integers(0, (1 << 32) - 1))
    found = families(exposition(hostile))
    assert total(found["ringline_ring_references"], worker="0", ring="in") <= 1024
    assert all(
        sample.value >= 0 for sample in found["ringline_worker_heartbeat_age_seconds"].samples
    )
    assert total(found["ringline_port_received_packets"]) == 0


@pytest.fixture
def hostile(instance: Callable[[], str]) -> Iterator[Idle]:
    with idle_instance(instance(), queues=1) as made:
        yield made


def test_a_state_of_a_worker_is_one_of_all_states(idle: Idle) -> None:
    assert set(metrics_workers.STATES) == {phase.value.replace(" ", "_") for phase in Phase}
    for phase in Phase:
        idle.sources.workers[1].state = phase.value
        state = families(exposition(idle))["ringline_worker_state"]
        mine = {s.labels["state"]: s.value for s in state.samples if s.labels["worker"] == "1"}
        assert {name for name, value in mine.items() if value} == {phase.value.replace(" ", "_")}
        assert len(mine) == len(Phase)


def test_a_worker_has_its_plugin_and_version(idle: Idle) -> None:
    idle.sources.workers[0].note_version(None)
    idle.sources.workers[1].note_version('1.2\n"' + "x" * 100)
    (family,) = (f for f in PARSE(exposition(idle)) if f.name == "ringline_worker_info")
    versions = {sample.labels["worker"]: sample.labels["version"] for sample in family.samples}
    assert versions == {"0": version(), "1": '1.2\\n"' + "x" * 45}
    assert {sample.labels["plugin"] for sample in family.samples} == {idle.take().workers[0].plugin}
    idle.sources.workers[1].note_version(["no", "text"])
    assert idle.take().workers[1].version == ""


def test_what_the_processes_use_is_exported(idle: Idle) -> None:
    idle.sources.driver_pid = idle.sources.workers[1].pid = os.getpid()
    found = families(exposition(idle))
    memory = found["ringline_process_resident_memory_bytes"].samples
    assert {(s.labels["process"], s.labels["worker"]) for s in memory if s.value > 1 << 20} == {
        ("supervisor", ""),
        ("driver", ""),
        ("worker", "1"),
    }
    assert total(found["ringline_process_cpu_seconds"], process="driver") > 0
    assert total(found["ringline_start_time_seconds"]) == pytest.approx(idle.sources.started)


def test_the_capacity_of_every_ring_is_exported(idle: Idle) -> None:
    idle.sources.ports[1].queue_pairs = 1
    found = families(exposition(idle))
    assert total(found["ringline_ring_capacity_references"], worker="1", ring="out") == 1024
    descriptors = found["ringline_port_descriptors"]
    assert total(descriptors, port="wan", worker="1", direction="rx") == 512
    assert total(descriptors, port="lan") == 1024, "one queue with RX and TX"


def test_one_label_has_the_number_of_queue_and_worker(idle: Idle) -> None:
    idle.count()
    fill(idle)
    labels = {
        name
        for family in families(exposition(idle)).values()
        for sample in family.samples
        for name in sample.labels
    }
    assert "worker" in labels
    assert "queue" not in labels


def test_names_follow_the_rules_of_prometheus(idle: Idle) -> None:
    """A base unit at the end, no unit of another scale, and `_total` for counters alone."""
    idle.count()
    fill(idle)
    for family in PARSE(exposition(idle)):
        assert re.fullmatch(r"ringline_[a-z][a-z0-9]*(_[a-z0-9]+)*", family.name), family.name
        assert not re.search(r"_(ms|us|milliseconds|kb|bits|mbps|ticks)(_|$)", family.name)
        assert family.documentation.endswith(".")
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples)
        else:
            assert not family.name.endswith("_total")


def test_the_series_of_tables_are_bounded(idle: Idle) -> None:
    """The most that `setup` allows, and what a hostile worker can claim."""
    names = list(string.ascii_letters + "_")[: (55 - 1) // 2]
    worker, columns = idle.plugin(0), tables.columns_of(["l", *names])
    for number in range(5):
        left = tables.SLOT_WORDS - number * tables.TABLE_WORDS
        rows = tables.rows_max(columns, min(left, tables.TABLE_WORDS))
        if rows > 0:
            made = worker.table(f"t{number}", "l", names, rows)
            made.write([(str(row), range(len(names))) for row in range(rows)])
    samples = families(exposition(idle))["ringline_plugin_table"].samples
    assert 10_000 < len(samples) <= tables.SERIES_MAX


def test_two_rows_with_one_label_are_one_sample(idle: Idle) -> None:
    idle.plugin(0).table("top", "flow", ["n"], 4).write([("a\n", [1]), ("a\\n", [2])])
    found = families(exposition(idle))
    assert total(found["ringline_plugin_table"], row="a\\n") == 1


def test_two_values_of_a_label_that_look_the_same_are_one_sample(idle: Idle) -> None:
    """Only a worker that writes over its slot can make them."""
    seen = idle.plugin(0).counter("seen", label="what", values=("a_", "a\\n"))
    seen.array[:] = (1, 2)
    at = idle.instance.slots[0].segment.memory
    at[bytes(at).index(b"a_\0\0") + 1] = ord("\n")
    found = families(exposition(idle))
    assert total(found["ringline_plugin_events"], value="a\\n") == 1


def test_two_columns_of_one_name_are_no_table(idle: Idle) -> None:
    idle.plugin(0).table("top", "flow", ["n", "n"], 4).write([("a", [1, 2])])
    assert families(exposition(idle))["ringline_plugin_table"].samples == []


def test_other_paths_and_methods_have_the_right_status(url: str) -> None:
    base = url.removesuffix("/metrics")
    assert "/metrics" in fetch(base + "/")[2]
    assert fetch(base + "/other")[0] == 404
    assert fetch(url + "?x=1")[0] == 200
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(urllib.request.Request(url, data=b"x"), timeout=10)
    assert caught.value.code == 405
    caught.value.close()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"HEAD /metrics HTTP/1.1\r\n\r\n", b"200"),
        (b"GET /metrics HTTP/1.0\r\n\r\n", b"200"),
        (b"GET /metrics/?x=/y HTTP/1.1\r\n\r\n", b"200"),
        (b"GET http://127.0.0.1:9464/metrics HTTP/1.1\r\n\r\n", b"200"),
        (b"GET HTTP://host/metrics?x HTTP/1.1\r\n\r\n", b"200"),
        (b"GET http://host HTTP/1.1\r\n\r\n", b"200"),
        (b"GET http://host/other HTTP/1.1\r\n\r\n", b"404"),
        (b"GET http:///metrics HTTP/1.1\r\n\r\n", b"200"),
        (b"\r\nGET /metrics HTTP/1.1\r\n\r\n", b"200"),
        (b"GET /metrics\r\n\r\n", b"400"),
        (b"\x16\x03\x01 TLS \r\n\r\n", b"400"),
        (
            b"GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text;version=x\r\n\r\n",
            b"200",
        ),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"y" * 9000 + b"\r\n\r\n", b"431"),
    ],
)
def test_any_request_is_answered(url: str, request_: bytes, status: bytes) -> None:
    host, _, port = url.removeprefix("http://").removesuffix("/metrics").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as end:
        end.sendall(request_[:8192])
        answer = b""
        while data := end.recv(65536):
            answer += data
    assert answer.startswith(b"HTTP/1.1 " + status)
    if request_.startswith(b"HEAD"):
        assert answer.endswith(b"\r\n\r\n")
    assert fetch(url)[0] == 200


def test_an_exception_in_a_snapshot_is_reported_and_ends_nothing(idle: Idle) -> None:
    listener = metrics_http.listen(ANY_FREE)
    assert listener is not None
    broken = [True]

    def take() -> object:
        if broken:
            raise ZeroDivisionError("division by zero")
        return idle.take()

    server = MetricsServer(listener, take)  # type: ignore[arg-type]  # may raise
    with served(server):
        status, _, body = fetch(server.url)
        assert status == 500
        assert "this is a bug in ringline" in body
        broken.clear()
        assert fetch(server.url)[0] == 200


def test_a_taken_port_is_an_error_or_another_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EnvironmentLacks, match=f"127.0.0.1:{port} is taken"):
            metrics_http.listen(MetricsConfig("127.0.0.1", port))
        moved = metrics_http.listen(MetricsConfig("127.0.0.1", port, elsewhere_if_taken=True))
        assert moved is not None
        assert moved.getsockname()[1] not in (0, port)
        moved.close()


def test_off_listens_nowhere_and_a_foreign_address_is_refused() -> None:
    assert metrics_http.listen(MetricsConfig(host=None)) is None
    with pytest.raises(EnvironmentLacks, match=r"cannot listen on 192\.0\.2\.1:9464"):
        metrics_http.listen(MetricsConfig("192.0.2.1", 9464))
    with pytest.raises(EnvironmentLacks, match=r"cannot listen on no\.such\.invalid:1"):
        metrics_http.listen(MetricsConfig("no.such.invalid", 1))
