"""The forms of names and addresses in a configuration.

A function `check_…` returns what is wrong with a string, or None.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import Any

from ringline.pipeline.configuration.config import KERNEL_KINDS
from ringline.pipeline.configuration.toml import shown

DEVICES = ("sim:82599", "pci:0000:03:00.0", "xdp:eth0", "packet:eth0", "tap:tap0")
INTERFACE_NAME_MAX = 15  # bytes (IFNAMSIZ of linux/if.h, less one)
PCI_ADDRESS = r"[0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]"


def check_name(text: str) -> str | None:
    """What is wrong with the name of an instance, or None."""
    if re.fullmatch(r"[a-z0-9-]{1,32}", text):
        return None
    return f"must be 1 to 32 characters from a-z, 0-9 and -, not {shown(text)}"


def check_device(text: str) -> str | None:
    """What is wrong with a device string."""
    if text == "sim:82599" or re.fullmatch(f"pci:{PCI_ADDRESS}", text):
        return None
    if text.startswith("pci:"):
        return f"{shown(text)} is not a PCI address; write it as in {DEVICES[1]} (ringline devices)"
    kind, _, name = text.partition(":")
    if kind == "tap" and "%" in name:
        return f"{shown(name)} must be the name of one interface: without %"
    if kind in KERNEL_KINDS:
        return check_interface(name)
    return f"unknown device {shown(text)}; write it as in {', '.join(DEVICES)}"


def check_interface(name: str) -> str | None:
    """What is wrong with the name of a network interface (dev_valid_name in net/core/dev.c)."""
    right = re.fullmatch(r"[^/:\s\0]+", name) and name not in (".", "..")
    if right and len(name.encode()) <= INTERFACE_NAME_MAX:
        return None
    return (
        f"{shown(name)} is not the name of a network interface: 1 to {INTERFACE_NAME_MAX} bytes "
        "without blanks, slashes and colons (ip link shows all)"
    )


def check_mac(text: str) -> str | None:
    """What is wrong with a port's MAC address."""
    if not re.fullmatch(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}", text):
        return f"must be six bytes as in 02:00:00:00:00:01, not {shown(text)}"
    if int(text[:2], 16) & 1 or not text.strip("0:"):
        return f"must be a unicast address other than zero, not {shown(text)}"
    return None


def check_rss_key(text: str) -> str | None:
    """What is wrong with an RSS key."""
    if text in ("default", "symmetric") or re.fullmatch(r"[0-9A-Fa-f]{80}", text):
        return None
    return f"must be default, symmetric or 80 hexadecimal digits (40 bytes), not {shown(text)}"


def check_plugin(text: str) -> str | None:
    """What is wrong with the form of a plugin's name; a worker checks that it imports."""
    word = r"[A-Za-z_][A-Za-z0-9_]*"
    module, file, entry = rf"{word}(\.{word})*", r"[^:\0]+\.(py|so)", r"[A-Za-z0-9_-]+"
    if re.fullmatch(rf"({module}|{file}):{word}(\.{word})*|{entry}", text):
        return None
    return (
        "must be package.module:object, ./file.py:object, ./file.so:symbol or the name of an "
        f"entry point, not {shown(text)}"
    )


def given_twice(options: Sequence[tuple[str, Any]]) -> list[str]:
    """What is wrong with options of a plugin that are arguments: those that are given twice."""
    names = [name for name, _ in options]
    return [
        f"option {shown(name)} is given twice with -o"
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]


def parse_listen(text: str) -> tuple[str, int] | None:
    """(host, port) of `host:port` or `[ipv6]:port`; None when it is neither."""
    label = "[A-Za-z0-9-]{1,63}"
    name = rf"{label}(?:\.{label})*"
    match = re.fullmatch(rf"(?:\[([0-9A-Fa-f:.]+)\]|({name})):([0-9]{{1,5}})", text)
    if match is None or int(match[3]) > 65535:
        return None
    host = match[1] or match[2]
    try:
        if match[1] or re.fullmatch(r"[0-9.]+", host):
            ipaddress.ip_address(host)
    except ValueError:
        return None
    return host, int(match[3])


def check_listen(text: str) -> str | None:
    """What is wrong with the address of the metrics endpoint."""
    if text == "off" or parse_listen(text):
        return None
    return f'must be address:port as in "127.0.0.1:9464", or "off", not {shown(text)}'
