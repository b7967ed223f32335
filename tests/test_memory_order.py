"""Fences and barriers that x86 hides: no run there can show that one is missing.

So these tests read the compiler's output before it becomes machine code, LLVM IR or GIMPLE. It
keeps every fence, also those that x86 needs no instruction for and AArch64 does.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLAGS = ["-std=gnu11", "-O2", "-fno-inline"]  # each function stays a function of the output

# The same steps in the two languages. `FULL` and `RELEASE` are fences, `COMPILER` is one for the
# compiler alone, and `BARRIER` tells it that memory may have changed. `ACQUIRE` and `PUBLISH` are a
# load and a store with their order.
WORDS = {
    "clang": {
        "FULL": r"fence seq_cst$",
        "RELEASE": r"fence (release|acq_rel|seq_cst)$",
        "BARRIER": r"call void asm sideeffect .*~\{memory\}.*\(",
        "COMPILER": r"fence syncscope\(\"singlethread\"\) seq_cst$",
        "ACQUIRE": r"= load atomic i(16|32|64), .* acquire,",
        "PUBLISH": r"store atomic i(16|32) .* release,",
        "LOAD": r"= load atomic i(16|32),",
        "STORE": r"store atomic i32 ",
        "DOORBELL": r"store volatile i(16|32) ",
        "COPY": r"call (fastcc )?void @(llvm\.memcpy|rl_copy)",
        "BRANCH": r"br i1 ",
        "RETURN": r"ret ",
    },
    "gcc": {
        "FULL": r"__atomic_thread_fence \(5\);$",
        "RELEASE": r"__atomic_thread_fence \([345]\);$",
        "BARRIER": r"__asm__ __volatile__\(.*\"memory\"\);$",
        "COMPILER": r"__atomic_signal_fence \(5\);( \[tail call\])?$",
        "ACQUIRE": r"= __atomic_load_[248] \(.*, 2\);$",
        "PUBLISH": r"__atomic_store_[24] \(.*, 3\);( \[tail call\])?$",
        "LOAD": r"= __atomic_load_[24] \(",
        "STORE": r"__atomic_store_4 \(",
        "DOORBELL": r"={v} (?!\{CLOBBER)",
        "COPY": r"memcpy \(|rl_copy[.\w]* \(|= MEM <.*> \[\(char \* \{ref-all\}\)",
        "BRANCH": r"if \(",
        "RETURN": r"return",
    },
}


class Output:
    """What one compiler makes of the functions of the project."""

    def __init__(self, compiler: str, folder: Path) -> None:
        self.words = WORDS[compiler]
        self._compiler = compiler
        self._folder = folder

    def steps(self, file: str, function: str, *wanted: str) -> list[str]:
        """Those steps of a function that are in `wanted`, in their order."""
        found = []
        for line in self._body(file, function):
            found += [word for word in wanted if re.search(self.words[word], line.strip())][:1]
        return found

    def _body(self, file: str, function: str) -> list[str]:
        target = self._folder / (Path(file).stem + ".txt")
        if not target.exists():
            how = {
                "clang": ["-S", "-emit-llvm", "-o", str(target)],
                "gcc": ["-c", "-o", "/dev/null", f"-fdump-tree-optimized={target}"],
            }[self._compiler]
            command = [self._compiler, *FLAGS, *how, str(ROOT / file)]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
            assert done.returncode == 0, done.stderr
        # The optimizer appends its own words to a name: rl_ring_peek.constprop.
        head = {
            "clang": rf"^define [^\n]*@{function}[.\w]*\([^\n]*\n",
            "gcc": rf"^;; Function {function}[.\w]* \([^\n]*\n",
        }[self._compiler]
        body = re.search(head + r"(.*?)^\}", target.read_text(), re.MULTILINE | re.DOTALL)
        assert body is not None, f"{file} has no function {function}"
        return body[1].splitlines()


@pytest.fixture(scope="module", params=list(WORDS))
def output(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., list[str]]:
    compiler: str = request.param
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    return Output(compiler, tmp_path_factory.mktemp(compiler)).steps


def test_a_producer_has_a_full_fence_before_it_reads_whether_the_consumer_sleeps(
    output: Callable[..., list[str]],
) -> None:
    steps = output("pipeline/driver/lane.c", "rl_ring_is_asleep", "FULL", "LOAD")
    assert steps == ["FULL", "LOAD"]


def test_a_consumer_has_a_full_fence_between_its_flag_and_its_last_look(
    output: Callable[..., list[str]],
) -> None:
    steps = output("workers/loop/loop.c", "rl_ring_sleep", "FULL", "LOAD", "STORE")
    assert steps == ["STORE", "FULL", "LOAD", "STORE"]


@pytest.mark.parametrize(
    ("file", "function", "step"),
    [
        (
            "pipeline/driver/lane.c",
            "rl_ring_room",
            "ACQUIRE",
        ),  # `consumer`
        ("pipeline/driver/lane.c", "rl_ring_peek", "ACQUIRE"),  # `producer`
        ("pipeline/driver/lane.c", "rl_ring_put", "PUBLISH"),
        ("pipeline/driver/lane.c", "rl_ring_take", "PUBLISH"),
        ("pipeline/driver/lane.c", "rl_lane_run", "ACQUIRE"),  # `request`
        ("pipeline/driver/settle.c", "settle_unpopped", "ACQUIRE"),  # `consumer` of a dead worker
        ("pipeline/driver/balance.c", "rl_balance_publish", "PUBLISH"),  # `sequence`
        ("pipeline/ports/ixgbe/ixgbe.c", "rl_ixgbe_rx_burst", "ACQUIRE"),  # DD of a descriptor
        ("pipeline/ports/descriptor_rings/reclaim.c", "rl_card_reclaim", "ACQUIRE"),
        ("pipeline/ports/e1000e/e1000e.c", "rl_e1000e_rx_burst", "ACQUIRE"),
        ("pipeline/ports/virtio/virtio.c", "rl_virtq_pending", "ACQUIRE"),  # the used index
        ("pipeline/ports/virtio/virtio.c", "rl_virtq_publish", "PUBLISH"),  # the available index
        ("pipeline/ports/xdp/xdp.c", "filled", "ACQUIRE"),  # an index of the kernel
        ("pipeline/ports/xdp/xdp.c", "publish", "PUBLISH"),
        ("pipeline/ports/packet/packet.c", "status_of", "ACQUIRE"),  # of a block or a slot
        ("pipeline/ports/packet/packet.c", "give", "PUBLISH"),
    ],
)
def test_an_index_or_a_done_bit_is_read_and_written_in_its_order(
    output: Callable[..., list[str]], file: str, function: str, step: str
) -> None:
    assert set(output(file, function, "ACQUIRE", "PUBLISH")) == {step}


@pytest.mark.parametrize("function", ["rl_intend", "rl_intent_done"])
def test_an_intent_lies_between_two_fences_for_the_compiler(
    output: Callable[..., list[str]], function: str
) -> None:
    """A killed driver stops between two instructions, so the processor needs no fence."""
    steps = output("pipeline/driver/lane.c", function, "COMPILER", "DOORBELL")
    assert steps == ["COMPILER", "DOORBELL", "COMPILER"]


@pytest.mark.parametrize("driver", ["ixgbe", "e1000e"])
def test_descriptors_are_written_before_the_doorbell(
    driver: str, output: Callable[..., list[str]]
) -> None:
    file = f"pipeline/ports/{driver}/{driver}.c"
    assert output(file, "ring_doorbell", "RELEASE", "DOORBELL") == ["RELEASE", "DOORBELL"]
    for burst in (f"rl_{driver}_rx_burst", f"rl_{driver}_tx_burst"):
        assert output(file, burst, "DOORBELL") == [], "a doorbell without ring_doorbell"


def test_a_driver_of_a_virtqueue_looks_what_the_device_wants_after_a_full_fence(
    output: Callable[..., list[str]],
) -> None:
    """Otherwise both could wait: the device for a notification, the driver for the device."""
    file = "pipeline/ports/virtio/virtio.c"
    steps = output(file, "rl_virtq_publish", "PUBLISH", "FULL", "LOAD")
    assert steps == ["PUBLISH", "FULL", "LOAD", "LOAD"]  # the flags, or the event
    assert output(file, "publish", "DOORBELL") == ["DOORBELL"]
    for burst in ("rl_virtio_rx_burst", "rl_virtio_tx_burst"):
        assert output(file, burst, "DOORBELL") == [], "a doorbell without publish"
    elements = output(file, "rl_virtq_peek", "LOAD")
    assert elements == ["LOAD", "LOAD"], "an element that the device may change is read twice"


def test_a_snapshot_of_the_balances_lies_between_two_full_fences(
    output: Callable[..., list[str]],
) -> None:
    """A reader of a sequence lock must not see new values with the old sequence number."""
    steps = output("pipeline/driver/balance.c", "rl_balance_publish", "FULL", "STORE")
    assert steps[-4:] == ["STORE", "FULL", "FULL", "STORE"]


def test_a_reference_is_not_read_again_after_it_was_copied(
    output: Callable[..., list[str]],
) -> None:
    """A worker may change an entry between a check and a use: both must use the same copy."""
    for file in ("pipeline/driver/lane.c", "pipeline/driver/settle.c", "workers/loop/loop.c"):
        steps = output(file, "rl_ring_peek", "COPY", "BARRIER", "RETURN")
        assert steps[-3:] == ["COPY", "BARRIER", "RETURN"], f"{file}: {steps}"


def test_an_entry_of_a_dead_workers_ring_is_not_read_again_after_it_was_copied(
    output: Callable[..., list[str]],
) -> None:
    steps = output("pipeline/driver/settle.c", "settle_unpopped", "COPY", "BARRIER", "BRANCH")
    assert "COPY" in steps, "the reference is not copied as a whole"
    for at in (n for n, step in enumerate(steps) if step == "COPY"):
        assert steps[at + 1 : at + 3] == ["BARRIER", "BRANCH"], steps
