"""What the driver of a network interface says of it, with SIOCETHTOOL (linux/ethtool.h)."""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import socket
import struct
from dataclasses import dataclass

_SIOCETHTOOL = 0x8946
_GET_DRIVER = 0x03  # ETHTOOL_GDRVINFO
_GET_CHANNELS, _SET_CHANNELS = 0x3C, 0x3D
_GET_TX_CHECKSUM, _SET_TX_CHECKSUM = 0x16, 0x17  # ETHTOOL_GTXCSUM, ETHTOOL_STXCSUM
# ETHTOOL_GGRO, ETHTOOL_GTSO, ETHTOOL_GGSO; LRO is a bit of ETHTOOL_GFLAGS.
_GET_OFFLOAD = {"gro": 0x2B, "tso": 0x1E, "gso": 0x23, "lro": 0x25}
_LRO = 1 << 15  # ETH_FLAG_LRO
_GET_SETTINGS = 0x4C  # ETHTOOL_GLINKSETTINGS
_CHANNELS = struct.Struct("=9I")  # struct ethtool_channels
_SPEED_AT, _WORDS_AT = 4, 15  # in struct ethtool_link_settings
_SPEED_UNKNOWN = 0xFFFFFFFF
_SETTINGS_BYTES = 4096


@dataclass(frozen=True)
class Channels:
    """Numbers of channels: of each kind the most that can be set, and those that are set."""

    most_rx: int
    most_tx: int
    most_combined: int
    rx: int
    tx: int
    combined: int
    other: int = 0

    @property
    def receiving(self) -> int:
        """RX queues."""
        return self.rx + self.combined


def _call(name: str, data: bytes) -> bytes:
    """Raises OSError; `name` is the interface. The answer is as long as `data`."""
    buffer = array.array("B", data)
    request = struct.pack("16sP", name.encode(), buffer.buffer_info()[0]).ljust(40, b"\0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket.fileno(), _SIOCETHTOOL, request)
    return buffer.tobytes()


def driver(name: str) -> str:
    """The name of the kernel driver; "" when it does not say."""
    try:
        return (
            _call(name, struct.pack("=I", _GET_DRIVER).ljust(196, b"\0"))[4:36]
            .split(b"\0")[0]
            .decode("ascii", "replace")
        )
    except OSError:
        return ""


def channels(name: str) -> Channels | None:
    """The channels of an interface; None when its driver does not know the question."""
    try:
        answer = _call(name, _CHANNELS.pack(_GET_CHANNELS, *[0] * 8))
    except OSError:
        return None
    _, most_rx, most_tx, _, most_combined, rx, tx, other, combined = _CHANNELS.unpack(answer)
    return Channels(most_rx, most_tx, most_combined, rx, tx, combined, other)


def set_channels(name: str, to: Channels) -> None:
    """Set the channels. Raises OSError when that is not permitted or not possible."""
    _call(
        name,
        _CHANNELS.pack(_SET_CHANNELS, 0, 0, 0, 0, to.rx, to.tx, to.other, to.combined),
    )


def computes_checksums(name: str) -> bool:
    """Whether the kernel leaves checksums of frames that it sends to this interface."""
    with contextlib.suppress(OSError):
        return _call(name, struct.pack("=II", _GET_TX_CHECKSUM, 0))[4:8] != b"\0\0\0\0"
    return False


def let_kernel_compute_checksums(name: str) -> None:
    """Let the kernel compute the checksums of frames that it sends to this interface, as
    `ethtool -K NAME tx off` does. Raises OSError."""
    _call(name, struct.pack("=II", _SET_TX_CHECKSUM, 0))


def offloads(name: str, word: str) -> bool:
    """Whether gro, lro, tso or gso of an interface is on: the kernel or the card merges segments of
    TCP into larger frames, or cuts such frames only where they are sent."""
    with contextlib.suppress(OSError):
        value = struct.unpack_from("=I", _call(name, struct.pack("=II", _GET_OFFLOAD[word], 0)), 4)
        return bool(value[0] & _LRO if word == "lro" else value[0])
    return False


def speed(name: str) -> int:
    """Speed of the link in Mbit/s; 0 when it is not known."""
    try:
        # The first call says how many words of link modes the kernel has, as a negative number.
        first = _call(name, struct.pack("=I", _GET_SETTINGS).ljust(_SETTINGS_BYTES, b"\0"))
        words = -struct.unpack_from("=b", first, _WORDS_AT)[0]
        if words <= 0:
            raise OSError(errno.EOPNOTSUPP, "no answer")
        asked = bytearray(struct.pack("=I", _GET_SETTINGS).ljust(_SETTINGS_BYTES, b"\0"))
        asked[_WORDS_AT] = words
        found: int = struct.unpack_from("=I", _call(name, bytes(asked)), _SPEED_AT)[0]
    except OSError:
        return 0
    return 0 if found in (_SPEED_UNKNOWN, 0xFFFF) else found
