"""The keys that say which frames a card receives."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from ringline.pipeline.configuration import schema
from ringline.pipeline.configuration.config import Config

CLOSED = "promiscuous = false\n"


def read(keys: str) -> tuple[Config, list[str]]:
    problems: list[str] = []
    text = f'[port.wan]\ndevice = "pci:0000:03:00.0"\n{keys}'
    return schema.read(tomllib.loads(text), Path("/"), problems), problems


def test_addresses_and_vlans_survive_the_way_to_a_child() -> None:
    keys = 'more_macs = ["02:00:00:00:00:0A", "02:00:00:00:00:03"]\nvlan_filter = [4094, 1]'
    found, problems = read(CLOSED + keys)
    assert problems == []
    assert found.ports[0].more_macs == ("02:00:00:00:00:0a", "02:00:00:00:00:03")
    assert found.ports[0].vlan_filter == (4094, 1)
    assert Config.from_json(found.to_json()) == found
    found, _ = read("vlan_filter = []")
    assert found.ports[0].vlan_filter == (), "an empty list is a filter too"


@pytest.mark.parametrize(
    ("keys", "wrong"),
    [
        (
            CLOSED + 'more_macs = ["02:00:00:00:00:01", 7]',
            "more_macs: must be a list of strings; item 2 is 7",
        ),
        (CLOSED + 'more_macs = "02:00:00:00:00:01"', "more_macs: must be a list of strings"),
        (CLOSED + 'more_macs = ["33:33:00:00:00:01"]', "more_macs: must be a unicast address"),
        (
            'more_macs = ["02:00:00:00:00:01"]',
            "more_macs: has no effect while promiscuous is true; add promiscuous = false",
        ),
        ("vlan_filter = [5, 0]", "vlan_filter: must be a list of integers from 1 to 4094; item 2"),
        ("vlan_filter = 100", "vlan_filter: must be a list of integers from 1 to 4094"),
    ],
)
def test_a_mistake_is_one_sentence(keys: str, wrong: str) -> None:
    _, problems = read(keys)
    assert len(problems) == 1, problems
    assert problems[0].startswith(f"port.wan.{wrong}")
