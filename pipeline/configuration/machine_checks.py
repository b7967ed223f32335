"""Checks of a configuration against this machine, before anything is started.

Each check returns problems in the form that `toml` uses: the path in the file, a colon,
what is wrong and the remedy.
"""

from __future__ import annotations

import contextlib
import functools
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from ringline.pipeline.configuration.affinity import usable_cpus
from ringline.pipeline.configuration.config import (
    PORTS_MAX,
    Config,
    PortConfig,
    WireConfig,
)
from ringline.shm._shm import ffi
from ringline.shm.errors import reason_of
from ringline.shm.owners import SHARED_MEMORY
from ringline.workers.captures.captures import (
    FILE_HEADER_BYTES,
    CaptureError,
    CaptureReader,
    Tally,
    is_our_capture,
)

MARGIN_BYTES = 1 << 18  # per queue: headers, descriptor rings, counters
RINGS_BYTES: int = ffi.sizeof("struct rl_rings_segment")
# A capture is read up to this size before a run starts, which takes about 4 ms per MiB. Mistakes
# after that are found by the wire that replays it.
READ_AT_ONCE = 64 << 20


def problems_here(config: Config) -> list[str]:
    """Problems that can be found without starting a process or touching a card."""
    problems = list(_cpus(config))
    for port in config.ports:
        problems += _wire(port, config)
    return problems


def shared_memory(config: Config) -> int:
    """Bytes that the instance takes in /dev/shm, without hugepages; a little more than needed."""
    rings = config.queues * 2 * RINGS_BYTES  # a successor's rings beside the old ones
    slots = sum(worker.state_bytes for worker in config.workers)
    packets = config.buffers * (config.buffer_bytes + 4 * config.buffer_units)
    return packets + rings + slots + config.queues * MARGIN_BYTES


def free_shared_memory() -> int:
    """Bytes that are free in /dev/shm; 0 if there is none."""
    try:
        status = os.statvfs(SHARED_MEMORY)
    except OSError:
        return 0
    return status.f_bavail * status.f_frsize


def _cpus(config: Config) -> Iterable[str]:
    usable = sorted(usable_cpus())
    words = ", ".join(str(cpu) for cpu in usable)
    wanted = {
        f"worker {queue}": worker.cpu
        for queue, worker in enumerate(config.workers)
        if worker.cpu is not None
    }
    if config.driver.cpu is not None and config.driver.cpu not in usable:
        yield f"driver.cpu: CPU {config.driver.cpu} cannot be used here; usable: {words}"
    for who, cpu in wanted.items():
        if cpu not in usable:
            yield f"worker.cpus: CPU {cpu} of {who} cannot be used here; usable: {words}"


def _wire(port: PortConfig, config: Config) -> Iterable[str]:
    if port.wire is None:
        return
    if port.wire.replay is not None:
        yield from _capture(f"port.{port.name}.wire.replay", port.wire)
    if port.wire.record is not None:
        record = Path(port.wire.record)
        path = f"port.{port.name}.wire.record"
        taken = []
        for other in config.ports:
            replay, recorded = (
                (other.wire.replay, other.wire.record) if other.wire else (None, None)
            )
            if replay is not None and same(record, Path(replay)):
                taken.append(
                    f"{path}: {record} is the capture that is replayed; record to another file"
                )
            if recorded is not None and other.name < port.name and same(record, Path(recorded)):
                taken.append(
                    f"{path}: port {other.name} records to {record} too; record to another file"
                )
        yield from taken or unwritable(path, record)


def same(one: Path, other: Path) -> bool:
    """Whether both paths name the same file, even if it does not exist yet."""
    try:
        return one.samefile(other)
    except OSError:
        return os.path.realpath(one) == os.path.realpath(other)


def _capture(path: str, wire: WireConfig) -> Iterable[str]:
    try:
        if not _look_into(wire).packets:
            yield f"{path}: {wire.replay}: holds no packet, so there is nothing to replay"
    except CaptureError as error:
        yield f"{path}: {error}"
    except OSError as error:
        yield f"{path}: {wire.replay}: cannot be read: {reason_of(error)}"


def remarks_here(config: Config) -> list[str]:
    """Sentences about cards that reach all memory, and about packets that a replay does not send as
    they are in the file, as far as a capture is read before the run."""
    remarks: list[str] = []
    for port in config.ports:
        if port.dma_mode == "physical":
            remarks.append(
                f'port.{port.name}: dma = "physical": no IOMMU keeps the card from memory of other '
                "programs"
            )
        if port.wire is not None and port.wire.replay is not None:
            with contextlib.suppress(CaptureError, OSError):  # the run tells it
                remarks += _look_into(port.wire).remarks(clock=port.wire.pace == "captured")
    return remarks


def _look_into(wire: WireConfig) -> Tally:
    """What is known of the capture of a wire. A file that has not changed since the last look is
    not read again."""
    assert wire.replay is not None
    file = Path(wire.replay)
    status = file.stat() if file.exists() else None
    identity = status and (status.st_ino, status.st_size, status.st_mtime_ns)
    return _read(wire.replay, identity, wire.cut == "play")


@functools.lru_cache(maxsize=PORTS_MAX)
def _read(file: str, identity: tuple[int, int, int] | None, to_cut: bool) -> Tally:
    tally = Tally(file, to_cut=to_cut)
    with CaptureReader(tally) as reader:
        for _ in reader:
            if reader.bytes_read > READ_AT_ONCE:
                break
    return tally


def unwritable(path: str, file: Path) -> Iterable[str]:
    """A problem when a capture cannot be written to `file`. Creates and changes nothing."""
    try:
        if file.is_dir():
            yield f"{path}: {file} is a folder; name a file in it"
        elif file.exists():
            if not os.access(file, os.W_OK):
                yield f"{path}: {file} cannot be written: permission denied"
            elif why := why_kept(file):
                yield f"{path}: {file} {why}"
        elif not file.parent.is_dir():
            yield f"{path}: there is no folder {file.parent}"
        elif not os.access(file.parent, os.W_OK | os.X_OK):
            yield f"{path}: {file.parent} cannot be written: permission denied"
    except OSError as error:
        yield f"{path}: {file} cannot be written: {reason_of(error)}"


def why_kept(file: Path) -> str | None:
    """Why a capture must not replace `file`, to follow its path in a message; None if it may.

    Only a capture that ringline wrote, an empty file or a device is replaced: a wrong path must
    not destroy a configuration, a plugin or the capture of another program. `file` is not a
    folder.
    """
    try:
        kind = file.stat().st_mode
        if stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind):  # opening it waits for a reader
            return "is a pipe or a socket; choose a regular file"
        if not stat.S_ISREG(kind):  # opening a serial line waits for its carrier
            return None
        with open(file, "rb") as there:
            begin = there.read(FILE_HEADER_BYTES)
    except OSError:
        return None
    if begin and not is_our_capture(begin):
        return "exists and is not a capture that ringline wrote; remove it, or choose another file"
    return None
