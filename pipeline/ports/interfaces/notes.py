"""Notes of what a run has changed at an interface, for whoever cleans up after its processes.

When the supervisor alone is killed, the driver restores the interface. When both are killed, as
systemd does it, the next start of the instance or `ringline cleanup` reads the note. A note is a
segment of the instance: it ends with the run, and workers never map it.

Guarantees (tests in tests/pipeline/ports/test_notes.py):
 - channels are restored only if they still are what the run has set
   (test_channels_that_somebody_has_set_since_stay)
 - an interface of another network namespace, or one that is gone, is left alone
   (test_another_interface_is_left_alone)
 - a note of a run that lives is left alone (test_the_note_of_a_live_run_is_left_alone)
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

from ringline.pipeline.ports.interfaces import ethtool, interface, netlink
from ringline.pipeline.ports.interfaces.ethtool import Channels
from ringline.shm._shm import ffi, lib
from ringline.shm.owners import owner_of, segments_of
from ringline.shm.segments import Segment

_BEGIN: int = ffi.sizeof("struct rl_segment_header")
# The network namespace, the number of the interface; rx, tx, combined and other channels as they
# were set, and as they were before.
_NOTE = struct.Struct("=QI4I4I")
_WHAT = "interface"


def note(instance: str, number: int, now: Channels, before: Channels) -> Segment:
    """Note, before it is done, that the interface with this number gets the channels `now`.

    Close the note when the channels are `before` again. Raises EnvironmentLacks.
    """
    size = _BEGIN + _NOTE.size
    made = Segment.create(instance, f"{_WHAT}.{number}", size, kind=lib.RL_SEGMENT_INTERFACE)
    values = (_namespace(), number, *_set(now), *_set(before))
    made.memory[_BEGIN:size] = _NOTE.pack(*values)
    return made


def restore_left(instance: str) -> list[str]:
    """Restore what the notes of a dead run of `instance` name. Returns a sentence for each
    interface. The notes stay until the segments of the run are removed (`remove_stale`)."""
    return [said for values in _notes(instance) if (said := _restore(*values))]


def _restore(namespace: int, number: int, *channels: int) -> str:
    found = netlink.link(number=number)
    if namespace != _namespace() or found is None:
        return ""
    name, now, before = interface.name_of(found), channels[:4], channels[4:]
    current = ethtool.channels(name)
    if current is None or _set(current) != now:
        return ""
    rx, tx, combined, other = before
    if interface.restore_channels(number, Channels(0, 0, 0, rx, tx, combined, other)):
        return f"the channels of {name} were restored"
    words = f"combined {combined}" if combined else f"rx {rx} tx {tx}"
    return f"the channels of {name} could not be restored; run: ethtool -L {name} {words}"


def _notes(instance: str) -> Iterator[tuple[int, ...]]:
    for path in segments_of(instance):
        if path.rpartition("/")[2].split(".")[2:3] != [_WHAT] or owner_of(path) is not None:
            continue
        with open(path, "rb") as file:
            file.seek(_BEGIN)
            data = file.read(_NOTE.size)
        if len(data) == _NOTE.size:
            yield _NOTE.unpack(data)


def _set(channels: Channels) -> tuple[int, int, int, int]:
    return channels.rx, channels.tx, channels.combined, channels.other


def _namespace() -> int:
    """The number of the network namespace of this process."""
    return os.stat("/proc/self/ns/net").st_ino
