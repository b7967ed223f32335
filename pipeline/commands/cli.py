"""The command line: arguments, and an exit code for each error.

Each command is a module of its own, imported only when it is used.
"""

from __future__ import annotations

import argparse
import errno
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from ringline.pipeline.bench.arguments import add_arguments as add_bench_arguments
from ringline.pipeline.commands.arguments import analyze as analyze_arguments
from ringline.pipeline.commands.arguments import hardware, values
from ringline.pipeline.commands.arguments import lab as lab_arguments
from ringline.pipeline.commands.arguments import rss as rss_arguments
from ringline.pipeline.commands.arguments import serve_card as serve_card_arguments
from ringline.pipeline.commands.arguments.examples import Help, epilog
from ringline.pipeline.commands.arguments.target import add_target, arguments_of
from ringline.pipeline.commands.arguments.version import Version
from ringline.pipeline.terminal import stdio, surroundings
from ringline.pipeline.terminal.interrupts import fatal
from ringline.shm.errors import REMEDIES, EnvironmentLacks, RinglineError, reason_of
from ringline.shm.text import printable

EXIT_CODES = """
exit codes:
  0 success                   4 gave up
  1 a bug in ringline         5 the books did not balance
  2 wrong usage,              6 with --strict: errors, restarts
    configuration or plugin     or lost packets
  3 the machine lacks         128 + number: this signal ended
    something                   the run
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    stdio.ensure()
    try:
        given = parser().parse_args(arguments)
        surroundings.check_current_folder()
        code: int = given.function(given)
        sys.stdout.flush()
        return code
    except RinglineError as error:
        stdio.complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        if error.errno in (errno.EPIPE, errno.EIO):  # the reader of our output is gone
            stdio.mute(sys.stdout)
            return 0
        if error.errno in REMEDIES:
            _report_exhaustion(error)
            return EnvironmentLacks.exit_code
        if why := surroundings.lacking(error):
            stdio.complain(why)
            return EnvironmentLacks.exit_code
        return _report_bug(error)
    except MemoryError:
        stdio.complain(f"no memory is left: {REMEDIES[errno.ENOMEM]}")
        return EnvironmentLacks.exit_code
    except Exception as error:
        return _report_bug(error)


def _report_exhaustion(error: OSError) -> None:
    what = f"{error.filename}: " if error.filename else ""
    if not what and error.errno in (errno.ENOSPC, errno.EDQUOT):
        what = "the output cannot be written: "
    stdio.complain(f"{what}{reason_of(error)}")
    stdio.mute(sys.stdout)


def _report_bug(error: Exception) -> int:
    """Print the last frames of the traceback; the exit code."""
    trace = "".join(traceback.format_tb(error.__traceback__, limit=-3))
    print(
        f"{trace}ringline: this is a bug in ringline: {type(error).__name__}: "
        f"{printable(str(error))}",
        file=sys.stderr,
    )
    return 1


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    top = argparse.ArgumentParser(
        prog="ringline",
        description="A multiprocess packet pipeline in Python.",
        epilog=f"{epilog('')}\n{EXIT_CODES}",
        formatter_class=Help,
    )
    top.add_argument("--version", action=Version)
    commands = top.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, function: Any, of: str) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name, help=of, description=of, epilog=epilog(name), formatter_class=Help
        )
        added.set_defaults(function=function)
        return added

    run = command(
        "run",
        _run,
        "start an instance and forward packets until Ctrl-C, SIGTERM or the end of its input",
    )
    add_target(run, "?", "default: forward on a simulated card, with synthetic flows")
    run.add_argument(
        "--for", dest="seconds", type=values.seconds, metavar="SECONDS", help="stop after SECONDS"
    )
    run.add_argument("--report", metavar="FILE", help="write a JSON report to FILE at the end")
    run.add_argument(
        "--strict",
        action="store_true",
        help="end with exit code 6 after errors, restarts or lost packets",
    )

    lab_arguments.add_arguments(
        command(
            "lab",
            _lab,
            "join two hosts in network namespaces through a plugin: real ping and TCP; needs root",
        )
    )

    check = command(
        "check",
        _check,
        "report all mistakes in a configuration; if it has none, those of plugins and cards",
    )
    add_target(check)

    init = command("init", _init, "write a configuration that explains every key")
    init.add_argument(
        "file",
        nargs="?",
        default="ringline.toml",
        metavar="FILE",
        help="a new file that ends with .toml (default: ringline.toml)",
    )

    new = command("new", _new, "write a plugin and its test into the current folder")
    new.add_argument("name", metavar="NAME", help="name of the plugin: a-z, 0-9 and _")
    new.add_argument(
        "--tier",
        choices=("compiled", "batch", "c"),
        default="compiled",
        help="a function that numba compiles, a class with process(batch), or C "
        "(default: compiled)",
    )

    status = command("status", _status, "show the state of a running instance")
    status.add_argument(
        "name", nargs="?", metavar="INSTANCE", help="its name; needed if several run"
    )
    status.add_argument(
        "--json", action="store_true", help="print everything, in the format of the report"
    )

    watch = command("top", _top, "show the live table of a running instance")
    watch.add_argument(
        "name", nargs="?", metavar="INSTANCE", help="its name; needed if several run"
    )

    cleanup = command(
        "cleanup",
        _cleanup,
        "stop the cards and remove the shared memory that a killed instance left",
    )
    cleanup.add_argument(
        "what",
        metavar="CONFIG|INSTANCE",
        help="TOML file of the instance, or its name; a run without a file is called ringline, or "
        "as --name said",
    )

    attempt = command(
        "try", _try, "run a plugin on capture files, without cards or a driver process"
    )
    attempt.add_argument(
        "plugin",
        metavar="PLUGIN",
        help="package.module:object, ./file.py:object, ./file.so:symbol, or an entry point",
    )
    attempt.add_argument(
        "captures",
        nargs="+",
        metavar="CAPTURE",
        help="pcap or pcapng file, compressed or not; - is standard input; several as PORT=CAPTURE",
    )
    attempt.add_argument(
        "-w",
        dest="out",
        metavar="OUT",
        help="write the forwarded packets to this pcap file; - is standard output",
    )
    values.add_options(attempt)
    attempt.add_argument(
        "--ports",
        type=values.names,
        metavar="NAME,...",
        help="names of the ports; a single capture arrives at the first one (default: the ports "
        "of the captures, or port)",
    )
    attempt.add_argument(
        "--cut",
        action="store_true",
        help="use a capture that is cut short up to the cut, instead of refusing it",
    )
    attempt.add_argument(
        "--rss-key",
        type=values.rss_key,
        default="default",
        metavar="KEY",
        help="rss_key of the port: default, symmetric, or 80 hexadecimal digits",
    )
    attempt.add_argument(
        "--vlan-strip", action="store_true", help="vlan_strip of the port: the card removes tags"
    )
    attempt.add_argument(
        "--mtu",
        type=values.mtu,
        default=1500,
        metavar="BYTES",
        help="mtu of the ports: 1500 to 9216; more than 1500 for jumbo frames (default: 1500)",
    )
    attempt.add_argument(
        "--blanks",
        type=values.number,
        default=64,
        metavar="N",
        help="empty buffers for each batch, for a plugin that creates packets (default: 64)",
    )
    attempt.add_argument(
        "--state",
        type=values.number,
        default=4 << 20,
        metavar="BYTES",
        help="memory for the plugin's named state and counters (default: 4194304, as in a run)",
    )
    attempt.add_argument(
        "--unchecked",
        action="store_true",
        help="without bounds checks in compiled plugins, as in a run; measures their speed",
    )
    shell = command("completion", _completion, "print a script that completes commands in a shell")
    shell.add_argument("shell", choices=("bash", "zsh", "fish"), help="your shell")
    rss_arguments.add_arguments(
        command(
            "rss",
            _rss,
            "show to which queues the card spreads the packets of a capture, or of a tuple",
        )
    )

    analyze_arguments.add_command(command)
    hardware.add_commands(command)

    serve_card_arguments.add_arguments(
        command(
            "serve-card",
            _serve_card,
            "offer the simulated 82599 to another program, such as QEMU, over vfio-user",
        )
    )

    add_bench_arguments(
        command("bench", _bench, "measure the speed of ringline beside the limits of this machine")
    )
    return top


def _run(given: argparse.Namespace) -> int:
    with fatal():
        from ringline.pipeline.commands.run import run

    return run(
        given.what, given.seconds, given.report, strict=given.strict, given=arguments_of(given)
    )


def _lab(given: argparse.Namespace) -> int:
    with fatal():
        from ringline.pipeline.commands.lab import lab

    return lab(given)


def _check(given: argparse.Namespace) -> int:
    from ringline.pipeline.commands.check import check

    print(check(given.what, arguments_of(given)))
    return 0


def _init(given: argparse.Namespace) -> int:
    from ringline.pipeline.commands.starters.init import init

    print(init(given.file))
    return 0


def _new(given: argparse.Namespace) -> int:
    from ringline.pipeline.commands.starters.new import new

    print(new(given.name, given.tier))
    return 0


def _status(given: argparse.Namespace) -> int:
    from ringline.pipeline.commands.status import status

    print(status(given.name, as_json=given.json))
    return 0


def _top(given: argparse.Namespace) -> int:
    with fatal():
        from ringline.pipeline.commands.top import top

    top(given.name)
    return 0


def _cleanup(given: argparse.Namespace) -> int:
    from ringline.pipeline.commands.cleanup import cleanup

    print(cleanup(given.what))
    return 0


def _try(given: argparse.Namespace) -> int:
    with fatal():
        from ringline.pipeline.commands.try_plugin import Attempt, attempt

    return attempt(
        Attempt(
            given.plugin,
            given.captures,
            given.out,
            given.options,
            given.ports,
            rss_key=given.rss_key,
            vlan_strip=given.vlan_strip,
            mtu=given.mtu,
            blanks=given.blanks,
            state_bytes=given.state,
            checked=not given.unchecked,
            to_cut=given.cut,
        )
    )


def _completion(given: argparse.Namespace) -> int:
    from ringline.pipeline.commands.arguments.completion import completion
    from ringline.pipeline.commands.target import plugins

    print(completion(given.shell, parser(), plugins()))
    return 0


def _rss(given: argparse.Namespace) -> int:
    with fatal():
        from ringline.pipeline.commands.rss import rss

    print(rss(given))
    return 0


def _serve_card(given: argparse.Namespace) -> int:
    with fatal():
        from ringline.pipeline.commands.serve_card import serve_card

    return serve_card(given)


def _bench(given: argparse.Namespace) -> int:
    with fatal():
        from ringline.pipeline.bench.command import measure

    return measure(given)


if __name__ == "__main__":
    sys.exit(main())
