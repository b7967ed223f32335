"""The command line. Each command calls one function elsewhere, imported when it is used."""

from __future__ import annotations

import argparse
import errno
import os
import sys
import tomllib
import traceback
from collections.abc import Sequence
from typing import Any

from ringline.pipeline.bench import add_arguments as add_bench_arguments
from ringline.pipeline.terminal import stdio
from ringline.shm.errors import EnvironmentLacks, RinglineError, UsageError

EPILOG = """\
exit codes: 0 fine, 1 a bug in ringline, 2 wrong usage, configuration or plugin,
3 the machine lacks something, 4 gave up, 5 the books did not balance
"""


# Of what a machine has, this can come to an end at any call: what is to be done about it.
SHORTAGES = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room",
    errno.EMFILE: "raise the limit (ulimit -n)",
    errno.ENFILE: "raise the limit (sysctl fs.file-max)",
    errno.ENOMEM: "free some, or raise the limit (ulimit -v)",
    errno.EAGAIN: "raise the limit of processes (ulimit -u)",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    stdio.ensure()
    try:
        given = parser().parse_args(arguments)
        _look_around()
        code: int = given.function(given)
        sys.stdout.flush()
        return code
    except RinglineError as error:
        stdio.complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        if error.errno in (errno.EPIPE, errno.EIO):  # who read our output has gone
            stdio.mute(sys.stdout)
            return 0
        if error.errno in SHORTAGES:
            _tell_shortage(error)
            return EnvironmentLacks.exit_code
        return _confess(error)
    except MemoryError:
        stdio.complain(f"no memory is left: {SHORTAGES[errno.ENOMEM]}")
        return EnvironmentLacks.exit_code
    except Exception as error:
        return _confess(error)


def _tell_shortage(error: OSError) -> None:
    what = f"{error.filename}: " if error.filename else ""
    if not what and error.errno in (errno.ENOSPC, errno.EDQUOT):
        what = "the output cannot be written: "
    stdio.complain(f"{what}{error.strerror}: {SHORTAGES[error.errno or 0]}")
    stdio.mute(sys.stdout)


def _look_around() -> None:
    """What every command needs."""
    try:
        os.getcwd()
    except OSError as error:
        raise EnvironmentLacks(
            f"the current folder is gone or out of reach ({error.strerror}): go to another one (cd)"
        ) from None


def _confess(error: Exception) -> int:
    trace = "".join(traceback.format_tb(error.__traceback__, limit=-3))
    print(
        f"{trace}ringline: this is a bug in ringline: {type(error).__name__}: {error}",
        file=sys.stderr,
    )
    return 1


def parser() -> argparse.ArgumentParser:
    """What can be asked for."""
    top = argparse.ArgumentParser(
        prog="ringline",
        description="A multiprocess packet pipeline in Python.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action=_Version)
    commands = top.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, function: Any, of: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=of, description=of)
        added.set_defaults(function=function)
        return added

    run = command("run", _run, "start an instance and serve until it is told to end")
    run.add_argument(
        "config",
        nargs="?",
        metavar="CONFIG",
        help="TOML file; without one: a simulated card with synthetic flows",
    )
    run.add_argument(
        "--for", dest="seconds", type=_seconds, metavar="SECONDS", help="end after so long"
    )
    run.add_argument("--report", metavar="FILE", help="write a report as JSON at the end")

    check = command("check", _check, "report every mistake in a configuration, plugins included")
    check.add_argument("config", metavar="CONFIG", help="TOML file")

    status = command("status", _status, "show what an instance that runs is doing")
    status.add_argument("name", nargs="?", metavar="NAME", help="of the instance, if several run")
    status.add_argument("--json", action="store_true", help="everything, as in the report")

    watch = command("top", _top, "show the live table of an instance that runs")
    watch.add_argument("name", nargs="?", metavar="NAME", help="of the instance, if several run")

    attempt = command("try", _try, "run a plugin on a capture, without any pipeline")
    attempt.add_argument(
        "plugin",
        metavar="PLUGIN",
        help="package.module:object, ./file.py:object, ./file.so:symbol, or an entry point",
    )
    attempt.add_argument("capture", metavar="CAPTURE", help="pcap or pcapng file")
    attempt.add_argument(
        "-w", dest="out", metavar="OUT", help="write what it forwards to this pcap file"
    )
    attempt.add_argument(
        "-o",
        dest="options",
        action="append",
        default=[],
        type=_option,
        metavar="KEY=VALUE",
        help="an option of the plugin; a value is TOML, or else a text",
    )
    attempt.add_argument(
        "--ports",
        type=_names,
        default=["port"],
        metavar="NAME,...",
        help="the ports that the plugin finds; the frames come in at the first (default: port)",
    )

    add_bench_arguments(command("bench", _bench, "measure this machine and ringline on it"))
    return top


class _Version(argparse.Action):
    """`--version`: looked up only when it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="show the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from ringline.pipeline.telemetry.version import version

        print(f"ringline {version()}")
        parser.exit()


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 1e9:
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, not {text!r}")
    return seconds


def _option(text: str) -> tuple[str, Any]:
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise argparse.ArgumentTypeError(f"must be KEY=VALUE, not {text!r}")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):  # also a number of thousands of digits
        return key, value


def _names(text: str) -> list[str]:
    names = text.split(",")
    if "" in names or len(set(names)) != len(names):
        raise argparse.ArgumentTypeError(f"must be different names, as in wan,lan, not {text!r}")
    return names


def _run(given: argparse.Namespace) -> int:
    from ringline.pipeline.commands.run import run

    return run(given.config, given.seconds, given.report)


def _check(given: argparse.Namespace) -> int:
    from ringline.pipeline.commands.check import check

    print(check(given.config))
    return 0


def _status(given: argparse.Namespace) -> int:
    from ringline.pipeline.commands.status import status

    print(status(given.name, as_json=given.json))
    return 0


def _top(given: argparse.Namespace) -> int:
    from ringline.pipeline.commands.top import top

    top(given.name)
    return 0


def _try(given: argparse.Namespace) -> int:
    from ringline.pipeline.commands.try_plugin import attempt
    from ringline.pipeline.configuration.toml import Table

    problems: list[str] = []
    options = Table({"-o": dict(given.options)}, "", problems).plain("-o")
    if problems:
        raise UsageError("\n".join(problems))
    if len(options) != len(given.options):
        raise UsageError("an option is given twice with -o")
    return attempt(given.plugin, given.capture, given.out, options, given.ports)


def _bench(given: argparse.Namespace) -> int:
    from ringline.pipeline import bench

    return bench.main(given)


if __name__ == "__main__":
    sys.exit(main())
