"""What a run says of cards with a defect: those of `ringline serve-card --broken`, through VFIO."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import pytest

from .booted import PROOF, booted
from .machine import Guest
from .served import served_card
from .test_vfio_ixgbe import Bench, only_proof

DEFECTS = ("eeprom", "link", "stop")
DEVICES = dict(zip(DEFECTS, ("0000:00:18.0", "0000:00:19.0", "0000:00:1a.0"), strict=True))
SECONDS = 300.0

pytestmark = [pytest.mark.timeout(1800), only_proof]


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    assert PROOF
    with contextlib.ExitStack() as stack:
        folders = {each: tmp_path_factory.mktemp(each) for each in DEFECTS}
        made = [stack.enter_context(served_card(folders[each], "10fb", each)) for each in DEFECTS]
        paths, cards = zip(*made, strict=True)
        guest = stack.enter_context(booted(lambda: Guest(iommu=True, hugepages=64, served=paths)))
        Bench(guest, cards, tuple(DEVICES.values())).bind("vfio-pci", "DMA")
        yield guest


def run(guest: Guest, defect: str) -> tuple[int, str]:
    """The exit code of a run of a second on the card, and what it said. Afterwards the card can do
    no DMA."""
    address = DEVICES[defect]
    guest.checked(f"printf '[port.wan]\\ndevice = \"pci:{address}\"\\n' > /tmp/{defect}.toml")
    done = guest.run(f"ringline run /tmp/{defect}.toml --for 1", SECONDS)
    command = guest.checked(f"od -An -tu1 -j4 -N1 /sys/bus/pci/devices/{address}/config")
    assert not int(command) & 4
    assert guest.checked("ls /dev/shm") == ""
    assert "Traceback" not in done.output
    return done.code, done.output


def test_a_wrong_checksum_ends_the_start(guest: Guest) -> None:
    code, said = run(guest, "eeprom")
    assert code == 3
    assert (
        "port wan (pci:0000:00:18.0): the checksum of the card's EEPROM is wrong (it adds up to "
        "0xbabb instead of 0xbaba)"
    ) in said


def test_a_link_that_never_comes_up_does_not_end_the_run(guest: Guest) -> None:
    code, said = run(guest, "link")
    assert code == 0
    assert "port wan: the card has no link: no frame comes or is sent until" in said
    assert "all well" in said


def test_a_stop_that_the_card_does_not_follow_names_the_register(guest: Guest) -> None:
    code, said = run(guest, "stop")
    assert code == 3
    assert re.search(
        r"port wan: while the port was being stopped: waited [0-9.]+ s for RXDCTL\[0\]\.ENABLE to "
        r"become 0; it is 1 \(receive descriptor control, register 0x01028\); start again",
        said,
    )
    assert "no sign of life" not in said
    assert "made no progress" not in said
