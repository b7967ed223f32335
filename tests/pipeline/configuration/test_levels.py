"""A key in the wrong table: the message says where it belongs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ringline.pipeline.configuration import schema

LEVELS = schema._levels()
TABLES = {"port", "memory", "worker", "driver", "metrics", "wire", "flows", "restart", "options"}


def problems(values: dict[str, Any]) -> list[str]:
    found: list[str] = []
    schema.read(values, Path("/nowhere"), found)
    return found


def told(path: str, key: str, value: Any = 1) -> str:
    """What is said about `key` in the table at `path`."""
    values: dict[str, Any] = {"port": {"wan": {"device": "sim:82599"}}}
    table = values
    for name in path.split(".") if path else ():
        table = table.setdefault(name, {})
    table[key] = value
    where = f"{path}.{key}" if path else key
    (said,) = [text for text in problems(values) if text.startswith(f"{where}: unknown key")]
    return said


@pytest.mark.parametrize(
    ("path", "key", "value", "advice"),
    [
        ("", "queues", 2, "write it as port.NAME.queues, in the table of a port"),
        ("", "device", "sim:82599", "write it as port.NAME.device, in the table of a port"),
        ("", "plugin", "forward", "write it as worker.plugin"),
        ("", "wire", {}, "write it as port.NAME.wire, in the table of a port"),
        ("", "restart", {}, "write it as worker.restart"),
        ("", "options", {}, "write it as worker.options"),
        ("", "listen", "off", "write it as metrics.listen"),
        ("", "cpu", 1, "write it as worker.N.cpu or as driver.cpu"),
        ("", "wan", {"device": "sim:82599"}, "write [port.wan] for a port"),
        ("", "instance", "edge", "write it as name above the first [table]"),
        ("port.wan", "instance", "edge", "write it as name above the first [table]"),
        ("port.wan", "name", "edge", "write it as name above the first [table]"),
        ("port.wan", "replay", "a.pcap", "write it as port.wan.wire.replay"),
        ("port.wan", "flows", {}, "write it as port.wan.wire.flows"),
        ("port.wan.wire", "sizes", 64, "write it as port.wan.wire.flows.sizes"),
        ("port.wan.wire", "queues", 2, "write it as port.wan.queues"),
        ("worker", "queues", 2, "write it as port.NAME.queues, in the table of a port"),
        ("worker", "cpu", 1, 'did you mean "cpus"? Or write it as worker.N.cpu or as driver.cpu'),
        ("worker.0", "restart", {}, "write it as worker.restart"),
        ("worker", "shortest", 64, "; options of the plugin belong to worker.options"),
        ("worker.0", "shortest", 64, "; options of the plugin belong to worker.0.options"),
        ("metrics", "buffers", 9000, "write it as memory.buffers"),
    ],
)
def test_a_key_at_the_wrong_level_is_pointed_to_its_place(
    path: str, key: str, value: Any, advice: str
) -> None:
    assert told(path, key, value).endswith(advice)


def test_every_key_is_pointed_to_its_place_from_every_other_table() -> None:
    for home, keys in LEVELS.items():
        for key in keys:
            if key.isdigit():
                continue
            for path in ("", "memory", "port.wan", "port.wan.wire", "worker", "driver", "metrics"):
                if key in LEVELS[path.replace("wan", "NAME")]:
                    continue
                said = told(path, key, {} if key in TABLES else 1)
                place = f"{home}.{key}" if home else f"{key} above the first [table]"
                place = place.replace("worker.0", "worker.N" if key == "cpu" else "worker")
                if path.startswith("port."):
                    place = place.replace("NAME", "wan")
                assert f"write it as {place}" in said or f"or as {place}" in said, (path, said)


def test_keys_of_a_port_directly_in_the_table_port_are_told() -> None:
    assert problems({"port": {"device": "sim:82599", "queues": 2, "wire": {"flows": {}}}}) == [
        f"port.{key}: is a key of a port; write [port.NAME] above it, not [port]"
        for key in ("device", "queues", "wire")
    ]
    assert problems({"port": {"wire": {"device": "sim:82599"}}}) == []
