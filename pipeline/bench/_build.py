"""Builds `ringline.pipeline.bench._bench`: loops that only the benchmark runs.

A module of its own, so that the driver process loads nothing of the benchmark.
"""

import runpy
from pathlib import Path

LOOPS = "pipeline/bench/loops"
DECLARATIONS = [
    f"{LOOPS}/{name}.h" for name in ("limits", "bare", "measure", "card", "answers", "filler")
]
SOURCES = [
    f"{LOOPS}/{name}.c" for name in ("limits", "bare", "measure", "card", "answers", "filler")
]

pipeline = runpy.run_path(str(Path(__file__).resolve().parent.parent / "_build.py"))
ffibuilder = pipeline["builder"](
    "ringline.pipeline.bench._bench",
    DECLARATIONS,
    SOURCES,
    includes=pipeline["ffibuilder"],
    included=pipeline["DECLARATIONS"],
)
