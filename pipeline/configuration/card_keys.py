"""The keys of a port that say which frames a card receives, and how."""

from __future__ import annotations

from typing import Any

from ringline.pipeline.configuration.forms import check_mac
from ringline.pipeline.configuration.toml import Table

VLAN_MAX = 4094  # IEEE 802.1Q, table 9-2: 0 is no VLAN, 4095 is reserved


def read_card_keys(table: Table) -> dict[str, Any]:
    """The fields of a `PortConfig` for a card, by name."""
    return {
        "mac": table.optional_string("mac", check=check_mac),
        "more_macs": _more_macs(table),
        "vlan_strip": table.flag("vlan_strip", False),
        "vlan_filter": (
            table.integers("vlan_filter", 1, VLAN_MAX) if "vlan_filter" in table else None
        ),
    }


def _more_macs(table: Table) -> tuple[str, ...]:
    """More MAC addresses to receive for, in lower case, each once."""
    macs = table.strings("more_macs", check=check_mac)
    if macs and table.values.get("promiscuous", True) is True:
        table.problem(
            "more_macs",
            "has no effect while promiscuous is true; add promiscuous = false, or remove more_macs",
        )
    return tuple(dict.fromkeys(mac.lower() for mac in macs))
