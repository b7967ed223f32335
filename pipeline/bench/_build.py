"""Builds `ringline.pipeline.bench._bench`: loops that only the benchmark runs.

A module of its own, so that the driver process loads nothing of the benchmark.
"""

import runpy
from pathlib import Path

DECLARATIONS = ["pipeline/bench/limits.h", "pipeline/bench/measure.h"]
SOURCES = ["pipeline/bench/limits.c", "pipeline/bench/measure.c"]

pipeline = runpy.run_path(str(Path(__file__).resolve().parent.parent / "_build.py"))
ffibuilder = pipeline["builder"](
    "ringline.pipeline.bench._bench",
    DECLARATIONS,
    SOURCES,
    includes=pipeline["ffibuilder"],
    included=pipeline["DECLARATIONS"],
)
