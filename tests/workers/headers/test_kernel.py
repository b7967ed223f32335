"""The kernel accepts the checksums: UDP over the loopback interface, from a raw socket."""

from __future__ import annotations

import os
import random
import socket
import struct

import pytest

from ringline.workers.api import L4_OK, fix_checksums, headers, set_field, update_checksum

from .packets import Made, udp

PACKETS = 40
WAIT = 0.3  # seconds without a packet until no more are expected


@pytest.mark.skipif(os.geteuid() != 0, reason="root is missing: only root may open a raw socket")
@pytest.mark.parametrize("version", [4, 6])
def test_the_kernel_accepts_what_is_right_and_refuses_what_is_wrong(version: int) -> None:
    family, address = (socket.AF_INET, "127.0.0.1") if version == 4 else (socket.AF_INET6, "::1")
    packed = socket.inet_pton(family, address)
    numbers = random.Random(1)
    accepted, wanted = [], []
    with (
        socket.socket(family, socket.SOCK_DGRAM) as receiver,
        socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as sender,
    ):
        receiver.bind((address, 0))
        port = receiver.getsockname()[1]
        for number in range(PACKETS):
            data = struct.pack("!I", number) + numbers.randbytes(numbers.randrange(200))
            segment = udp((numbers.randrange(1, 65536), port), data)
            frame = bytearray(Made([], version, packed, packed, segment=segment).frame())
            assert fix_checksums(frame) & L4_OK
            found, sport = headers(frame), numbers.randrange(1, 65536)
            set_field(frame, found.l4, 2, sport)
            update_checksum(frame, found.checksum_at, found.sport, sport)
            if number % 4 == 3:
                frame[found.payload + 3] ^= 0x80  # a wrong one
            else:
                wanted.append(data)
            sender.sendto(frame[found.l3 :], (address, 0))
        receiver.settimeout(WAIT)
        try:
            while True:
                accepted.append(receiver.recv(2048))
        except TimeoutError:
            pass
    assert accepted == wanted
