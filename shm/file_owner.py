"""Whose a file is: what lies in a folder that many users can write may have been planted.

Any user can make a file in /dev/shm or /tmp with any name. A segment or a socket is believed,
locked or removed only when it belongs to this user or to root, and nobody else can write to it.

Guarantees (tests in tests/shm/test_file_owner.py):
 - a file of another user, or one that others can write, is refused with its owner or mode
   (test_a_planted_file_is_named_with_its_owner, test_a_file_that_others_can_write_is_refused)
"""

from __future__ import annotations

import os
import stat

from ringline.shm.errors import EnvironmentLacks

_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def user_name(number: int) -> str:
    """`user bob`, or `user 1001` when that user has no name."""
    import pwd  # workers import this module, and never come here

    try:
        return f"user {pwd.getpwuid(number).pw_name}"
    except KeyError:
        return f"user {number}"


def why_foreign(facts: os.stat_result, *, sticky: bool = False) -> str:
    """Why a file with these facts may be the work of another user, as the end of a sentence
    that begins with its path; "" when it belongs to this user or to root, and only the owner
    can write to it.

    With `sticky`, a folder may have the sticky bit instead: others can add files to it, but
    cannot replace ours.
    """
    if facts.st_uid not in (os.geteuid(), 0):
        return f"belongs to {user_name(facts.st_uid)}"
    safe = sticky and stat.S_ISDIR(facts.st_mode) and facts.st_mode & stat.S_ISVTX
    if facts.st_mode & _OTHERS and not safe:
        return f"can be written by other users (its mode is {stat.S_IMODE(facts.st_mode):04o})"
    return ""


def refuse_foreign(path: str, facts: os.stat_result) -> None:
    """Raise EnvironmentLacks unless this user or root made the file with the status `facts`."""
    if why := why_foreign(facts):
        raise EnvironmentLacks(
            f"{path} {why}, so ringline does not trust it: remove it, "
            "or give this instance another name"
        )
