"""How a control message is put into datagrams; both ends of a control socket use this.

A module of its own with nothing to import: workers start in 13 ms (workers/process/channel.py).
"""

from __future__ import annotations

ENVIRONMENT = "RINGLINE_CONTROL"  # holds the number of the child's file descriptor
NOT_SET = f"{ENVIRONMENT} is not set: this program is started by `ringline run`, not by hand"

# A datagram must fit into the send buffer of the socket (212,992 bytes unless configured,
# overhead of the kernel included), so long messages are sent in pieces that each fit into
# 32 KiB. The first byte of a piece says whether another piece follows.
PIECE = 30_000
MORE, LAST = b"+", b"."
MESSAGE_MAX = 4 << 20  # bytes; a faulty peer cannot make a process store more


class Closed(Exception):
    """The peer has ended or closed its socket."""
