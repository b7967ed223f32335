"""`ringline lab`: its arguments, and what it tells the kernel. tests/e2e/test_lab.py runs it."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from ringline.pipeline.commands import cli
from ringline.pipeline.commands.laboratory import links
from ringline.pipeline.commands.laboratory.links import Impairment


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["edge.toml"], "lab makes the ports itself, so it takes a plugin"),
        (["no_such"], "neither a configuration (FILE.toml) nor a plugin"),
        (["./file.py"], "add the name of the plugin in it"),
        (["--ports", "a"], "--ports must be two names"),
        (["--ports", "a,b,c"], "--ports must be two names"),
        (["--queues", "17"], "--queues: must be an integer from 1 to 16"),
        (["--queues", "0"], "--queues: must be an integer from 1 to 16, not 0"),
        (["-o", "limit=1", "-o", "limit=2"], "limit"),
        (["--name", "a b"], "--name"),
    ],
)
def test_a_wrong_argument_gets_one_sentence(
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("edge.toml").touch()
    assert cli.main(["lab", *arguments]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert len(told.err.splitlines()) == 1
    assert words in told.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--loss", "101"], "argument --loss: must be a percentage from 0 to 100, not '101'"),
        (["--loss", "nan"], "argument --loss: must be a percentage"),
        (["--delay", "10"], "argument --delay: must be a time up to 60 s"),
        (["--delay", "61s"], "argument --delay: must be a time up to 60 s"),
        (["--rate", "fast"], "argument --rate: must be a rate"),
        (["--rate", "0mbit"], "argument --rate: must be a rate from 1kbit"),
        (
            ["--for", "0"],
            "--for: must be a number of seconds above 0 and at most 1000000000, not '0'",
        ),
        (["--for", "1e308"], "above 0 and at most 1000000000, not '1e308'"),
        (["--delay", "1" + "0" * 300 + "s"], "argument --delay: must be a time up to 60 s"),
        (["forward", "drop"], "unrecognized arguments: drop"),
    ],
)
def test_a_wrong_value_is_refused(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["lab", *arguments])
    assert end.value.code == 2
    assert words in capsys.readouterr().err


def test_values_have_units() -> None:
    given = cli.parser().parse_args(
        ["lab", "--loss", "12.5%", "--delay", "1.5ms", "--rate", "100mbit"]
    )
    assert (given.loss, given.delay, given.rate) == (0.125, pytest.approx(0.0015), 1e8)


@pytest.mark.parametrize(
    ("wire", "limit", "loss", "delay", "rate"),
    [
        (Impairment(loss=1.0), 1000, 0xFFFFFFFF, 0, None),
        (Impairment(loss=0.5, delay=0.002), 2000, 0x80000000, 2_000_000, None),
        (Impairment(delay=1.0, rate=8e6), 100_000, 0, 1_000_000_000, 1_000_000),
        (Impairment(rate=1e11), 1000, 0, 0, 12_500_000_000),
    ],
)
def test_netem_gets_what_linux_reads(
    wire: Impairment, limit: int, loss: int, delay: int, rate: int | None
) -> None:
    """struct tc_netem_qopt and its attributes, linux/pkt_sched.h; rates are bytes a second."""
    options = links.netem_options(wire)
    assert struct.unpack_from("=6I", options) == (0, limit, loss, 0, 0, 0)
    found = {}
    at = 24
    while at < len(options):
        length, kind = struct.unpack_from("=HH", options, at)
        found[kind] = options[at + 4 : at + length]
        at += (length + 3) & ~3
    assert struct.unpack("=q", found.pop(10)) == (delay,)
    if rate is not None:
        assert struct.unpack("=Q", found.pop(8)) == (rate,)
        assert struct.unpack("=IiIi", found.pop(6)) == (min(rate, 0xFFFFFFFF), 0, 0, 0)
    assert found == {}
