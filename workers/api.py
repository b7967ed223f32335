"""What a plugin imports: `from ringline.workers.api import DROP, packet_function`.

Three tiers, one contract: a verdict is the number of a port or DROP; an exception
and an answer that is no port drop the packet and are counted; `setup(worker)` names
counters, tables and state that outlive a crash; options are declared and checked.
"""

from __future__ import annotations

import os

from ringline.shm.errors import PluginError
from ringline.workers.batch import Batch, Packet
from ringline.workers.function import packet_function
from ringline.workers.options import Option
from ringline.workers.packets import (
    CHECKSUM_BAD,
    DROP,
    HASH,
    L3_OK,
    L4_OK,
    VLAN,
    Meta,
    create,
    field,
    resize,
    set_field,
)
from ringline.workers.tiers.native import native_plugin
from ringline.workers.worker import Counter, Gauge, Histogram, Table, Worker

__all__ = [
    "CHECKSUM_BAD",
    "DROP",
    "HASH",
    "L3_OK",
    "L4_OK",
    "VLAN",
    "Batch",
    "Counter",
    "Gauge",
    "Histogram",
    "Meta",
    "Option",
    "Packet",
    "PluginError",
    "Table",
    "Worker",
    "create",
    "field",
    "include_directory",
    "native_plugin",
    "packet_function",
    "resize",
    "set_field",
]


def include_directory() -> str:
    """Where plugin.h is, for the compiler of a plugin in C."""
    return os.path.dirname(os.path.abspath(__file__))
