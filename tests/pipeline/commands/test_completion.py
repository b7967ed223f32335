"""`ringline completion`: real shells complete commands, options and values."""

from __future__ import annotations

import os
import pty
import select
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from ringline.pipeline.commands import cli, target
from ringline.pipeline.commands.arguments.completion import SHELLS, commands_of, completion
from ringline.pipeline.commands.starters.plugins import TIERS

COMPLETED = [
    # typed, what the shell offers
    ("ringline ru", ["run"]),
    ("ringline c", ["check", "cleanup", "completion"]),
    ("ringline run --re", ["--record", "--repeat", "--replay", "--report"]),
    ("ringline check --qu", ["--queues"]),
    ("ringline run --replay in", ["in.pcap", "in folder/"]),
    ("ringline run ed", ["edge.toml"]),
    ("ringline run forw", ["forward"]),
    ("ringline try mac_swap_col", ["mac_swap_columns"]),
    ("ringline new guard --tier b", ["batch"]),
    ("ringline completion ", ["bash", "fish", "zsh"]),
    ("ringline bench hand", ["handoff"]),
    ("ringline bench com", ["compare"]),
    ("ringline status ed", ["edge-7"]),
    ("ringline run --name ", []),
    ("ringline nothing x", []),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("in.pcap", "edge.toml"):
        (tmp_path / name).touch()
    (tmp_path / "in folder").mkdir()
    (tmp_path / "run" / "ringline").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "run" / "ringline" / "edge-7.sock"))
    for shell in SHELLS:
        script = completion(shell, cli.parser(), target.plugins())
        (tmp_path / f"completion.{shell}").write_text(script)
    return tmp_path


def shell(words: list[str], folder: Path) -> str:
    if shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} is missing")
    done = subprocess.run(
        words,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"XDG_RUNTIME_DIR": str(folder / "run"), "HOME": str(folder)},
    )
    assert done.stderr == ""
    return done.stdout


def test_the_parser_gives_every_command_and_option() -> None:
    commands = {command.name: command for command in commands_of(cli.parser(), ["forward"])}
    run = commands["run"]
    assert {"--replay", "--queues", "-o", "--for", "--help"} <= set(run.flags)
    (what,) = [argument for argument in run.arguments if not argument.flags]
    assert (what.files, what.words, what.instances) == (True, ("forward",), False)
    (strict,) = [argument for argument in run.arguments if argument.flags == ("--strict",)]
    assert not strict.takes
    assert commands["completion"].arguments[-1].words == SHELLS
    assert next(a for a in commands["new"].arguments if "--tier" in a.flags).words == tuple(TIERS)
    (name,) = [argument for argument in commands["top"].arguments if not argument.flags]
    assert name.instances


@pytest.mark.parametrize(("typed", "offered"), COMPLETED)
def test_bash_completes(typed: str, offered: list[str], folder: Path) -> None:
    words = typed.split(" ")
    script = f"""
        source completion.bash
        complete -p ringline >/dev/null || exit 1
        COMP_WORDS=({" ".join(word or "''" for word in words)}) COMP_CWORD={len(words) - 1}
        _ringline
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    got = shell(["bash", "-c", script], folder).splitlines()
    assert sorted(filter(None, got)) == sorted(word.rstrip("/") for word in offered)


def test_bash_completes_after_an_equals_sign(folder: Path) -> None:
    for words, wanted in (
        ("run --replay = ed", "edge.toml"),
        ("run --queues = e", ""),
        ("new --tier =", "batch"),
    ):
        script = f"""
            source completion.bash
            COMP_WORDS=(ringline {words}) COMP_CWORD={len(words.split())}
            _ringline
            printf '%s\\n' "${{COMPREPLY[@]}}"
        """
        assert wanted in shell(["bash", "-c", script], folder).splitlines()


@pytest.mark.parametrize(("typed", "offered"), COMPLETED)
def test_fish_completes(typed: str, offered: list[str], folder: Path) -> None:
    script = f'source completion.fish; complete -C "{typed}"'
    got = [
        line.split("\t")[0]
        for line in shell(["fish", "--no-config", "-c", script], folder).splitlines()
    ]
    assert sorted(got) == sorted(word.replace(" ", "\\ ") for word in offered) or (
        sorted(got) == sorted(offered)
    )


def interactive(words: list[str], first: str, typed: str, wanted: str, folder: Path) -> str:
    """Type into a shell on a terminal until `wanted` appears; all that it printed."""
    if shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} is missing")
    ours, theirs = pty.openpty()
    environment = {"XDG_RUNTIME_DIR": str(folder / "run"), "HOME": str(folder), "TERM": "xterm"}
    with subprocess.Popen(
        words,
        cwd=folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env=os.environ | environment,
    ) as process:
        os.close(theirs)
        try:
            os.write(ours, first.encode() + b"\n")
            printed = _read_until(ours, "READY", b"")
            os.write(ours, typed.encode())
            printed = _read_until(ours, wanted, printed)
        finally:
            process.kill()
            os.close(ours)
    return printed.decode(errors="replace")


def _read_until(terminal: int, wanted: str, printed: bytes) -> bytes:
    until = time.monotonic() + 60
    while wanted.encode() not in printed and time.monotonic() < until:
        if select.select([terminal], [], [], 0.2)[0]:
            printed += os.read(terminal, 65536)
    assert wanted.encode() in printed, printed
    return printed


BASH = ["bash", "--norc", "--noprofile", "-i"]
ZSH = ["zsh", "-f", "-i"]
READ_BASH = 'source completion.bash; PS1="> "; echo REA""DY'
READ_ZSH = 'autoload -U compinit; compinit -u; source completion.zsh; PS1="> "; echo REA""DY'


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ("ringline ru\t--repla\t", "--replay"),
        ("ringline run --replay in.\t", "in.pcap"),
        ("ringline run --replay=in.\t", "--replay=in.pcap"),
        ("ringline check ed\t", "edge.toml"),
        ("ringline top ed\t", "edge-7"),
    ],
)
@pytest.mark.parametrize("which", ["bash", "zsh"])
def test_a_shell_in_a_terminal_completes_with_the_tabulator(
    which: str, typed: str, wanted: str, folder: Path
) -> None:
    words, first = (BASH, READ_BASH) if which == "bash" else (ZSH, READ_ZSH)
    if which == "zsh" and "=" in typed:
        typed, wanted = typed.replace("=", " "), wanted.replace("=", " ")
    interactive(words, first, typed, wanted, folder)


def test_a_shell_that_is_not_known_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["completion", "csh"])
    assert end.value.code == 2
    assert "argument shell: invalid choice: 'csh'" in capsys.readouterr().err


def test_the_command_prints_the_script(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    for name in SHELLS:
        assert cli.main(["completion", name]) == 0
        assert capsys.readouterr().out.rstrip("\n") == (folder / f"completion.{name}").read_text()
