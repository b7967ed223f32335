"""Swap the two MAC addresses and send the packet back: the same plugin in every tier.

These plugins are examples of the three tiers, and `ringline bench plugin` measures them.
This module imports neither numba nor NumPy: a worker imports them when it prepares a
plugin that needs them.
"""

from __future__ import annotations

from struct import Struct

from ringline.workers._workers import ffi, lib
from ringline.workers.api import DROP, field, native_plugin, packet_function, set_field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ringline.workers.api import Batch

# The functions are in plugins.c. Those called `timed` read when the packet came, to measure what
# that costs; they drop packets from before 1970.
mac_swap = native_plugin(ffi.addressof(lib, "rl_mac_swap"))
mac_swap_timed = native_plugin(ffi.addressof(lib, "rl_mac_swap_timed"))


@packet_function
def mac_swap_compiled(frame: Any, meta: Any) -> int:
    """Compiled Python: one packet, its bytes as a uint8 array."""
    if len(frame) < 12:
        return DROP
    destination, source = field(frame, 0, 6), field(frame, 6, 6)
    set_field(frame, 0, 6, source)
    set_field(frame, 6, 6, destination)
    port: int = meta.port
    return port


@packet_function
def mac_swap_compiled_timed(frame: Any, meta: Any) -> int:
    """The same, and the time of the packet."""
    if len(frame) < 12 or meta.time < 0:
        return DROP
    destination, source = field(frame, 0, 6), field(frame, 6, 6)
    set_field(frame, 0, 6, source)
    set_field(frame, 6, 6, destination)
    port: int = meta.port
    return port


class MacSwapColumns:
    """Batch tier, NumPy columns: the addresses of all packets at once."""

    def process(self, batch: Batch) -> None:
        """Read both columns of addresses, and write them exchanged."""
        destinations = batch.gather(0, "V6")
        sources = batch.gather(6, "V6")
        batch.scatter(0, sources)
        batch.scatter(6, destinations)
        batch.verdicts[:] = batch.ports


ADDRESSES = Struct("6s6s")
unpack_addresses = ADDRESSES.unpack_from  # looked up once, not for each packet
pack_addresses = ADDRESSES.pack_into


class MacSwapPackets:
    """Batch tier, packet by packet, in plain Python."""

    def process(self, batch: Batch) -> None:
        """Swap the addresses in the memoryview of each packet; shorter frames are dropped."""
        for packet in batch:
            data = packet.data
            if len(data) >= 12:
                destination, source = unpack_addresses(data)
                pack_addresses(data, 0, source, destination)
                packet.verdict = packet.port
