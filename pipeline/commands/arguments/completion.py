"""`ringline completion`: scripts that complete commands, options and values in a shell.

The scripts are made from the parser of the command line, so a new command or option is completed
without a change here. What follows an option is known by its metavar: files after FILE, CONFIG,
CAPTURE and OUT, files and installed plugins after PLUGIN, running instances after INSTANCE.
"""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from ringline.pipeline.bench.arguments import COMPARE, MEASUREMENTS

SHELLS = ("bash", "zsh", "fish")
# Words of a metavar -> what they stand for.
FILES = re.compile(r"\b(FILE|CONFIG|CAPTURE|OUT)\b")
PLUGINS = re.compile(r"\bPLUGIN\b")
INSTANCES = re.compile(r"\bINSTANCE\b")
WORDS = {"WHAT": (*MEASUREMENTS, COMPARE)}  # by metavar

# The names of running instances: those of the sockets in `folders` of telemetry/status_socket.py.
SOCKETS = "/run/ringline/*.sock {}/ringline/*.sock /tmp/ringline-{}/*.sock"


@dataclass(frozen=True)
class Argument:
    """One argument of a command.

    flags: as in ("-h", "--help"); empty for a positional argument.
    takes: whether a value follows the flag; always true for a positional argument.
    words: the values that are known.
    files, instances: whether it can be a file or the name of a running instance.
    """

    flags: tuple[str, ...]
    takes: bool
    name: str
    help: str
    words: tuple[str, ...]
    files: bool
    instances: bool


@dataclass(frozen=True)
class Command:
    """A command with its arguments."""

    name: str
    help: str
    arguments: tuple[Argument, ...]

    @property
    def flags(self) -> list[str]:
        """The flags of all options."""
        return [flag for argument in self.arguments for flag in argument.flags]


def completion(shell: str, parser: argparse.ArgumentParser, plugins: list[str]) -> str:
    """The script for `shell`, one of SHELLS. `plugins` are the names of installed plugins."""
    commands = commands_of(parser, plugins)
    make = {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell]
    return "\n".join(make(commands))


def commands_of(parser: argparse.ArgumentParser, plugins: list[str]) -> list[Command]:
    """All commands of the parser, in their order."""
    found = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, sub in action.choices.items():
                arguments = tuple(_argument(inner, plugins) for inner in sub._actions)
                found.append(Command(name, helps.get(name, ""), arguments))
    return found


def _argument(action: argparse.Action, plugins: list[str]) -> Argument:
    name = str(action.metavar or action.dest)
    words = WORDS.get(name, ()) if action.choices is None else tuple(map(str, action.choices))
    if PLUGINS.search(name):
        words += tuple(plugins)
    return Argument(
        flags=tuple(action.option_strings),
        takes=action.nargs != 0,
        name=name,
        help=" ".join((action.help or "").replace("%%", "%").split()),
        words=words,
        files=bool(FILES.search(name) or PLUGINS.search(name)),
        instances=bool(INSTANCES.search(name)),
    )


# -- bash -------------------------------------------------------------------------------


def _bash(commands: list[Command]) -> Iterator[str]:
    yield '# Completion of ringline for bash. In ~/.bashrc:  eval "$(ringline completion bash)"'
    yield "_ringline() {"
    yield "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}"
    yield "    local command=${COMP_WORDS[1]} words= files= socket"
    yield "    # bash divides --option=value into three words."
    yield '    [ "$word" != = ] || word='
    yield '    [ "$before" != = ] || before=${COMP_WORDS[COMP_CWORD-2]}'
    yield '    case "$COMP_CWORD $command $before" in'
    yield f"    1\\ *) words={shlex.quote(' '.join(command.name for command in commands))} ;;"
    for command in commands:
        for argument in command.arguments:
            if argument.flags and argument.takes:
                patterns = "|".join(f"*\\ {command.name}\\ {flag}" for flag in argument.flags)
                yield f"    {patterns}) {_bash_values([argument])} ;;"
    yield "    *)"
    yield '        case "$command $word" in'
    for command in commands:
        positional = [argument for argument in command.arguments if not argument.flags]
        flags = shlex.quote(" ".join(command.flags))
        yield f"        {command.name}\\ -*) words={flags} ;;"
        yield f"        {command.name}\\ *) {_bash_values(positional)} ;;"
    yield "        esac ;;"
    yield "    esac"
    yield '    COMPREPLY=($(compgen -W "$words" -- "$word"))'
    yield '    if [ -n "$files" ]; then'
    yield "        compopt -o filenames 2>/dev/null"
    yield "        local IFS=$'\\n'"
    yield '        COMPREPLY+=($(compgen -f -- "$word"))'
    yield "    fi"
    yield "}"
    yield "complete -F _ringline ringline"


