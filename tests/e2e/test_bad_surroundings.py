"""Unusual surroundings of a command: streams, folders, environment, and moments of its end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from .operator_harness import ONE_QUEUE, TIMEOUT, Operator
from .run_harness import answer_of

pytestmark = pytest.mark.slow

MIXED = Path(__file__).parents[1] / "data" / "mixed.pcap"
FOREVER = ONE_QUEUE + "wire = { flows = {}, rate_mpps = 0.01 }\n"
COMPILED = f"""{ONE_QUEUE}wire = {{ replay = "{MIXED}" }}
[worker]
plugin = "ringline.workers.plugins.mac_swap:mac_swap_compiled"
"""
BRIEFLY = ("--for", "0.2")


@pytest.fixture
def config(operator: Operator) -> Path:
    return operator.write(FOREVER)


def in_shell(redirection: str) -> list[str]:
    """Return the beginning of a command line that runs with a shell redirection."""
    return ["sh", "-c", f'exec "$@" {redirection}', "sh"]


ALL = "<&- >&- 2>&-"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", ALL])
def test_closed_streams_change_nothing(operator: Operator, config: Path, closed: str) -> None:
    arguments = ("run", config, *BRIEFLY, "--report", "report.json")
    assert operator.run(*arguments, within=in_shell(closed)).code == 0
    report = json.loads((operator.folder / "report.json").read_text())
    assert not any(report["balance"].values())
    assert report["ports"]["wan"]["forwarded"] > 0
    if closed == ALL:
        for command in (("check", config), ("try", "forward", MIXED)):
            assert operator.run(*command, within=in_shell(closed)).code == 0
    none = operator.folder / "none.toml"
    ended = operator.run("run", none, within=in_shell(closed))
    assert ended.code == 2
    assert ("there is no such file" in ended.errors) == ("2>&-" not in closed)


def test_output_that_cannot_be_written_is_reported(operator: Operator, config: Path) -> None:
    told = "the output cannot be written: No space left on device: make room"
    commands = [("run", config, *BRIEFLY), ("check", config), ("try", "forward", MIXED)]
    for command in [*commands, ("--version",)]:
        assert operator.refused(3, *command, within=in_shell(">/dev/full")) == told


def test_an_error_output_that_cannot_be_written_ends_nothing(
    operator: Operator, config: Path
) -> None:
    ended = operator.run("run", config, *BRIEFLY, within=in_shell("2>/dev/full"))
    assert ended.code == 0
    assert "balance: 0 in all" in ended.out
    none = operator.folder / "none.toml"
    assert operator.run("run", none, within=in_shell("2>/dev/full")).code == 2


def test_a_closed_pipe_is_no_error(operator: Operator, config: Path) -> None:
    with operator.serving(config):
        for command in ("status --json NAME", "status NAME", "top NAME"):
            arguments = command.replace("NAME", operator.name).split()
            ended = operator.run(*arguments, within=in_shell("| true"), keep_instance=True)
            assert ended.code == 0
            assert ended.errors == ""


def test_names_that_the_terminal_cannot_show_are_shown_escaped(operator: Operator) -> None:
    config = operator.write(FOREVER, os.fsdecode(b"\xe9dge.toml"))  # in Latin-1
    for encoding in ("utf-8", "ascii"):
        variables = {"PYTHONIOENCODING": f"{encoding}:strict"}
        ended = operator.run("check", config, environment=variables)
        assert ended.code == 0, ended.errors
        assert r"\udce9dge.toml: all well" in ended.out


@pytest.mark.parametrize("variable", ["HOME", "TERM"])
def test_common_environment_variables_are_not_needed(operator: Operator, variable: str) -> None:
    ended = operator.run("run", operator.write(COMPILED), environment={variable: None})
    assert ended.code == 0, ended.errors
    assert "forwarded 194" in ended.out


def test_it_needs_no_search_path(operator: Operator) -> None:
    command = shutil.which("ringline")
    within = ["sh", "-c", f'unset PATH; shift; exec {command} "$@"', "sh"]
    ended = operator.run("run", operator.write(COMPILED), within=within)
    assert ended.code == 0, ended.errors
    assert "forwarded 194" in ended.out


@pytest.mark.parametrize("cache", ["/proc/none", "/dev/null"])
def test_a_cache_that_cannot_be_written_costs_time_only(operator: Operator, cache: str) -> None:
    ended = operator.run("run", operator.write(COMPILED), environment={"RINGLINE_CACHE": cache})
    assert ended.code == 0, ended.errors
    assert "forwarded 194" in ended.out


def test_a_current_folder_that_was_removed_is_reported(operator: Operator, config: Path) -> None:
    gone = operator.folder / "gone"
    within = ["sh", "-c", f'mkdir {gone}; cd {gone}; rmdir {gone}; exec "$@"', "sh"]
    told = "the current folder is gone or out of reach (No such file or directory): go to another"
    for command in (("run",), ("run", config), ("check", config), ("try", "forward", MIXED)):
        assert operator.refused(3, *command, within=within).startswith(told)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it mounts")
def test_a_machine_without_proc_is_reported(operator: Operator, config: Path) -> None:
    """As in a sandbox or a chroot."""
    mounted = 'mount -t tmpfs none /proc && exec "$@"'
    within = ["unshare", "-m", "sh", "-c", mounted, "sh"]
    for command in (("run", config), ("doctor",), ("interfaces",)):
        told = operator.refused(3, *command, within=within)
        assert told.startswith("/proc is not mounted here, and this needs it: mount it")


def test_a_current_folder_that_is_removed_later_disturbs_nothing(operator: Operator) -> None:
    """A worker's successor starts without it."""
    config = operator.write(FOREVER)
    place = operator.folder / "place"
    place.mkdir()
    with operator.serving(config, cwd=place) as process:
        place.rmdir()
        os.kill(worker(operator)["pid"], signal.SIGKILL)
        deadline = time.monotonic() + TIMEOUT
        while not (worker(operator)["restarts"] and worker(operator)["up"]):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert process.returncode == 0


