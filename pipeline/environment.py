"""What is wrong with a configuration on this machine, before anything is started.

Each check returns problems in the form of those of the file: path, colon,
what is wrong and what would be right.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ringline.pipeline.config import Config, PortConfig
from ringline.pipeline.placement import usable_cpus
from ringline.workers.captures import CaptureError, read_capture

# A capture up to this size is read to its end before a run starts, which takes
# about 4 ms per MiB. What is wrong with a longer one is told by the wire that replays it.
READ_AT_ONCE = 64 << 20


def problems_here(config: Config) -> list[str]:
    """Everything that can be told without starting a process or touching a card."""
    problems = list(_cpus(config))
    for port in config.ports:
        problems += _wire(port)
    return problems


def _cpus(config: Config) -> Iterable[str]:
    usable = sorted(usable_cpus())
    words = ", ".join(str(cpu) for cpu in usable)
    wanted = {
        f"worker {queue}": worker.cpu
        for queue, worker in enumerate(config.workers)
        if worker.cpu is not None
    }
    if config.driver.cpu is not None and config.driver.cpu not in usable:
        yield f"driver.cpu: processor {config.driver.cpu} cannot be used here; usable: {words}"
    for who, cpu in wanted.items():
        if cpu not in usable:
            yield f"worker.cpus: processor {cpu} of {who} cannot be used here; usable: {words}"


def _wire(port: PortConfig) -> Iterable[str]:
    if port.wire is None:
        return
    if port.wire.replay is not None:
        yield from _capture(f"port.{port.name}.wire.replay", Path(port.wire.replay))
    if port.wire.record is not None:
        record = Path(port.wire.record)
        path = f"port.{port.name}.wire.record"
        if port.wire.replay is not None and _same(record, Path(port.wire.replay)):
            yield f"{path}: {record} is the capture that is replayed; record to another file"
        yield from unwritable(path, record)


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return one == other


def _capture(path: str, file: Path) -> Iterable[str]:
    try:
        if not file.is_file() or file.stat().st_size <= READ_AT_ONCE:
            if not len(read_capture(file)):
                yield f"{path}: {file}: holds no packet, so there is nothing to replay"
        elif not os.access(file, os.R_OK):
            yield f"{path}: {file}: cannot be read: permission denied"
    except (OSError, CaptureError) as error:
        yield f"{path}: {error}"


def unwritable(path: str, file: Path) -> Iterable[str]:
    """A problem when `file` can be neither made nor written; nothing is made or changed."""
    if file.is_dir():
        yield f"{path}: {file} is a folder; name a file in it"
    elif file.exists():
        if not os.access(file, os.W_OK):
            yield f"{path}: {file} cannot be written: permission denied"
    elif not file.parent.is_dir():
        yield f"{path}: there is no folder {file.parent}"
    elif not os.access(file.parent, os.W_OK | os.X_OK):
        yield f"{path}: {file.parent} cannot be written: permission denied"
