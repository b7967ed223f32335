"""The configuration of `ringline run` without a file, from the arguments of the command."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ringline.pipeline.configuration import config as c
from ringline.pipeline.configuration import schema
from ringline.pipeline.configuration.affinity import usable_cpus
from ringline.pipeline.configuration.machine_checks import (
    free_shared_memory,
    problems_here,
    shared_memory,
)
from ringline.workers.captures.captures import descriptor_named

PORT = "wan"
# The key of a configuration that an argument sets -> the argument, as messages name it.
ARGUMENTS = {
    "name": "--name",
    "worker.options": "-o",
    f"port.{PORT}.queues": "--queues",
    f"port.{PORT}.wire.replay": "--replay",
    f"port.{PORT}.wire.record": "--record",
}


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What the command line says in place of a configuration file; None: not given.

    plugin: the name of the plugin, as in a configuration; it has a valid form.
    options: the options of the plugin as (key, value).
    replay: the capture whose packets arrive; None: synthetic flows, without end.
    record: the capture file for the packets that the card sends.
    queues: the number of workers; None: one for each CPU but the driver's.
    name: of the instance.
    """

    plugin: str | None = None
    options: Sequence[tuple[str, Any]] = ()
    replay: str | None = None
    record: str | None = None
    queues: int | None = None
    name: str | None = None

    def given(self) -> list[str]:
        """The keys of ARGUMENTS whose argument is given."""
        values = (self.name, self.options or None, self.queues, self.replay, self.record)
        return [key for key, value in zip(ARGUMENTS, values, strict=True) if value is not None]


NO_ARGUMENTS = Arguments()


def builtin() -> c.Config:
    """The configuration without any argument: as `examine` makes it."""
    return examine(NO_ARGUMENTS).config


def examine(given: Arguments) -> schema.Examined:
    """The configuration that the arguments make, and their mistakes.

    A simulated card at full load, and one queue for each CPU but the driver's: at least one, at
    most QUEUES_MAX, and no more than /dev/shm has room for. Relative paths are relative to the
    current folder.
    """
    problems: list[str] = []
    queues = queues_without_limit() if given.queues is None else given.queues
    values = _values(given, queues)
    if len(dict(given.options)) != len(given.options):
        problems.append("an option is given twice with -o")
    config = _config(values, problems)
    room = free_shared_memory()
    while given.queues is None and queues > 1 and shared_memory(config) > room:
        queues -= 1
        config = _config(_values(given, queues), [])
    problems += _streams(given) or problems_here(config)
    paths = [problem.partition(": ")[0] for problem in problems]
    return schema.Examined(values, config, list(map(_in_words, problems)), paths, {})


def queues_without_limit() -> int:
    """The queues when none are given and /dev/shm is large enough."""
    return min(max(len(usable_cpus()) - 1, 1), c.QUEUES_MAX)


def _values(given: Arguments, queues: int) -> dict[str, Any]:
    """The arguments as a configuration file would say them."""
    wire: dict[str, Any] = {"flows": {}} if given.replay is None else {"replay": given.replay}
    if given.record is not None:
        wire["record"] = given.record
    values: dict[str, Any] = {
        "port": {PORT: {"device": "sim:82599", "queues": queues, "wire": wire}},
        "worker": {"options": dict(given.options)},
    }
    if given.plugin is not None:
        values["worker"]["plugin"] = given.plugin
    if given.name is not None:
        values["name"] = given.name
    return values


def _config(values: dict[str, Any], problems: list[str]) -> c.Config:
    config = schema.read(values, Path(os.getcwd()), problems)
    return dataclasses.replace(config, metrics=c.MetricsConfig(elsewhere_if_taken=True))


def _streams(given: Arguments) -> list[str]:
    """Problems of captures that are no files: other processes read and write them."""
    problems = []
    for what, path, standard, instead in (
        ("replay", given.replay, 0, "name a file; `ringline try PLUGIN -` reads a pipe"),
        ("record", given.record, 1, "name a file; `ringline try -w -` writes to a pipe"),
    ):
        if path is not None and descriptor_named(path, standard) is not None:
            problems.append(
                f"port.{PORT}.wire.{what}: {path} is a stream of this command, which the card "
                f"cannot use: {instead}"
            )
    return problems


def _in_words(problem: str) -> str:
    """The problem with the argument in place of the key."""
    for key, argument in ARGUMENTS.items():
        if problem.startswith((f"{key}:", f"{key}.")):
            return argument + problem.removeprefix(key)
    return problem