def worker(operator: Operator) -> dict[str, int]:
    found: dict[str, int] = answer_of(operator.name)["workers"][0]
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("after", [0.1, 0.2, 0.4])
def test_a_signal_soon_after_the_start_leaves_nothing(
    operator: Operator, config: Path, number: signal.Signals, after: float
) -> None:
    with operator.started("run", config) as process:
        time.sleep(after)
        process.send_signal(number)
        _, errors = process.communicate(timeout=TIMEOUT)
    # An orderly end. Otherwise the signal came early, before ringline handles it, or even Python.
    assert process.returncode in (0, 130, 128 + number, -number) or (
        process.returncode == 1 and "Fatal Python error: init_" in errors
    ), errors


def test_ten_interrupts_have_the_effect_of_one(operator: Operator, config: Path) -> None:
    with operator.serving(config) as process:
        for _ in range(10):
            process.send_signal(signal.SIGINT)
            time.sleep(0.02)
        out, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, errors
    assert "balance: 0 in all" in out
    assert "Traceback" not in errors


def test_top_ends_when_it_is_interrupted_and_when_there_is_nothing_to_see(
    operator: Operator, config: Path
) -> None:
    with operator.serving(config) as run:
        with operator.started("top", operator.name, keep_instance=True) as watching:
            time.sleep(1.0)
            watching.send_signal(signal.SIGINT)
            _, errors = watching.communicate(timeout=TIMEOUT)
        assert watching.returncode in (0, 130), errors
        assert "Traceback" not in errors
        with operator.started("top", operator.name, keep_instance=True) as watching:
            time.sleep(1.0)
            run.send_signal(signal.SIGINT)
            _, errors = watching.communicate(timeout=TIMEOUT)
        assert watching.returncode == 0, errors
        assert "Traceback" not in errors
