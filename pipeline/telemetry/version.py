"""Which ringline this is."""

from __future__ import annotations

import functools


@functools.cache
def version() -> str:
    """The version of the installed package. The first call takes 30 ms, for importlib.metadata."""
    from importlib import metadata

    return metadata.version("ringline")
