"""Configurations: every mistake is reported with its place and the remedy, nothing else is."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringline.pipeline.configuration import builtin, needs, schema
from ringline.pipeline.configuration import config as c
from ringline.pipeline.configuration.machine_checks import shared_memory
from ringline.pipeline.supervisor.instance import Instance
from ringline.shm.errors import Bug, ConfigurationError
from ringline.shm.segments import segments_of
from ringline.workers.captures.captures import CaptureWriter

WHOLE = """
name = "edge"
[memory]
buffers = 20000
hugepages = "off"
[port.wan]
device = "sim:82599"
queues = 2
rx_descriptors = 1024
rss_key = "symmetric"
wire = { flows = { count = 9, sizes = "imix", ip = "mixed" }, rate_mpps = 1, record = "out/x.pcap" }
[port.lan]
device = "sim:82599"
promiscuous = false
mac = "02:00:00:00:00:01"
more_macs = ["02:00:00:00:00:0A", "02:00:00:00:00:03", "02:00:00:00:00:0a"]
vlan_filter = [1, 4094]
[worker]
plugin = "flow_stats"
options = { entries = 1000, nested = { list = [1, 2.5, "three", true] } }
cpus = [0]
state = "16 MiB"
restart = { intensity = 2, period = 1.5 }
[worker.1]
plugin = "./mine.py:Probe"
blanks = 64
debug = true
silence = 2
[driver]
idle = "busy"
deep_sleep_us = 0
[metrics]
listen = "[::1]:0"
"""


DATA = Path(__file__).parents[2] / "data"
BEYOND = "0x" + "F" * 5000  # more digits than Python converts to text


@pytest.fixture
def problems_of(tmp_path: Path) -> Any:
    """Loads a configuration text; returns its problems without the file name."""
    file = tmp_path / "edge.toml"

    def problems(text: str) -> list[str]:
        file.write_text(text)
        try:
            schema.load(file)
        except ConfigurationError as error:
            return [problem.removeprefix(f"{file}: ") for problem in error.problems]
        return []

    return problems


def port(lines: str = "") -> str:
    return f'[port.wan]\ndevice = "sim:82599"\n{lines}\n'


def test_a_whole_configuration_is_read(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "edge.toml").write_text(WHOLE)
    found = schema.load(tmp_path / "edge.toml")
    assert found.name == "edge"
    assert found.memory == c.MemoryConfig(20000, "off")
    assert found.buffers == 20000
    wan, lan = found.ports
    assert (wan.name, wan.queues, wan.rx_descriptors, wan.tx_descriptors) == ("wan", 2, 1024, 512)
    assert wan.wire is not None
    assert wan.wire.flows is not None
    assert wan.wire.flows.sizes == ((60, 7), (590, 4), (1514, 1))  # without CRC
    assert wan.wire.record == str(tmp_path / "out" / "x.pcap")
    assert (lan.mac, lan.promiscuous, lan.wire) == ("02:00:00:00:00:01", False, None)
    assert lan.more_macs == ("02:00:00:00:00:0a", "02:00:00:00:00:03")
    assert (wan.vlan_filter, lan.vlan_filter) == (None, (1, 4094))
    assert found.queues == 2
    assert found.worker(0).options["nested"] == {"list": [1, 2.5, "three", True]}
    assert found.worker(0).state_bytes == 16 << 20
    assert found.worker(1).plugin == "./mine.py:Probe"
    assert found.worker(1).options == {}, "inherited the options of another plugin"
    assert found.worker(1).blanks == 64
    assert found.worker(1).debug
    assert [found.worker(queue).silence for queue in range(2)] == [1.0, 2.0]
    assert found.worker(1).cpu == 0
    assert found.restart == c.RestartConfig(2, 1.5)
    assert found.driver == c.DriverConfig(None, "busy", 0)
    assert found.metrics == c.MetricsConfig("::1", 0)
    assert found.folder == str(tmp_path)


def test_children_get_the_same_configuration(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "edge.toml").write_text(WHOLE)
    for found in (schema.load(tmp_path / "edge.toml"), builtin.builtin()):
        assert c.Config.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_a_message_that_is_no_configuration_is_a_bug() -> None:
    bad: list[Any] = [{"nmae": "edge"}, {"ports": [{"name": "wan"}]}, {"memory": 7}, []]
    for message in bad:
        with pytest.raises(Bug):
            c.Config.from_json(message)


def test_the_builtin_configuration_fits_into_the_shared_memory_of_a_container(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Docker gives 64 MB, whatever the number of CPUs."""
    monkeypatch.setattr(builtin, "usable_cpus", lambda: set(range(12)))
    for room, queues in ((64 << 20, 5), (1 << 30, 11), (0, 1)):
        monkeypatch.setattr(builtin, "free_shared_memory", lambda room=room: room)
        found = builtin.builtin()
        assert found.queues == len(found.workers) == queues
        assert shared_memory(found) <= room or queues == 1


