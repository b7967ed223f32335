"""The supervisor's part of a port on a TAP: the interface, made or found, and its queues.

To make one needs CAP_NET_ADMIN; to use one that is there needs no more than to be its owner. The
descriptors need no right to be used, so the driver has none. An interface that was made here ends
with its last descriptor, so with the supervisor and the driver, also after SIGKILL.

Guarantees (tests in tests/e2e/test_tap_life.py):
 - after the end of a run, however it ends, no interface is left that it made
   (test_nothing_is_left_after_a_kill)
 - an interface that was there stays (test_an_interface_that_was_there_stays)
 - a driver without any capability receives and sends (test_the_driver_needs_no_privilege)
 - an error leaves nothing (test_bad_input_gets_one_sentence_and_leaves_nothing)
 - an interface that was removed is used again when it is there again, or made again
   (test_an_interface_that_goes_down_or_is_removed_works_again)
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from typing import TYPE_CHECKING

from ringline.pipeline.ports.attachment import Attachment, wait_for
from ringline.pipeline.ports.interfaces import netlink
from ringline.pipeline.ports.tap import checks, tun
from ringline.shm.errors import EnvironmentLacks

if TYPE_CHECKING:
    from ringline.pipeline.configuration.config import PortConfig, TapConfig


class TapAttachment(Attachment):
    """One TAP, with a descriptor for each queue of the port."""

    def __init__(self, config: PortConfig) -> None:
        """Open everything. Raises EnvironmentLacks; then nothing is left."""
        assert config.tap is not None
        self._config, self._tap = config, config.tap
        self._name = config.address
        self._where = f"port.{config.name}.device: {self._name}"
        self._ours = False
        self._open_all()

    def _open_all(self) -> None:
        descriptors = []
        with contextlib.ExitStack() as stack:
            found = checks.check(self._config)
            self._ours = found is None
            for queue in range(self._config.queues):
                fd = self._open_queue(found is None or found.multi_queue, first=queue == 0)
                stack.callback(os.close, fd)
                descriptors.append(fd)
            if self._ours:
                self._set_up(self._tap)
            self._closing = stack.pop_all()
        self.descriptors = descriptors
        self.description = "TAP, made here" if self._ours else "TAP that was there"
        self.remarks = [
            f"port {self._config.name}: {self._name}: {self.description}, "
            f"queues {self._config.queues}"
        ]

    def _open_queue(self, multi_queue: bool, first: bool) -> int:
        try:
            make = self._ours and first
            return tun.open_queue(self._name, multi_queue=multi_queue, make=make)
        except OSError as error:
            if error.errno == errno.EBUSY:  # it has one queue
                raise EnvironmentLacks(
                    f"port.{self._config.name}.device: {checks.in_use(self._name)}"
                ) from None
            raise self._failed("no queue of the TAP can be opened", error) from None

    def _set_up(self, tap: TapConfig) -> None:
        """Give a new interface its settings. It is still down."""
        link = netlink.link(name=self._name)
        self._number = 0 if link is None else link[0]
        changes = {
            netlink.MTU: struct.pack("=I", tap.mtu),
            # The kernel has room for as many frames in each queue.
            netlink.QUEUE_LENGTH: struct.pack("=I", self._config.rx_descriptors),
        }
        if self._config.mac:
            changes[netlink.ADDRESS] = bytes.fromhex(self._config.mac.replace(":", ""))
        try:
            netlink.set_link(self._number, changes)
        except OSError as error:
            raise self._failed("its MTU and address cannot be set", error) from None
        for address in tap.addresses:
            try:
                netlink.add_address(self._number, address)
            except OSError as error:
                raise self._failed(f"it cannot have the address {address}", error) from None

    def _failed(self, what: str, error: OSError) -> EnvironmentLacks:
        return EnvironmentLacks(f"{self._where}: {what}: {error.strerror}")

    def take(self) -> None:
        """Bring up an interface that was made here: the driver reads from now on."""
        if self._ours and self._tap.up:
            try:
                netlink.set_link(self._number, {}, up=True)
            except OSError as error:
                # Somebody has moved it to another network namespace already: it is theirs.
                if tun.name_of(self.descriptors[0]) and netlink.link(number=self._number):
                    raise self._failed("it cannot be brought up", error) from None

    def give_back(self) -> None:
        """The driver stops reading by itself."""

    def renew(self) -> bool:
        if self.descriptors and tun.state(self.descriptors[0])[0]:
            return False
        if not self._ours and netlink.link(name=self._name) is None:
            self.waiting = wait_for(self._config)
            return False
        self.close()
        self._open_all()
        self.waiting = ""
        return True

    def close(self) -> None:
        self.descriptors = []
        self._closing.close()
