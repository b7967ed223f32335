"""`ringline check`: plugins that do not import are reported together with all else."""

from __future__ import annotations

from pathlib import Path

import pytest

from ringline.pipeline.commands.check import check
from ringline.shm.errors import ConfigurationError


def mistakes(file: Path, text: str) -> list[str]:
    file.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        check(str(file))
    return [problem.removeprefix(f"{file}: ") for problem in caught.value.problems]


def test_a_plugin_that_creates_packets_is_checked_with_its_blanks(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "creates.py").write_text(
        "class P:\n"
        "    def process(self, batch):\n"
        "        if not batch.create(bytes(60), 0): print('no blank')\n"
    )
    file = tmp_path / "edge.toml"
    file.write_text(
        '[port.wan]\ndevice = "sim:82599"\n[worker]\nplugin = "./creates.py:P"\nblanks = 8\n'
    )
    check(str(file))
    assert "no blank" not in capfd.readouterr().err


def test_plugins_that_do_not_import_are_reported_with_every_other_mistake(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import os\nimport nonsense_xyz\n")
    (tmp_path / "fine.py").write_text(
        "from ringline.workers.api import Option\n"
        "class P:\n"
        "    options = [Option('limit', int)]\n"
        "    def setup(self, worker): worker.ports['lan']\n"
        "    def process(self, batch): pass\n"
    )
    text = """queues = 2
[port.wan]
device = "sim:82599"
queues = 3
mac = "none"
[worker]
plugin = "./none.py:P"
[worker.1]
plugin = "./broken.py:P"
[worker.2]
plugin = "./fine.py:P"
[worker.3]
plugin = "nowhere_xyz:P"
"""
    port, worker, top, *plugins = mistakes(tmp_path / "edge.toml", text)
    assert port.startswith("port.wan.mac: must be six bytes")
    assert port.endswith(" (line 5)")
    assert worker == "worker.3: there is no worker 3; the workers are 0 to 2 (line 12)"
    assert top == (
        "queues: unknown key; write it as port.NAME.queues, in the table of a port (line 1)"
    )
    assert plugins == [
        f"worker 0: plugin ./none.py:P: {tmp_path}/none.py cannot be read: No such file or "
        "directory (worker.plugin in line 7)",
        "worker 1: plugin ./broken.py:P does not import: ModuleNotFoundError: No module named "
        f"'nonsense_xyz' ({tmp_path}/broken.py, line 2) (worker.1.plugin in line 9)",
        'worker 2: plugin ./fine.py:P: option "limit" must be given (worker.2.plugin in line 11)',
        "worker 3: plugin nowhere_xyz:P: there is no module 'nowhere_xyz' in this environment; "
        "install it, or name a file: ./nowhere_xyz.py:… (worker.3.plugin in line 13)",
    ]


def test_a_plugin_is_examined_without_a_port_and_with_wrong_options(tmp_path: Path) -> None:
    text = '[worker]\nplugin = "./none.py:P"\noptions = { day = 1979-05-27 }\n'
    port, option, plugin = mistakes(tmp_path / "edge.toml", text)
    assert port == "port: no port is configured; add a table such as [port.wan]"
    assert option.startswith("worker.options.day: must not be a date or time")
    assert "none.py cannot be read" in plugin


def test_a_missing_card_is_reported_with_every_other_mistake(tmp_path: Path) -> None:
    text = '[port.wan]\ndevice = "pci:ffff:1f:1f.7"\nqueus = 1\n'
    unknown, card = mistakes(tmp_path / "edge.toml", text)
    assert unknown.startswith("port.wan.queus: unknown key")
    assert card.startswith("port.wan.device: ")
    assert card.endswith("(line 2)")


def test_what_a_card_cannot_do_is_reported_with_every_other_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An 82574L has two queues and no jumbo frames here; another card is missing."""
    device = tmp_path / "bus" / "pci" / "devices" / "0000:02:00.0"
    device.mkdir(parents=True)
    for name, text in (("vendor", "0x8086"), ("device", "0x10d3"), ("class", "0x020000")):
        (device / name).write_text(text)
    monkeypatch.setenv("RINGLINE_SYSFS", str(tmp_path))
    text = """[port.wan]
device = "pci:0000:02:00.0"
mtu = 9000
[port.lan]
device = "pci:0000:03:00.0"
[worker]
plugin = "nowhere_xyz:P"
"""
    plugin, mtu, missing = mistakes(tmp_path / "edge.toml", text)
    assert "nowhere_xyz" in plugin
    assert mtu.startswith("port.wan.mtu: must be at most 1500 bytes, not 9000: ")
    assert mtu.endswith(" (line 3)")
    assert missing.startswith("port.lan.device: there is no PCI device 0000:03:00.0")