def test_the_memory_that_an_instance_takes_is_not_underestimated(
    instance: Callable[[], str],
) -> None:
    config = c.Config(
        name=instance(),
        memory=c.MemoryConfig(hugepages="off"),
        ports=(c.PortConfig("wan", "sim:82599", queues=2),),
        workers=(c.WorkerConfig(),) * 2,
    )
    with Instance(config, lambda address: None) as made:
        for queue in range(2):
            made.new_rings(queue, 1)
        taken = sum(os.stat(path).st_blocks * 512 for path in segments_of(config.name))
    assert taken <= shared_memory(config)


def test_the_builtin_configuration_runs_anywhere() -> None:
    found = builtin.builtin()
    assert found.queues == max(1, min(16, len(os.sched_getaffinity(0)) - 1))
    assert [port.device for port in found.ports] == ["sim:82599"]
    assert found.ports[0].wire is not None
    assert found.ports[0].wire.rate_mpps == 0
    assert found.metrics.elsewhere_if_taken
    assert needs.too_few_buffers(found) == []


def test_every_mistake_is_reported_at_once(problems_of: Any) -> None:
    problems = problems_of(
        """
        name = "Edge_1"
        [memory]
        hugepage = "auto"
        [port.wan]
        device = "sim:82599"
        queues = 17
        wire = { replay = "none.pcap", repeat = -1, rate_mpps = "fast", flows = { count = 0 } }
        [port.lan]
        device = "e1000"
        rx_descriptors = 100
        [worker]
        plugin = "a:b:c"
        cpus = [0, "one"]
        restart = { intensity = 5, perod = 30.0 }
        [worker.3]
        plugin = 5
        [drivr]
        [metrics]
        listen = "127.0.0.1:99999"
        """
    )
    paths = [problem.split(": ")[0] for problem in problems]
    assert sorted(paths) == sorted(
        [
            "name",
            "memory.hugepage",
            "port.wan.queues",
            "port.wan.wire.flows",
            "port.wan.wire.flows.count",
            "port.wan.wire.repeat",
            "port.wan.wire.rate_mpps",
            "port.wan.wire.replay",
            "port.lan.device",
            "port.lan.rx_descriptors",
            "worker.plugin",
            "worker.cpus",
            "worker.restart.perod",
            "worker.3",
            "drivr",
            "metrics.listen",
        ]
    )


