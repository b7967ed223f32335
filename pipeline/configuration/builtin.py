"""The configuration of `ringline run` without a file, from the arguments of the command."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ringline.pipeline.configuration import config as c
from ringline.pipeline.configuration import forms, schema
from ringline.pipeline.configuration.affinity import usable_cpus
from ringline.pipeline.configuration.machine_checks import (
    free_shared_memory,
    problems_here,
    shared_memory,
)
from ringline.workers.captures.captures import descriptor_named

PORT = "wan"  # the name of a port when the arguments name none
# The key of a configuration that an argument sets -> the argument, as messages name it. NAME stands
# for the name of a port.
ARGUMENTS = {
    "name": "--name",
    "worker.options": "-o",
    "port.NAME.queues": "--queues",
    "port.NAME.wire.replay": "--replay",
    "port.NAME.wire.record": "--record",
    "port.NAME": "--ports",
    "port.NAME.wire.cut": "--cut",
    "worker.state": "--state",
    "port.NAME.device": "--device",
    "port.NAME.wire.pace": "--pace",
    "port.NAME.wire.speed": "--speed",
    "port.NAME.wire.repeat": "--repeat",
    "worker.blanks": "--blanks",
    "port.NAME.mtu": "--mtu",
}
SIMULATED = "sim:82599"
_OF_A_PORT = re.compile(r'port\.(?:"(?:[^"\\]|\\.)*"|[A-Za-z0-9_-]+)\.')
_EXAMPLES = {"--device": ("devices", "xdp:eth0", "xdp:eth1")}
_PAIR = re.compile(r"([A-Za-z][A-Za-z0-9_-]*)=(.+)", re.DOTALL)  # PORT=CAPTURE


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What the command line says in place of a configuration file; None or (): not given.

    plugin: the name of the plugin, as in a configuration; it has a valid form.
    options: the options of the plugin as (key, value).
    replay: the captures whose packets arrive, each as PORT=CAPTURE; a single one may be without
        its port. Without any, synthetic flows arrive at every port, without end.
    record: the capture files for the packets that the cards send, in the same form.
    queues: the number of workers; None: one for each CPU but the driver's.
    name: of the instance.
    ports: the names of the ports; None: those in `devices`, `replay` and `record`, or PORT.
    to_cut: a capture that is cut short is played up to the cut.
    state: bytes for the named state and counters of the plugin, or such as "4 MiB".
    devices: the device of each port as PORT=DEVICE, in the form of `replay`; a port without one is
        a simulated card. With any, no synthetic flows arrive anywhere.
    pace, speed, repeat: keys of the wires on which captures arrive.
    blanks: empty buffers for packets that the plugin creates; None: as many as it usually needs.
    mtu: of each port, in bytes; None: 1500.
    """

    plugin: str | None = None
    options: Sequence[tuple[str, Any]] = ()
    replay: Sequence[str] = ()
    record: Sequence[str] = ()
    queues: int | None = None
    name: str | None = None
    ports: Sequence[str] | None = None
    to_cut: bool = False
    state: int | str | None = None
    devices: Sequence[str] = ()
    pace: str | None = None
    speed: float | None = None
    repeat: int | None = None
    blanks: int | None = None
    mtu: int | None = None

    def given(self) -> list[str]:
        """The keys of ARGUMENTS whose argument is given."""
        values = (
            self.name,
            self.options or None,
            self.queues,
            self.replay or None,
            self.record or None,
            self.ports,
            self.to_cut or None,
            self.state,
            self.devices or None,
            self.pace,
            self.speed,
            self.repeat,
            self.blanks,
            self.mtu,
        )
        return [key for key, value in zip(ARGUMENTS, values, strict=True) if value is not None]


NO_ARGUMENTS = Arguments()


def builtin() -> c.Config:
    """The configuration without any argument: as `examine` makes it."""
    return examine(NO_ARGUMENTS).config


def examine(given: Arguments) -> schema.Examined:
    """The configuration that the arguments make, and their mistakes.

    A simulated card for each port without a device, and one queue for each CPU but the driver's: at
    least one, at most QUEUES_MAX, and no more than /dev/shm has room for. Relative paths are
    relative to the current folder.
    """
    problems: list[str] = []
    devices = _devices(given, problems)
    wires = _wires(given, devices, problems)
    queues = queues_without_limit() if given.queues is None else given.queues
    values = _values(given, wires, devices, queues)
    problems += forms.given_twice(given.options)
    config = _config(values, problems)
    room = free_shared_memory()
    while given.queues is None and queues > 1 and shared_memory(config) > room:
        queues -= 1
        config = _config(_values(given, wires, devices, queues), [])
    problems += _streams(wires) or problems_here(config)
    paths = [problem.partition(": ")[0] for problem in problems]
    told = list(dict.fromkeys(map(_in_words, problems)))  # all ports have the same queues
    return schema.Examined(values, config, told, paths, {})


def queues_without_limit() -> int:
    """The queues when none are given and /dev/shm is large enough."""
    return min(max(len(usable_cpus()) - 1, 1), c.QUEUES_MAX)


def _devices(given: Arguments, problems: list[str]) -> dict[str, str]:
    """The device of each port that has one, by the name of the port."""
    found = _by_port("--device", given.devices, given.ports, problems)
    first = given.ports[0] if given.ports else PORT
    return {first if name is None else name: device for name, device in found.items()}


