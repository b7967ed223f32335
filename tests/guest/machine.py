"""A guest: a virtual machine with a kernel of its own that runs commands on this checkout.

Its root is the root of this machine, read only, so the virtual environment is there with all
that was compiled; what a guest writes stays in its memory. QEMU emulates the processor (TCG), so
no rights and no special machine are needed, and Python is about 20 times slower than outside.

With one processor, the clock of the guest counts what the guest executes, 2 ns for an instruction.
So a busy host makes a guest slow, and no deadline inside the guest passes because of that.

Three kinds of trouble are told apart: DidNotBoot, Hung (a deadline passed) and Ended (it crashed).
A command that fails is none: its exit code is in the result. QEMU ends with this process, also
after SIGKILL.

Guarantees (tests in tests/guest/test_guest.py):
 - a command returns its exit code and its output (test_a_command_returns_its_code_and_output)
 - a guest that hangs, that ends and that does not boot are told apart
   (test_a_hang_is_not_a_failure, test_a_guest_that_ends_is_named,
   test_a_guest_that_does_not_boot_is_named)
 - nothing that a guest writes reaches this machine (test_the_root_is_that_of_the_host)
 - no process stays when the one that started the guest is killed
   (test_a_guest_ends_with_the_process_that_started_it)
 - a cable is pulled, a card unplugged and plugged in again, and accesses to its registers are noted
   (tests/guest/test_monitor.py: test_a_cable_is_pulled_and_plugged_in,
   test_a_card_is_unplugged_and_plugged_in, test_what_a_driver_writes_is_noted)
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import newer_qemu
from .cards import Cable, Card
from .kernel import Kernel, Missing, archive, kernel
from .monitor import Monitor

ROOT = Path(__file__).resolve().parents[2]
BOOT = 300.0  # seconds: a boot takes about 6 on an idle machine
COMMAND = 300.0  # seconds
_BASE = ("virtio_pci", "virtio_console", "9p", "9pnet_virtio", "overlay", "veth")
_STEADY = ("-accel", "tcg,thread=single", "-icount", "shift=1,sleep=on")
# Intel's IOMMU, with the interrupts that VFIO gives to a process remapped (QEMU's documentation of
# intel-iommu). VFIO needs vfio_iommu_type1 for such an IOMMU; the guest loads nothing by itself.
_IOMMU = "kernel-irqchip=split"
_IOMMU_DEVICE = ("-device", "intel-iommu,intremap=on,caching-mode=on")
_VFIO = ("vfio-pci", "vfio_iommu_type1")
_FOR_SYSTEMD = ("autofs4",)
_UNITS = Path(__file__).with_name("systemd.sh")
_SYSTEMD = Path("/lib/systemd/systemd")
_LAST_LINES = 50  # of the console, in a message
# The serial console is slow, and so is what only a real processor needs.
_KERNEL = "console=ttyS0 panic=-1 quiet mitigations=off tsc=reliable no_timer_check audit=0"


class GuestError(Exception):
    """Something is wrong with the guest itself; the text ends with the end of its console."""


class DidNotBoot(GuestError):
    """The guest ran no command: its kernel or its process 1 did not come so far."""


class Hung(GuestError):
    """A command did not end within its deadline."""


class Ended(GuestError):
    """The guest ended while a command ran: its kernel crashed, or the command switched it off."""


@dataclass(frozen=True)
class Result:
    """The exit code of a command (128 + the number of a signal that ended it), and its output,
    standard output and standard error in one."""

    code: int
    output: str


class Guest:
    """A running guest. `cables` are the other ends of its cards, in order: the first card is eth0
    in the guest. `monitor` is QEMU's. `boot_seconds` is the time from the start of QEMU to the
    first command.

    The process that makes it must do so in its main thread: QEMU ends with the thread that started
    it.
    """

    def __init__(
        self,
        cards: Sequence[Card] = (),
        *,
        processors: int = 1,
        memory: int = 1024,
        hugepages: int = 0,
        modules: Sequence[str] = (),
        iommu: bool = False,
        served: Sequence[str] = (),
        systemd: bool = False,
        boot: float = BOOT,
        using: Kernel | None = None,
    ) -> None:
        """Boot. `memory` is in MiB, `hugepages` are of 2 MiB and part of it, `modules` are loaded
        besides those of the cards. With `iommu`, each card is behind an IOMMU, in a group of its
        own, and the modules of VFIO are loaded. `served` are the sockets of cards that `ringline
        serve-card` offers. With `systemd`, this machine's systemd is process 1, without any of its
        services.

        Raises Missing or DidNotBoot, and then nothing stays."""
        began = time.monotonic()
        if systemd and not _SYSTEMD.exists():
            raise Missing(f"needs {_SYSTEMD} (Debian package systemd)")
        self._qemu = newer_qemu.program() if served else qemu(cards)
        self.kernel = using or kernel()
        self.cables: list[Cable] = []
        self._closing = contextlib.ExitStack()
        self._hanging = 0  # commands that have not ended within their deadlines
        with contextlib.ExitStack() as stack:
            for number, each in enumerate(cards):
                self.cables.append(Cable(each, number))
                stack.callback(self.cables[-1].close)
            names = [*_BASE, *(name for each in cards for name in each.modules), *modules]
            names += _VFIO if iommu else ()
            names += _FOR_SYSTEMD if systemd else ()
            order = self.kernel.in_order(names)
            self._files = {
                "console": os.memfd_create("console", 0),
                "initial": os.memfd_create("initial", 0),
                "errors": os.memfd_create("errors", 0),
                "traced": os.memfd_create("traced", 0),
            }
            for fd in self._files.values():
                stack.callback(os.close, fd)
            with open(self._files["initial"], "wb", closefd=False) as file:
                file.write(archive(self.kernel, order))
            self._port, far = socket.socketpair()
            stack.enter_context(self._port)
            near, asked = socket.socketpair()
            self.monitor = Monitor(stack.enter_context(near))
            with far, asked:
                line = f"{_KERNEL} guest_modules={','.join(order)}"
                line += f" guest_hugepages={hugepages}" if hugepages else ""
                line += " intel_iommu=on" if iommu else ""
                line += f" guest_systemd={_UNITS}" if systemd else ""
                ports = (far.fileno(), asked.fileno())
                self._start(ports, line, processors, memory, iommu, served)
            stack.callback(self._stop)
            for cable in self.cables:
                cable.started()
            self._wait_for_boot(boot)
            self._closing = stack.pop_all()
        self.boot_seconds = time.monotonic() - began

    def run(
        self,
        command: str,
        deadline: float = COMMAND,
        heard: Callable[[bytes], object] | None = None,
    ) -> Result:
        """Run shell commands in the root folder of the checkout, as root, with the programs of its
        virtual environment first in PATH. `heard` gets the output while it comes.

        A program that goes on in the background needs an output of its own. Raises Hung or Ended.
        After Hung the guest can be used: the next command kills the one that hangs.
        """
        text = f"cd {shlex.quote(str(ROOT))}\n{_exports()}\n{command}\n".encode()
        pieces: list[bytes] = []
        try:
            self._port.sendall(b"run %d\n%s" % (len(text), text))
            until = time.monotonic() + deadline
            while True:
                kind, word = self._answer(until)
                if kind == "exit":
                    if self._hanging:
                        self._hanging -= 1
                        pieces.clear()
                        continue
                    return Result(int(word), b"".join(pieces).decode("utf-8", "replace"))
                pieces.append(self._receive(int(word), until))
                if heard is not None:
                    heard(pieces[-1])
        except TimeoutError:
            said = b"".join(pieces).decode("utf-8", "replace")
            said = f"; it said: {said!r}" if heard is None else ""
            self._hanging += 1
            raise Hung(
                f"the guest did not finish within {deadline:g} s: {command!r}{said}\n"
                + self.console()
            ) from None
        except (EOFError, OSError):
            raise Ended(f"the guest ended during {command!r}\n{self.console()}") from None

    def checked(self, command: str, deadline: float = COMMAND) -> str:
        """The output of commands whose exit code must be 0. Raises AssertionError else."""
        result = self.run(command, deadline)
        assert result.code == 0, f"{command}: exit code {result.code}: {result.output}"
        return result.output

    def set_link(self, number: int, *, up: bool) -> None:
        """Plug in or pull out the cable of a card, by its number. Frames on the way are lost."""
        self.monitor.execute("set_link", {"name": f"card{number}", "up": up})

    def unplug(self, number: int, seconds: float = COMMAND) -> None:
        """Take a card that is behind a port of its own out of the machine; the guest is asked
        first. Raises Hung when it has not let the card go within `seconds`; it may do so later."""
        self.monitor.execute("device_del", {"id": f"card{number}"})
        self.wait_until_unplugged(number, seconds)

    def wait_until_unplugged(self, number: int, seconds: float = COMMAND) -> None:
        """Wait until a card is out that was asked for with `unplug`. Raises Hung."""
        try:
            self.monitor.wait_for("DEVICE_DELETED", seconds, device=f"card{number}")
        except TimeoutError:
            raise Hung(
                f"the guest did not let card {number} go within {seconds:g} s\n{self.console()}"
            ) from None

    def plug(self, number: int) -> None:
        """Put a card that was unplugged into the machine again, at the end of the same cable."""
        self.monitor.execute("device_add", self.cables[number].device)

    @contextlib.contextmanager
    def traced(self, *events: str) -> Iterator[list[str]]:
        """Note these trace events of QEMU meanwhile, for example "e1000e_core_write" for the writes
        to registers of an e1000e; `*` stands for any letters. At the end, the list has a line for
        each, in order: the name of the event, and its values as QEMU prints them."""
        lines: list[str] = []
        before = len(self._said("traced"))
        for event in events:
            self.monitor.execute("trace-event-set-state", {"name": event, "enable": True})
        try:
            yield lines
        finally:
            for event in events:
                self.monitor.execute("trace-event-set-state", {"name": event, "enable": False})
            lines += self._said("traced")[before:]

    def console(self) -> str:
        """The last lines that the kernel printed."""
        return "\n".join(self._said("console")[-_LAST_LINES:])

    def close(self) -> None:
        self._closing.close()

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(
        self,
        ports: tuple[int, int],
        line: str,
        processors: int,
        memory: int,
        iommu: bool,
        served: Sequence[str],
    ) -> None:
        passed = [
            *ports,
            *self._files.values(),
            *(fd for each in self.cables for fd in each.passed),
        ]
        share = "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap"
        arguments = [
            *("-machine", f"q35,{_IOMMU}" if iommu else "q35", "-cpu", "max,la57=off"),
            *(_IOMMU_DEVICE if iommu else ()),
            *(_STEADY if processors == 1 else ("-accel", "tcg,thread=multi")),
            *("-smp", str(processors), "-m", str(memory), "-no-reboot"),
            *("-nodefaults", "-no-user-config", "-display", "none", "-vga", "none"),
            *("-kernel", str(self.kernel.image), "-append", line),
            *("-initrd", f"/proc/self/fd/{self._files['initial']}"),
            *("-chardev", f"file,id=console,path=/proc/self/fd/{self._files['console']}"),
            *("-serial", "chardev:console", "-device", "virtio-serial-pci"),
            *(
                "-chardev",
                f"socket,id=port,fd={ports[0]}",
                "-device",
                "virtserialport,chardev=port",
            ),
            *("-chardev", f"socket,id=monitor,fd={ports[1]}"),
            *("-mon", "chardev=monitor,mode=control"),
            *("-D", f"/proc/self/fd/{self._files['traced']}"),
            *("-fsdev", share, "-device", "virtio-9p-pci,fsdev=host,mount_tag=host"),
        ]
        for cable in self.cables:
            arguments += cable.arguments
        arguments += _served_arguments(served, memory) if served else []
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", self._qemu, *arguments],
            pass_fds=passed,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._files["errors"],
        )

    def _said(self, file: str) -> list[str]:
        fd = self._files[file]
        return os.pread(fd, os.fstat(fd).st_size, 0).decode("utf-8", "replace").splitlines()

    def _stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def _wait_for_boot(self, seconds: float) -> None:
        try:
            kind, word = self._answer(time.monotonic() + seconds)
        except TimeoutError:
            raise DidNotBoot(
                f"the guest did not boot within {seconds:g} s\n{self.console()}"
            ) from None
        except (EOFError, OSError):
            said = " ".join(self._said("errors"))
            raise DidNotBoot(
                f"the guest ended before it booted: {said}\n{self.console()}"
            ) from None
        if kind != "booted":
            raise DidNotBoot(f"the guest did not boot: {word}\n{self.console()}")

    def _answer(self, until: float) -> tuple[str, str]:
        """The next line of the guest: its first word, and the rest."""
        line = b""
        while not line.endswith(b"\n"):
            line += self._receive(1, until)
        kind, _, rest = line.decode("utf-8", "replace").rstrip("\n").partition(" ")
        return kind, rest

    def _receive(self, length: int, until: float) -> bytes:
        data = b""
        while len(data) < length:
            left = max(0.0, until - time.monotonic())
            if not select.select([self._port], [], [], left)[0]:
                raise TimeoutError
            piece = self._port.recv(length - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data


def _served_arguments(served: Sequence[str], memory: int) -> list[str]:
    """QEMU's arguments for cards that others serve. They do DMA, so the memory is shared."""
    arguments = ["-object", f"memory-backend-memfd,id=memory,share=on,size={memory}M"]
    arguments += ["-machine", "memory-backend=memory"]
    for number, path in enumerate(served):
        device = {
            "driver": "vfio-user-pci",
            "bus": "pcie.0",
            "addr": f"{0x18 + number:#x}",
            "socket": {"type": "unix", "path": path},
        }
        arguments += ["-device", json.dumps(device)]
    return arguments


def qemu(cards: Sequence[Card] = ()) -> str:
    """The program, from RINGLINE_QEMU or PATH; QEMU 11 if one of the cards needs a newer one.
    Raises Missing."""
    name = os.environ.get("RINGLINE_QEMU", "qemu-system-x86_64")
    path = shutil.which(name)
    since = max((each.model.since for each in cards), default=0)
    if path is not None and (since <= 7 or newer_qemu.version(path) >= since):  # Debian 12 has 7.2
        return path
    if since > 7:
        return newer_qemu.program()
    raise Missing(f"needs {name} (Debian package qemu-system-x86)")


def _exports() -> str:
    """Environment of commands: as outside, but without what belongs to this machine's user."""
    folders = [str(Path(sys.executable).parent), "/usr/local/sbin", "/usr/local/bin"]
    folders += ["/usr/sbin", "/usr/bin", "/sbin", "/bin"]
    return f"export HOME=/root LANG=C.UTF-8 PATH={shlex.quote(':'.join(folders))}"