@pytest.mark.parametrize(
    ("text", "path", "told"),
    [
        ("", "port", "no port is configured"),
        ("port = 3", "port", "must be a table, not an integer (3)"),
        ("[[port]]", "port", "must be a table, not a list; write [port.NAME] for each port"),
        ("[[port.wan]]", "port.wan", "must be a table, not a list; write [port.wan]"),
        ("[port.wan]\nqueues = 1", "port.wan.device", "is missing"),
        (port('queues = "two"'), "port.wan.queues", 'from 1 to 16, not a string ("two")'),
        (port("queues = true"), "port.wan.queues", "not true or false (true)"),
        (port("queues = 17"), "port.wan.queues", "from 1 to 16, not 17"),
        (port("quues = 2"), "port.wan.quues", 'unknown key; did you mean "queues"?'),
        (port("zzz = 2"), "port.wan.zzz", "unknown key; known keys: device, dma"),
        (port('dma = "iommu"'), "port.wan.dma", "one of auto, offset, physical"),
        (port('dma = "physical"'), "port.wan.dma", "write auto or offset"),
        (port("rx_descriptors = 8192"), "port.wan.rx_descriptors", "from 64 to 4096"),
        (port("tx_descriptors = 100"), "port.wan.tx_descriptors", "must be a power of two"),
        (port('mac = "01:00:5e:00:00:01"'), "port.wan.mac", "must be a unicast address"),
        (port('mac = "0:1"'), "port.wan.mac", "six bytes as in"),
        (port('rss_key = "abc"'), "port.wan.rss_key", "80 hexadecimal digits"),
        (port("promiscuous = 1"), "port.wan.promiscuous", "must be true or false"),
        (port("wire = { repeat = 2 }"), "port.wan.wire.repeat", "no effect without replay;"),
        (
            port("wire = { rate_mpps = 2 }"),
            "port.wan.wire.rate_mpps",
            "no effect without replay or flows",
        ),
        (port("wire = { rate_mpps = nan, flows = {} }"), "port.wan.wire.rate_mpps", "not nan"),
        (port("wire = { flows = { sizes = 63 } }"), "port.wan.wire.flows.sizes", "from 64 to"),
        (port("wire = { flows = { sizes = [] } }"), "port.wan.wire.flows.sizes", "is empty"),
        (port('wire = { flows = { sizes = ["imix"] } }'), "port.wan.wire.flows.sizes", "not"),
        (port('wire = { flows = { ip = "ipv5" } }'), "port.wan.wire.flows.ip", '"ipv6"?'),
        (port('wire = { replay = "" }'), "port.wan.wire.replay", "must be the path"),
        (port() + '[port."w n"]\ndevice = "sim:82599"', 'port."w n"', "the name of a port"),
        ('[port.wan]\ndevice = "pci:3:0.0"', "port.wan.device", "is not a PCI address"),
        (
            '[port.wan]\ndevice = "pci:0000:03:00.0"\nprocess = true',
            "port.wan.process",
            "only a simulated card",
        ),
        (
            '[port.wan]\ndevice = "pci:0000:03:00.0"\nwire = {}',
            "port.wan.wire",
            "only a simulated card",
        ),
        (
            '[port.a]\ndevice = "pci:0000:03:00.0"\n[port.b]\ndevice = "pci:0000:03:00.0"',
            "port.b",
            "uses the card of port a",
        ),
        (
            port() + '[port.lan]\ndevice = "pci:0000:03:00.0"\ndma = "physical"',
            "port",
            'all cards of an instance need dma = "physical", or none',
        ),
        (port("unproved = true"), "port.wan.unproved", "only a card as in pci:"),
        (port() + '[memory]\nbuffers = "many"', "memory.buffers", '"auto" or an integer'),
        (port() + "[memory]\nbuffers = 0", "memory.buffers", "from 1 to"),
        (port() + "[worker]\nstate = 10", "worker.state", "bytes from 65536"),
        (port() + '[worker]\nstate = "ten MiB"', "worker.state", '"4 MiB"'),
        (port() + "[worker]\nblanks = 600", "worker.blanks", "from 0 to 512"),
        (port() + "[worker]\nplugin = 7", "worker.plugin", "must be a string"),
        (port() + '[worker]\nplugin = "a b"', "worker.plugin", "package.module:object"),
        (port() + "[worker]\noptions = { at = 2026-01-01 }", "worker.options.at", "date"),
        (port() + "[worker]\noptions = { a = [inf] }", "worker.options.a[0]", "finite"),
        (port(f"queues = {BEYOND}"), "port.wan.queues", "not an integer of more than 64 bits"),
        (port(f"mac = {BEYOND}"), "port.wan.mac", "(an integer of more than 64 bits)"),
        (
            port(f"wire = {{ flows = {{}}, rate_mpps = {BEYOND} }}"),
            "port.wan.wire.rate_mpps",
            "not",
        ),
        (port() + f"[worker]\nstate = {BEYOND}", "worker.state", "bytes from 65536"),
        (port() + f"[worker]\noptions.a = [{BEYOND}]", "worker.options.a[0]", "at most 64 bits"),
        (port() + f"[worker.{'9' * 5000}]", f"worker.{'9' * 5000}", "there is no worker 999"),
        (port() + "[worker.1]", "worker.1", "there is no worker 1; the workers are 0 to 0"),
        (port() + "[worker.00]", "worker.00", "there is no worker 00"),
        (port() + "[worker]\n0 = 5", "worker.0", "must be a table"),
        (port() + "[worker.0]\ncpus = [1]", "worker.0.cpus", 'did you mean "cpu"?'),
        (port() + "[worker]\ncpus = [4000]", "worker.cpus", "CPU 4000 of worker 0"),
        (port() + "[worker.0]\ncpu = 4000", "worker.cpus", "CPU 4000 of worker 0"),
        (port() + "[driver]\ncpu = 4000", "driver.cpu", "CPU 4000 cannot be used"),
        (port() + '[driver]\nidle = "lazy"', "driver.idle", "one of busy, adaptive"),
        (port() + '[metrics]\nlisten = "9464"', "metrics.listen", "127.0.0.1:9464"),
        (port() + '[metrics]\nlisten = "a..b:80"', "metrics.listen", "address:port"),
        (port() + f'[metrics]\nlisten = "{"a" * 64}:80"', "metrics.listen", "address:port"),
        (port() + '[metrics]\nlisten = "1.2.3:80"', "metrics.listen", "address:port"),
        (port() + 'name = "x"', "port.wan.name", "unknown key"),
        ('name = "' + "x" * 33 + '"\n' + port(), "name", "1 to 32 characters from a-z, 0-9 and -"),
    ],
)
def test_a_mistake_has_its_place_and_its_remedy(
    problems_of: Any, text: str, path: str, told: str
) -> None:
    problems = problems_of(text)
    assert len(problems) == 1, problems
    assert problems[0].startswith(f"{path}: ")
    assert told in problems[0]


