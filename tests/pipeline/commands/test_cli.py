"""The command line: error sentences and exit codes, and `status`, `top` and the end of a run."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ringline.pipeline.commands import cli, run
from ringline.shm import errors
from ringline.shm.version import version

DATA = Path(__file__).parents[2] / "data"
MIXED = DATA / "mixed.pcap"
COMMAND = [sys.executable, "-P", "-m", "ringline.pipeline.commands.cli"]

CONFIG = """
name = "{name}"
[port.wan]
device = "sim:82599"
wire = {wire}
[worker]
plugin = "{plugin}"
[driver]
idle = "adaptive"
[metrics]
listen = "{listen}"
"""
SLOW = "{ flows = { count = 4 }, rate_mpps = 0.01 }"
MIXED_WIRE = f'{{ replay = "{MIXED}" }}'


def ringline(
    *arguments: str, folder: Path | None = None, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run one command as an operator does."""
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=folder,
        check=False,
    )


@pytest.fixture
def write(tmp_path: Path, instance: Callable[[], str]) -> Callable[..., Path]:
    """Writes a configuration; returns its path. The stem is the instance's name."""

    def write(wire: str = MIXED_WIRE, plugin: str = "forward", listen: str = "off") -> Path:
        name = instance()
        path = tmp_path / f"{name}.toml"
        path.write_text(CONFIG.format(name=name, wire=wire, plugin=plugin, listen=listen))
        return path

    return write


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start `ringline run`; leaving the block terminates it if it still runs."""
    process = subprocess.Popen(
        [*COMMAND, "run", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def status_of(name: str, seconds: float = 30) -> dict[str, object]:
    """Wait until an instance runs; return its status."""
    until = time.monotonic() + seconds
    while True:
        asked = ringline("status", "--json", name)
        if asked.returncode == 0:
            told: dict[str, object] = json.loads(asked.stdout)
            if told["state"] == "running":
                return told
        assert time.monotonic() < until, asked.stderr
        time.sleep(0.05)


# -- words ------------------------------------------------------------------------------


def test_help_and_version_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ["--help"],
        *(
            [command, "--help"]
            for command in ("run", "check", "status", "top", "cleanup", "try", "bench")
        ),
    ):
        with pytest.raises(SystemExit) as end:
            cli.main(arguments)
        assert end.value.code == 0
    assert "exit codes" in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"ringline {version()}\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["rn"], "invalid choice: 'rn'"),
        (
            ["run", "--for", "soon"],
            "above 0 and at most 1000000000, not 'soon'",
        ),
        (
            ["run", "--for", "0"],
            "above 0 and at most 1000000000, not '0'",
        ),
        (
            ["run", "--for", "nan"],
            "above 0 and at most 1000000000, not 'nan'",
        ),
        (["run", "--for", "1e308"], "above 0 and at most 1000000000, not '1e308'"),
        (["check"], "required: CONFIG"),
        (["try", "forward"], "required: CAPTURE"),
        (["try", "forward", "x.pcap", "-o", "ports"], "must be KEY=VALUE, not 'ports'"),
    ],
)
def test_wrong_usage_is_told(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2
    assert told in capsys.readouterr().err


def test_options_are_toml_or_text() -> None:
    given = cli.parser().parse_args(
        ["try", "p", "c"]
        + [
            word
            for option in ("n=3", "x=1.5", 'q="a b"', "t=plain text", "l=[1,2]", "e=")
            for word in ("-o", option)
        ]
    )
    assert dict(given.options) == {
        "n": 3,
        "x": 1.5,
        "q": "a b",
        "t": "plain text",
        "l": [1, 2],
        "e": "",
    }


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("usage"), 2),
        (errors.ConfigurationError(["a: one", "b: two"]), 2),
        (errors.PluginError("plugin"), 2),
        (errors.EnvironmentLacks("lacks"), 3),
        (errors.HardwareError("card"), 3),
        (errors.GaveUp("gave up"), 4),
        (errors.BooksError("off"), 5),
        (errors.Bug("odd"), 1),
        (ZeroDivisionError("division by zero"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_each_error_has_its_exit_code_and_its_sentences(
    error: BaseException,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object, **__: object) -> int:
        raise error

    monkeypatch.setattr(run, "run", fail)
    assert cli.main(["run"]) == code
    told = capsys.readouterr().err
    if isinstance(error, errors.RinglineError):
        assert told == "".join(f"ringline: {line}\n" for line in str(error).splitlines())
        assert "Traceback" not in told
    elif isinstance(error, ZeroDivisionError):
        assert "ringline: this is a bug in ringline: ZeroDivisionError: division by zero" in told
        assert len(told.splitlines()) < 10


def test_a_reader_that_goes_away_is_no_error(write: Callable[..., Path]) -> None:
    done = subprocess.run(
        f"{' '.join(COMMAND)} check {write()} | true; echo ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "0\n"
    assert done.stderr == ""


# -- check ------------------------------------------------------------------------------


def test_check_prints_what_a_run_would_start(write: Callable[..., Path]) -> None:
    path = write()
    done = ringline("check", str(path))
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        f"{path}: all well; instance {path.stem}, ports wan (sim:82599), workers 1" in done.stdout
    )


def test_check_reports_the_file_and_the_plugins(write: Callable[..., Path]) -> None:
    path = write(plugin="no_such_module:nothing")
    done = ringline("check", str(path))
    assert done.returncode == 2
    assert f"ringline: {path}: worker 0: plugin no_such_module:nothing: " in done.stderr
    path.write_text(path.read_text().replace("device", "devise"))
    done = ringline("check", str(path))
    assert done.returncode == 2
    assert 'port.wan.devise: unknown key; did you mean "device"?' in done.stderr


def test_check_reports_cards_that_are_not_there(write: Callable[..., Path]) -> None:
    path = write()
    text = path.read_text().replace("sim:82599", "pci:ffff:1f:1f.7")
    path.write_text("".join(line for line in text.splitlines(True) if "wire" not in line))
    done = ringline("check", str(path))
    assert done.returncode == 3
    assert done.stderr.startswith(f"ringline: {path}: port.wan.device: ")
    assert "ffff:1f:1f.7" in done.stderr


def test_a_plugin_beside_the_configuration_is_found(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "beside.py").write_text(
        "class Back:\n"
        "    def process(self, batch):\n"
        "        for packet in batch:\n"
        "            packet.verdict = packet.port\n"
    )
    for plugin in ("beside:Back", "./beside.py:Back"):
        path = write(plugin=plugin)
        done = ringline("check", str(path), folder=Path("/"))
        assert (done.returncode, done.stderr) == (0, ""), plugin
        done = ringline("run", str(path), folder=Path("/"))
        assert done.returncode == 0, done.stderr
        assert "dropped: none" in done.stdout


# -- run, status, top -------------------------------------------------------------------


def test_a_finite_replay_ends_by_itself_with_a_report(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    done = ringline("run", str(write()), "--report", str(report))
    assert done.returncode == 0, done.stderr
    assert "balance: 0 in all" in done.stdout
    told = json.loads(report.read_text())
    wan = told["ports"]["wan"]
    assert told["exit"] == {"code": 0, "reason": "all well"}
    assert wan["received"]["packets"] == wan["wire"]["delivered"] > 0
    assert wan["transmitted"]["packets"] == wan["wire"]["transmitted"]
    lost = sum(wan["drops"].values())
    assert wan["received"]["packets"] == wan["forwarded"] + lost + wan["in_flight"]
    assert not any(told["balance"].values())
    assert told["buffers"]["free"] == sum(told["buffers"].values())


FLAWED = """
import os, time

