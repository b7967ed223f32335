"""The metrics endpoint: Prometheus accepts it and its sums equal the report's.

Nothing that a worker writes or a client sends can break it.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families

from ringline.pipeline.configuration.config import MetricsConfig
from ringline.pipeline.telemetry import metrics, metrics_http
from ringline.pipeline.telemetry.metrics_http import MetricsServer
from ringline.pipeline.telemetry.report import lay_out
from ringline.shm import counters
from ringline.shm._shm import ffi
from ringline.shm.errors import EnvironmentLacks

from ..idle_instance import Idle, idle_instance, served

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


def exposition(idle: Idle) -> str:
    registry = CollectorRegistry()
    registry.register(metrics.RinglineCollector(idle.take))
    return generate_latest(registry).decode()


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
    worker.gauge("level").set(3)
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
    speed = families(exposition(idle))["ringline_link_speed_bytes"]
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
        ("struct rl_worker_counters", metrics.WORKER),
        ("struct rl_slot_counters", metrics.SLOT),
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
        written.kind = data.draw(st.one_of(st.integers(0, 7), st.just(5)))
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


def test_two_rows_with_one_label_are_one_sample(idle: Idle) -> None:
    idle.plugin(0).table("top", "flow", ["n"], 4).write([("a\n", [1]), ("a\\n", [2])])
    found = families(exposition(idle))
    assert total(found["ringline_plugin_table"], row="a\\n") == 1


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