def test_too_few_buffers_are_refused_with_the_sum(problems_of: Any) -> None:
    text = port("queues = 2") + "[worker]\nblanks = 10\n[memory]\nbuffers = "
    (problem,) = problems_of(text + "100")
    parts = [1024, 1024, 4096, 256, 20]
    assert problem.startswith("memory.buffers: 100 are too few: ")
    assert [
        int(part.split("(")[0]) for part in problem.split(": ", 2)[2].split(" = ")[0].split(" + ")
    ] == parts
    assert f"= {sum(parts)};" in problem
    assert problems_of(text + str(sum(parts))) == []
    assert len(problems_of(text + str(sum(parts) - 1))) == 1


def test_auto_covers_the_sum(problems_of: Any) -> None:
    found = builtin.builtin()
    assert found.buffers == sum(number for _, number in found.needed_buffers())


def test_a_missing_file_or_invalid_toml_is_reported_with_the_line(tmp_path: Path) -> None:
    def sentence(file: Path) -> str:
        with pytest.raises(ConfigurationError) as caught:
            schema.load(file)
        return str(caught.value)

    assert "there is no such file" in sentence(tmp_path / "none.toml")
    assert "is a folder" in sentence(tmp_path)
    broken = tmp_path / "broken.toml"
    broken.write_text('name = "edge"\n\n[port.wan\n')
    assert "is not valid TOML" in sentence(broken)
    assert "line 3" in sentence(broken)
    broken.write_bytes(b'name = "edge"\n\xff\n')
    assert "line 2 is not UTF-8" in sentence(broken)
    broken.write_text("a = " + "[" * 5000)
    assert "is not valid TOML" in sentence(broken)


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    file = tmp_path / "edge.toml"
    file.write_text(port(), encoding="utf-8-sig")
    assert [found.name for found in schema.load(file).ports] == ["wan"]


def test_captures_are_read_before_a_run(problems_of: Any, tmp_path: Path) -> None:
    (tmp_path / "empty.pcap").write_bytes(b"")
    (tmp_path / "text.pcap").write_text("not a capture at all, but long enough\n" * 3)
    for name, told in (
        ("none.pcap", "there is no such capture"),
        ("empty.pcap", "is empty"),
        ("text.pcap", "is not a capture"),
        (".", "is a directory"),
    ):
        (problem,) = problems_of(port(f'wire = {{ replay = "{name}" }}'))
        assert problem.startswith("port.wan.wire.replay: ")
        assert str(tmp_path / name) in problem
        assert told in problem


