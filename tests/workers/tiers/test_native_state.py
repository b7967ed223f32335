"""What `setup` of a plugin in C gives to the C function, and the named values of compiled code."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ringline.shm.errors import PluginError
from ringline.workers.api import native_plugin, packet_function
from ringline.workers.testing import run_plugin

SOURCE = """
#include "plugin.h"

struct named {
    uint64_t *total, *by_size;
    double *share;
};

static inline int64_t count(uint8_t *frame, struct rl_reference *meta, struct rl_batch *batch)
{
    struct named *named = batch->state;
    ++*named->total;
    named->by_size[meta->length > 100]++;
    *named->share = (double)named->by_size[1] / (double)*named->total;
    return frame[0] ? RL_VERDICT_DROP : meta->port;
}
RL_PLUGIN(counting, count)
"""
FRAMES = [bytes(60), bytes(60), bytes(60), bytes(1000)]


@pytest.fixture(scope="module")
def counting(
    compile_c: Callable[[Path], str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Callable[[Any], Any]], Any]:
    """The plugin with this setup."""
    source = tmp_path_factory.mktemp("source") / "counting.c"
    source.write_text(SOURCE)
    library = ctypes.CDLL(compile_c(source))
    address = ctypes.addressof(ctypes.c_char.in_dll(library, "counting"))
    return lambda setup: native_plugin(address, setup=setup)


def test_a_plugin_in_c_counts_what_its_setup_named(counting: Callable[..., Any]) -> None:
    def setup(worker: Any) -> Any:
        sizes = worker.counter("sizes", label="size", values=("small", "large"))
        return worker.counter("total"), sizes, worker.gauge("share")

    run = run_plugin(counting(setup), FRAMES)
    assert run.named == {"total": 4, "sizes": {"small": 3, "large": 1}, "share": 0.25}


def test_a_part_of_the_state_without_an_address_is_named(counting: Callable[..., Any]) -> None:
    plugin = counting(lambda worker: (worker.counter("total"), "name"))
    with pytest.raises(PluginError, match="not str, which is part 1 of the tuple"):
        run_plugin(plugin, FRAMES)
    plugin = counting(lambda worker: "name")
    with pytest.raises(PluginError, match=r"a tuple of these or None, not str$"):
        run_plugin(plugin, FRAMES)


def test_compiled_code_writes_histograms_and_gauges() -> None:
    def setup(worker: Any) -> Any:
        return worker.histogram("lengths"), worker.gauge("share")

    @packet_function(setup=setup)
    def measure(frame, meta, state):  # type: ignore[no-untyped-def]
        lengths, share = state
        bucket = 0
        while meta.length >> bucket:
            bucket += 1
        lengths[0] += meta.length
        lengths[1 + bucket] += 1
        share[0] = meta.length / 4000
        return meta.port

    run = run_plugin(measure, FRAMES)
    total, buckets = run.named["lengths"]
    assert (total, buckets[6], buckets[10], sum(buckets)) == (1180, 3, 1, 4)
    assert run.named["share"] == 0.25


def test_a_test_may_give_a_plugin_the_state_of_a_run() -> None:
    class Large:
        def setup(self, worker: Any) -> None:
            worker.state("large", "u1", 5 << 20)

        def process(self, batch: Any) -> None:
            pass

    assert len(run_plugin(Large, FRAMES)) == len(FRAMES)
    with pytest.raises(
        PluginError, match=r"asks for 5242880 bytes as 'large'.*ringline try.*--state"
    ):
        run_plugin(Large, FRAMES, state=4 << 20)
