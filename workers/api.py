"""Everything that a plugin imports: `from ringline.workers.api import DROP, packet_function`.

A plugin is compiled Python (`packet_function`), a class with `process(batch)`, or C
(`native_plugin`, plugin.h). The contract is the same for these three tiers:

 - A verdict is the number of a port, from 0 to the number of ports - 1, DROP, or a number that
   `worker.drop_reason(name)` returned, which drops the packet under that name.
 - An exception drops the packet; in `process` it drops the whole batch. Any other verdict
   drops the packet. Both are counted, and the worker goes on.
 - `setup(worker)` creates named counters, gauges, histograms, tables and state. They
   survive a crash of the worker.
 - Options are declared as a list of `Option`, and the configuration is checked against it.
"""

from __future__ import annotations

import os

from ringline.shm.errors import PluginError
from ringline.workers.batch import Batch, Packet
from ringline.workers.function import packet_function
from ringline.workers.headers.checksums import checksum, fix_checksums, update_checksum
from ringline.workers.headers.headers import ICMP, ICMPV6, TCP, UDP, Headers, headers
from ringline.workers.lookup.maps import Map
from ringline.workers.lookup.prefixes import Prefixes
from ringline.workers.named.log import Log
from ringline.workers.named.part import Part, ordered
from ringline.workers.named.values import Counter, Counters, Gauge, Histogram, Table
from ringline.workers.options import Option
from ringline.workers.packets import (
    CHECKSUM_BAD,
    DROP,
    FIX_CHECKSUMS,
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
from ringline.workers.worker import Worker

__all__ = [
    "CHECKSUM_BAD",
    "DROP",
    "FIX_CHECKSUMS",
    "HASH",
    "ICMP",
    "ICMPV6",
    "L3_OK",
    "L4_OK",
    "TCP",
    "UDP",
    "VLAN",
    "Batch",
    "Counter",
    "Counters",
    "Gauge",
    "Headers",
    "Histogram",
    "Log",
    "Map",
    "Meta",
    "Option",
    "Packet",
    "Part",
    "PluginError",
    "Prefixes",
    "Table",
    "Worker",
    "checksum",
    "create",
    "field",
    "fix_checksums",
    "headers",
    "include_directory",
    "native_plugin",
    "ordered",
    "packet_function",
    "resize",
    "set_field",
    "update_checksum",
]


def include_directory() -> str:
    """The folder that holds plugin.h: give it to the compiler as `-I`."""
    return os.path.dirname(os.path.abspath(__file__))
