"""The supervisor's part of an AF_XDP port: sockets, packet memory registered, and the program.

It needs CAP_NET_RAW, CAP_NET_ADMIN and CAP_BPF. What it opens needs no right to be used, so the
driver has none. The program is attached as a bpf_link: it vanishes with this process, also after
SIGKILL. Until `take`, and after `give_back`, the program leaves every frame to the kernel.

Guarantees (tests in tests/e2e/test_xdp_life.py):
 - after the end of a run, however it ends, no program is attached
   (test_after_sigkill_of_the_supervisor_the_kernel_has_its_interface_back,
   test_the_death_of_the_driver_ends_the_run_and_gives_the_interface_back,
   test_random_kills_leave_balanced_books_and_free_interfaces)
 - channels that were set are restored, also after SIGKILL (test_channels_are_set_and_restored)
 - a driver without any capability receives and sends (test_the_driver_needs_no_privilege)
 - an error leaves nothing attached (tests/e2e/test_xdp_refused.py:
   test_bad_input_gets_one_sentence_and_leaves_nothing,
   test_a_port_that_cannot_be_opened_leaves_nothing)
 - an interface that was removed and made again is used again
   (test_an_interface_that_is_made_again_is_used_again)
 - one that was moved to another network namespace has no program there, and is used when it is back
   (test_an_interface_that_is_moved_belongs_to_its_new_place_until_it_is_back)
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import struct
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from ringline.pipeline._pipeline import ffi, lib
from ringline.pipeline.configuration import deadlines
from ringline.pipeline.ports.interfaces import ethtool, interface, neighbours, notes
from ringline.pipeline.ports.interfaces.socket_port import SocketAttachment
from ringline.pipeline.ports.xdp import bpf, checks, rings
from ringline.pipeline.ports.xdp.program import assemble
from ringline.shm.errors import EnvironmentLacks, reason_of
from ringline.shm.text import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from ringline.pipeline.configuration.config import PortConfig, XdpConfig
    from ringline.shm.packets import PacketMemory

_SHARED_UMEM, _COPY, _ZERO_COPY, _NEED_WAKEUP = 1, 2, 4, 8  # sxdp_flags
_UNALIGNED = 1  # XDP_UMEM_UNALIGNED_CHUNK_FLAG
_BUSY_POLL, _PREFER_BUSY_POLL, _BUSY_POLL_BUDGET = 46, 69, 70  # SO_* of asm-generic/socket.h
_BUDGET = 64  # frames that one system call receives
_MODES = {"native": bpf.NATIVE, "generic": bpf.GENERIC}
# A frame for nobody: its EtherType is one for local experiments (IEEE 802, 88B5).
_PROBE_TYPE = b"\x88\xb5"
_PROBE_BYTES = 60


class XdpAttachment(SocketAttachment):
    """The sockets of one port, one for each queue, and its program."""

    def __init__(self, config: PortConfig, packets: PacketMemory) -> None:
        """Open everything. Raises EnvironmentLacks; then nothing stays open or attached."""
        assert config.xdp is not None
        self._config, self._xdp, self._packets = config, config.xdp, packets
        self._open_all()

    def _open_all(self) -> None:
        self.remarks = []
        self.descriptors = []
        self._taken = False
        self.channels = ()
        with contextlib.ExitStack() as stack:
            self._closing = stack
            self._open()
            self._closing = stack.pop_all()
        self._gone = False

    def _open(self) -> None:
        config, xdp = self._config, self._xdp
        found = self._found = checks.check(config, self._packets.segment.size)
        name = found.name
        self._where = f"port.{config.name}.device: {name}"
        if found.queues != config.queues:
            self._set_queues()
        try:
            self._map = self._kept(bpf.create_socket_map(config.queues))
            self._program = self._kept(bpf.load_program(assemble(self._map, xdp.take)))
        except OSError as error:
            raise self._failed("the XDP program could not be loaded", error) from None
        attached = self._attach()
        copying = self._open_sockets()
        if config.promiscuous:
            try:
                self._closing.enter_context(interface.promiscuous(found))
            except OSError as error:
                raise self._failed("it could not be made promiscuous", error) from None
        self.description = f"{attached} XDP, {copying}"
        kernel = f", driver {found.driver}" if found.driver else ""
        self.remarks.insert(
            0, f"port {config.name}: {name}{kernel}: {self.description}, queues {config.queues}"
        )
        self.remarks += [
            f"port {config.name}: {sentence}"
            for sentence in (
                *interface.without_link(found),
                *neighbours.said_of_xdp(found, config.promiscuous),
            )
        ]
        if found.virtual and not xdp.fix_checksums and ethtool.computes_checksums(name):
            self.remarks.append(
                f"port {config.name}: {name} is virtual: its frames may come without their TCP and "
                "UDP checksums, and then ping works and TCP does not; set fix_checksums = true in "
                f"[port.{config.name}] of a configuration file, or run ethtool -K NAME tx off for "
                "the interface of each sender"
            )

    # -- parts ------------------------------------------------------------------------------

    def _kept(self, fd: int) -> int:
        """`fd` is closed at the end, in the opposite order of opening."""
        self._closing.callback(os.close, fd)
        return fd

    def _failed(self, what: str, error: OSError) -> EnvironmentLacks:
        return EnvironmentLacks(f"{self._where}: {what}: {reason_of(error)}")

    def _set_queues(self) -> None:
        before, new = self._found.channels, checks.wanted_channels(self._found, self._config)
        assert before is not None
        assert new is not None
        name = self._packets.segment.name.split(".")[1]
        self._closing.enter_context(notes.note(name, self._found.number, new, before))
        try:
            ethtool.set_channels(self._found.name, new)
        except OSError as error:
            raise self._failed(
                f"it cannot have {counted(self._config.queues, 'queue')}", error
            ) from None
        self.channels = (self._found.number, before.rx, before.tx, before.combined, before.other)
        self._closing.callback(interface.restore_channels, self._found.number, before)

    def _attach(self) -> str:
        """Attach the program: native, else generic. Returns which."""
        wanted = self._xdp.attach
        if neighbours.needs_generic(self._found):
            wanted = "generic"
        tried = []
        for mode in ("native", "generic") if wanted == "auto" else (wanted,):
            try:
                link = bpf.attach(self._program, self._found.number, _MODES[mode])
            except OSError as error:
                tried.append(f"{mode} XDP: {_why_not_attached(error)}")
                continue
            self._link = self._kept(link)
            if tried:
                self.remarks.append(
                    f"port {self._config.name}: {self._found.name} uses generic XDP, which is "
                    f"slower ({tried[0]})"
                )
            return mode
        raise EnvironmentLacks(f"{self._where}: no program can be attached ({'; '.join(tried)})")

    def _open_sockets(self) -> str:
        """Open a socket for each queue in the mode that was asked for. Returns the mode.

        Linux before 6.4 maps the rings of a socket only until it is bound. There the sockets are
        opened a second time, and `take` binds them: until then the driver has mapped the rings.
        """
        self._unbound = 0
        try:
            with contextlib.ExitStack() as attempt:
                flags = self._open_bound(attempt)
                if rings.maps_when_bound(self.descriptors[0]):
                    self._closing.push(attempt.pop_all())
                else:
                    self._unbound = flags
            if self._unbound:
                self._open_all_sockets(self._closing)
        except OSError as error:
            raise self._failed("no AF_XDP socket can be opened", error) from None
        return "zero-copy" if flags == _ZERO_COPY else "copy"

    def _open_bound(self, stack: contextlib.ExitStack) -> int:
        """Open and bind the sockets. Returns the flag of the mode. Raises OSError."""
        mode = self._xdp.mode
        if mode != "copy":
            try:
                with contextlib.ExitStack() as attempt:
                    self._open_all_sockets(attempt)
                    self._try_zero_copy()
                    stack.push(attempt.pop_all())
                return _ZERO_COPY
            except (OSError, TimeoutError) as error:
                why = error.strerror or str(error)
                if error.errno == errno.EINVAL:
                    why = checks.no_zero_copy(self._found) or why
                if mode == "zero-copy":
                    raise EnvironmentLacks(
                        f"{self._where} does not work without copies: {why}; set "
                        'mode = "copy" or "auto"'
                    ) from None
                self.remarks.append(
                    f"port {self._config.name}: {self._found.name} is used in copy mode, because "
                    f"zero-copy does not work: {why}"
                )
        self._open_all_sockets(stack)
        self._bind_all(_COPY)
        return _COPY

    def _open_all_sockets(self, stack: contextlib.ExitStack) -> None:
        """Open a socket with rings for each queue. Raises OSError."""
        config = self._config
        self.descriptors = []
        for queue in range(config.queues):
            each = stack.enter_context(_new_socket(self._xdp))
            if queue == 0:
                _patiently(partial(self._register, each), errno.ENOBUFS)
            for option, entries in (
                (rings.FILL_RING, config.rx_descriptors),
                (rings.COMPLETION_RING, config.tx_descriptors),
                (rings.RX_RING, config.rx_descriptors),
                (rings.TX_RING, config.tx_descriptors),
            ):
                each.setsockopt(rings.SOL_XDP, option, struct.pack("=I", entries))
            self.descriptors.append(each.fileno())

    def _bind_all(self, flags: int) -> None:
        """Bind the sockets, each to its queue, in the mode of `flags`. Raises OSError."""
        for queue in range(len(self.descriptors)):
            _patiently(partial(self._bind, queue, flags), errno.EBUSY)

    def _bind(self, queue: int, flags: int) -> None:
        result = lib.rl_xdp_bind(
            self.descriptors[queue],
            self._found.number,
            queue,
            _SHARED_UMEM if queue else flags | _NEED_WAKEUP,
            self.descriptors[0] if queue else 0,
        )
        if result < 0:
            raise OSError(-result, _why_not_bound(-result, queue))

    def _register(self, first: socket.socket) -> None:
        """Register packet memory as the memory of all sockets of the port."""
        begin, size = self._packets.segment.address, self._packets.segment.size
        registration = struct.pack("=QQIIII", begin, size, lib.RL_XDP_CHUNK, 0, _UNALIGNED, 0)
        try:
            first.setsockopt(rings.SOL_XDP, rings.UMEM_REG, registration)
        except OSError as error:
            number = error.errno or 0
            why = {
                errno.EINVAL: "this kernel has no unaligned chunks (Linux 5.4 has them)",
                errno.ENOBUFS: f"the limit of locked memory (ulimit -l) is below {size >> 10} KiB",
            }.get(number, os.strerror(number))
            raise OSError(number, f"packet memory could not be registered: {why}") from None

    def _try_zero_copy(self) -> None:
        """Bind the sockets without copies and send a frame on each queue. Raises OSError, and
        TimeoutError when the kernel does not report the frame as sent: some drivers accept
        zero-copy and never send."""
        config = self._config
        with contextlib.ExitStack() as stack:
            queues = []
            for fd in self.descriptors:
                queues.append(ffi.new("struct rl_xdp_queue *"))
                mapped = rings.SocketRings(
                    fd, queues[-1], config.rx_descriptors, config.tx_descriptors
                )
                stack.callback(mapped.close)
            self._bind_all(_ZERO_COPY)
            self._probe(queues)

    def _probe(self, queues: list[Any]) -> None:
        own = bytes.fromhex(self._found.mac.replace(":", ""))
        frame = (own + own + _PROBE_TYPE).ljust(_PROBE_BYTES, b"\0")
        begin = self._packets.first_offset + self._packets.headroom
        self._packets.segment.memory[begin : begin + len(frame)] = frame
        for number, queue in enumerate(queues):
            if not send_probe(queue, len(frame)):
                raise TimeoutError(
                    f"a frame on queue {number} was not sent within {deadlines.PROBE:g} s"
                )

    # -- life -------------------------------------------------------------------------------

    def take(self) -> None:
        if self._unbound:
            try:
                self._bind_all(self._unbound)
            except OSError as error:
                raise self._failed("its sockets could not be bound", error) from None
            self._unbound = 0
        for queue, fd in enumerate(self.descriptors):
            try:
                bpf.set_socket(self._map, queue, fd)
            except OSError as error:
                raise self._failed("its sockets could not be connected", error) from None
        self._taken = True

    def give_back(self) -> None:
        if self._taken:
            self._taken = False
            for queue in range(len(self.descriptors)):
                with contextlib.suppress(OSError):
                    bpf.remove_socket(self._map, queue)

    def _is_bound(self) -> bool:
        there, _ = interface.state(self._found.number)
        alone = not self._unbound and lib.rl_xdp_wake_tx(self.descriptors[0]) == -errno.ENXIO
        return there and not alone

    def close(self) -> None:
        self._gone = True
        self.give_back()
        self._closing.close()


def send_probe(queue: object, length: int, seconds: float = deadlines.PROBE) -> bool:
    """Send the frame of `length` bytes in buffer 0 on a socket, `queue` (cdata
    `struct rl_xdp_queue *`). Returns whether the kernel reports within `seconds` that it is sent.
    """
    tx, completion = queue.tx, queue.completion  # type: ignore[attr-defined]
    descriptors = ffi.cast("struct rl_xdp_descriptor *", tx.entries)
    entry = descriptors[tx.own & tx.mask]
    entry.address = lib.RL_XDP_FIRST | lib.RL_XDP_HEADROOM << 48
    entry.length, entry.options = length, 0
    tx.own += 1
    tx.producer[0] = tx.own
    deadline = time.monotonic() + seconds
    while completion.producer[0] == completion.own:
        lib.rl_xdp_wake_tx(queue.fd)  # type: ignore[attr-defined]
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    completion.own += 1
    completion.consumer[0] = completion.own
    return True


def _patiently(action: Callable[[], None], number: int) -> None:
    """Do `action`, and again while it fails with this error number: the kernel releases a closed
    socket, its queue and its memory a little later. Raises OSError after deadlines.PROBE."""
    deadline = time.monotonic() + deadlines.PROBE
    while True:
        try:
            return action()
        except OSError as error:
            if error.errno != number or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def _new_socket(config: XdpConfig) -> socket.socket:
    """A socket of AF_XDP, with busy polling if configured. Raises OSError."""
    try:
        made = socket.socket(rings.AF_XDP, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    except OSError as error:
        if error.errno == errno.EAFNOSUPPORT:
            raise OSError(
                error.errno, "this kernel has no AF_XDP (CONFIG_XDP_SOCKETS is not set)"
            ) from None
        raise
    if config.busy_poll_us:
        try:
            made.setsockopt(socket.SOL_SOCKET, _PREFER_BUSY_POLL, 1)
            made.setsockopt(socket.SOL_SOCKET, _BUSY_POLL, config.busy_poll_us)
            made.setsockopt(socket.SOL_SOCKET, _BUSY_POLL_BUDGET, _BUDGET)
        except OSError as error:
            made.close()
            raise OSError(
                error.errno,
                f"busy polling cannot be switched on (Linux 5.11 has it): {error.strerror}",
            ) from None
    return made


def _why_not_attached(error: OSError) -> str:
    """A kernel that does not know the question answers with EINVAL, as some drivers do."""
    version = [int(each) for each in re.findall(r"\d+", os.uname().release)[:2]]
    if error.errno == errno.EINVAL and version < [5, 9]:
        return "this kernel has no bpf_link for XDP (Linux 5.9 has it)"
    return error.strerror or str(error)


def _why_not_bound(number: int, queue: int) -> str:
    return {
        errno.EBUSY: f"another socket is bound to queue {queue}",
        errno.EINVAL: f"there is no queue {queue}, or packet memory does not fit it",
        errno.EOPNOTSUPP: f"its driver has no zero-copy mode in this kernel ({os.uname().release})",
    }.get(number, os.strerror(number))
