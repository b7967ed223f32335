"""What the supervisor checks and opens for a port on a TAP, with answers of the test's own."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from ringline.pipeline._pipeline import ffi
from ringline.pipeline.configuration.config import PortConfig, TapConfig
from ringline.pipeline.ports.interfaces import capabilities, netlink
from ringline.pipeline.ports.port import Link
from ringline.pipeline.ports.tap import checks, queues, tun
from ringline.pipeline.ports.tap.port import TapPort
from ringline.shm.errors import EnvironmentLacks

CONFIG = PortConfig("wan", "tap:tap9", queues=2, tap=TapConfig())
ME = os.geteuid()


def attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + b"\0" * (-len(data) % 4)


def tap_link(**changes: int | None) -> netlink.Link:
    """What the kernel says of a TAP with two queues, which nobody uses."""
    values: dict[str, int | None] = {"kind": 2, "multi": 1, "queues": 0, "disabled": 0}
    values |= {"owner": None, "group": None, "mtu": 1500} | changes
    data = attribute(3, bytes([values["kind"] or 0])) + attribute(7, bytes([values["multi"] or 0]))
    for number, name in ((1, "owner"), (2, "group"), (8, "queues"), (9, "disabled")):
        if (value := values[name]) is not None:
            data += attribute(number, struct.pack("=I", value))
    info = attribute(netlink.INFO_KIND, b"tun\0") + attribute(netlink.INFO_DATA, data)
    mtu = struct.pack("=I", values["mtu"])
    return 9, 1, {netlink.MTU: mtu, netlink.INFO: info, netlink.ADDRESS: bytes(6)}


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file in the place of /dev/net/tun; this process has all rights."""
    path = tmp_path / "tun"
    path.touch()
    monkeypatch.setattr(tun, "DEVICE", path)
    monkeypatch.setattr(capabilities, "has", lambda number: True)
    return path


def refused(config: PortConfig = CONFIG) -> str:
    with pytest.raises(EnvironmentLacks) as error:
        checks.check(config)
    return str(error.value).removeprefix("port.wan.device: ")


def has(monkeypatch: pytest.MonkeyPatch, link: netlink.Link | None) -> None:
    monkeypatch.setattr(netlink, "link", lambda **_: link)


def test_a_name_that_nobody_has_can_be_made(monkeypatch: pytest.MonkeyPatch, device: Path) -> None:
    has(monkeypatch, None)
    assert checks.check(CONFIG) is None


def test_a_tap_that_is_there_is_described(monkeypatch: pytest.MonkeyPatch, device: Path) -> None:
    has(monkeypatch, tap_link(owner=7, group=8))
    assert checks.check(CONFIG) == checks.Found(9, 1500, True, 7, 8, 0)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"queues": 1}, "tap9 is in use by another program"),
        ({"disabled": 1}, "tap9 is in use by another program"),
        ({"multi": 0}, "tap9 has one queue, and 2 are configured; set queues = 1"),
        ({"mtu": 1501}, "tap9 has an MTU of 1501 bytes"),
        ({"kind": 1}, "tap9 is there already, and is no TAP but a TUN"),
    ],
)
def test_what_is_wrong_is_said(
    monkeypatch: pytest.MonkeyPatch, device: Path, changes: dict[str, int], sentence: str
) -> None:
    has(monkeypatch, tap_link(**changes))
    assert refused().startswith(sentence)


def test_a_card_with_this_name_is_named(monkeypatch: pytest.MonkeyPatch, device: Path) -> None:
    has(monkeypatch, (3, 1, {}))
    assert refused() == (
        "tap9 is there already, and is no TAP but no virtual interface; choose another name, or "
        'write device = "xdp:tap9"'
    )


@pytest.mark.parametrize(
    ("owner", "group", "may"),
    [
        (None, None, True),
        (ME, None, True),
        (ME + 1, None, False),
        (None, os.getegid(), True),
        (None, 4_000_000, False),
        (ME, 4_000_000, False),
    ],
)
def test_who_may_use_a_tap_without_a_right(
    monkeypatch: pytest.MonkeyPatch, device: Path, owner: int | None, group: int | None, may: bool
) -> None:
    monkeypatch.setattr(capabilities, "has", lambda number: False)
    has(monkeypatch, tap_link(owner=owner, group=group))
    if may:
        assert checks.check(CONFIG) is not None
    else:
        assert "this process lacks CAP_NET_ADMIN; run as that user" in refused()


