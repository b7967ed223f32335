"""Guests themselves: what runs in them, and how their troubles are told apart."""

from __future__ import annotations

import lzma
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from . import __main__ as command
from . import booted as guests
from . import kernel as kernels
from . import newer_kernel, newer_qemu
from .booted import PROOF, booted, without
from .cards import Card, End, card
from .kernel import Kernel, Missing
from .machine import COMMAND, ROOT, DidNotBoot, Ended, Guest, Hung, Result, qemu

TIMEOUT = 60.0  # seconds
FRAMES = 500


@pytest.fixture(scope="module")
def guest() -> Iterator[Guest]:
    with booted(Guest) as made:
        yield made


@pytest.fixture
def unpacked() -> Kernel:
    try:
        qemu()
        return kernels.kernel()
    except Missing as error:
        without(error)


@pytest.mark.timeout(600)
def test_a_command_returns_its_code_and_output(guest: Guest) -> None:
    heard: list[bytes] = []
    result = guest.run("echo one; echo two >&2; uname -r; exit 3", heard=heard.append)
    assert result == Result(3, f"one\ntwo\n{guest.kernel.release}\n")
    assert b"".join(heard).decode() == result.output
    assert guest.run("kill -9 $$").code == 128 + signal.SIGKILL
    assert guest.run("head -c 300000 /dev/zero | tr '\\0' x").output == "x" * 300_000


@pytest.mark.timeout(600)
def test_the_root_is_that_of_the_host(guest: Guest) -> None:
    assert guest.checked("cat tests/guest/init.c") == kernels.INIT.read_text()
    assert guest.checked("command -v python") == f"{Path(sys.executable).parent}/python\n"
    written = ROOT / "tests" / "guest" / f"written-{os.getpid()}"
    guest.checked(f"echo here > {written} && cat {written}")
    assert not written.exists()


@pytest.mark.timeout(600)
def test_a_hang_is_not_a_failure(guest: Guest) -> None:
    with pytest.raises(Hung, match="did not finish within 1 s: 'echo begun; sleep 1000'"):
        guest.run("echo begun; sleep 1000", deadline=1)
    assert guest.run("echo next") == Result(0, "next\n"), "the next command kills it"
    assert guest.run("pidof sleep").code != 0


@pytest.mark.timeout(600)
def test_a_guest_that_ends_is_named(guest: Guest) -> None:
    """The last test of this guest."""
    with pytest.raises(Ended, match="the guest ended during 'echo c >") as error:
        guest.run("echo c > /proc/sysrq-trigger")
    assert "Kernel panic" in str(error.value), "the end of its console is shown"


def test_a_guest_that_does_not_boot_is_named(unpacked: Kernel, tmp_path: Path) -> None:
    broken = tmp_path / "vmlinux"
    broken.write_bytes(b"no kernel")
    with pytest.raises(DidNotBoot, match=r"the guest ended before it booted: .*qemu"):
        Guest(using=replace(unpacked, image=broken))
    with pytest.raises(DidNotBoot, match=r"the guest did not boot within 0\.1 s"):
        Guest(boot=0.1)


def test_a_guest_ends_with_the_process_that_started_it(unpacked: Kernel) -> None:
    line = [sys.executable, "-m", "tests.guest", "--deadline", "900", "sleep 900"]
    process = subprocess.Popen(line, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        machine = _wait_for(lambda: _child(process.pid, "qemu"), "the guest's start")
    finally:
        process.kill()
        process.wait()
    _wait_for(lambda: not Path("/proc", str(machine)).exists(), "the guest's end")


@pytest.mark.timeout(1200)
@pytest.mark.skipif(not PROOF, reason="needs RINGLINE_PROOF=1: a boot takes seconds")
def test_frames_pass_on_every_kind_of_cable(unpacked: Kernel) -> None:
    """A card with several queues has a TAP interface as its cable, others have a socket pair."""
    sent = [bytes.fromhex("ffffffffffff02000000000288b5").ljust(60, b"\0")] * FRAMES
    with Guest([card("virtio-net:2"), card("e1000e")], processors=2) as guest:
        guest.checked("ip link set eth0 up && ip link set eth1 up")
        guest.checked("until grep -q up /sys/class/net/eth1/operstate; do sleep 0.1; done")
        queues = guest.checked("ls /sys/class/net/eth0/queues").split()
        assert {"rx-0", "rx-1", "tx-0", "tx-1"} <= set(queues)
        for number, cable in enumerate(guest.cables):
            for frame in sent:
                cable.send(frame)
            path = f"/sys/class/net/eth{number}/statistics/rx_packets"
            guest.checked(f"until [ $(cat {path}) -ge {FRAMES} ]; do sleep 0.1; done")
            assert cable.wait_for(1, TIMEOUT), "the guest says something on an interface that is up"


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RINGLINE_GUEST_CACHE", str(tmp_path))
    with pytest.raises(Missing, match=r"needs a kernel for guests; run: .* --prepare"):
        kernels.kernel()
    unpacked = tmp_path / "6.1.0-1-amd64"
    unpacked.mkdir()
    (unpacked / "vmlinux").touch()
    (unpacked / "kept").write_text("modules that were enough for tests of another version")
    with pytest.raises(Missing, match="needs a kernel for guests"):
        kernels.kernel()
    (unpacked / "kept").write_text(kernels.KEPT.pattern)
    assert kernels.kernel().release == unpacked.name
    old = tmp_path / "qemu-old"
    old.write_text("#!/bin/sh\necho QEMU emulator version 7.2.1\n")
    old.chmod(0o755)
    monkeypatch.setenv("RINGLINE_QEMU", str(old))
    assert qemu([card("e1000e")]) == str(old)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Missing, match=r"needs QEMU 11; run as root: .* --prepare-qemu"):
        qemu([card("e1000e"), card("igb")])
    with pytest.raises(Missing, match=r"needs a kernel of trixie-backports .* --newer-kernel"):
        newer_kernel.kernel()
    monkeypatch.setenv("RINGLINE_QEMU", str(tmp_path / "nothing"))
    with pytest.raises(Missing, match=r"needs .*nothing \(Debian package qemu-system-x86\)"):
        qemu()


