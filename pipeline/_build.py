"""Builds `ringline.pipeline._pipeline`: the lane, the ports and the bare limits of the bench."""

import runpy
from pathlib import Path

DECLARATIONS = [
    "pipeline/ports/port.h",
    "pipeline/driver/lane.h",
    "pipeline/ports/ixgbe/ixgbe.h",
    "pipeline/ports/sim82599/sim82599.h",
    "pipeline/bench/limits.h",
    "pipeline/bench/measure.h",
]
SOURCES = [
    "pipeline/driver/lane.c",
    "pipeline/driver/books.c",
    "pipeline/ports/ixgbe/ixgbe.c",
    "pipeline/ports/ixgbe/rings.c",
    "pipeline/ports/sim82599/sim82599.c",
    "pipeline/ports/sim82599/chip/bringup.c",
    "pipeline/ports/sim82599/traffic/classify.c",
    "pipeline/ports/sim82599/traffic/deliver.c",
    "pipeline/ports/sim82599/chip/faults.c",
    "pipeline/ports/sim82599/mailbox.c",
    "pipeline/ports/sim82599/traffic/open_loop.c",
    "pipeline/ports/sim82599/chip/queues.c",
    "pipeline/ports/sim82599/traffic/receive.c",
    "pipeline/ports/sim82599/traffic/record.c",
    "pipeline/ports/sim82599/chip/registers.c",
    "pipeline/ports/sim82599/chip/access.c",
    "pipeline/ports/sim82599/traffic/rss.c",
    "pipeline/ports/sim82599/chip/statistics.c",
    "pipeline/ports/sim82599/traffic/transmit.c",
    "pipeline/ports/sim82599/traffic/wire.c",
    "pipeline/bench/limits.c",
    "pipeline/bench/measure.c",
]

shm = runpy.run_path(str(Path(__file__).resolve().parent.parent / "shm" / "_build.py"))
ffibuilder = shm["builder"](
    "ringline.pipeline._pipeline", DECLARATIONS, SOURCES, includes=shm["ffibuilder"]
)
