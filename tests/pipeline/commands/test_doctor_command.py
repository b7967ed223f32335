"""`ringline doctor`: the cards, what cannot be read, the output and the exit code."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ringline.pipeline.commands import cli
from ringline.pipeline.commands.doctor import doctor
from ringline.pipeline.commands.doctor.findings import (
    HINT,
    LOOK_FURTHER,
    OK,
    PROBLEM,
    Finding,
    Unreadable,
)
from ringline.pipeline.commands.doctor.machine import (
    Machine,
    cpu_list,
    cpus_in,
    names,
    number,
    read,
    unreadable,
)
from ringline.pipeline.commands.doctor.memory import packet_bytes
from ringline.pipeline.configuration.builtin import Arguments, examine
from ringline.pipeline.ports.pci.sysfs import PciDevice
from ringline.shm.errors import EnvironmentLacks
from ringline.shm.packets import PacketMemory

from .fake_machine import CPU, GROUP, POOL, card, of_line, put, well


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return well(tmp_path)


def test_each_card_has_a_line(machine: Machine, tmp_path: Path) -> None:
    card(tmp_path, "0000:02:00.0", driver="ixgbe", group="2")
    put(tmp_path, {"sys/kernel/iommu_groups/2/type": "DMA"})
    card(tmp_path, "0000:03:00.0", number=0x1572, driver="i40e", group="3")
    card(tmp_path, "0000:04:00.0", number=0x1572, driver="i40e", group="4")
    put(tmp_path, {"sys/bus/pci/devices/0000:04:00.0/net/eth4/flags": "0x1002"})
    card(tmp_path, "0000:05:00.0", driver="", group="")
    card(tmp_path, "0000:06:00.0", group="6")
    card(tmp_path, "0000:06:00.1", number=0x10D3, driver="e1000e", group="6")
    card(tmp_path, "0000:07:00.0", number=0x10F9, group="7")
    put(tmp_path, {"sys/bus/pci/devices/0000:08:00.0/class": "0x010000"})  # a disk
    put(tmp_path, {"sys/bus/pci/devices/0000:09:00.0/class": "not a number"})
    found = {str(it.figures["address"]): it for it in of_line(machine, "card")}
    marks = {address[5:]: it.mark for address, it in found.items()}
    assert marks == {
        "01:00.0": OK,
        "02:00.0": HINT,
        "03:00.0": HINT,
        "04:00.0": OK,
        "05:00.0": HINT,
        "06:00.0": PROBLEM,
        "06:00.1": HINT,
        "07:00.0": HINT,
    }
    assert found["0000:02:00.0"].remedy == "bind it to VFIO (ringline bind 0000:02:00.0)"
    assert found["0000:04:00.0"].found.endswith("no port pci: can use it, but xdp:eth4 may")
    assert 'dma = "physical"' in found["0000:05:00.0"].found
    assert "shares the IOMMU group 6 with 0000:06:00.1" in found["0000:06:00.0"].remedy
    assert "unproved = true" in found["0000:07:00.0"].found


def test_a_card_that_cannot_be_read_leaves_the_others(machine: Machine, tmp_path: Path) -> None:
    card(tmp_path, "0000:02:00.0")
    put(tmp_path, {"sys/bus/pci/devices/0000:02:00.0/vendor": "?"})
    well, other = of_line(machine, "card")
    assert (well.mark, other.mark) == (OK, HINT)
    assert other.found.startswith("0000:02:00.0 cannot be read: ")
    assert [it.mark for it in of_line(machine, "vfio")] == [OK]


def test_what_cannot_be_read_is_a_hint(machine: Machine, tmp_path: Path) -> None:
    """A folder in place of a file cannot be read by root either."""
    for name in (f"{CPU}/isolated", f"{POOL}/nr_hugepages", f"{GROUP}/type"):
        put(tmp_path, {name: None, f"{name}/x": ""})
    for line in ("isolation", "hugepages", "iommu"):
        (found,) = of_line(machine, line)
        assert found.mark == HINT
        assert found.found.endswith("cannot be read: Is a directory")
        assert found.remedy == LOOK_FURTHER
    assert unreadable(tmp_path, PermissionError(errno.EACCES, "no")).remedy == "run as root"
    put(tmp_path, {"odd": "many"})
    with pytest.raises(Unreadable, match="odd does not hold a number") as raised:
        number(tmp_path / "odd")
    assert raised.value.remedy == LOOK_FURTHER
    assert read(tmp_path / "odd" / "below") == ""
    assert names(tmp_path / "odd") == []


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (EnvironmentLacks("it is damaged"), "not known: it is damaged"),
        (OSError(errno.EIO, "bad", "/sys/file"), "not known: /sys/file: bad"),
        (OSError(errno.EIO, "bad"), "not known: a file: bad"),
    ],
)
def test_a_line_that_fails_leaves_the_others_and_says_what_to_do(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, error: Exception, found: str
) -> None:
    def fail(_: Machine) -> Iterator[Finding]:
        raise error

    monkeypatch.setattr(doctor, "TABLE", (("card", fail), *doctor.TABLE[1:]))
    (first, *others) = doctor.examine(machine)
    assert first == ("card", Finding(HINT, found, LOOK_FURTHER))
    assert [name for name, _ in others] == [name for name, _ in doctor.TABLE[1:]]


def test_a_card_that_a_process_uses(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PciDevice, "user", 7)
    (found,) = of_line(machine, "card")
    assert found.mark == HINT
    assert found.found.endswith("has the driver vfio-pci; process 7 uses it")
    assert found.remedy == "nothing, if that is your run; else end that process"


def test_without_sysfs_and_proc_every_line_is_there(machine: Machine, tmp_path: Path) -> None:
    bare = replace(machine, sys=tmp_path / "none", proc=tmp_path / "none")
    lines = list(doctor.examine(bare))
    assert [name for name, _ in lines] == [name for name, _ in doctor.TABLE]
    assert "mount sysfs" in dict(lines)["iommu"].remedy
    assert all(it.mark in (OK, HINT) for _, it in lines)


def test_nothing_is_changed(machine: Machine, tmp_path: Path) -> None:
    def state() -> dict[Path, tuple[int, int]]:
        return {
            path: (path.lstat().st_mtime_ns, path.lstat().st_size)
            for path in [tmp_path, *tmp_path.rglob("*")]
        }

    before = state()
    list(doctor.examine(machine))
    assert state() == before


@pytest.mark.parametrize(
    ("files", "code", "problems", "hints"),
    [
        ({}, 0, 0, 0),
        ({f"{CPU}/isolated": ""}, 0, 0, 1),
        ({"sys/bus/pci/drivers/vfio-pci": None, f"{CPU}/isolated": ""}, 3, 1, 1),
    ],
)
def test_the_exit_code_and_json(
    machine: Machine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    files: dict[str, str | None],
    code: int,
    problems: int,
    hints: int,
) -> None:
    put(tmp_path, files)
    monkeypatch.setattr(doctor, "this_machine", lambda: machine)
    assert cli.main(["doctor", "--json"]) == code
    told = json.loads(capsys.readouterr().out)
    assert (told["problems"], told["hints"]) == (problems, hints)
    by_line = {each["line"]: each for each in told["lines"]}
    assert by_line["hugepages"]["figures"] == {
        "2 MiB": {"reserved": 64, "free": 58},
        "2 MiB, node 0": {"reserved": 64, "free": 60},
    }
    assert set(by_line["iommu"]) == {"line", "mark", "found", "remedy", "figures"}
    assert cli.main(["doctor"]) == code
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == (
        f"{problems} problem{'s' * (problems != 1)}, {hints} hint{'s' * (hints != 1)}"
        if hints
        else "all well"
    )


def test_this_machine_without_rights() -> None:
    """Another user than root gets every line of this machine, and no traceback. The first call
    loads modules that this user might not read."""
    script = (
        "import os, sys; from ringline.pipeline.commands import cli, devices; "
        "from ringline.pipeline.commands.doctor import doctor; "
        "given = cli.parser().parse_args(['doctor', '--json']); "
        "given.function(given); os.geteuid() or os.setuid(65534); sys.exit(given.function(given))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd="/",
    )
    assert done.returncode in (0, 3), done.stderr
    assert done.stderr == ""
    lines = {each["line"]: each for each in json.loads(done.stdout.splitlines()[-1])["lines"]}
    assert set(lines) == {name for name, _ in doctor.TABLE}
    assert lines["xdp"]["mark"] != OK
    assert all(each["remedy"] for each in lines.values() if each["mark"] != OK)
    assert lines["cpus"]["figures"]["cpus"] == len(os.sched_getaffinity(0))


def test_names_of_others_reach_the_terminal_as_text() -> None:
    assert "\\x1b" in doctor.as_text([("card", Finding(OK, "a\x1b[2J"))])


def test_lists_of_cpus() -> None:
    assert cpus_in("0-3,8\n") == [0, 1, 2, 3, 8]
    assert cpus_in("(null)") == cpus_in("") == []
    assert cpu_list([8, 3, 1, 2, 0]) == "0-3,8"
    assert cpu_list([]) == ""


def test_a_run_needs_the_packet_memory_of_its_configuration() -> None:
    """The same number that `ringline check` says for it."""
    config = examine(Arguments(devices=["wan=pci:0000:00:00.0"], queues=3)).config
    assert packet_bytes(3) == PacketMemory.bytes_of(config.buffers)
