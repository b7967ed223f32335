"""Which ringline this is."""

from __future__ import annotations

import functools
from importlib import metadata


@functools.cache
def version() -> str:
    """The version of the installed package."""
    return metadata.version("ringline")
