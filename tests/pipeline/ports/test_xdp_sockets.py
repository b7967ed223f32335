"""What the supervisor opens for a port on AF_XDP, on a kernel that refuses it."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from ringline.pipeline._pipeline import ffi
from ringline.pipeline.configuration.config import PortConfig, XdpConfig
from ringline.pipeline.ports.interfaces import interface
from ringline.pipeline.ports.xdp import sockets
from ringline.pipeline.ports.xdp.port import XdpPort
from ringline.shm.errors import Bug, EnvironmentLacks

from .fake_xdp import FakeRing
from .test_interfaces import GOOD

CONFIG = PortConfig("wan", "xdp:eth9", queues=1, xdp=XdpConfig())


class Refusing:
    """A socket that refuses an option with an error number."""

    def __init__(self, number: int) -> None:
        self.closed = False
        self._number = number

    def setsockopt(self, *_: Any) -> None:
        raise OSError(self._number, os.strerror(self._number))

    def close(self) -> None:
        self.closed = True


class Packets:
    """Packet memory, as far as registering it needs."""

    stride, first_offset = 2240, 4096

    class segment:  # noqa: N801 - an attribute
        address, size = 1 << 20, 1 << 20


def attachment() -> sockets.XdpAttachment:
    made = object.__new__(sockets.XdpAttachment)
    made._config, made._xdp, made._packets = CONFIG, XdpConfig(), Packets  # type: ignore[assignment]
    made._where, made._found, made.remarks = "port.wan.device: eth9", GOOD, []
    return made


def test_a_kernel_without_af_xdp_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported")

    monkeypatch.setattr(socket, "socket", refuse)
    with pytest.raises(OSError, match="this kernel has no AF_XDP"):
        sockets._new_socket(XdpConfig())


def test_other_errors_of_a_socket_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket, "socket", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        sockets._new_socket(XdpConfig())


def test_a_kernel_without_busy_polling_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Refusing(errno.ENOPROTOOPT)
    monkeypatch.setattr(socket, "socket", lambda *_: made)
    with pytest.raises(OSError, match=r"busy polling cannot be switched on \(Linux 5\.11 has it\)"):
        sockets._new_socket(XdpConfig(busy_poll_us=20))
    assert made.closed


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.EINVAL, "this kernel has no unaligned chunks (Linux 5.4 has them)"),
        (errno.ENOBUFS, "the limit of locked memory (ulimit -l) is below 1024 KiB"),
        (errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_why_packet_memory_is_not_registered(number: int, sentence: str) -> None:
    with pytest.raises(OSError, match="packet memory could not be registered") as error:
        attachment()._register(Refusing(number))  # type: ignore[arg-type]
    assert sentence in str(error.value)


def test_why_a_queue_is_not_bound() -> None:
    assert "another socket is bound to queue 3" in sockets._why_not_bound(errno.EBUSY, 3)
    assert "there is no queue 3" in sockets._why_not_bound(errno.EINVAL, 3)
    assert sockets._why_not_bound(errno.ENODEV, 3) == os.strerror(errno.ENODEV)


def test_the_kernel_is_named_whose_driver_has_no_zero_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    release = "6.1.0-56-amd64"
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(["Linux", "", release, "", ""]))
    why = "its driver has no zero-copy mode in this kernel (6.1.0-56-amd64)"
    assert sockets._why_not_bound(errno.EOPNOTSUPP, 0) == why


@pytest.mark.parametrize(
    ("driver", "features", "why"),
    [
        ("virtio_net", "0" * 128, "its device does not use the addresses of an IOMMU"),
        ("virtio_net", "0" * 33 + "1" + "0" * 94, "there is no queue 0, or packet memory"),
        ("virtio_net", None, "there is no queue 0, or packet memory"),
        ("igb", "0" * 128, "there is no queue 0, or packet memory"),
    ],
)
def test_what_a_virtio_device_lacks_for_zero_copy_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, driver: str, features: str | None, why: str
) -> None:
    made = attachment()
    made._xdp, made._found = XdpConfig(mode="auto"), dataclasses.replace(GOOD, driver=driver)
    device = tmp_path / made._found.name / "device"
    device.mkdir(parents=True)
    if features is not None:
        (device / "features").write_text(features + "\n")
    monkeypatch.setattr(sockets.checks, "SYSFS", tmp_path)

    def refuse() -> None:
        raise OSError(errno.EINVAL, sockets._why_not_bound(errno.EINVAL, 0))

    monkeypatch.setattr(made, "_open_all_sockets", lambda stack: None)
    monkeypatch.setattr(made, "_try_zero_copy", refuse)
    monkeypatch.setattr(made, "_bind_all", lambda flags: None)
    made._open_bound(contextlib.ExitStack())
    assert f"is used in copy mode, because zero-copy does not work: {why}" in made.remarks[0]


@pytest.mark.parametrize(("mode", "ends"), [("zero-copy", True), ("auto", False)])
def test_a_driver_that_never_sends_without_copies_is_left(
    monkeypatch: pytest.MonkeyPatch, mode: str, ends: bool
) -> None:
    made = attachment()
    made._xdp = XdpConfig(mode=mode)
    made._closing = contextlib.ExitStack()
    bound: list[int] = []
    monkeypatch.setattr(made, "_bind_all", bound.append)
    monkeypatch.setattr(made, "_open_all_sockets", lambda stack: None)
    monkeypatch.setattr(sockets.rings, "maps_when_bound", lambda fd: True)
    made.descriptors = [-1]

    def probe() -> None:
        raise TimeoutError("a frame on queue 0 was not sent within 1 s")

    monkeypatch.setattr(made, "_try_zero_copy", lambda: (bound.append(4), probe()))
    if ends:
        with pytest.raises(EnvironmentLacks, match="does not work without copies: a frame on"):
            made._open_sockets()
    else:
        assert made._open_sockets() == "copy"
        assert "used in copy mode, because zero-copy does not work: a frame" in made.remarks[0]
        assert len(bound) == 2


@pytest.mark.parametrize("mapping", [True, False])
def test_sockets_are_bound_when_the_driver_has_mapped_their_rings(
    monkeypatch: pytest.MonkeyPatch, mapping: bool
) -> None:
    """Where the kernel refuses to map the rings of a bound socket: Linux before 6.4."""
    made = attachment()
    made._closing = contextlib.ExitStack()
    done: list[str] = []

    def opening(stack: contextlib.ExitStack) -> None:
        done.append("open")
        made.descriptors = [len(done)]
        stack.callback(done.append, "close")

    monkeypatch.setattr(made, "_open_all_sockets", opening)
    monkeypatch.setattr(made, "_bind", lambda queue, flags: done.append(f"bind {flags}"))
    monkeypatch.setattr(sockets.rings, "maps_when_bound", lambda fd: mapping)
    monkeypatch.setattr(sockets.bpf, "set_socket", lambda *_: done.append("take"))
    made._map, made._taken = -1, False
    assert made._open_sockets() == "copy"
    handed_on = list(done)
    made.take()
    made.take()
    if mapping:
        assert handed_on == ["open", "bind 2"]
        assert done[2:] == ["take", "take"]
    else:
        assert handed_on == ["open", "bind 2", "close", "open"]
        assert done[4:] == ["bind 2", "take", "take"]


def test_a_late_bind_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    made = attachment()
    made.descriptors, made._unbound = [3], 2
    monkeypatch.setattr(sockets.deadlines, "PROBE", 0.0)

    def bind(queue: int, _flags: int) -> None:
        raise OSError(errno.EBUSY, sockets._why_not_bound(errno.EBUSY, queue))

    monkeypatch.setattr(made, "_bind", bind)
    with pytest.raises(EnvironmentLacks, match="could not be bound: another socket is bound to q"):
        made.take()


def test_what_the_kernel_releases_later_is_waited_for() -> None:
    left = [errno.EBUSY, errno.EBUSY]

    def act() -> None:
        if left:
            raise OSError(left.pop(), "busy")

    sockets._patiently(act, errno.EBUSY)
    assert not left
    left += [errno.EINVAL]
    with pytest.raises(OSError, match="busy"):
        sockets._patiently(act, errno.EBUSY)


@pytest.mark.parametrize(
    ("release", "number", "why"),
    [
        ("5.4.0-9-amd64", errno.EINVAL, "this kernel has no bpf_link for XDP (Linux 5.9 has it)"),
        ("6.1.0-56-amd64", errno.EINVAL, os.strerror(errno.EINVAL)),
        ("5.4.0", errno.EPERM, os.strerror(errno.EPERM)),
    ],
)
def test_why_a_program_is_not_attached(
    monkeypatch: pytest.MonkeyPatch, release: str, number: int, why: str
) -> None:
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(["Linux", "", release, "", ""]))
    assert sockets._why_not_attached(OSError(number, os.strerror(number))) == why


def test_a_probe_is_one_frame_and_its_completion() -> None:
    queue = ffi.new("struct rl_xdp_queue *")
    queue.fd = -1
    tx = FakeRing(queue.tx, 64, 16, producing=True)
    completion = FakeRing(queue.completion, 64, 8, producing=False)
    assert not sockets.send_probe(queue, 60, seconds=0.0)
    (descriptor,) = tx.take()
    assert descriptor == (256 << 48 | 4032).to_bytes(8, "little") + (60).to_bytes(8, "little")
    completion.give(descriptor[:8])
    assert sockets.send_probe(queue, 60, seconds=0.0)
    assert completion.words[1] == 1


@pytest.mark.parametrize("removed", [True, False])
def test_an_interface_that_is_removed_during_the_start_is_named(
    monkeypatch: pytest.MonkeyPatch, removed: bool
) -> None:
    monkeypatch.setattr(interface, "find", lambda name: None if removed else GOOD)
    port = XdpPort(CONFIG, 0)
    if removed:
        with pytest.raises(EnvironmentLacks, match=r"port\.wan\.device: eth9 was removed"):
            port.open(ffi.NULL, None, None)  # type: ignore[arg-type]
    with pytest.raises(Bug, match="has 1 queues, not 0"):
        port.use_sockets([])
    port.close()


def test_channels_are_restored_as_soon_as_the_kernel_allows_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = [OSError(errno.EINVAL, "too early"), OSError(errno.EINVAL, "too early"), None]
    calls: list[object] = []

    def answer(name: str, channels: object) -> None:
        assert name == "lo"
        calls.append(channels)
        error = answers.pop(0)
        if error:
            raise error

    monkeypatch.setattr(interface.ethtool, "set_channels", answer)
    assert GOOD.channels is not None
    number = socket.if_nametoindex("lo")
    assert interface.restore_channels(number, GOOD.channels)
    assert calls == [GOOD.channels] * 3
    answers[:] = [OSError(errno.EPERM, "not permitted")]
    assert not interface.restore_channels(number, GOOD.channels)
    assert answers == []
    assert not interface.restore_channels(1 << 30, GOOD.channels)  # it was removed


def test_what_to_do_is_said_when_descriptors_are_used_up() -> None:
    error = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    assert str(attachment()._failed("no AF_XDP socket can be opened", error)) == (
        "port.wan.device: eth9: no AF_XDP socket can be opened: Too many open files: raise the "
        "limit (ulimit -n)"
    )
