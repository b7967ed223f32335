"""Run a command in a guest: python -m tests.guest --card virtio-net 'ringline interfaces'

The exit code is that of the command; 124: it did not finish; 125: the guest did not boot, ended, or
cannot be started; 2: a wrong argument.
"""

from __future__ import annotations

import argparse
import sys

from . import newer_kernel, newer_qemu
from .cards import card
from .kernel import Missing, prepare
from .machine import COMMAND, Guest, GuestError, Hung

HUNG, NO_GUEST = 124, 125


def main() -> int:
    parser = argparse.ArgumentParser(prog="guest", description="Runs shell commands in a guest.")
    parser.add_argument("command", nargs="*", help="shell commands; several words are one command")
    parser.add_argument("--card", action="append", default=[], metavar="NAME[:QUEUES]")
    parser.add_argument(
        "--served", action="append", default=[], metavar="SOCKET", help="of ringline serve-card"
    )
    parser.add_argument("--joined", action="store_true", help="a wire joins the two cards")
    parser.add_argument("--processors", type=int, default=1, metavar="N")
    parser.add_argument("--memory", type=int, default=1024, metavar="MIB")
    parser.add_argument("--hugepages", type=int, default=0, metavar="N", help="of 2 MiB")
    parser.add_argument("--module", action="append", default=[], metavar="NAME")
    parser.add_argument("--iommu", action="store_true", help="cards behind an IOMMU, and VFIO")
    parser.add_argument("--systemd", action="store_true", help="systemd as process 1")
    parser.add_argument("--deadline", type=float, default=COMMAND, metavar="SECONDS")
    parser.add_argument("--prepare", action="store_true", help="get the kernel, and end")
    parser.add_argument(
        "--newer-kernel", action="store_true", help="the kernel of Debian 13's backports"
    )
    parser.add_argument("--prepare-qemu", action="store_true", help="get QEMU 11, and end")
    given = parser.parse_args()
    if given.prepare_qemu:
        return _prepare_qemu()
    if not given.prepare and not given.command:
        parser.error("say which command, or --prepare")
    try:
        cards = [card(text) for text in given.card]
    except ValueError as error:
        parser.error(str(error))
    if given.joined and len(cards) != 2:
        parser.error("--joined needs two cards")
    try:
        kernel = newer_kernel.prepare() if given.newer_kernel else prepare()
        if given.prepare:
            print(f"guests boot Linux {kernel.release}")
            return 0
        with Guest(
            cards,
            processors=given.processors,
            memory=given.memory,
            hugepages=given.hugepages,
            modules=given.module,
            iommu=given.iommu,
            served=given.served,
            systemd=given.systemd,
            using=kernel,
        ) as guest:
            if given.joined:
                guest.cables[0].join(guest.cables[1])
            print(f"guest: Linux {kernel.release}, {guest.boot_seconds:.1f} s", file=sys.stderr)
            return guest.run(" ".join(given.command), given.deadline, _show).code
    except Hung as error:
        print(f"guest: {error}\n--deadline SECONDS gives it more time", file=sys.stderr)
        return HUNG
    except (GuestError, Missing) as error:
        print(f"guest: {error}", file=sys.stderr)
        return NO_GUEST


def _prepare_qemu() -> int:
    try:
        print(f"guests can use {newer_qemu.prepare()}")
    except Missing as error:
        print(f"guest: {error}", file=sys.stderr)
        return NO_GUEST
    return 0


def _show(output: bytes) -> None:
    sys.stdout.buffer.write(output)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
