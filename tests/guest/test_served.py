"""What a card that a process serves to a guest has refused, without a guest."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from ..pipeline.ports.vfio_user_client import BAR0, Client
from .served import NO_DMA, served_card

STATUS = 0x0008
REFUSED = r"STATUS \(0x00008\) = 0x7: it is read-only"


def write_status(path: str) -> None:
    """Do what the card refuses."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
        made.connect(path)
        with Client(made) as client:
            client.greet()
            client.write(BAR0, STATUS, 7)


def test_what_a_card_refuses_fails_the_test(tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match=rf"the card refused what its driver did: .*{REFUSED}"),
        served_card(tmp_path) as (path, end),
    ):
        end.may_refuse.append(NO_DMA)
        write_status(path)


def test_what_a_test_expects_may_be_refused(tmp_path: Path) -> None:
    with served_card(tmp_path) as (path, end):
        end.may_refuse.append(REFUSED)
        write_status(path)


def test_a_card_that_ends_badly_fails_the_test(tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match="the card has ended badly"),
        served_card(tmp_path) as (_, end),
    ):
        end.process.kill()
