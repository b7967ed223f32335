"""A process of `bench analyze`: how much faster two processes analyse a capture than one.

    python -m ringline.pipeline.bench.analyses.scaling EMPTY CAPTURE CPU CPU

prints the ratio of both times by the clock, and that of bare loops in C in two threads, each of
which reads all of the capture. The start of the processes does not count: it is the time of an
analysis in which each has one task, a copy of the capture EMPTY, which has a few packets only.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Sequence

from ringline.pipeline import analysis
from ringline.pipeline.bench.analyses import peers

PIECES = 16  # so that no process waits long for the other one at the end


def analyzed(paths: Sequence[str], workers: int) -> float:
    """Seconds by the clock of an analysis with `flow_stats` in so many processes."""
    piece = max(os.path.getsize(paths[0]) // PIECES, 1 << 20)
    began = time.perf_counter()
    analysis.run("flow_stats", paths, workers=workers, piece_bytes=piece)
    return time.perf_counter() - began


def without_start(empty: str, path: str, workers: int) -> float:
    """The same of a capture, without the start of the processes."""
    copies = [f"{empty}.{number}" for number in range(workers)]
    for copy in copies:
        shutil.copyfile(empty, copy)
    start = analyzed(copies, workers)
    return analyzed([path], workers) - start


def counted(path: str, threads: int) -> float:
    """The same of bare loops: each thread has one."""
    loops = [threading.Thread(target=peers.bare, args=(path,)) for _ in range(threads)]
    began = time.perf_counter()
    for loop in loops:
        loop.start()
    for loop in loops:
        loop.join()
    return time.perf_counter() - began


def main() -> None:
    """Print one pair of ratios."""
    empty, path, *cpus = sys.argv[1:]
    os.sched_setaffinity(0, set(map(int, cpus)))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    ours = without_start(empty, path, 1) / without_start(empty, path, 2)
    bare = 2 * counted(path, 1) / counted(path, 2)
    print(json.dumps((ours, bare)), file=answers, flush=True)


if __name__ == "__main__":
    main()
