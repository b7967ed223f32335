"""A guest for all tests of a file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from .kernel import Missing
from .machine import Guest


@contextlib.contextmanager
def booted(make: Callable[[], Guest]) -> Iterator[Guest]:
    """The guest that `make` boots. The tests that ask for it are skipped, with the reason, when
    the kernel or the QEMU that it needs is missing."""
    try:
        made = make()
    except Missing as error:
        pytest.skip(str(error))
    with made:
        yield made
