"""Maps, programs and links of bpf(2), as far as a port on AF_XDP needs them."""

from __future__ import annotations

import errno
import os
import struct

from ringline.pipeline._pipeline import ffi, lib

# linux/bpf.h: enum bpf_cmd, bpf_map_type, bpf_prog_type, bpf_attach_type
_MAP_CREATE, _MAP_UPDATE, _MAP_DELETE, _PROG_LOAD, _TEST_RUN, _LINK_CREATE = 0, 2, 3, 5, 10, 28
_XSKMAP = 17
_PROGRAM_XDP = 6
_ATTACH_XDP = 37
NATIVE, GENERIC = 1 << 2, 1 << 1  # XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE of linux/if_link.h
_NAME = b"ringline"
_LOG_BYTES = 1 << 16


def _bpf(command: int, attributes: bytes) -> int:
    data = ffi.new("char[]", attributes)
    result: int = lib.rl_xdp_bpf(command, data, len(attributes))
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


def _pointer(data: object) -> int:
    return int(ffi.cast("uintptr_t", data))


def create_socket_map(entries: int) -> int:
    """The descriptor of a new map from queues to sockets. Raises OSError."""
    return _bpf(_MAP_CREATE, struct.pack("=5I12x16s", _XSKMAP, 4, 4, entries, 0, _NAME))


def set_socket(socket_map: int, queue: int, fd: int) -> None:
    """Put the socket of a queue into the map. Raises OSError."""
    key, value = ffi.new("uint32_t *", queue), ffi.new("uint32_t *", fd)
    _bpf(_MAP_UPDATE, struct.pack("=IxxxxQQQ", socket_map, _pointer(key), _pointer(value), 0))


def remove_socket(socket_map: int, queue: int) -> None:
    """Take the socket of a queue out of the map, if there is one. Raises OSError."""
    key = ffi.new("uint32_t *", queue)
    try:
        _bpf(_MAP_DELETE, struct.pack("=IxxxxQQQ", socket_map, _pointer(key), 0, 0))
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise


def load_program(code: bytes) -> int:
    """The descriptor of a new XDP program. Raises OSError; its text ends with the last line of the
    verifier if that refused the program."""
    instructions, license_ = ffi.from_buffer(code), ffi.new("char[]", b"BSD")
    log = ffi.new("char[]", _LOG_BYTES)

    def attributes(level: int) -> bytes:
        text = _pointer(log) if level else 0
        return struct.pack(
            "=IIQQIIQII16s",
            _PROGRAM_XDP,
            len(code) // 8,
            _pointer(instructions),
            _pointer(license_),
            level,
            _LOG_BYTES if level else 0,
            text,
            0,
            0,
            _NAME,
        )

    try:
        return _bpf(_PROG_LOAD, attributes(0))
    except OSError as first:
        if first.errno not in (errno.EACCES, errno.EINVAL):
            raise
    try:
        return _bpf(_PROG_LOAD, attributes(1))
    except OSError as error:
        lines = ffi.string(log).decode("ascii", "replace").strip().splitlines()
        said = next((line for line in reversed(lines) if not line.startswith("processed")), "")
        raise OSError(error.errno, f"{os.strerror(error.errno or 0)}: {said}") from None


def attach(program: int, interface: int, mode: int) -> int:
    """The descriptor of a new link between the program and the interface with this number, NATIVE
    or GENERIC. The program is detached when the last copy of the descriptor is closed, also by
    SIGKILL. Raises OSError."""
    return _bpf(_LINK_CREATE, struct.pack("=4I", program, interface, _ATTACH_XDP, mode))


def run_once(program: int, frame: bytes) -> int:
    """What the program returns for a frame. Raises OSError: the kernel accepts no frame of less
    than 14 bytes."""
    data = ffi.from_buffer(frame)
    attributes = ffi.new(
        "char[]",
        struct.pack("=IIIIQQIIII", program, 0, len(frame), 0, _pointer(data), 0, 1, 0, 0, 0),
    )
    result = lib.rl_xdp_bpf(_TEST_RUN, attributes, len(attributes) - 1)
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    answer: int = struct.unpack_from("=I", ffi.buffer(attributes), 4)[0]
    return answer
