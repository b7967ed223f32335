"""`ringline check`: report every mistake of a configuration at once, without starting it."""

from __future__ import annotations

import sys

from ringline.pipeline.configuration import schema
from ringline.pipeline.configuration.config import BUFFER_STRIDE, Config
from ringline.pipeline.ports.create import create_port
from ringline.pipeline.ports.pci import PciDevice, sysfs_root
from ringline.shm.errors import ConfigurationError, EnvironmentLacks
from ringline.workers.trials import checking


def check(path: str) -> str:
    """One sentence that says what the configuration at `path` starts, then one line for each
    batch or tick of a plugin that takes too long.

    Each plugin is imported, prepared, set up and timed in a child process. Raises
    ConfigurationError with every mistake of the file or, when the file is right, of its
    plugins and cards. Raises EnvironmentLacks when only cards are missing or in use.
    """
    config = schema.load(path)
    sys.path.append(config.folder)
    warnings: list[str] = []
    problems, missing = plugin_problems(config, warnings), card_problems(config)
    if problems:
        raise ConfigurationError([f"{path}: {problem}" for problem in problems + missing])
    if missing:
        raise EnvironmentLacks("\n".join(f"{path}: {problem}" for problem in missing))
    ports = ", ".join(f"{port.name} ({port.device})" for port in config.ports)
    memory = config.buffers * BUFFER_STRIDE / (1 << 20)
    well = "this can run, but see below" if warnings else "all well"
    lines = [
        f"{path}: {well}; instance {config.name}, ports {ports}, workers {config.queues}, "
        f"buffers {config.buffers} ({memory:.0f} MiB)"
    ]
    return "\n".join(lines + [f"{path}: warning: {warning}" for warning in warnings])


def card_problems(config: Config) -> list[str]:
    """One sentence for each card that is missing, not supported, or in use by the system."""
    problems = []
    for index, port in enumerate(config.ports):
        if port.simulated:
            continue
        try:
            create_port(port, index)
            PciDevice(port.device.removeprefix("pci:"), sysfs_root()).check_unused()
        except EnvironmentLacks as error:
            where = f"port.{port.name}"
            message = str(error)
            problems.append(message if message.startswith(where) else f"{where}.device: {message}")
    return problems


def plugin_problems(config: Config, warnings: list[str]) -> list[str]:
    """Mistakes in the plugins of all workers; workers with the same plugin are checked once.
    What takes too long is added to `warnings`."""
    ports = [port.name for port in config.ports]
    problems: list[str] = []
    seen = []
    for queue in range(config.queues):
        worker = config.worker(queue)
        same = (worker.plugin, worker.options, worker.debug, worker.state_bytes, worker.silence)
        if same in seen:
            continue
        seen.append(same)
        slow: list[str] = []
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
                limit=worker.silence,
                warnings=slow,
            )
        ]
        warnings += [f"worker {queue}: {warning}" for warning in slow]
    return problems
