"""The MAC addresses of the hosts and routers on the networks of the router, and who was asked for.

Each worker writes what it hears into its own part of a shared table and looks in the parts of all:
the answer to a request of one worker may arrive on the queue of another. The newest entry wins. An
entry is four words: the address (of IPv4 as ::ffff:0:0/96), the MAC address with a check of the
address and the interface, and when it was heard. A reader that sees the words of two different
moments finds a wrong check, and so no entry.

What a worker has asked for is its own: each asks by itself.

The functions take arrays, not the whole state: numba passes each word of it, and compiles longer.
"""

from __future__ import annotations

from typing import Any

from ringline.workers.plugins.helper import helper, mix

LINES = 8  # of a group, which has the entries of all addresses with the same hash
SPARE = 4  # lines for each neighbour that is asked for, so that a group is seldom full
ENTRY = 4
HIGH, LOW, MAC, SEEN = range(ENTRY)
REFRESH = 10_000_000  # nanoseconds: so seldom is the time of an entry written again

ASKED_LINES = 1024
ASKED = 4
# In a line of `asked` LAST and COUNT follow HIGH and LOW: when the last request was sent, in ns,
# and how many were sent.
LAST, COUNT = 2, 3
SECOND = 1_000_000_000
TRIES = 3  # requests without an answer, until a host is unreachable
PATIENCE = 5 * SECOND  # after these, the time between two requests

MAPPED = 0xFFFF << 32  # the low half of ::ffff:0:0/96 (RFC 4291 2.5.5.2)


@helper
def hash_of(interface: Any, high: Any, low: Any) -> Any:
    return mix(mix(interface, high), low)


@helper
def check_of(interface: Any, high: Any, low: Any) -> Any:
    """16 bits that differ for the same address at another interface."""
    return ((hash_of(0, high, low) >> 40) + interface) & 0xFFFF


@helper
def find(table: Any, lifetime: Any, interface: Any, high: Any, low: Any, now: Any) -> Any:
    """The MAC address of a neighbour, and how old it is in ns; -1, 0 if nobody knows it."""
    mac, newest = -1, now - lifetime - 1
    check = check_of(interface, high, low)
    first = hash_of(interface, high, low) & (table.shape[1] - LINES)
    for worker in range(table.shape[0]):
        for line in range(first, first + LINES):
            entry = table[worker, line]
            if entry[LOW] == low and entry[HIGH] == high and entry[MAC] & 0xFFFF == check:
                if entry[SEEN] > newest:
                    newest = entry[SEEN]
                    mac = entry[MAC] >> 16 & 0xFFFFFFFFFFFF
                break
    return mac, max(now - newest, 0) if mac >= 0 else 0


@helper
def learn(mine: Any, lifetime: Any, interface: Any, high: Any, low: Any, mac: Any, now: Any) -> Any:
    """Write a neighbour into the own part; whether there was room."""
    check = check_of(interface, high, low)
    first = hash_of(interface, high, low) & (len(mine) - LINES)
    free = -1
    for line in range(first, first + LINES):
        entry = mine[line]
        if entry[LOW] == low and entry[HIGH] == high and entry[MAC] & 0xFFFF == check:
            if entry[MAC] != mac << 16 | check:
                entry[MAC] = mac << 16 | check
                entry[SEEN] = now
            elif not 0 <= now - entry[SEEN] < REFRESH:
                entry[SEEN] = now
            return True
        if free < 0 and (entry[MAC] == 0 or now - entry[SEEN] > lifetime):
            free = line
    if free < 0:
        return False
    entry = mine[free]
    entry[HIGH], entry[LOW] = high, low
    entry[MAC] = mac << 16 | check
    entry[SEEN] = now
    return True


@helper
def ask(asked: Any, interface: Any, high: Any, low: Any, now: Any) -> Any:
    """Whether to send a request now, and whether the neighbour was asked TRIES times in vain.

    A neighbour is asked once a second, and every PATIENCE ns after TRIES requests.
    """
    hashed = hash_of(interface, high, low)
    line = asked[(hashed >> 8) & (ASKED_LINES - 1)]
    key = low ^ interface << 48
    if line[HIGH] != high or line[LOW] != key or now - line[LAST] > 2 * PATIENCE:
        if 0 <= now - line[LAST] < SECOND and line[COUNT]:
            return False, False  # the line of another one, asked a moment ago
        line[HIGH], line[LOW] = high, key
        line[LAST], line[COUNT] = now, 1
        return True, False
    failed = line[COUNT] >= TRIES
    pause = PATIENCE if failed else SECOND
    if 0 <= now - line[LAST] < pause:
        return False, failed and now - line[LAST] >= SECOND
    line[LAST] = now
    line[COUNT] += 1
    return True, failed
