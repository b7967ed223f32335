"""The arguments that `ringline run` and `ringline check` share: what to run, and the arguments
that take the place of a configuration file.

They are not in `commands/target.py`: the command line must not import the configuration.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from ringline.pipeline.commands.arguments import values
from ringline.pipeline.commands.arguments.values import Takes

if TYPE_CHECKING:
    from ringline.pipeline.configuration.builtin import Arguments


def add_target(parser: ArgumentParser, number: str | None = None, default: str = "") -> None:
    """Add the arguments. `number` is `nargs` of the first one, `default` what it is without."""
    parser.add_argument(
        "what",
        nargs=number,
        metavar="CONFIG|PLUGIN",
        help="a configuration, FILE.toml, or a plugin: package.module:object, ./file.py:object, "
        "./file.so:symbol, or the name of an installed one" + (f"; {default}" if default else ""),
    )
    group = parser.add_argument_group(
        "without a configuration file",
        "The ports are the devices that --device names. Without it, simulated cards receive "
        "packets: one called wan, or one for each port that is named.",
    )
    group.add_argument(
        "--device",
        action="append",
        default=[],
        metavar="DEVICE",
        help="run on this device, as in xdp:eth0; of several ports: PORT=DEVICE, once for each",
    )
    group.add_argument(
        "--replay",
        action="append",
        default=[],
        metavar="CAPTURE",
        help="the packets that arrive: a pcap or pcapng file; for several ports give it once for "
        "each, as PORT=CAPTURE; default: synthetic flows, without end and as fast as the card has "
        "room",
    )
    group.add_argument(
        "--record",
        action="append",
        default=[],
        metavar="OUT",
        help="write the packets that the card sends to this pcap file; of several ports: PORT=OUT",
    )
    group.add_argument(
        "--ports",
        type=values.names,
        metavar="NAME,...",
        help="names of the ports; a single capture arrives at the first one (default: those of "
        "--device, --replay and --record, or wan)",
    )
    group.add_argument(
        "--cut",
        action="store_true",
        help="use a capture that is cut short up to the cut, instead of refusing it",
    )
    group.add_argument(
        "--pace",
        choices=("rate", "captured"),
        help="captured: packets arrive at the times of the capture; rate: as fast as the card has "
        "room (default)",
    )
    group.add_argument(
        "--speed",
        type=float,
        metavar="FACTOR",
        help="with --pace captured: so many times as fast",
    )
    group.add_argument(
        "--repeat",
        type=int,
        metavar="N",
        help="play the capture N times; 0: without end (default: 1)",
    )
    group.add_argument(
        "--mtu",
        type=values.mtu,
        metavar="BYTES",
        help="of each port: 1500 to 9216 (default: 1500); more than 1500 for jumbo frames, which "
        "need larger buffers",
    )
    add_plugin_arguments(group, "one for each CPU but the driver's", "ringline")


def add_plugin_arguments(to: Takes, queues: str, name: str) -> None:
    """Add the arguments about the plugin and its instance, whatever its ports are. `queues` and
    `name` are their defaults."""
    values.add_options(to)
    to.add_argument(
        "--queues",
        type=values.queues,
        metavar="N",
        help=f"pairs of an RX and a TX queue, one worker each: 1 to 16; default: {queues}",
    )
    to.add_argument(
        "--state",
        type=lambda text: int(text) if text.isdecimal() else text,
        metavar="BYTES",
        help="memory for the plugin's named state and counters (default: 4194304), or '4 MiB'",
    )
    to.add_argument(
        "--blanks",
        type=values.number,
        metavar="N",
        help="empty buffers of each worker, for a plugin that creates packets (default: as many as "
        "switch and router need; 0 for others)",
    )
    to.add_argument("--name", help=f"name of the instance; default: {name}")


def arguments_of(given: Namespace) -> Arguments:
    """The arguments that take the place of a configuration file."""
    from ringline.pipeline.configuration.builtin import Arguments

    return Arguments(
        options=given.options,
        replay=given.replay,
        record=given.record,
        queues=given.queues,
        name=given.name,
        ports=given.ports,
        to_cut=given.cut,
        state=given.state,
        devices=given.device,
        pace=given.pace,
        speed=given.speed,
        repeat=given.repeat,
        blanks=given.blanks,
        mtu=given.mtu,
    )