def test_a_qemu_that_is_new_enough_is_not_downloaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RINGLINE_GUEST_CACHE", str(tmp_path))
    own = tmp_path / "qemu-own"
    own.write_text("#!/bin/sh\necho QEMU emulator version 11.0.0\n")
    own.chmod(0o755)
    monkeypatch.setenv("RINGLINE_QEMU", str(own))
    assert newer_qemu.prepare() == str(own)


@pytest.mark.parametrize(
    ("proof", "outcome"), [(False, pytest.skip.Exception), (True, pytest.fail.Exception)]
)
def test_a_test_without_its_guest_is_skipped_and_fails_a_proof(
    proof: bool, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def make() -> Guest:
        raise Missing("needs QEMU 11; run something")

    monkeypatch.setattr(guests, "PROOF", proof)
    with pytest.raises(outcome, match="needs QEMU 11; run something"), booted(make):
        raise AssertionError("there is a guest")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("ne2000", "there is no card 'ne2000'"),
        ("e1000e:2", "QEMU decides how many queues e1000e has; write e1000e"),
    ],
)
def test_a_card_that_is_not_there_is_named(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        card(text)


def test_a_wire_joins_two_cards() -> None:
    """A frame arrives at the other card, padded as on a wire, and does not come back."""
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2)]
    ends = [End(near) for near, _ in pairs]
    try:
        ends[0].join(ends[1])
        for frame, (_, one), (_, other) in (b"there", *pairs), (b"back", *reversed(pairs)):
            one.send(frame)
            other.settimeout(TIMEOUT)
            assert other.recv(100) == frame.ljust(60, b"\0")
        one.setblocking(False)
        with pytest.raises(BlockingIOError):
            one.recv(100)
    finally:
        for end in ends:
            end.close()
        for _, far in pairs:
            far.close()


def test_modules_are_loaded_behind_those_that_they_need(tmp_path: Path) -> None:
    modules = {}
    for name, needed in (("top", "middle,base"), ("middle", "base"), ("base", "")):
        modules[name] = tmp_path / f"{name}.ko"
        modules[name].write_bytes(b"\x7fELF\0license=GPL\0depends=%s\0" % needed.encode())
    found = Kernel("6.1.0-9-amd64", tmp_path, modules)
    assert found.in_order(["top", "base", "built-in"]) == ["base", "middle", "top"]
    assert found.version == (6, 1)


def test_a_kernel_of_several_packages_is_unpacked(tmp_path: Path) -> None:
    """As in newer releases of Debian: the image is packed with zstd, behind a program that unpacks
    it and has the same magic number; modules are in another package, and packed."""
    if not (shutil.which("dpkg-deb") and shutil.which("zstd")):
        pytest.skip("needs dpkg-deb and zstd")
    image, module = b"\x7fELF image", b"\x7fELF module"
    packed = subprocess.run(["zstd", "-qc"], input=image, capture_output=True, check=True).stdout
    contents = {
        "linux-binary": {"boot/vmlinuz-7.3.4-a": b"\x28\xb5\x2f\xfd program" + packed + b"end"},
        "linux-modules": {"usr/lib/modules/7.3.4-a/kernel/net/one.ko.xz": lzma.compress(module)},
    }
    packages = []
    for name, files in contents.items():
        for path, content in files.items():
            (tmp_path / name / path).parent.mkdir(parents=True)
            (tmp_path / name / path).write_bytes(content)
        control = tmp_path / name / "DEBIAN" / "control"
        control.parent.mkdir()
        control.write_text(
            f"Package: {name}\nVersion: 1\nArchitecture: amd64\nMaintainer: a\nDescription: a\n"
        )
        packages.append(tmp_path / f"{name}.deb")
        line = ["dpkg-deb", "-b", str(tmp_path / name), str(packages[-1])]
        subprocess.run(line, capture_output=True, check=True)
    kernels.keep(packages, "7.3.4-a", tmp_path)
    found = kernels.newest(tmp_path, "")
    assert found.image.read_bytes() == image
    assert found.modules["one"].read_bytes() == module
    with pytest.raises(Missing, match="packed with xz or zstd; this one is packed otherwise"):
        kernels.keep(packages[1:], "7.3.4-b", tmp_path)


