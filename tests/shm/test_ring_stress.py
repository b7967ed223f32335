"""G1 and G2 of ring.h and the guarantee of wait.h with threads and processes (ring_stress.c)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ringline.shm.rings import RingPair

if TYPE_CHECKING:
    from collections.abc import Callable

PROOF = os.environ.get("RINGLINE_PROOF") == "1"
COUNT = 10_000_000 if PROOF else 300_000
WAKE_UPS = 10_000_000 if PROOF else 50_000
STRESS = "tests/shm/ring_stress.c"
SANITIZED = ["-DRL_NO_SLEEP", "-fsanitize=thread"]

# ThreadSanitizer supports only some address ranges. The kernel's address randomization
# can place mappings outside of them; without randomization they fit.
WITHOUT_RANDOMIZATION = ["setarch", os.uname().machine, "-R"]


def run(command: list[str], fd: int | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        pass_fds=() if fd is None else (fd,),
    )


def run_sanitized(program: Path, count: int, start: int) -> subprocess.CompletedProcess[str]:
    command = [str(program), "threads", str(count), str(start)]
    done = run(command)
    if "FATAL: ThreadSanitizer" in done.stderr:
        done = run([*WITHOUT_RANDOMIZATION, *command])
    if "FATAL: ThreadSanitizer" in done.stderr or "setarch:" in done.stderr:
        pytest.skip(f"ThreadSanitizer needs another address layout: {done.stderr.strip()}")
    return done


@pytest.mark.parametrize("start", [0, 2**32 - 1000], ids=["from 0", "across the wrap"])
def test_threads_see_every_reference_whole_and_in_order(
    build_c: Callable[..., Path], start: int
) -> None:
    done = run_sanitized(build_c(STRESS, flags=SANITIZED), COUNT, start)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_sanitizer_notices_when_the_release_store_is_weak(
    build_c: Callable[..., Path],
) -> None:
    weak = [*SANITIZED, "-DRL_RING_RELEASE=__ATOMIC_RELAXED"]
    done = run_sanitized(build_c(STRESS, flags=weak), 100_000, 0)
    assert "WARNING: ThreadSanitizer: data race" in done.stderr
    assert done.returncode != 0


@pytest.mark.parametrize("start", [0, 2**32 - 1000], ids=["from 0", "across the wrap"])
def test_threads_at_full_speed(build_c: Callable[..., Path], start: int) -> None:
    done = run([str(build_c(STRESS)), "threads", str(COUNT), str(start)])
    assert done.returncode == 0, done.stdout + done.stderr


def test_processes_exchange_references_over_a_segment(
    build_c: Callable[..., Path], instance: Callable[[], str]
) -> None:
    with RingPair.create(instance(), 0, 1) as rings:
        fd = rings.segment.fd
        done = run([str(build_c(STRESS)), "processes", str(COUNT), str(fd)], fd)
        assert done.returncode == 0, done.stdout + done.stderr
        assert rings.in_.consumer == rings.out.producer == COUNT & 0xFFFFFFFF


def test_no_lost_wakeup(build_c: Callable[..., Path], instance: Callable[[], str]) -> None:
    with RingPair.create(instance(), 0, 1) as rings:
        fd = rings.segment.fd
        done = run([str(build_c(STRESS)), "sleeper", str(WAKE_UPS), str(fd)], fd)
        assert done.returncode == 0, f"a wake-up was lost: {done.stdout}"
        words = done.stdout.split()
        assert int(words[3]) > WAKE_UPS // 100, f"the worker was asleep too rarely: {done.stdout}"


@pytest.mark.skipif(not PROOF, reason="needs RINGLINE_PROOF=1: it may take a minute")
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_without_the_fences_a_wakeup_is_lost(
    build_c: Callable[..., Path], instance: Callable[[], str]
) -> None:
    # Shows that test_no_lost_wakeup can fail. Took from 70 to 940,000 wake-ups.
    unfenced = build_c(STRESS, flags=["-D__atomic_thread_fence(order)=((void)0)"])
    for _ in range(3):
        with RingPair.create(instance(), 0, 1) as rings:
            fd = rings.segment.fd
            done = run([str(unfenced), "sleeper", "5000000", str(fd)], fd)
            if "lost 1" in done.stdout:
                return
    pytest.fail(f"no wake-up of 15,000,000 was lost: {done.stdout}")
