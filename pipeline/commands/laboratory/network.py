"""Two hosts in network namespaces of their own, and a third one between them for ringline.

    host "here" -- eth0 ~~ here -- the middle -- peer ~~ eth0 -- host "peer"

`~~` is a veth pair. No namespace has a name: this process holds them by descriptors, so the kernel
removes them, with all their interfaces, when the last process that holds or uses them ends.

A veth leaves the checksums of TCP and UDP to a card that is not there. Both hosts therefore
compute them when they send, as on a wire.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from ringline.pipeline.commands.laboratory import kernel, links
from ringline.pipeline.commands.laboratory.links import End, Impairment
from ringline.pipeline.ports.interfaces import capabilities, ethtool
from ringline.pipeline.ports.xdp import rights
from ringline.shm.errors import EnvironmentLacks

HERE, PEER = "here", "peer"
INTERFACES = (HERE, PEER)  # in the middle, where ringline runs
INTERFACE = "eth0"  # of each host
ADDRESSES = {HERE: ("10.0.0.1", "fd00::1"), PEER: ("10.0.0.2", "fd00::2")}
PREFIX_LENGTHS = (24, 64)
_NO_IPV6 = Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")
_WITHOUT_IPV6 = (errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.EACCES)


class Network:
    """The namespaces and the links between them. `middle`, `hosts[HERE]` and `hosts[PEER]` are
    descriptors of network namespaces; `ipv6` says whether the hosts have IPv6 addresses."""

    def __init__(self, queues: int, wire: Impairment | None = None) -> None:
        """Make everything. `queues` are those of each interface; `wire` is what happens to the
        packets that a host sends. Raises EnvironmentLacks; then nothing is left."""
        check_rights()
        self._closing = contextlib.ExitStack()
        self.ipv6 = True
        with self._closing as stack:
            try:
                self._make(stack, queues)
                if wire is not None:
                    for host in self.hosts.values():
                        with kernel.inside(host):
                            _impair(wire)
            except OSError as error:
                raise EnvironmentLacks(
                    f"the laboratory cannot be made: {error.strerror}{_remedy(error)}"
                ) from None
            self._closing = stack.pop_all()

    def _make(self, stack: contextlib.ExitStack, queues: int) -> None:
        self.middle = _new_namespace(stack)
        self.hosts = {name: _new_namespace(stack) for name in INTERFACES}
        with kernel.inside(self.middle):
            with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
                _NO_IPV6.write_text("1")  # the middle says nothing on its interfaces
            for name, host in self.hosts.items():
                links.make_pair(End(name, queues), End(INTERFACE, queues), host)
                ethtool.let_kernel_compute_checksums(name)
                links.set_up(name)
        for name, host in self.hosts.items():
            with kernel.inside(host):
                self._set_up_host(name)

    def _set_up_host(self, name: str) -> None:
        ethtool.let_kernel_compute_checksums(INTERFACE)
        links.set_up("lo")
        links.set_up(INTERFACE)
        for address, length in zip(ADDRESSES[name], PREFIX_LENGTHS, strict=True):
            try:
                links.add_address(INTERFACE, f"{address}/{length}")
            except OSError as error:
                if ":" not in address or error.errno not in _WITHOUT_IPV6:
                    raise
                self.ipv6 = False

    def environment(self) -> dict[str, str]:
        """The addresses, for a program on the first host."""
        kinds = ("", "6") if self.ipv6 else ("",)
        return {
            f"RINGLINE_{name.upper()}{kind}": address
            for name, addresses in ADDRESSES.items()
            for kind, address in zip(kinds, addresses, strict=False)
        }

    def close(self) -> None:
        """Leave the namespaces to the processes in them, or to nobody."""
        self._closing.close()


def check_rights() -> None:
    """Raises EnvironmentLacks when this process cannot make a laboratory."""
    have = capabilities.effective()
    lacking = [] if have >> capabilities.SYS_ADMIN & 1 else ["CAP_SYS_ADMIN"]
    lacking += rights.missing(0, have)
    if lacking:
        raise EnvironmentLacks(
            "a laboratory makes network namespaces and attaches XDP programs, and this process "
            f"lacks {', '.join(lacking)}: run it as root, or in a container with --privileged"
        )


def _new_namespace(stack: contextlib.ExitStack) -> int:
    before = kernel.current_network()
    try:
        kernel.unshare(kernel.NEW_NETWORK)
        try:
            made = kernel.current_network()
        finally:
            kernel.enter(before)
    finally:
        os.close(before)
    stack.callback(os.close, made)
    return made


def _impair(wire: Impairment) -> None:
    try:
        links.impair(INTERFACE, wire)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        raise EnvironmentLacks(
            "--loss, --delay and --rate need netem, which this kernel does not have (sch_netem): "
            "run modprobe sch_netem, or install the further modules of your kernel"
        ) from None


def _remedy(error: OSError) -> str:
    if error.errno == errno.EOPNOTSUPP:
        return "; the kernel needs veth interfaces (CONFIG_VETH)"
    if error.errno in (errno.EPERM, errno.EACCES, errno.EROFS):
        return ": run it as root, or in a container with --privileged"
    return ""
