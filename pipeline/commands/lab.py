"""`ringline lab`: two hosts in network namespaces, joined through a plugin."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace

from ringline.pipeline.commands.arguments.lab import NAMES
from ringline.pipeline.commands.laboratory.links import Impairment
from ringline.pipeline.commands.laboratory.network import (
    ADDRESSES,
    HERE,
    INTERFACES,
    PEER,
    Network,
    check_rights,
)
from ringline.pipeline.commands.laboratory.processes import Command, hold
from ringline.pipeline.commands.run import run_examined
from ringline.pipeline.commands.target import examined, names_a_plugin
from ringline.pipeline.configuration.builtin import Arguments
from ringline.pipeline.configuration.config import MemoryConfig, MetricsConfig
from ringline.pipeline.configuration.schema import Examined
from ringline.shm.errors import ConfigurationError, UsageError
from ringline.shm.family import starter_end

QUEUES = 1
DESCRIPTORS = 2048  # for receiving, of each queue: TCP sends some hundreds of frames at once


def lab(given: Namespace) -> int:
    """Make the laboratory and run the plugin in it until the end; the exit code: that of the
    command of --exec if it is not 0, else that of the run.

    Raises RinglineError when an argument is wrong or the machine lacks something.
    """
    end = starter_end(os.environ)
    found = _configuration(given)
    check_rights()
    network = Network(found.config.queues, _impairment(given))
    command = None if given.command is None else Command(given.command, given.seconds)
    words = [] if command else _to_try(network)

    def run(end_with: int, on_running: Callable[[], object]) -> int:
        return run_examined(
            found,
            None if command else given.seconds,
            given.report,
            given.strict,
            end_with,
            words=words,
            quiet=command is not None,
            on_running=on_running,
        )

    return hold(network, run, found.config.name, command, end)


def _configuration(given: Namespace) -> Examined:
    """The configuration of the run in the middle. Raises UsageError or ConfigurationError."""
    if given.plugin is not None and not names_a_plugin(given.plugin):
        raise UsageError(
            f"lab makes the ports itself, so it takes a plugin and no configuration: name the "
            f"plugin of {given.plugin}, and its options with -o"
        )
    names = given.ports or list(NAMES)
    if len(names) != len(INTERFACES):
        raise UsageError(
            f"--ports must be two names, since a laboratory joins two hosts, not {','.join(names)}"
        )
    arguments = Arguments(
        options=given.options,
        queues=QUEUES if given.queues is None else given.queues,
        name=given.name or f"lab-{os.getpid()}",
        ports=names,
        state=given.state,
        blanks=given.blanks,
        devices=[f"{name}=xdp:{at}" for name, at in zip(names, INTERFACES, strict=True)],
    )
    found = examined(given.plugin, arguments)
    if found.problems:
        raise ConfigurationError(found.problems)
    ports = tuple(replace(port, rx_descriptors=DESCRIPTORS) for port in found.config.ports)
    config = replace(
        found.config,
        ports=ports,
        metrics=MetricsConfig(host=None),  # nobody would reach it in the middle network
        memory=MemoryConfig(hugepages="off"),  # files on hugepages would outlive SIGKILL
    )
    return replace(found, config=config)


def _impairment(given: Namespace) -> Impairment | None:
    if given.loss is None and given.delay is None and given.rate is None:
        return None
    return Impairment(given.loss or 0.0, given.delay or 0.0, given.rate or 0.0)


def _to_try(network: Network) -> list[str]:
    """Lines with commands to try."""
    here, peer = (
        f"nsenter --net=/proc/{os.getpid()}/fd/{network.hosts[name]}" for name in (HERE, PEER)
    )
    address, address6 = ADDRESSES[PEER]
    return [
        "to try it, as root in another terminal:",
        f"  {here} ping {address}" + (f"    (or {address6})" if network.ipv6 else ""),
        f"  {peer} iperf3 -s",
        f"  {here} iperf3 -c {address}",
        f"  {here}    (a shell on the first host)",
    ]
