"""A process of `bench analyze`: how much faster two processes analyse a capture than one.

    python -m ringline.pipeline.bench.analyses.scaling EMPTY CAPTURE

prints the ratio of both times by the clock, and that of bare loops in C in two threads, each of
which reads all of the capture. The start of a process does not count.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time

from ringline.pipeline import analysis
from ringline.pipeline.bench.analyses.peers import bare
from ringline.workers.analysis import children

PIECES = 16  # so that no process waits long for the other one at the end


def analyzed(path: str, workers: int) -> float:
    """Seconds by the clock of an analysis with `flow_stats` in so many processes."""
    piece = max(os.path.getsize(path) // PIECES, 1)
    began = time.perf_counter()
    analysis.run("flow_stats", [path], workers=workers, piece_bytes=piece)
    return time.perf_counter() - began


def counted(path: str, threads: int) -> float:
    """The same of bare loops: each thread has one."""
    loops = [threading.Thread(target=bare, args=(path,)) for _ in range(threads)]
    began = time.perf_counter()
    for loop in loops:
        loop.start()
    for loop in loops:
        loop.join()
    return time.perf_counter() - began


def main() -> None:
    """Print one pair of ratios."""
    empty, path = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for workers in (1, 2):
        analyzed(empty, workers)
    ratios = analyzed(path, 1) / analyzed(path, 2), 2 * counted(path, 1) / counted(path, 2)
    print(json.dumps(ratios), file=answers, flush=True)
    children.close()


if __name__ == "__main__":
    main()
