"""`ringline check`: everything that can be wrong before a run, all at once."""

from __future__ import annotations

import sys

from ringline.pipeline.configuration import schema
from ringline.pipeline.configuration.config import BUFFER_STRIDE, Config
from ringline.pipeline.ports.create import create_port
from ringline.pipeline.ports.pci import PciDevice, sysfs_root
from ringline.shm.errors import ConfigurationError, EnvironmentLacks
from ringline.workers.trials import checking


def check(path: str) -> str:
    """One sentence on what the configuration at `path` would start.

    Raises ConfigurationError with every mistake, those of its plugins included
    (each is imported, prepared and set up in a child of its own), and
    EnvironmentLacks for cards that are not here or not free.
    """
    config = schema.load(path)
    sys.path.append(config.folder)
    problems, missing = plugin_problems(config), card_problems(config)
    if problems:
        raise ConfigurationError([f"{path}: {problem}" for problem in problems + missing])
    if missing:
        raise EnvironmentLacks("\n".join(f"{path}: {problem}" for problem in missing))
    ports = ", ".join(f"{port.name} ({port.device})" for port in config.ports)
    memory = config.buffers * BUFFER_STRIDE / (1 << 20)
    return (
        f"{path}: all well; instance {config.name}, ports {ports}, workers {config.queues}, "
        f"buffers {config.buffers} ({memory:.0f} MiB)"
    )


def card_problems(config: Config) -> list[str]:
    """Which cards are not here, have no driver, or are used by the system."""
    problems = []
    for index, port in enumerate(config.ports):
        if port.simulated:
            continue
        try:
            create_port(port, index)
            PciDevice(port.device.removeprefix("pci:"), sysfs_root()).check_unused()
        except EnvironmentLacks as error:
            where = f"port.{port.name}"
            told = str(error)
            problems.append(told if told.startswith(where) else f"{where}.device: {told}")
    return problems


def plugin_problems(config: Config) -> list[str]:
    """What is wrong with the plugins of all workers; what several share is told once."""
    ports = [port.name for port in config.ports]
    problems: list[str] = []
    seen = []
    for queue in range(config.queues):
        worker = config.worker(queue)
        alike = (worker.plugin, worker.options, worker.debug, worker.state_bytes)
        if alike in seen:
            continue
        seen.append(alike)
        problems += [
            f"worker {queue}: {problem}"
            for problem in checking.check(
                worker.plugin,
                worker.options,
                ports,
                queue=queue,
                folder=config.folder,
                state_bytes=worker.state_bytes,
                debug=worker.debug,
            )
        ]
    return problems
