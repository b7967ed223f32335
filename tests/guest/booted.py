"""A guest for all tests of a file, and what becomes of a test without what it needs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import NoReturn

import pytest

from .kernel import Missing
from .machine import Guest

PROOF = os.environ.get("RINGLINE_PROOF") == "1"


@contextlib.contextmanager
def booted(make: Callable[[], Guest]) -> Iterator[Guest]:
    """The guest that `make` boots. When the kernel or the QEMU that it needs is missing, the tests
    that ask for it are `without` it."""
    try:
        made = make()
    except Missing as error:
        without(error)
    with made:
        yield made


def without(error: Missing, *, tried: str = "") -> NoReturn:
    """Skip the test, with the reason; `tried` says what has passed all the same. A proof fails
    instead, since `make proof` gets what guests need."""
    reason = f"{error}; {tried}" if tried else str(error)
    if PROOF:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
