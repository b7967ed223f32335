"""The systemd unit: accepted by systemd-analyze, and consistent with the supervisor."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ringline.pipeline.configuration import deadlines
from ringline.pipeline.supervisor.run_states import Timeouts
from ringline.pipeline.supervisor.worker_states import RestartPolicy
from ringline.shm.errors import ConfigurationError, EnvironmentLacks, PluginError
from ringline.shm.segments import Segment, segments_of

UNIT = Path(__file__).parents[2] / "deploy" / "ringline@.service"
TIMEOUT = 60.0  # seconds


def setting(name: str) -> str:
    values = re.findall(rf"^{name}=(.*)$", UNIT.read_text(), re.MULTILINE)
    assert len(values) == 1, f"{name} is in the unit {len(values)} times"
    return str(values[0])


def verify(path: Path) -> str:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze, from the Debian package systemd")
    result = subprocess.run(
        ["systemd-analyze", "verify", str(path)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    return result.stdout + result.stderr


def test_the_unit_allows_the_sockets_of_every_port() -> None:
    allowed = set(setting("RestrictAddressFamilies").split())
    assert allowed >= {"AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET", "AF_XDP"}


def test_systemd_accepts_the_unit() -> None:
    assert verify(UNIT) == ""


def test_systemd_reports_a_wrong_unit(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong@.service"
    wrong.write_text(UNIT.read_text().replace("KillMode=", "KilMode="))
    assert "KilMode" in verify(wrong)


def test_the_unit_waits_longer_than_the_supervisor_does() -> None:
    """tests/pipeline/configuration/test_deadlines.py compares the table with the inner limits."""
    policy, timeouts = RestartPolicy(), Timeouts()
    start = max(timeouts.open, policy.prepare + policy.setup) + timeouts.open
    assert start < float(setting("TimeoutStartSec")) == deadlines.UNIT_START
    stop = timeouts.drain + timeouts.retire + timeouts.close + timeouts.grace
    stop += 2 * timeouts.kill + timeouts.dismiss
    assert stop <= deadlines.longest_end() < float(setting("TimeoutStopSec")) == deadlines.UNIT_STOP
    assert float(setting("WatchdogSec")) == deadlines.WATCHDOG


def test_one_worker_that_is_killed_for_its_memory_does_not_end_the_service() -> None:
    assert setting("OOMPolicy") == "continue"


def test_permanent_errors_prevent_a_restart() -> None:
    prevented = {int(code) for code in setting("RestartPreventExitStatus").split()}
    assert prevented == {PluginError.exit_code, ConfigurationError.exit_code}
    assert EnvironmentLacks.exit_code not in prevented, "hugepages can become available"


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """A fake service manager: the socket that NOTIFY_SOCKET names."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(tmp_path / "notify"))
        end.settimeout(TIMEOUT)
        yield end


def wait_for_message(manager: socket.socket, what: str) -> str:
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
        message = manager.recv(4096).decode()
        if what in message:
            return message
    raise AssertionError(f"no message {what} within {TIMEOUT:g} s")


def test_a_service_manager_receives_ready_watchdog_and_stopping(
    tmp_path: Path, instance: Callable[[], str], manager: socket.socket
) -> None:
    """Runs the command line of the unit in an environment like systemd's."""
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
        assert "1 port, 1 worker" in wait_for_message(manager, "READY=1")
        assert (tmp_path / "runtime" / f"{name}.sock").exists()
        for _ in range(3):
            wait_for_message(manager, "WATCHDOG=1")
        service.send_signal(signal.SIGTERM)
        wait_for_message(manager, "STOPPING=1")
        assert service.wait(TIMEOUT) == 0, output.read_text()
        assert (tmp_path / "report.json").exists()
        assert list((tmp_path / "runtime").iterdir()) == []
    finally:
        service.terminate()
        service.wait(TIMEOUT)


def test_what_a_killed_service_leaves_is_removed_by_the_unit(
    tmp_path: Path, instance: Callable[[], str], manager: socket.socket
) -> None:
    """systemd kills all processes of a service whose supervisor was killed. The card is a folder
    that takes the place of sysfs."""
    name, address = instance(), "0000:03:00.0"
    config = tmp_path / f"{name}.toml"
    config.write_text(
        f'name = "{name}"\nmemory.hugepages = "off"\nmetrics.listen = "off"\n'
        '[port.wan]\ndevice = "sim:82599"\n'
    )
    card = tmp_path / "sys" / "bus" / "pci" / "devices" / address
    card.mkdir(parents=True)
    (card / "config").write_bytes(bytes(4) + b"\x06" + bytes(251))
    (card / "resource0").write_bytes(bytes(4096))
    environment = {
        **os.environ,
        "NOTIFY_SOCKET": str(tmp_path / "notify"),
        "RUNTIME_DIRECTORY": str(tmp_path),
        "RINGLINE_SYSFS": str(tmp_path / "sys"),
    }
    command = setting("ExecStart").replace("/etc/ringline/%i.toml", str(config))
    command = command.partition(" --report")[0]
    with subprocess.Popen(
        command.split(), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as service:
        try:
            wait_for_message(manager, "READY=1")
            path = f"/dev/shm/ringline.{name}.descriptors"
            descriptors = Segment.attach(os.open(path, os.O_RDWR))
            descriptors.note_pci(address)  # as if the driver had taken the card
            descriptors.close()
        finally:
            service.kill()
    assert segments_of(name)
    command = setting("ExecStopPost").replace("$$", "$")
    words = [word.replace("/etc/ringline/%i.toml", str(config)) for word in shlex.split(command)]
    done = subprocess.run(
        words, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert f"DMA of PCI device {address} was stopped" in done.stderr
    assert segments_of(name) == []
    assert not (tmp_path / f"{name}.sock").exists()
    assert (card / "config").read_bytes() == bytes(4) + b"\x02" + bytes(251)
    done = subprocess.run(
        words, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert (done.returncode, done.stderr.endswith("nothing was left\n")) == (0, True)


def run(words: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
