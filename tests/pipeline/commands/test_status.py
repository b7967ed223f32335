"""`ringline status` and `ringline top` against an instance in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ringline.pipeline.commands import status, top
from ringline.pipeline.telemetry import status_client
from ringline.pipeline.telemetry.snapshot import Snapshot
from ringline.pipeline.telemetry.status_socket import StatusServer
from ringline.shm.errors import EnvironmentLacks

from ..idle_instance import Idle, idle_instance, served


@pytest.fixture
def idle(instance: Callable[[], str]) -> Iterator[Idle]:
    with idle_instance(instance()) as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder in which the commands look for sockets."""
    folder = tmp_path / "ringline"
    monkeypatch.setattr(status_client, "folders", lambda: [folder])
    return folder


def test_status_prints_text_or_json(
    idle: Idle, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "RATES_OVER", 0.01)
    idle.count()
    with served(StatusServer(idle.sources.name, idle.take, folder)):
        words = status.status(None, as_json=False)
        assert "wan" in words
        assert "running" in words
        whole = json.loads(status.status(None, as_json=True))
        assert whole["ports"]["wan"]["received"]["packets"] == idle.take().ports[0].total(
            "rx_packets"
        )


def test_top_ends_with_the_instance(
    idle: Idle, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(top, "INTERVAL", 0.05)
    with pytest.raises(EnvironmentLacks, match="no instance runs here"):
        top.top(None)
    asked = []

    def take() -> Snapshot:
        asked.append(True)
        if len(asked) > 3:
            server.path.unlink(missing_ok=True)
        return idle.take()

    server = StatusServer(idle.sources.name, take, folder)
    with served(server):
        top.top(None)
    told = capsys.readouterr()
    assert told.out.count(" port.wan.rx_mpps=") == 3
    assert "no instance" in told.err
