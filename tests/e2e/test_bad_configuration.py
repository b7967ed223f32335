"""Wrong configurations: all mistakes are reported at once, each with its place and the remedy."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .operator_harness import HEAD, ONE_QUEUE, PORT, Operator, as_nobody

pytestmark = pytest.mark.slow

NO_FILE = [
    (lambda folder: folder / "none.toml", "there is no such file"),
    (lambda folder: folder, "is a folder, not a configuration file"),
    (lambda folder: made(folder / "not.toml", b"\xff\xd8\xff\xe0 JFIF"), "line 1 is not UTF-8"),
    (lambda folder: made(folder / "long.toml", b"# \n" * 40_000_000), "is longer than 1 MiB"),
    (lambda _: Path("/dev/zero"), "is a pipe or a device, not a regular file; write the"),
    (lambda folder: pipe(folder / "pipe"), "is a pipe or a device, not a regular file; write the"),
    (lambda folder: made(folder / "open.toml", b'name = "edge\n'), "is not valid TOML"),
    (lambda folder: made(folder / "deep.toml", b"x = " + b"[" * 9999), "nested too deeply"),
    (lambda folder: made(folder / "deep.toml", b"[" + b"a." * 3000 + b"a]"), "nested too deeply"),
    (lambda folder: made(folder / "nines.toml", b"x = " + b"9" * 9999), "is not valid TOML"),
    (lambda folder: made(folder / "twice.toml", b"a = 1\na = 2\n"), "(at line 2, column 6)"),
    (lambda folder: made(folder / "empty.toml", b""), "port: no port is configured; add a table"),
]


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def made(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("command", ["run", "check"])
@pytest.mark.parametrize(("file", "told"), NO_FILE, ids=[told for _, told in NO_FILE])
def test_a_file_that_is_no_configuration_is_refused(
    operator: Operator, command: str, file: object, told: str
) -> None:
    path = file(operator.folder)  # type: ignore[operator]
    sentence = operator.refused(2, command, path)
    assert sentence.startswith(f"{path}: ")
    assert told in sentence


def test_an_unreadable_configuration_is_refused(open_operator: Operator) -> None:
    path = open_operator.write(ONE_QUEUE)
    path.chmod(0)
    if os.geteuid() == 0:
        sentence = open_operator.refused(2, "run", path, within=as_nobody())
    else:
        sentence = open_operator.refused(2, "run", path)
    assert sentence == f"{path}: cannot be read: Permission denied"


MISTAKES = """
name = "../edge"
memry = 1
[memory]
buffers = "lots"
hugepages = "always"
[port.wan]
device = "sim:82598"
queue = 2
queues = 17
rx_descriptors = 100
promiscuous = "yes"
mac = "01:00:00:00:00:00"
rss_key = "12"
wire = { flows = { count = 0, sizes = [5], packets = -1 }, rate_mpps = -1.0, recrd = "x" }
[port."a b"]
device = 7
[worker]
plugin = "a b"
cpus = ["one"]
state = "5 acres"
blanks = 100000
debug = 1
restart = { intensity = -1, period = "long" }
[worker.40]
plugin = "forward"
[driver]
cpu = 4000
idle = "lazy"
[metrics]
listen = "nowhere"
"""

TOLD = """
name: must be 1 to 32 characters from a-z, 0-9 and -, not "../edge"
memry: unknown key; did you mean "memory"?
memory.buffers: must be "auto" or an integer, not "lots"
memory.hugepages: must be one of auto, require, off, not "always"
port.wan.device: unknown device "sim:82598"; write it as in sim:82599, pci:0000:03:00.0, xdp:eth0
port.wan.queue: unknown key; did you mean "queues"?
port.wan.queues: must be an integer from 1 to 16, not 17
port.wan.rx_descriptors: must be a power of two from 64 to 4096, not 100
port.wan.promiscuous: must be true or false, not a string ("yes")
port.wan.mac: must be a unicast address other than zero, not "01:00:00:00:00:00"
port.wan.rss_key: must be default, symmetric or 80 hexadecimal digits (40 bytes), not "12"
port.wan.wire.flows.count: must be an integer from 1 to 1048576, not 0
port.wan.wire.flows.sizes: must be "imix", an integer or a list of integers from 64 to 1522
port.wan.wire.flows.packets: must be an integer from 0 to 281474976710656, not -1
port.wan.wire.rate_mpps: must be a number from 0 to 1000, not -1.0
port.wan.wire.recrd: unknown key; did you mean "record"?
port."a b": the name of a port must be 1 to 32 letters, digits, _ and -
port."a b".device: must be a string, not an integer (7)
worker.plugin: must be package.module:object, ./file.py:object, ./file.so:symbol or the name
worker.cpus: must be a list of integers from 0 to 4095; item 1 is "one"
worker.state: must be a number of bytes from 65536 to 68719476736, such as 4194304 or "4 MiB"
worker.blanks: must be an integer from 0 to 512, not 100000
worker.debug: must be true or false, not an integer (1)
worker.restart.intensity: must be an integer from 0 to 1000, not -1
worker.restart.period: must be a number from 0.1 to 86400, not a string ("long")
worker.40: there is no worker 40; the workers are 0 to 0
driver.cpu: CPU 4000 cannot be used here; usable: 0
driver.idle: must be one of busy, adaptive, not "lazy"
metrics.listen: must be address:port as in "127.0.0.1:9464", or "off", not "nowhere"
"""


@pytest.mark.parametrize("command", ["run", "check"])
def test_all_mistakes_are_reported_at_once(operator: Operator, command: str) -> None:
    path = operator.write(MISTAKES)
    ended = operator.run(command, path)
    assert ended.code == 2
    expected = [f"{path}: {line}" for line in TOLD.strip().splitlines()]
    for line in expected:
        assert any(said.startswith(line) for said in ended.sentences), (line, ended.errors)
    assert len(ended.sentences) == len(expected), ended.errors


def test_too_few_buffers_are_refused_with_the_calculation(operator: Operator) -> None:
    path = operator.write("memory.buffers = 3199\n" + ONE_QUEUE)
    assert operator.refused(2, "run", path) == (
        f"{path}: memory.buffers: 3199 are too few: 512 (port wan: 1 x 512 RX) + 512 (port wan: "
        "1 x 512 TX) + 2048 (rings: 1 x 2 x 1024) + 128 (batches: 1 x 2 x 64) = 3200; write at "
        'least 3200, or "auto"'
    )
    path = operator.write("memory.buffers = 3200\n" + ONE_QUEUE)
    assert operator.run("run", path, "--for", "0.1").code == 0


def test_ports_that_cannot_be_together_are_refused(operator: Operator) -> None:
    card = 'device = "pci:0000:03:00.0"\n'
    path = operator.write(f"{HEAD}[port.a]\n{card}[port.b]\n{card}")
    assert operator.refused(2, "run", path) == (
        f"{path}: port.b: uses the card of port a (pci:0000:03:00.0)"
    )
    path = operator.write(f'{HEAD}[port.a]\n{card}dma = "physical"\n' + PORT)
    assert 'need dma = "physical", or none (a: physical, wan: offset)' in (
        operator.refused(2, "run", path)
    )
