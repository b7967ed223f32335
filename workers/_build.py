"""Builds `ringline.workers._workers`: the worker loop and the bundled C plugins."""

import runpy
from pathlib import Path

DECLARATIONS = [
    "workers/batch.h",
    "workers/headers/types.h",
    "workers/loop/loop.h",
    "workers/captures/scan.h",
    "workers/analysis/feed.h",
    "workers/analysis/shares/share.h",
    "workers/analysis/shares/merge.h",
    "workers/plugins/plugins.h",
    "workers/lookup/tables.h",
    "workers/lookup/lookup_python.h",
]
SOURCES = [
    "workers/headers/calls.c",
    "workers/loop/loop.c",
    "workers/loop/checksums.c",
    "workers/loop/columns.c",
    "workers/loop/packet.c",
    "workers/captures/scan.c",
    "workers/analysis/feed.c",
    "workers/analysis/shares/share.c",
    "workers/analysis/shares/merge.c",
    "workers/plugins/plugins.c",
    "workers/lookup/lookup.c",
]

shm = runpy.run_path(str(Path(__file__).resolve().parent.parent / "shm" / "_build.py"))
ffibuilder = shm["builder"](
    "ringline.workers._workers", DECLARATIONS, SOURCES, includes=shm["ffibuilder"]
)