def test_a_device_that_is_missing_or_closed_is_named(
    monkeypatch: pytest.MonkeyPatch, device: Path
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert refused().startswith(f"this user may not read and write {device}")
    device.unlink()
    assert refused().startswith(f"there is no {device}: load the module of the kernel")


def test_rights_of_this_process_are_read(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tx\nCapEff:\t0000000000001000\n")
    assert capabilities.effective(str(status)) == 1 << capabilities.NET_ADMIN
    status.write_text("Name:\tx\n")
    assert capabilities.effective(str(status)) == 0


# -- what the supervisor opens -------------------------------------------------------------


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch, device: Path) -> list[str]:
    """Pipes in place of queues. The list has what the kernel was told."""
    told: list[str] = []

    def open_queue(name: str, *, multi_queue: bool, make: bool) -> int:
        told.append(f"{'make' if make else 'open'} {name}")
        near, far = os.pipe()
        os.close(far)
        return near

    def set_link(number: int, changes: netlink.Attributes, *, up: bool = False) -> None:
        told.append("up" if up else f"set {sorted(changes)}")

    monkeypatch.setattr(tun, "open_queue", open_queue)
    monkeypatch.setattr(netlink, "set_link", set_link)
    monkeypatch.setattr(netlink, "add_address", lambda number, each: told.append(each))
    has(monkeypatch, None)
    return told


def test_a_new_interface_is_made_once_set_and_brought_up(kernel: list[str]) -> None:
    config = PortConfig(
        "wan",
        "tap:tap9",
        queues=2,
        mac="02:00:00:00:00:01",
        tap=TapConfig(addresses=("192.0.2.1/24",)),
    )
    made = queues.TapAttachment(config)
    assert len(made.descriptors) == 2
    assert made.remarks == ["port wan: tap9: TAP, made here, queues 2"]
    made.take()
    made.give_back()
    made.close()
    made.close()
    settings = sorted([netlink.MTU, netlink.QUEUE_LENGTH, netlink.ADDRESS])
    assert kernel == ["make tap9", "open tap9", f"set {settings}", "192.0.2.1/24", "up"]


@pytest.mark.parametrize("step", ["open_queue", "set_link", "add_address"])
def test_an_error_leaves_no_descriptor_open(
    monkeypatch: pytest.MonkeyPatch, kernel: list[str], step: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(5, "a test")

    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(tun if step == "open_queue" else netlink, step, fail)
    config = PortConfig("wan", "tap:tap9", tap=TapConfig(addresses=("192.0.2.1/24",)))
    with pytest.raises(EnvironmentLacks, match=r"^port\.wan\.device: tap9: .*: a test$"):
        queues.TapAttachment(config)
    assert os.listdir("/proc/self/fd") == before


def test_an_interface_that_cannot_be_brought_up_is_named(
    monkeypatch: pytest.MonkeyPatch, kernel: list[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(1, "a test")

    made = queues.TapAttachment(CONFIG)
    monkeypatch.setattr(netlink, "set_link", fail)
    made.take()  # it was removed, or is in another namespace: nothing to say
    has(monkeypatch, tap_link())
    monkeypatch.setattr(tun, "name_of", lambda fd: "tap9")
    with pytest.raises(EnvironmentLacks, match=r"tap9: it cannot be brought up: a test"):
        made.take()
    made.close()


def test_a_removed_interface_of_others_is_used_when_it_is_there_again(
    monkeypatch: pytest.MonkeyPatch, kernel: list[str]
) -> None:
    has(monkeypatch, tap_link())
    made = queues.TapAttachment(CONFIG)
    assert made.description == "TAP that was there"
    made.take()
    assert kernel == ["open tap9", "open tap9"]  # it keeps its settings
    monkeypatch.setattr(tun, "state", lambda fd: (True, False))
    assert not made.renew()
    monkeypatch.setattr(tun, "state", lambda fd: (False, False))
    has(monkeypatch, None)
    assert not made.renew()
    has(monkeypatch, tap_link())
    assert made.renew()
    assert len(made.descriptors) == 2
    assert made.remarks == ["port wan: tap9: TAP that was there, queues 2"]
    made.close()


def test_renewing_may_be_tried_again_after_an_error(
    monkeypatch: pytest.MonkeyPatch, kernel: list[str]
) -> None:
    made = queues.TapAttachment(CONFIG)
    monkeypatch.setattr(tun, "state", lambda fd: (False, False))
    has(monkeypatch, (3, 1, {}))
    for _ in range(2):
        with pytest.raises(EnvironmentLacks, match="is no TAP"):
            made.renew()
    has(monkeypatch, None)
    assert made.renew()
    made.close()


def test_a_descriptor_without_an_interface_has_no_name_and_no_state() -> None:
    near, far = os.pipe()
    os.close(far)
    assert tun.name_of(near) == ""
    assert tun.state(near) == (True, False)  # a pipe for reading: not writable
    os.close(near)
    assert tun.state(near) == (False, False)


def test_counters_go_on_when_the_interface_is_replaced(
    monkeypatch: pytest.MonkeyPatch, device: Path
) -> None:
    def counting(*fields: int) -> None:
        number, flags, attributes = tap_link()
        stats = {netlink.STATS64: struct.pack("=8Q", *fields)}
        has(monkeypatch, (number, flags, attributes | stats))

    monkeypatch.setattr(tun, "name_of", lambda fd: "tap9")
    port = TapPort(CONFIG, 0)
    port.use_sockets([os.open(device, os.O_RDONLY) for _ in range(2)])
    counting(10, 20, 0, 0, 0, 0, 0, 5)
    port.open(ffi.NULL, None, None)  # type: ignore[arg-type]
    assert set(port.statistics().values()) == {0}
    counting(11, 22, 0, 0, 3, 0, 4, 10)
    expected = {
        "tx_packets": 1,
        "rx_packets": 2,
        "tx_errors": 3,
        "tx_dropped": 4,
        "rx_missed": 5,
    }
    assert port.statistics() == expected
    has(monkeypatch, None)  # moved to another namespace
    assert port.statistics() == expected
    assert port.link() == Link(True, 0)
    counting(0, 0, 0, 0, 0, 0, 0, 0)
    port.replace_sockets([os.open(device, os.O_RDONLY) for _ in range(2)])
    counting(1, 1, 0, 0, 1, 0, 1, 1)
    assert port.statistics() == {name: value + 1 for name, value in expected.items()}
    monkeypatch.setattr(tun, "name_of", lambda fd: "")
    new = [os.open(device, os.O_RDONLY) for _ in range(2)]
    with pytest.raises(EnvironmentLacks, match=r"port\.wan\.device: tap9 was removed"):
        port.replace_sockets(new)  # removed again: the port keeps the queues that it has
    for fd in new:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
    assert port.link() == Link(True, 0)
    with pytest.raises(EnvironmentLacks, match=r"port\.wan\.device: tap9 was removed"):
        port.open(ffi.NULL, None, None)  # type: ignore[arg-type]
    port.close()
