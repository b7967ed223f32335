"""The version of ringline."""

from __future__ import annotations

import functools


@functools.cache
def version() -> str:
    """The version of the installed package. The first call imports importlib.metadata: 30 ms."""
    from importlib import metadata

    return metadata.version("ringline")
