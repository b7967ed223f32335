"""A rehearsal: one batch of sample packets and one tick, before the first real packet.

numba compiles a helper (`@numba.njit`) when it is first called, for one to three seconds. A
worker that did that with its first packets, or in its first tick, would look dead. So a
plugin whose module has such a helper rehearses while it is prepared. Everything that the
rehearsal changes is discarded, and its errors are ignored: the sample packets are not the
user's, and an error that matters comes again.
"""

from __future__ import annotations

import mmap
import sys

from ringline.shm._shm import ffi as shm_ffi
from ringline.shm._shm import lib as shm
from ringline.workers._workers import ffi
from ringline.workers.batch import Batch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

_ADDRESSES = bytes.fromhex("020000000001020000000002")
_IPV4 = "4500002e0001000040{:02x}0000c0000201c6336401"
# The beginnings of the samples after the MAC addresses: IPv4 with UDP and TCP, IPv6 with UDP, ARP.
_BEGINNINGS = (
    "0800" + _IPV4.format(17) + "c3500035001a0000",
    "0800" + _IPV4.format(6) + "c350005000000001000000005002ffff00000000",
    "86dd6000000000141140"
    + "20010db8"
    + "00" * 11
    + "01"
    + "20010db8"
    + "00" * 11
    + "02c350003500140000",
    "0806000108000604000102000000000102000000" + "c0000201",
)
SAMPLES = tuple(
    (_ADDRESSES + bytes.fromhex(beginning)).ljust(length, b"\0")
    for beginning in _BEGINNINGS
    for length in (60, 1514)
)


def is_needed(globals_: Mapping[str, Any]) -> bool:
    """Whether a module with these global names, or a module among them, has a function that
    numba will compile when it is first called."""
    if "numba" not in sys.modules:
        return False
    modules = [value for value in globals_.values() if isinstance(value, type(sys))]
    spaces = [globals_, *(vars(module) for module in modules if not _is_numba(module.__name__))]
    return any(_is_lazy(value) for space in spaces for value in list(space.values()))


def rehearse(*steps: Callable[[], object]) -> None:
    """Take the steps, up to the first that fails."""
    try:
        for step in steps:
            step()
    except KeyboardInterrupt:
        raise
    except BaseException:
        return  # see the module


def sample_batch(queue: int, ports: int, times: bool = False) -> Batch:
    """A batch of SAMPLES, which no worker's memory is part of. With `times` they have times: 0."""
    stride, headroom = shm.RL_BUFFER_STRIDE, shm.RL_BUFFER_HEADROOM
    memory = mmap.mmap(-1, len(SAMPLES) * stride, mmap.MAP_PRIVATE)
    loop = ffi.new("struct rl_worker *")
    loop.batch.memory = ffi.cast(
        "uint8_t *", shm_ffi.cast("uintptr_t", shm_ffi.from_buffer(memory))
    )
    loop.batch.packets = loop.packets
    loop.batch.blanks = loop.blanks
    if times:
        loop.batch.times = loop.moments
    loop.batch.count, loop.batch.queue, loop.batch.ports = len(SAMPLES), queue, ports
    loop.batch.frame_max, loop.batch.room = shm.RL_FRAME_MAX, stride
    for number, frame in enumerate(SAMPLES):
        start = number * stride + headroom
        memory[start : start + len(frame)] = frame
        reference, span = loop.packets[number], loop.spans[number]
        reference.buffer, reference.offset, reference.length = number, headroom, len(frame)
        span.start, span.end = start, start + len(frame)
        loop.verdicts[number] = shm.RL_VERDICT_DROP
    batch = Batch(loop, memoryview(memory))
    batch._begin()
    return batch


def _is_numba(name: str) -> bool:
    return name.partition(".")[0] in ("numba", "numpy")


def _is_lazy(value: object) -> bool:
    """A numba function without any compiled version: a dispatcher, or a ufunc."""
    if not type(value).__module__.startswith("numba."):
        return False
    compiled = getattr(value, "signatures", None)
    if compiled is None:
        compiled = getattr(value, "types", True)
    return hasattr(value, "py_func") and not compiled