def test_a_record_that_cannot_be_written_is_refused_and_nothing_made(
    problems_of: Any, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    for name, told in (("none/out.pcap", "there is no folder"), ("folder", "is a folder")):
        (problem,) = problems_of(port(f'wire = {{ record = "{name}" }}'))
        assert problem.startswith("port.wan.wire.record: ")
        assert told in problem
    assert problems_of(port('wire = { record = "out.pcap" }')) == []
    assert not (tmp_path / "out.pcap").exists()


def test_the_replayed_capture_is_never_the_record(problems_of: Any, tmp_path: Path) -> None:
    (tmp_path / "a.pcap").write_bytes((DATA / "mixed.pcap").read_bytes())
    (tmp_path / "b.pcap").symlink_to("a.pcap")
    (problem,) = problems_of(port('wire = { replay = "a.pcap", record = "b.pcap" }'))
    assert problem.startswith("port.wan.wire.record: ")
    assert "is replayed" in problem


def test_only_our_capture_is_replaced_by_a_recording(problems_of: Any, tmp_path: Path) -> None:
    text = port('wire = { record = "NAME" }')
    (tmp_path / "notes.txt").write_text("of great value\n")
    (tmp_path / "foreign.pcap").write_bytes((DATA / "mixed.pcap").read_bytes())
    os.mkfifo(tmp_path / "pipe")
    for name, told in (
        (
            "edge.toml",
            "exists and is not a capture that ringline wrote",
        ),  # the configuration itself
        ("notes.txt", "exists and is not a capture that ringline wrote"),
        ("foreign.pcap", "exists and is not a capture that ringline wrote"),
        ("pipe", "is a pipe or a socket"),
        ("x" * 300, "cannot be written: File name too long"),
        ("~nobody-at-all/out.pcap", "there is no folder"),
    ):
        (problem,) = problems_of(text.replace("NAME", name))
        assert problem.startswith("port.wan.wire.record: ")
        assert told in problem
    with CaptureWriter(tmp_path / "old.pcap") as writer:
        writer.write(bytes(60))
    (tmp_path / "empty").touch()
    for name in ("old.pcap", "empty", "/dev/null"):
        assert problems_of(text.replace("NAME", name)) == []


def test_no_two_ports_use_one_file(problems_of: Any, tmp_path: Path) -> None:
    (tmp_path / "a.pcap").write_bytes((DATA / "mixed.pcap").read_bytes())
    lan = port('wire = { record = "./a.pcap" }').replace("wan", "lan")
    (problem,) = problems_of(port('wire = { replay = "a.pcap" }') + lan)
    assert problem.startswith("port.lan.wire.record: ")
    assert "is replayed" in problem
    (tmp_path / "a.pcap").unlink()  # ringline did not write it
    (tmp_path / "folder").mkdir()
    (problem,) = problems_of(port('wire = { record = "folder/../a.pcap" }') + lan)
    assert problem.startswith("port.wan.wire.record: port lan records to ")


KEYS = """name memory port wan device queues wire flows replay sizes worker 0 1 options cpus
restart driver metrics listen"""
keys = st.sampled_from(re.findall(r"\w+", KEYS))
values = st.recursive(
    st.one_of(
        st.booleans(),
        st.integers(-(1 << 70), 1 << 70),
        st.just(1 << 2000),
        st.floats(),
        st.text(max_size=8),
        st.sampled_from(["auto", "sim:82599", "imix", "off", "forward"]),
        st.datetimes(),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=4)),
    max_leaves=20,
)


@pytest.mark.slow
@given(st.dictionaries(keys, values, max_size=6))
def test_any_file_is_accepted_or_refused_with_a_message(given_values: dict[str, Any]) -> None:
    problems: list[str] = []
    found = schema.read(given_values, Path("/nowhere"), problems)
    if not problems:
        assert c.Config.from_json(json.loads(json.dumps(found.to_json()))) == found
    for problem in problems:
        path, colon, sentence = problem.partition(": ")
        assert colon
        assert path
        assert sentence
        assert "\n" not in problem
        assert "\0" not in problem


@given(st.text(max_size=20))
def test_names_are_parts_of_file_names(name: str) -> None:
    if schema.check_name(name) is None:
        assert name.isascii()
        assert "/" not in name
        assert 1 <= len(name) <= 32


@given(st.one_of(st.text(max_size=20), st.from_regex(r"[0-9.:\[\]a-f]{1,20}", fullmatch=True)))
def test_a_listen_address_is_accepted_or_refused(text: str) -> None:
    where = schema.parse_listen(text)
    assert (schema.check_listen(text) is None) == (where is not None or text == "off")
    if where is not None:
        assert 0 <= where[1] <= 65535


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
def test_a_listen_port_is_at_most_65535(host: str) -> None:
    assert schema.parse_listen(f"{host}:0") == (host.strip("[]"), 0)
    assert schema.parse_listen(f"{host}:65535") == (host.strip("[]"), 65535)
    for port in (65536, 70000, 99999):
        assert schema.parse_listen(f"{host}:{port}") is None
        problem = schema.check_listen(f"{host}:{port}")
        assert problem is not None
        assert str(port) in problem