def _wires(
    given: Arguments, devices: Mapping[str, str], problems: list[str]
) -> dict[str, dict[str, Any]]:
    """The wire of each port, by its name, as a configuration file would say it."""
    replay = _by_port("--replay", given.replay, given.ports, problems)
    record = _by_port("--record", given.record, given.ports, problems)
    first = (*(given.ports or devices), PORT)[0]
    if None in replay:
        replay = {first: replay[None]}
    named = [name for name in (*devices, *replay, *record) if name is not None]
    names = list(given.ports or dict.fromkeys(named)) or [first]
    if None in record and len(names) > 1:
        each = " or ".join(f"--record {name}={record[None]}" for name in names)
        problems.append(f"--record: {record[None]} has no port, and there are several: {each}")
        record = {}
    elif None in record:
        record = {names[0]: record[None]}
    how = _how_to_replay(given)
    wires: dict[str, dict[str, Any]] = {}
    for name in names:
        wire: dict[str, Any] = {}
        if not given.replay and not given.devices:
            wire["flows"] = {}
        if name in replay:
            wire |= {"replay": replay[name], **how}
        if name in record:
            wire["record"] = record[name]
        if wire and not devices.get(name, SIMULATED).startswith("sim:"):
            problems += [
                f"--{key}: port {name} is {devices[name]}; only a simulated card can {key}"
                for key in ("replay", "record")
                if key in wire
            ]
            wire = {}
        wires[name] = wire
    if not given.replay:
        problems += [
            f"--{key}: has no effect without --replay; add it or remove --{key}" for key in how
        ]
    return wires


def _how_to_replay(given: Arguments) -> dict[str, Any]:
    """The keys of a wire that say how its capture arrives; only those that are given."""
    keys = {
        "cut": "play" if given.to_cut else None,
        "pace": given.pace,
        "speed": given.speed,
        "repeat": given.repeat,
    }
    return {key: value for key, value in keys.items() if value is not None}


def _by_port(
    what: str, given: Sequence[str], ports: Sequence[str] | None, problems: list[str]
) -> dict[str | None, str]:
    """The file or device of each port in the values of the argument `what`; the port of a single
    one is None. A single value has no port, unless it begins with the name of a port and there is
    no file of this name."""
    found: dict[str | None, str] = {}
    things, one, other = _EXAMPLES.get(what, ("files", "a.pcap", "b.pcap"))
    for text in given:
        pair = _PAIR.fullmatch(text)
        if len(given) == 1 and (pair is None or os.path.exists(text)):
            return {None: text}
        if pair is None:
            problems.append(
                f"{what}: {text} has no port; with several {things} name the port of each, as in "
                f"{what} wan={one} {what} lan={other}"
            )
            continue
        name, path = pair.groups()
        if ports is not None and name not in ports:
            problems.append(f"{what}: {text}: --ports names no port {name}; add it there")
        elif name in found:
            merge = f"merge them first: mergecap -w NEW {found[name]} {path}"
            remedy = merge if what == "--replay" else "name one"
            problems.append(
                f"{what}: port {name} has two {things}, {found[name]} and {path}: {remedy}"
            )
        else:
            found[name] = path
    return found


def _values(
    given: Arguments,
    wires: Mapping[str, dict[str, Any]],
    devices: Mapping[str, str],
    queues: int,
) -> dict[str, Any]:
    """The arguments as a configuration file would say them."""
    values: dict[str, Any] = {
        "port": {
            name: {"device": devices.get(name, SIMULATED), "queues": queues}
            | ({"wire": wire} if wire or name not in devices else {})
            | ({} if given.mtu is None else {"mtu": given.mtu})
            for name, wire in wires.items()
        },
        "worker": {"options": dict(given.options)},
    }
    if given.plugin is not None:
        values["worker"]["plugin"] = given.plugin
    if given.state is not None:
        values["worker"]["state"] = given.state
    if given.blanks is not None:
        values["worker"]["blanks"] = given.blanks
    if given.name is not None:
        values["name"] = given.name
    return values


def _config(values: dict[str, Any], problems: list[str]) -> c.Config:
    config = schema.read(values, Path(os.getcwd()), problems)
    return dataclasses.replace(config, metrics=c.MetricsConfig(elsewhere_if_taken=True))


def _streams(wires: dict[str, dict[str, Any]]) -> list[str]:
    """Problems of captures that are no files: other processes read and write them."""
    problems = []
    for name, wire in wires.items():
        for what, standard, instead in (
            ("replay", 0, "name a file; `ringline try PLUGIN -` reads a pipe"),
            ("record", 1, "name a file; `ringline try -w -` writes to a pipe"),
        ):
            path = wire.get(what)
            if path is not None and descriptor_named(path, standard) is not None:
                problems.append(
                    f"port.{name}.wire.{what}: {path} is a stream of this command, which the card "
                    f"cannot use: {instead}"
                )
    return problems


def _in_words(problem: str) -> str:
    """The problem with the argument in place of the key."""
    general = _OF_A_PORT.sub("port.NAME.", problem, count=1)
    for key, argument in ARGUMENTS.items():
        if general.startswith((f"{key}:", f"{key}.")) and key != "port.NAME":
            return argument + general.removeprefix(key)
    return problem