def test_the_command_ends_with_the_code_of_its_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], unpacked: Kernel
) -> None:
    class Answering:
        boot_seconds = 1.0

        def __init__(self, *_: Any, **__: Any) -> None: ...
        def __enter__(self) -> Answering:
            return self

        def __exit__(self, *_: object) -> None: ...
        def run(self, text: str, *_: Any) -> Result:
            if text == "hang":
                raise Hung("the guest did not finish")
            return Result(3, "")

    monkeypatch.setattr(command, "Guest", Answering)
    for words, code in (["exit 3"], 3), (["hang"], 124):
        monkeypatch.setattr(sys, "argv", ["guest", *words])
        assert command.main() == code
    assert "guest: the guest did not finish" in capsys.readouterr().err
    for words in ([], ["--card", "ne2000", "true"], ["--joined", "--card", "e1000e", "true"]):
        monkeypatch.setattr(sys, "argv", ["guest", *words])
        with pytest.raises(SystemExit, match="2"):
            command.main()


class Recording:
    """Stands for a guest, and keeps what it was made with, what ran in it and its cables."""

    made: ClassVar[Recording]
    boot_seconds = 1.0

    def __init__(self, cards: Sequence[Card], **keys: Any) -> None:
        self.cards, self.keys = cards, keys
        self.commands: list[tuple[str, float]] = []
        self.wires: list[object] = []
        self.cables = [self, "the second cable"]
        Recording.made = self

    def join(self, other: object) -> None:
        self.wires.append(other)

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_: object) -> None: ...
    def run(self, text: str, deadline: float, *_: Any) -> Result:
        self.commands.append((text, deadline))
        return Result(0, "")


KERNELS = {each: Kernel(each, Path(each), {}) for each in ("6.1.0-9-amd64", "7.3.4-a")}
DEFAULTS = {
    "processors": 1,
    "memory": 1024,
    "hugepages": 0,
    "modules": [],
    "iommu": False,
    "served": [],
    "systemd": False,
    "using": KERNELS["6.1.0-9-amd64"],
}


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        ([], {}),
        (["--served", "one", "--served", "two"], {"served": ["one", "two"]}),
        (["--iommu"], {"iommu": True}),
        (["--systemd"], {"systemd": True}),
        (["--module", "ixgbe", "--module", "vfio"], {"modules": ["ixgbe", "vfio"]}),
        (["--hugepages", "64"], {"hugepages": 64}),
        (["--processors", "4"], {"processors": 4}),
        (["--memory", "2048"], {"memory": 2048}),
        (["--newer-kernel"], {"using": KERNELS["7.3.4-a"]}),
    ],
)
def test_each_option_of_the_command_reaches_the_guest(
    words: list[str], keys: dict[str, object], recorded: type[Recording]
) -> None:
    assert _command(*words, "ip", "link") == 0
    assert recorded.made.keys == DEFAULTS | keys
    assert recorded.made.commands == [("ip link", COMMAND)]
    assert (recorded.made.cards, recorded.made.wires) == ([], [])


def test_cards_a_wire_and_a_deadline_reach_the_guest(recorded: type[Recording]) -> None:
    cards = ["--card", "virtio-net:4", "--card", "e1000e"]
    assert _command(*cards, "--joined", "--deadline", "7.5", "true") == 0
    assert recorded.made.cards == [card("virtio-net:4"), card("e1000e")]
    assert recorded.made.wires == ["the second cable"]
    assert recorded.made.commands == [("true", 7.5)]
    assert recorded.made.keys == DEFAULTS


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> type[Recording]:
    older, newer = KERNELS.values()
    monkeypatch.setattr(command, "Guest", Recording)
    monkeypatch.setattr(command, "prepare", lambda: older)
    monkeypatch.setattr(newer_kernel, "prepare", lambda: newer)
    return Recording


def _command(*words: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["guest", *words])
        return command.main()


def _child(parent: int, name: str) -> int:
    """The process with this parent that runs a program whose name begins so; 0 when none does."""
    children = Path(f"/proc/{parent}/task/{parent}/children")
    for pid in children.read_text().split():
        if re.match(name, Path(f"/proc/{pid}/comm").read_text()):
            return int(pid)
    return 0


def _wait_for(condition: Any, what: str) -> Any:
    end = time.monotonic() + TIMEOUT
    while not (value := condition()):
        assert time.monotonic() < end, f"{what} did not happen within {TIMEOUT:g} s"
        time.sleep(0.05)
    return value
