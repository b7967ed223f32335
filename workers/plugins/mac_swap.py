"""Swap the two MAC addresses and send the packet back, in C.

mac_swap_compiled and mac_swap_batch are the same plugin in the other two tiers.
"""

from __future__ import annotations

from ringline.workers._workers import ffi, lib
from ringline.workers.native import native_plugin

mac_swap = native_plugin(ffi.addressof(lib, "rl_mac_swap"))
