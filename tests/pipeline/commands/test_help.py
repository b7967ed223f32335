"""`--help`: it fits 80 columns, and every example in it is a valid command line."""

from __future__ import annotations

import shlex

import pytest

from ringline.pipeline.commands import cli
from ringline.pipeline.commands.arguments.completion import commands_of
from ringline.pipeline.commands.arguments.examples import EXAMPLES, UNITS

COMMANDS = [command.name for command in commands_of(cli.parser(), [])]


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_80_columns_and_shows_examples(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as end:
        cli.main([command, "--help"] if command else ["--help"])
    assert end.value.code == 0
    told = capsys.readouterr().out
    assert max(map(len, told.splitlines())) <= 80
    for line, what in EXAMPLES.get(command, ()):
        assert f"  {line}\n      {what}\n" in told
    assert ("units:\n" in told) == (command in UNITS)


def test_the_examples_belong_to_commands_that_exist() -> None:
    assert set(UNITS) < set(EXAMPLES) <= {"", *COMMANDS}


@pytest.mark.parametrize("line", [line for examples in EXAMPLES.values() for line, _ in examples])
def test_every_example_is_a_valid_command_line(line: str) -> None:
    words = shlex.split(line.replace("$(", "").replace(')"', '"'))
    words = shlex.split(words[1]) if words[0] == "eval" else words
    if "|" in words:
        words = words[: words.index("|")]
    assert words[0] == "ringline"
    cli.parser().parse_args(words[1:])


def test_the_exit_codes_of_the_help_are_those_of_the_errors() -> None:
    from ringline.shm import errors

    codes = {
        kind.exit_code
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.RinglineError)
    }
    for code in codes | {0}:
        assert f" {code} " in cli.EXIT_CODES