def _bash_values(arguments: list[Argument]) -> str:
    """Commands that set the values that may come."""
    parts = []
    if words := [word for argument in arguments for word in argument.words]:
        parts.append(f"words={shlex.quote(' '.join(words))}")
    if any(argument.files for argument in arguments):
        parts.append("files=yes")
    if any(argument.instances for argument in arguments):
        sockets = SOCKETS.format('"${XDG_RUNTIME_DIR:-/run}"', '"$UID"')
        parts.append(
            f'for socket in {sockets}; do [ ! -S "$socket" ] || '
            'words+=" $(basename "$socket" .sock)"; done'
        )
    return "; ".join(parts) or ":"


# -- zsh --------------------------------------------------------------------------------


def _zsh(commands: list[Command]) -> Iterator[str]:
    yield "#compdef ringline"
    yield "# Completion of ringline for zsh. In ~/.zshrc, after compinit:"
    yield '#     eval "$(ringline completion zsh)"'
    yield "_ringline_instances() {"
    yield "    local -a sockets"
    sockets = SOCKETS.format("${XDG_RUNTIME_DIR:-/run}", "$UID").replace(".sock", ".sock(N:t:r)")
    yield f"    sockets=({sockets})"
    yield "    compadd -a sockets"
    yield "}"
    yield "_ringline() {"
    yield "    local curcontext=$curcontext state line"
    yield "    local -a commands"
    yield "    _arguments -C '1: :->command' '*:: :->argument'"
    yield "    case $state in"
    yield "    command)"
    yield "        commands=("
    for command in commands:
        told = command.help.replace(":", "\\:")
        yield f"            {shlex.quote(f'{command.name}:{told}')}"
    yield "        )"
    yield "        _describe command commands ;;"
    yield "    argument)"
    yield "        case $words[1] in"
    for command in commands:
        yield f"        {command.name})"
        specs = [spec for argument in command.arguments for spec in _zsh_specs(argument)]
        yield f"            _arguments {shlex.join(specs)} ;;"
    yield "        esac ;;"
    yield "    esac"
    yield "}"
    yield 'if [ "$funcstack[1]" = _ringline ]; then _ringline "$@"; else'
    yield "    compdef _ringline ringline"
    yield "fi"


def _zsh_specs(argument: Argument) -> Iterator[str]:
    """The specifications of an argument for `_arguments`."""
    message = re.sub(r"([\[\]:\\])", r"\\\1", argument.name)
    values = f":{message}:{_zsh_values(argument)}"
    if not argument.flags:
        yield f"*{values}"
    for flag in argument.flags:
        told = re.sub(r"([\[\]\\])", r"\\\1", argument.help)
        yield f"*{flag}[{told}]{values if argument.takes else ''}"


def _zsh_values(argument: Argument) -> str:
    parts = []
    if argument.files:
        parts.append("_files")
    if argument.words:
        parts.append(f"compadd {' '.join(argument.words)}")
    if argument.instances:
        parts.append("_ringline_instances")
    return f"{{ {'; '.join(parts)} }}" if parts else " "


# -- fish -------------------------------------------------------------------------------


def _fish(commands: list[Command]) -> Iterator[str]:
    yield "# Completion of ringline for fish: ringline completion fish | source"
    yield "function __ringline_instances"
    sockets = SOCKETS.format("$XDG_RUNTIME_DIR", "(id -u)")
    yield f"    for socket in {sockets}"
    yield "        basename $socket .sock"
    yield "    end"
    yield "end"
    yield "complete -c ringline -f"
    for command in commands:
        yield (
            f"complete -c ringline -n __fish_use_subcommand -a {command.name} "
            f"-d {_quoted(command.help)}"
        )
        for argument in command.arguments:
            words = [f"complete -c ringline -n '__fish_seen_subcommand_from {command.name}'"]
            for flag in argument.flags:
                words.append(f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}")
            if argument.takes and argument.flags:
                words.append("-r" if argument.files else "-x")
            if argument.files:
                words.append("-F")
            values = [*argument.words, *(["(__ringline_instances)"] * argument.instances)]
            if values:
                words.append(f"-a {_quoted(' '.join(values))}")
            if argument.flags:
                words.append(f"-d {_quoted(argument.help)}")
            yield " ".join(words)


def _quoted(text: str) -> str:
    """The text in quotes of fish."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
