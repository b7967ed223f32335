"""Builds `ringline.pipeline.bench._bench`: loops that only the benchmark runs.

A module of its own, so that the driver process loads nothing of the benchmark.
"""

import runpy
from pathlib import Path

FILES = [
    f"pipeline/bench/{name}"
    for name in (
        "loops/limits",
        "loops/bare",
        "loops/measure",
        "loops/card",
        "loops/answers",
        "loops/filler",
        "veths/sockets",
        "veths/packets",
        "analyses/bare_flows",
    )
]
DECLARATIONS = [f"{name}.h" for name in FILES]
SOURCES = [f"{name}.c" for name in FILES]

pipeline = runpy.run_path(str(Path(__file__).resolve().parent.parent / "_build.py"))
ffibuilder = pipeline["builder"](
    "ringline.pipeline.bench._bench",
    DECLARATIONS,
    SOURCES,
    includes=pipeline["ffibuilder"],
    included=pipeline["DECLARATIONS"],
)
