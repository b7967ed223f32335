"""Promises to a service manager; its socket is played by this test."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from ringline.pipeline.supervisor.sd_notify import Notifier


@pytest.mark.parametrize("abstract", [False, True])
def test_every_state_is_sent(tmp_path: Path, abstract: bool) -> None:
    path = f"@ringline-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + path[1:] if abstract else path)
        manager.settimeout(5)
        environment = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "3000000", "OTHER": "1"}
        notifier = Notifier(environment)
        assert environment == {"OTHER": "1"}, "children would speak for us"
        assert notifier.watchdog_seconds == 3.0
        notifier.ready("2 ports, 2 workers")
        notifier.alive()
        notifier.stopping()
        assert [manager.recv(1000) for _ in range(3)] == [
            b"READY=1\nSTATUS=2 ports, 2 workers",
            b"WATCHDOG=1",
            b"STOPPING=1\nSTATUS=draining",
        ]


def test_without_a_manager_nothing_is_sent() -> None:
    notifier = Notifier({})
    notifier.ready("x")
    assert notifier.watchdog_seconds is None


def test_a_watchdog_meant_for_another_process_is_not_ours() -> None:
    notifier = Notifier({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"})
    assert notifier.watchdog_seconds is None


def test_a_manager_that_is_gone_is_no_error(tmp_path: Path) -> None:
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready("x")
