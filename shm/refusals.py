"""Why the driver refuses a reference that a worker returned: the causes, and their words.

The C struct rl_refusals is the only list of causes; the driver counts by it, and the report, the
metrics, the log and `ringline try` use the same names.
"""

from __future__ import annotations

import functools

from ringline.shm._shm import ffi, lib
from ringline.shm.counters import field_names
from ringline.shm.frames import units_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CAUSES = tuple(field_names("struct rl_refusals"))  # by number: RL_REFUSED_*

_WORDS = {
    "too_long": "the frame is longer than {longest} bytes, counting an inserted VLAN tag, the most "
    "that a card sends",
    "too_short": f"the frame is shorter than {lib.RL_FRAME_MIN} bytes, the least that a card sends",
    "outside_buffer": "the frame reaches beyond the end of its buffer",
    "not_held": "the worker returned a buffer that it does not hold",
    "no_port": "the verdict is neither a port, DROP nor a drop reason",
}


def words(cause: str, longest: int = lib.RL_FRAME_MAX) -> str:
    """The sentence for a cause; `longest` as in `cause_of`."""
    return _WORDS[cause].format(longest=longest)


@functools.lru_cache(maxsize=1024)  # the packets of a trial are many, their lengths few
def cause_of(offset: int, length: int, flags: int, longest: int = lib.RL_FRAME_MAX) -> str | None:
    """Why no card can send the frame at `offset` of its buffer; None when a card can. `longest` is
    the longest frame that a port of the instance sends, in bytes.

    The driver decides with the same C function (frames.h).
    """
    reference: Any = ffi.new("struct rl_reference *")
    reference.offset, reference.length, reference.flags = offset, length, flags
    room = units_for(longest) * lib.RL_BUFFER_STRIDE
    number = lib.rl_why_refused(reference, room, longest)
    return None if number < 0 else CAUSES[number]
