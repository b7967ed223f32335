"""A card of a guest from its kernel driver to a run and back, as docs/cards.md says, and what is
said when something is missing on the way."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from .booted import booted
from .cards import card
from .machine import Guest
from .test_vfio_ixgbe import only_proof

ADDRESS = "0000:00:10.0"
DEVICE = f"/sys/bus/pci/devices/{ADDRESS}"
GUIDE = (Path(__file__).parents[2] / "docs" / "cards.md").read_text(encoding="utf-8")
# Root without capabilities: permissions of files and limits hold for it, too.
BARE = "setpriv --bounding-set -all --inh-caps -all --ambient-caps -all"
SECONDS = 300.0

pytestmark = [pytest.mark.timeout(1800), only_proof]


@pytest.fixture(scope="module")
def guest() -> Iterator[Guest]:
    with booted(lambda: Guest([card("e1000e")], iommu=True)) as made:
        made.checked(f"printf '[port.wan]\\ndevice = \"pci:{ADDRESS}\"\\n' > /tmp/edge.toml")
        yield made


def test_the_commands_of_the_guide_lead_to_a_run_and_back(guest: Guest) -> None:
    commands = re.findall(r"^    (ringline .*)$", GUIDE, re.MULTILINE)
    assert [each.split()[1] for each in commands] == [
        *("devices", "doctor", "bind", "check", "run", "unbind")
    ]
    (text,) = re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL)
    guest.checked(f"cat > /tmp/edge.toml <<'END'\n{text.replace('0000:03:00.0', ADDRESS)}END")
    said = {}
    for line in commands:
        each = line.replace("0000:03:00.0", ADDRESS).replace("edge.toml", "/tmp/edge.toml")
        each += " --for 1" if " run " in each else ""
        said[each.split()[1]] = guest.checked(each, SECONDS)
    assert f"{ADDRESS}: bind it to VFIO (ringline bind {ADDRESS})" in said["devices"]
    assert "is bound to vfio-pci; it was bound to e1000e" in said["bind"]
    assert "all well" in said["check"]
    assert "all well" in said["run"]
    assert said["unbind"].endswith("is bound to e1000e\n")
    guest.checked("ip link set eth0 up; ip link set eth0 down")


def test_the_trial_of_the_guide_gets_frames_from_the_other_card() -> None:
    (script,) = re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL)
    cards = [card("e1000e"), card("virtio-net")]
    with booted(lambda: Guest(cards, iommu=True)) as guest:
        guest.cables[0].join(guest.cables[1])
        said = guest.checked(script, SECONDS)
    (received,) = re.findall(r"port wan: received (\d+) ", said)
    assert int(received) > 0, said
    assert "all well" in said


def refused(guest: Guest, command: str) -> str:
    """What a run says that cannot start. It leaves no memory, and the card stays with vfio-pci."""
    done = guest.run(command, SECONDS)
    assert done.code == 3, done.output
    assert "Traceback" not in done.output
    assert guest.checked("ls /dev/shm") == ""
    assert guest.checked(f"basename $(readlink {DEVICE}/driver)") == "vfio-pci\n"
    return done.output.splitlines()[-1]


def test_what_a_run_lacks_is_one_sentence(guest: Guest) -> None:
    """The file of the group, locked memory, and mappings of VFIO."""
    guest.checked(f"ringline bind {ADDRESS}")
    node = f"/dev/vfio/$(basename $(readlink {DEVICE}/iommu_group))"
    run = "ringline run /tmp/edge.toml --for 1"
    said = refused(guest, f"chown 65534 {node}; {BARE} {run}; e=$?; chown 0 {node}; exit $e")
    assert said.endswith("Permission denied; run as root, or give this user the file (chown)")
    said = refused(guest, f"ulimit -l 64; {BARE} {run}")
    assert re.search(r"the limit of locked memory is 64 KiB, and [0-9]+ KiB are needed", said)
    limit = "/sys/module/vfio_iommu_type1/parameters/dma_entry_limit"
    said = refused(guest, f"echo 1 > {limit}; {run}; e=$?; echo 65535 > {limit}; exit $e")
    assert said.endswith(f"VFIO allows fewer mappings than the 2 of a run; raise {limit}")
    guest.checked(f"{run} && ringline unbind {ADDRESS}", SECONDS)


TAKE = f"""
from pathlib import Path
from ringline.pipeline.ports.pci.sysfs import PciDevice
from ringline.shm.errors import EnvironmentLacks
try:
    PciDevice("{ADDRESS}", Path("/sys")).take(0x20000)
except EnvironmentLacks as error:
    print(error)
"""


def test_a_kernel_that_is_locked_down_forbids_sysfs_and_not_vfio(guest: Guest) -> None:
    """Last, because a kernel stays locked down (kernel_lockdown(7))."""
    security = "/sys/kernel/security"
    guest.checked(f"mount -t securityfs none {security}; echo integrity > {security}/lockdown")
    guest.checked(f"[ ! -e {DEVICE}/driver ] || echo {ADDRESS} > {DEVICE}/driver/unbind")
    said = guest.checked(f"python - <<'END'\n{TAKE}\nEND", SECONDS)
    assert said == (
        f"cannot use {DEVICE}/resource0: Operation not permitted: this kernel is locked down "
        "(integrity, as with Secure Boot), which forbids it to root too; VFIO stays allowed "
        f"(ringline bind {ADDRESS})\n"
    )
    guest.checked(f"ringline bind {ADDRESS}")
    assert "all well" in guest.checked("ringline run /tmp/edge.toml --for 1", SECONDS)
