"""`ringline check`: report every mistake of a configuration at once, without starting it."""

from __future__ import annotations

import mmap
import re
import sys
from collections.abc import Iterator
from typing import Any

from ringline.pipeline.commands.target import examined
from ringline.pipeline.configuration import schema
from ringline.pipeline.configuration.builtin import NO_ARGUMENTS, Arguments
from ringline.pipeline.configuration.config import (
    QUEUES_MAX,
    Config,
    WorkerConfig,
)
from ringline.pipeline.configuration.forms import check_plugin
from ringline.pipeline.configuration.lines import with_line
from ringline.pipeline.ports.create import create_port, kind_of
from ringline.pipeline.ports.pci.sysfs import PciDevice, sysfs_root
from ringline.pipeline.ports.pci.taken import check_access
from ringline.shm.errors import ConfigurationError, EnvironmentLacks
from ringline.shm.packets import PacketMemory
from ringline.workers.trials import checking

HUGEPAGE = 2 << 20  # bytes
PLACE = re.compile(r" in line \d+\)$")  # a mistake in an option ends with its own place


def check(what: str, given: Arguments = NO_ARGUMENTS) -> str:
    """One sentence that says what the configuration or the plugin `what` starts, then one line for
    each batch or tick of a plugin that takes too long. `given` holds the arguments in place of a
    file.

    Each plugin is imported, prepared, set up and timed in a child process. When the file has
    mistakes, the plugins are only imported and their options checked, since the rest depends
    on the file. Raises ConfigurationError with every mistake of the file, its plugins and its
    cards. Raises EnvironmentLacks when only cards are missing or in use.
    """
    found = examined(what, given)
    config = found.config
    sys.path.append(config.folder)
    warnings: list[str] = []
    where = "" if found.file is None else f"{what}: "
    problems = found.problems + [
        f"{where}{problem}" for problem in plugin_problems(found, warnings)
    ]
    mistakes, missing = (
        [f"{where}{with_line(problem, found.lines)}" for problem in part]
        for part in card_problems(config)
    )
    problems += mistakes
    if problems:
        raise ConfigurationError(problems + missing)
    if missing:
        raise EnvironmentLacks("\n".join(missing))
    ports = ", ".join(f"{port.name} ({port.device})" for port in config.ports)
    well = "this can run, but see below" if warnings else "all well"
    lines = [
        f"{what}: {well}; instance {config.name}, ports {ports}, workers {config.queues}, "
        f"buffers {memory_text(config)}"
    ]
    return "\n".join(lines + [f"{what}: warning: {warning}" for warning in warnings])


def memory_text(config: Config) -> str:
    """The size of packet memory; with jumbo frames also that of a buffer."""
    size = f"{config.buffers * config.buffer_bytes / (1 << 20):.0f} MiB"
    each = f" of {config.buffer_bytes:,} bytes" if config.buffer_units > 1 else ""
    return f"{config.buffers}{each} ({size})"


def _locked(config: Config) -> int:
    """Bytes of packet memory. With hugepages that are not required, it may have fewer."""
    page = HUGEPAGE if config.memory.hugepages == "require" else mmap.PAGESIZE
    return -(-PacketMemory.bytes_of(config.buffers, config.buffer_units) // page) * page


def card_problems(config: Config) -> tuple[list[str], list[str]]:
    """One sentence for each card that cannot do what its port demands, and one for each that is
    missing, not supported, or in use by the system."""
    mistakes: list[str] = []
    problems: list[str] = []
    for index, port in enumerate(config.ports):
        if port.simulated:
            continue
        try:
            if port.kernel_interface:
                kind_of(port).check(port, _locked(config))
                continue
            create_port(port, index)
            check_access(PciDevice(port.device.removeprefix("pci:"), sysfs_root()), port)
        except ConfigurationError as error:
            mistakes += error.problems
        except EnvironmentLacks as error:
            where = f"port.{port.name}"
            message = str(error)
            problems.append(message if message.startswith(where) else f"{where}.device: {message}")
    return mistakes, problems


def plugin_problems(found: schema.Examined, warnings: list[str]) -> list[str]:
    """Mistakes in the plugins of all workers; workers with the same plugin are checked once.
    What takes too long is added to `warnings`."""
    config = found.config
    ports = [port.name for port in config.ports]
    problems: list[str] = []
    seen = []
    for queue, worker, options in _workers(found):
        same = (
            *(worker.plugin, worker.options, worker.debug),
            *(worker.state_bytes, worker.blanks, worker.silence),
        )
        if same in seen:
            continue
        seen.append(same)
        wrong = tuple(f"{table}.options" for table in (f"worker.{queue}", "worker"))
        place = next(
            (key for key in (f"worker.{queue}.plugin", "worker.plugin") if key in found.lines), None
        )
        where = f" ({place} in line {found.lines[place]})" if place else ""
        slow: list[str] = []
        problems += [
            f"worker {queue}: {problem}{'' if PLACE.search(problem) else where}"
            for problem in checking.check(
                worker.plugin,
                None if any(bad.startswith(wrong) for bad in found.paths) else options,
                ports,
                queue=queue,
                folder=config.folder,
                places=worker.option_places,
                state_bytes=worker.state_bytes,
                blanks=worker.blanks,
                debug=worker.debug,
                limit=worker.silence,
                warnings=slow,
                only_import=bool(found.problems),
            )
        ]
        warnings += [f"worker {queue}: {warning}" for warning in slow]
    return problems


def _workers(
    found: schema.Examined,
) -> Iterator[tuple[int, WorkerConfig, dict[str, Any] | None]]:
    """The queue, worker and options of all workers, and the plugins of those for which the file
    has no queue: that is a mistake of its own, and often its cause is a wrong `queues`."""
    for queue, worker in enumerate(found.config.workers):
        yield queue, worker, worker.options
    tables = found.values.get("worker")
    for queue in range(len(found.config.workers), QUEUES_MAX):
        table = tables.get(str(queue)) if isinstance(tables, dict) else None
        plugin = table.get("plugin") if isinstance(table, dict) else None
        if isinstance(plugin, str) and check_plugin(plugin) is None:
            yield queue, WorkerConfig(plugin=plugin), None
