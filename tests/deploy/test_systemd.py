"""The systemd unit: accepted by the real tool, and true to what the supervisor does."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ringline.pipeline.supervisor.run_states import Timeouts
from ringline.pipeline.supervisor.worker_states import RestartPolicy
from ringline.shm.errors import ConfigurationError, EnvironmentLacks, PluginError

UNIT = Path(__file__).parents[2] / "deploy" / "ringline@.service"
SECONDS = 60.0


def setting(name: str) -> str:
    values = re.findall(rf"^{name}=(.*)$", UNIT.read_text(), re.MULTILINE)
    assert len(values) == 1, f"{name} stands in the unit {len(values)} times"
    return str(values[0])


def verify(path: Path) -> str:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze, of the Debian package systemd")
    result = subprocess.run(
        ["systemd-analyze", "verify", str(path)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return result.stdout + result.stderr


def test_systemd_has_nothing_to_say_about_the_unit() -> None:
    assert verify(UNIT) == ""


def test_systemd_would_say_so_if_the_unit_were_wrong(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong@.service"
    wrong.write_text(UNIT.read_text().replace("KillMode=", "KilMode="))
    assert "KilMode" in verify(wrong)


def test_the_unit_waits_longer_than_the_supervisor_does() -> None:
    policy, timeouts = RestartPolicy(), Timeouts()
    start = max(timeouts.open, policy.prepare + policy.setup) + timeouts.open
    assert float(setting("TimeoutStartSec")) >= start
    stop = timeouts.drain + timeouts.retire + timeouts.close + timeouts.grace
    stop += 2 * timeouts.kill + timeouts.dismiss
    assert float(setting("TimeoutStopSec")) > stop


def test_what_would_fail_again_is_not_started_again() -> None:
    prevented = {int(code) for code in setting("RestartPreventExitStatus").split()}
    assert prevented == {PluginError.exit_code, ConfigurationError.exit_code}
    assert EnvironmentLacks.exit_code not in prevented, "hugepages may come later"


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """Plays the service manager: the socket of NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(tmp_path / "notify"))
        end.settimeout(SECONDS)
        yield end


def hear(manager: socket.socket, what: str) -> str:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        said = manager.recv(4096).decode()
        if what in said:
            return said
    raise AssertionError(f"{what} was not told within {SECONDS:g} s")


def test_a_service_manager_is_told_ready_alive_and_stopping(
    tmp_path: Path, instance: Callable[[], str], manager: socket.socket
) -> None:
    """The command line of the unit, in the environment that systemd would give."""
    name = instance()
    config = tmp_path / f"{name}.toml"
    config.write_text(
        f'name = "{name}"\n[port.wan]\ndevice = "sim:82599"\n'
        "wire = { flows = { count = 8 }, rate_mpps = 0.01 }\n"
        '[metrics]\nlisten = "off"\n'
    )
    command = setting("ExecStart").replace("/etc/ringline/%i.toml", str(config))
    command = command.replace("%S/ringline/%i", str(tmp_path / "report"))
    for folder in ("runtime", "cache"):
        (tmp_path / folder).mkdir(mode=0o700)
    output = tmp_path / "output"
    with output.open("w") as errors:
        service = subprocess.Popen(
            command.split(),
            env={
                **os.environ,
                "NOTIFY_SOCKET": str(tmp_path / "notify"),
                "WATCHDOG_USEC": "600000",
                "RUNTIME_DIRECTORY": str(tmp_path / "runtime"),
                "CACHE_DIRECTORY": str(tmp_path / "cache"),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
    try:
        assert "1 port, 1 worker" in hear(manager, "READY=1")
        assert (tmp_path / "runtime" / f"{name}.sock").exists()
        for _ in range(3):
            hear(manager, "WATCHDOG=1")
        service.send_signal(signal.SIGTERM)
        hear(manager, "STOPPING=1")
        assert service.wait(SECONDS) == 0, output.read_text()
        assert (tmp_path / "report.json").exists()
        assert list((tmp_path / "runtime").iterdir()) == []
    finally:
        service.terminate()
        service.wait(SECONDS)
