"""Builds `ringline.pipeline._pipeline`: the lane and the ports."""

import runpy
from pathlib import Path

HERE = Path(__file__).resolve().parent

DECLARATIONS = [
    "pipeline/ports/port.h",
    "pipeline/ports/pci/absent.h",
    "pipeline/driver/lane.h",
    "pipeline/ports/descriptor_rings/rings.h",
    "pipeline/ports/ixgbe/ixgbe.h",
    "pipeline/ports/e1000e/e1000e.h",
    "pipeline/ports/virtqueue/virtqueue.h",
    "pipeline/ports/virtio/virtio.h",
    "pipeline/ports/xdp/xdp.h",
    "pipeline/ports/packet/packet.h",
    "pipeline/ports/tap/tap.h",
    "pipeline/ports/sim82599/sim82599.h",
    "pipeline/ports/sim82599/stamps.h",
]
SOURCES = [
    str(path.relative_to(HERE.parent))
    for folder in ("driver", "ports")
    for path in sorted((HERE / folder).rglob("*.c"))
]

shm = runpy.run_path(str(HERE.parent / "shm" / "_build.py"))
builder = shm["builder"]
ffibuilder = builder(
    "ringline.pipeline._pipeline", DECLARATIONS, SOURCES, includes=shm["ffibuilder"]
)
# Python functions that C calls (pipeline/ports/sim82599/model.py).
ffibuilder.cdef('extern "Python" void rl_sim_more(void *context);')
