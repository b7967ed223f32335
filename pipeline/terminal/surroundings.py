"""What every command needs of the place where it runs."""

from __future__ import annotations

import os

from ringline.shm.errors import EnvironmentLacks

PROC = "/proc"


def check_current_folder() -> None:
    """Raise EnvironmentLacks when relative paths cannot work."""
    try:
        os.getcwd()
    except OSError as error:
        raise EnvironmentLacks(
            f"the current folder is gone or out of reach ({error.strerror}): go to another one (cd)"
        ) from None


def lacking(error: OSError) -> str:
    """The sentence for an error that comes from a machine without /proc; "" for any other."""
    file = error.filename
    if not isinstance(file, str) or not file.startswith("/proc/") or os.path.exists(f"{PROC}/self"):
        return ""
    return f"{PROC} is not mounted here, and this needs it: mount it (mount -t proc none {PROC})"