class Raises:
    def process(self, batch):
        batch[0].verdict = 0
        raise ValueError("never")

class Drops:
    def process(self, batch):
        pass

class Dies:
    def process(self, batch):
        time.sleep(0.6)
        os._exit(1)
"""
FINITE = "{ flows = { count = 4, packets = 100 } }"


@pytest.mark.parametrize(("plugin", "code"), [("Raises", 6), ("Drops", 0)])
def test_strict_makes_errors_and_lost_packets_an_exit_code(
    write: Callable[..., Path], tmp_path: Path, plugin: str, code: int
) -> None:
    (tmp_path / "flawed.py").write_text(FLAWED)
    report = tmp_path / "report.json"
    path = write(FINITE, plugin=f"./flawed.py:{plugin}")
    strict = ringline("run", str(path), "--strict", "--report", str(report))
    assert strict.returncode == code, strict.stderr
    told = json.loads(report.read_text())["exit"]
    assert told["code"] == code
    well = code == 0
    assert ("all well" in strict.stdout) == ("all well" in told["reason"]) == well
    assert "ended by" not in strict.stdout, "it ended in order"
    if not well:
        assert "100 plugin errors, 100 packets lost" in told["reason"]
        lenient = ringline("run", str(path))
        assert lenient.returncode == 0
        assert "100 plugin errors, 100 packets lost" in lenient.stdout
        trace = [line for line in lenient.stderr.splitlines() if line.startswith("ringline:   ")]
        assert [line.split('", ')[-1] for line in trace] == [
            "line 7, in process",
            'ringline:     raise ValueError("never")',
        ]


def test_a_queue_that_is_given_up_while_the_run_drains_is_exit_code_4(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "flawed.py").write_text(FLAWED)
    path = write(SLOW, plugin="./flawed.py:Dies")
    text = path.read_text().replace(
        "[driver]", "restart = { intensity = 1, period = 30.0 }\n[driver]"
    )
    path.write_text(text)
    report = tmp_path / "report.json"
    done = ringline("run", str(path), "--for", "0.3", "--report", str(report))
    assert done.returncode == 4, done.stderr
    assert "queue 0 was given up" in done.stderr
    assert "all well" not in done.stdout
    told = json.loads(report.read_text())
    assert told["exit"]["code"] == 4
    assert told["workers"][0]["state"] == "given up"


@pytest.mark.slow
def test_a_run_can_be_queried_watched_and_ended(write: Callable[..., Path]) -> None:
    path = write(wire=SLOW, listen="127.0.0.1:0")
    with started(str(path)) as process:
        told = status_of(path.stem)
        assert told["name"] == path.stem
        words = ringline("status", path.stem)
        assert words.returncode == 0
        assert "books    balanced" in words.stdout
        again = ringline("run", str(path))
        assert again.returncode == 3
        assert f"{path.stem}" in again.stderr
        with urllib.request.urlopen(str(told["metrics"]), timeout=10) as metrics:
            assert b"ringline_port_received_packets_total" in metrics.read()
        top = subprocess.Popen(
            [*COMMAND, "top", path.stem], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert top.stdout is not None
        assert " port.wan.rx_mpps=" in top.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 0, err
        assert "all well" in out
        _, err = top.communicate(timeout=30)
        assert top.returncode == 0
        assert f"instance {path.stem}" in err or f"no instance {path.stem}" in err
    assert ringline("status", path.stem).returncode == 3


@pytest.mark.slow
def test_for_ends_a_run_and_shows_how_far_it_is(write: Callable[..., Path]) -> None:
    done = ringline("run", str(write(wire=SLOW)), "--for", "2.5")
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"^time=\S+Z seconds=\d of=2.5 state=running port.wan", done.stdout, re.MULTILINE
    )


def test_a_run_ends_when_its_reader_goes_away(write: Callable[..., Path], tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    with started(str(write(wire=SLOW)), "--report", str(report)) as process:
        assert process.stdout is not None
        assert " port.wan.rx_mpps=" in process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=30) == 0
        assert json.loads(report.read_text())["exit"]["code"] == 0


def test_an_unwritable_report_is_refused_before_anything_starts(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    path = tmp_path / "none" / "report.json"
    done = ringline("run", str(write()), "--report", str(path))
    assert done.returncode == 2
    assert done.stderr == (
        f"ringline: the report cannot be written to {path}: No such file or directory\n"
    )


def test_a_report_does_not_overwrite_the_recording_of_its_run(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    path = write(f'{{ replay = "{MIXED}", record = "both" }}')
    done = ringline("run", str(path), "--report", "both", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "ringline: the report cannot be written to both: port wan records to this file; name "
        "another one\n"
    )
    assert not (tmp_path / "both").exists()


def test_a_run_that_cannot_start_leaves_no_report(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    done = ringline("run", str(write(plugin="no_such_module:nothing")), "--report", str(report))
    assert done.returncode == 2
    assert "no_such_module" in done.stderr
    assert "Traceback" not in done.stderr
    if report.exists():
        assert json.loads(report.read_text())["exit"]["code"] == 2


def test_a_taken_metrics_port_is_refused(write: Callable[..., Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        done = ringline("run", str(write(listen=where)))
    assert done.returncode == 3
    assert f"metrics.listen: {where} is taken by another program" in done.stderr


# -- try --------------------------------------------------------------------------------


def test_try_prints_a_summary_of_the_capture(tmp_path: Path) -> None:
    out = tmp_path / "out.pcap"
    done = ringline("try", "mac_swap", str(MIXED), "-w", str(out))
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(rf"forwarded \d+, written to {re.escape(str(out))}, dropped 0", done.stdout)
    assert out.stat().st_size > 24


def test_try_has_the_ports_and_the_blanks_that_a_plugin_works_with(tmp_path: Path) -> None:
    (tmp_path / "echo.py").write_text(
        "class Echo:\n"
        "    def setup(self, worker):\n        self.lan = worker.ports['lan']\n"
        "        for n in (1, 5, 7, 300):\n"
        "            worker.histogram('sizes', buckets=5).observe(n)\n"
        "    def process(self, batch):\n"
        "        for packet in batch:\n            packet.verdict = self.lan\n"
        "        batch.create(bytes(60), 0)\n"
    )
    done = ringline("try", "./echo.py:Echo", str(MIXED), "--ports", "wan,lan", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    made = r"forwarded (\d+), dropped 0\n  created ([1-9]\d*)\n  sent by port: wan \2, lan \1\n"
    assert re.search(made, done.stdout)
    assert "sizes: sum 313; below 2: 1, below 8: 2, 8 and more: 1\n" in done.stdout
    for wrong in ("wan,wan", "wan,", ""):
        done = ringline("try", "forward", str(MIXED), "--ports", wrong)
        assert done.returncode == 2
        assert "must be different names, as in wan,lan" in done.stderr


def test_try_reports_the_errors_of_a_plugin(tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(
        "class Raises:\n    def process(self, batch):\n        raise KeyError('no such flow')\n"
    )
    done = ringline("try", "wrong:Raises", str(MIXED), folder=tmp_path)
    assert done.returncode == 2
    assert "failed" in done.stdout
    assert "no such flow" in done.stderr
    assert ringline("try", "wrong:Nothing", str(MIXED), folder=tmp_path).returncode == 2
    done = ringline("try", "forward", "none.pcap", folder=tmp_path)
    assert done.returncode == 2
    assert "none.pcap: there is no such capture file" in done.stderr
    done = ringline("try", "forward", str(MIXED), "-o", "prts=[1]")
    assert done.returncode == 2
    assert "prts" in done.stderr
