"""What is said about ports on bonds, bridges and VLANs. tests/e2e/test_neighbours.py runs some."""

from __future__ import annotations

import dataclasses

import pytest

from ringline.pipeline.ports.interfaces import interface, neighbours
from ringline.pipeline.ports.interfaces.interface import Interface

ALONE = Interface(
    name="eth9",
    number=7,
    up=True,
    running=True,
    loopback=False,
    mac="02:00:00:00:00:01",
    mtu=1500,
    kind="",
    driver="e1000e",
    above="",
    queues=1,
    channels=None,
    program=0,
    program_mode="",
)


@pytest.mark.parametrize(
    ("changes", "above", "of_xdp", "of_packet"),
    [
        ({}, [], [], []),
        ({"kind": "bond"}, [], ["eth9 is a bond, whose frames come by generic XDP only"], []),
        (
            {"kind": "bridge"},
            [],
            ["eth9 is a bridge: the port gets the frames for this machine, and a copy of"],
            ["eth9 is a bridge: the port gets the frames for this machine, and a copy of"],
        ),
        ({"kind": "vlan"}, [], [], ["eth9 is a VLAN: its frames come without their tag, and"]),
        ({"above": "bond"}, [], [], ["eth9 belongs to a bond, which gets the same frames, and"]),
        (
            {},
            [("eth9.5", 8)],
            ["eth9.5 receives through eth9, and gets no frame that the port takes"],
            ["eth9.5 receives through eth9: the port gets these frames, too"],
        ),
        (
            {},
            [("eth9.5", 8), ("eth9.6", 9)],
            ["eth9.5, eth9.6 receive through eth9, and get no frame that the port takes"],
            ["eth9.5, eth9.6 receive through eth9: the port gets these frames, too"],
        ),
    ],
)
def test_what_a_port_gets_is_said(
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, str],
    above: list[tuple[str, int]],
    of_xdp: list[str],
    of_packet: list[str],
) -> None:
    monkeypatch.setattr(neighbours, "on_top", lambda found: above)
    found = dataclasses.replace(ALONE, **changes)  # type: ignore[arg-type]
    for said, expected in (
        (neighbours.said_of_xdp(found, promiscuous=True), of_xdp),
        (neighbours.said_of_packet(found, promiscuous=True), of_packet),
    ):
        assert len(said) == len(expected)
        assert all(map(str.startswith, said, expected)), said
    assert neighbours.needs_generic(found) == (found.kind == "bond")
    assert interface.objection(found) == "" or found.kind == "vlan" or found.above == "bond"
