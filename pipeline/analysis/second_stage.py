"""The second stage of an analysis by flow: its tasks, and the joining of what they find."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from ringline.pipeline.analysis.by_flow import ByFlow
from ringline.pipeline.analysis.captures import Capture
from ringline.pipeline.analysis.joining import Tree, answer_of
from ringline.pipeline.analysis.merging import TRIES, Merging

Progress = Callable[[int, int, int], None]


class SecondStage(Merging):
    """A part of an analysis (analysis.py), which has all that is declared here."""

    _tree: Tree
    _used: list[Capture]
    _again: deque[Callable[[], None]]
    _bytes: int

    @abstractmethod
    def _run_all(self, jobs: Iterator[Callable[[], None]], progress: Progress | None) -> None:
        """Begin all jobs, and wait until the tree is done."""

    def _run_shares(self, flows: ByFlow, progress: Progress | None) -> None:
        """Run the plugin on all shares."""
        flows.begin(self._used, self._tree.result)
        self._tree = Tree(len(flows.shares))
        begins = [partial(self._begin_share, flows, it) for it in range(len(flows.shares))]
        self._run_all(iter(begins), progress)
        flows.end(self._tree.result)

    def _begin_share(self, flows: ByFlow, leaf: int) -> None:
        flows.shares[leaf].tries += 1
        job = flows.second(flows.shares[leaf])
        self._submit(job, [], partial(self._is_share_done, flows, leaf))

    def _is_share_done(self, flows: ByFlow, leaf: int, future: Any) -> None:
        answer, part = answer_of(future)
        if "died" in answer and flows.shares[leaf].tries < TRIES:
            self._again.append(partial(self._begin_share, flows, leaf))
            return
        self._check(answer, ", twice")
        self._bytes += flows.bytes_of(leaf)
        self._tree.put(leaf, flows.outcome(answer, part))
        self._join(self._tree, lambda: None)
