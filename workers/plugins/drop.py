"""Drop every packet, in C: it measures the cost of the way to a worker and back."""

from __future__ import annotations

from ringline.workers._workers import ffi, lib
from ringline.workers.tiers.native import native_plugin

drop = native_plugin(ffi.addressof(lib, "rl_drop"))
