"""Drop every packet, in C: what the way to a worker and back costs."""

from __future__ import annotations

from ringline.workers._workers import ffi, lib
from ringline.workers.tiers.native import native_plugin

drop = native_plugin(ffi.addressof(lib, "rl_drop"))
