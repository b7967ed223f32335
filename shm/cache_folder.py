"""The folder in which ringline keeps what can be made again: compiled plugins, and the files of
plugins that came from another machine."""

from __future__ import annotations

import os
import stat


def folder(name: str) -> str | None:
    """The folder `name` of the cache, created if missing; None when it is not writable or not ours
    alone: who can write there decides what we execute."""
    base = os.environ.get("RINGLINE_CACHE") or os.environ.get("CACHE_DIRECTORY", "").split(":")[0]
    if not base:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        base = os.path.join(home, "ringline")
    path = os.path.join(base, name)
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        status = os.stat(path)
    except OSError:
        return None
    ours = status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return path if ours and os.access(path, os.W_OK) else None
