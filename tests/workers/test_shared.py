"""Shared state: each worker writes its own part and reads those of all."""

from __future__ import annotations

import contextlib
import faulthandler
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from ringline.shm._shm import ffi
from ringline.shm.errors import EnvironmentLacks, PluginError
from ringline.shm.slots import WorkerSlot
from ringline.workers.named.shared import PAGE, PeerSlot
from ringline.workers.testing import run_plugin
from ringline.workers.worker import Worker

STATE = 1 << 20
WORDS = PAGE // 8


class Slots:
    """Two slots of an instance, and a Worker for each life in them."""

    def __init__(self, slots: list[WorkerSlot]) -> None:
        self.slots = slots
        self._kept: list[Worker] = []

    def worker(self, queue: int) -> Worker:
        other = self.slots[1 - queue].segment.share(read_only=True)
        mine = WorkerSlot.attach(self.slots[queue].segment.share(), STATE)
        peers = [PeerSlot(other, STATE)]
        made = Worker(mine, queue=queue, ports=["a"], options={}, peers=peers)
        self._kept.append(made)
        return made


@pytest.fixture
def slots(instance: Callable[[], str]) -> Iterator[Slots]:
    name = instance()
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(WorkerSlot.create(name, q, STATE)) for q in range(2)]
        yield Slots(made)


def test_each_worker_reads_the_parts_of_all(slots: Slots) -> None:
    mine, all_ = slots.worker(0).shared("seen", "i8", (WORDS, 2))
    assert all_.shape == (2, WORDS, 2)
    theirs, their_all = slots.worker(1).shared("seen", "i8", (WORDS, 2))
    mine[:], theirs[:] = 7, np.arange(2 * WORDS).reshape(WORDS, 2)
    for view, first, second in ((all_, mine, theirs), (their_all, theirs, mine)):
        assert (view[0] == first).all()
        assert (view[1] == second).all()
    again, again_all = slots.worker(1).shared("seen", "i8", (WORDS, 2))  # its next life
    assert again[WORDS - 1, 1] == 2 * WORDS - 1
    again[3, 1] = -5
    assert all_[1, 3, 1] == again_all[0, 3, 1] == -5


def test_the_parts_of_others_cannot_be_written(slots: Slots) -> None:
    _, all_ = slots.worker(0).shared("seen", "i8", WORDS)
    with pytest.raises(ValueError, match="read-only"):
        all_[1, 0] = 1
    # Nor by its address: that ends the process.
    child = os.fork()
    if child == 0:
        faulthandler.disable()
        ffi.cast("int64_t *", all_.ctypes.data)[WORDS] = 1
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)


def test_another_order_is_refused(slots: Slots) -> None:
    slots.worker(0).shared("seen", "i8", WORDS)
    worker = slots.worker(1)
    worker.shared("more", "i8", WORDS)
    with pytest.raises(PluginError, match="'seen' is at another place or has another shape"):
        worker.shared("seen", "i8", WORDS)


@pytest.mark.parametrize(("dtype", "shape"), [("i8", 3), ("i8", 0), ("O", WORDS), ("u1", (7, 9))])
def test_a_part_is_whole_pages(slots: Slots, dtype: Any, shape: Any) -> None:
    with pytest.raises(PluginError, match=f"a multiple of {PAGE} bytes"):
        slots.worker(0).shared("seen", dtype, shape)


def test_a_slot_that_is_too_short_is_refused(slots: Slots) -> None:
    with pytest.raises(EnvironmentLacks, match="the slot of another worker cannot be mapped"):
        PeerSlot(slots.slots[0].segment.share(read_only=True), 2 * STATE)


def test_compiled_code_reads_all_and_writes_its_own(plugin_file: Any) -> None:
    path = plugin_file(
        "from ringline.workers.api import packet_function\n"
        "def setup(worker):\n"
        "    return worker.shared('seen', 'i8', 512)\n"
        "@packet_function(setup=setup)\n"
        "def count(frame, meta, state):\n"
        "    mine, all_ = state\n"
        "    mine[frame[0]] += 1\n"
        "    return all_[0, frame[0]] % meta.ports\n"
    )
    verdicts = [result.verdict for result in run_plugin(f"{path}:count", [bytes(60)] * 3, ports=4)]
    assert verdicts == [1, 2, 3]


def test_compiled_code_cannot_write_into_all(plugin_file: Any) -> None:
    path = plugin_file(
        "from ringline.workers.api import packet_function\n"
        "@packet_function(setup=lambda worker: worker.shared('seen', 'i8', 512))\n"
        "def count(frame, meta, state):\n"
        "    state[1][0, 0] = 1\n"
        "    return 0\n"
    )
    with pytest.raises(PluginError, match="does not compile"):
        run_plugin(f"{path}:count", [bytes(60)])
